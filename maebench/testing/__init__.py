"""Contracts that plugin authors inherit: a class of three lines checks a component of a kind.

Names are imported when they are used: most need torch, which beginning a package does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Broken": "contract",
    "Contract": "contract",
    "DatasetContract": "dataset",
    "EncoderContract": "encoder",
    "EvaluationContract": "evaluation",
    "Finding": "contract",
    "MaskingContract": "masking",
    "NotChecked": "contract",
    "ObjectiveContract": "objective",
    "ReportContract": "report",
    "TrackerContract": "tracker",
    "examine": "contract",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'maebench.testing' has no attribute {name!r}")
    return getattr(import_module(f"maebench.testing.{_PUBLIC[name]}"), name)
