"""What pretraining minimises: the contract and the built-in objectives."""

from maebench.objectives.mae import MAE
from maebench.objectives.objective import Batch, Inputs, Objective, Reconstruction
from maebench.objectives.supervised import Supervised
from maebench.objectives.variational import Variational

BUILT_IN: tuple[type[Objective], ...] = (
    MAE,
    Variational,
    Supervised,
)

__all__ = [
    "BUILT_IN",
    "MAE",
    "Batch",
    "Inputs",
    "Objective",
    "Reconstruction",
    "Supervised",
    "Variational",
]
