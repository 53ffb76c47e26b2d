"""What pretraining minimises: the contract and the built-in objectives."""

from maebench.objectives.mae import MAE
from maebench.objectives.objective import Batch, Inputs, Objective, Reconstruction
from maebench.objectives.simmim import SimMIM

BUILT_IN: tuple[type[Objective], ...] = (
    MAE,
    SimMIM,
)

__all__ = [
    "BUILT_IN",
    "MAE",
    "Batch",
    "Inputs",
    "Objective",
    "Reconstruction",
    "SimMIM",
]
