"""What pretraining minimises: the contract and the built-in objectives."""

from maebench.objectives.autoencoder import Autoencoder
from maebench.objectives.bert import Bert
from maebench.objectives.contractive import Contractive
from maebench.objectives.denoising import Denoising
from maebench.objectives.mae import MAE
from maebench.objectives.objective import Batch, ImageGrid, Objective, Reconstruction
from maebench.objectives.simmim import SimMIM
from maebench.objectives.sparse import Sparse
from maebench.objectives.supervised import Supervised
from maebench.objectives.variational import Variational

BUILT_IN: tuple[type[Objective], ...] = (
    MAE,
    SimMIM,
    Autoencoder,
    Denoising,
    Sparse,
    Contractive,
    Variational,
    Supervised,
    Bert,
)
__all__ = [
    "BUILT_IN",
    "MAE",
    "Autoencoder",
    "Batch",
    "Bert",
    "Contractive",
    "Denoising",
    "ImageGrid",
    "Objective",
    "Reconstruction",
    "SimMIM",
    "Sparse",
    "Supervised",
    "Variational",
]
