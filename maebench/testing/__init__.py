"""Contracts that plugin authors inherit: a class of three lines checks a component of a kind.

Names are imported when they are used: a report's contract needs pandas, a tracker's does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maebench.testing.contract import Broken as Broken
    from maebench.testing.contract import Contract as Contract
    from maebench.testing.contract import Finding as Finding
    from maebench.testing.contract import NotChecked as NotChecked
    from maebench.testing.contract import examine as examine
    from maebench.testing.dataset import DatasetContract as DatasetContract
    from maebench.testing.encoder import EncoderContract as EncoderContract
    from maebench.testing.evaluation import EvaluationContract as EvaluationContract
    from maebench.testing.masking import MaskingContract as MaskingContract
    from maebench.testing.objective import ObjectiveContract as ObjectiveContract
    from maebench.testing.report import ReportContract as ReportContract
    from maebench.testing.tracker import TrackerContract as TrackerContract

# a test compares it with the imports above
_PUBLIC = {
    **dict.fromkeys(("Broken", "Contract", "Finding", "NotChecked", "examine"), "contract"),
    "DatasetContract": "dataset",
    "EncoderContract": "encoder",
    "EvaluationContract": "evaluation",
    "MaskingContract": "masking",
    "ObjectiveContract": "objective",
    "ReportContract": "report",
    "TrackerContract": "tracker",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'maebench.testing' has no attribute {name!r}")
    return getattr(import_module(f"maebench.testing.{_PUBLIC[name]}"), name)
