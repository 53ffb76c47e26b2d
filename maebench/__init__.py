"""maebench: which way of masking learns the better representation, and is the difference real?

Names are imported when they are used, so that `import maebench` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("maebench")

_PUBLIC = {
    "Augment": "maebench.data.augment",
    "Batch": "maebench.objectives.objective",
    "Block": "maebench.masking.block",
    "Board": "maebench.objectives.objective",
    "Budget": "maebench.config",
    "Centred": "maebench.masking.centred",
    "ClampedAugment": "maebench.data.augment",
    "Component": "maebench.component",
    "ConfigError": "maebench.errors",
    "DataError": "maebench.errors",
    "Dataset": "maebench.data.dataset",
    "Draws": "maebench.rng",
    "Encoder": "maebench.encoders.encoder",
    "Evaluation": "maebench.evaluation",
    "Grid": "maebench.masking.grid",
    "Images": "maebench.data.images",
    "Inputs": "maebench.objectives.objective",
    "InverseBlock": "maebench.masking.inverse_block",
    "MAE": "maebench.objectives.mae",
    "MaebenchError": "maebench.errors",
    "Mask": "maebench.masking.mask",
    "Masking": "maebench.masking.mask",
    "Metric": "maebench.evaluation",
    "Model": "maebench.evaluation",
    "NotApplicable": "maebench.evaluation",
    "Objective": "maebench.objectives.objective",
    "Random": "maebench.masking.random",
    "Reconstruction": "maebench.objectives.objective",
    "Report": "maebench.outputs",
    "mask_statistics": "maebench.report.masks",
    "Request": "maebench.data.dataset",
    "Result": "maebench.evaluation",
    "RunConfig": "maebench.config",
    "Tokens": "maebench.encoders.encoder",
    "Tracker": "maebench.outputs",
    "View": "maebench.masking.mask",
    "check_parameter_names": "maebench.encoders.encoder",
    "evaluate": "maebench.suite",
    "from_arrays": "maebench.data.images",
    "from_files": "maebench.data.images",
    "hookimpl": "maebench.hookspecs",
    "keep_positions": "maebench.encoders.positions",
    "load_model": "maebench.models",
    "load_records": "maebench.records",
    "patchify": "maebench.masking.patches",
    "recipe": "maebench.recipes",
    "run": "maebench.suite",
    "unpatchify": "maebench.masking.patches",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'maebench' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
