"""maebench: which way of masking learns the better representation, and is the difference real?

Names are imported when they are used, so that `import maebench` does not import torch; type
checkers read the imports below.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maebench.analysis.compare import compare as compare
    from maebench.analysis.comparison import Comparison as Comparison
    from maebench.analysis.records import load_records as load_records
    from maebench.analysis.run import run as run
    from maebench.component import Component as Component
    from maebench.config.length import Budget as Budget
    from maebench.config.recipes import recipe as recipe
    from maebench.config.run import RunConfig as RunConfig
    from maebench.data.augment import Augment as Augment
    from maebench.data.augment import ClampedAugment as ClampedAugment
    from maebench.data.augment import Crops as Crops
    from maebench.data.corpora import KJV as KJV
    from maebench.data.corpora import Fortunes as Fortunes
    from maebench.data.corpora import PyDoc as PyDoc
    from maebench.data.dataset import Dataset as Dataset
    from maebench.data.dataset import Request as Request
    from maebench.data.digits import Digits as Digits
    from maebench.data.folder import Folder as Folder
    from maebench.data.from_files import from_files as from_files
    from maebench.data.images import Images as Images
    from maebench.data.images import from_arrays as from_arrays
    from maebench.data.label_maps import LabelMaps as LabelMaps
    from maebench.data.rows import from_rows as from_rows
    from maebench.data.split_info import Remark as Remark
    from maebench.data.text_files import TextFiles as TextFiles
    from maebench.data.torchvision_sets import CIFAR10 as CIFAR10
    from maebench.data.torchvision_sets import CIFAR100 as CIFAR100
    from maebench.data.torchvision_sets import KMNIST as KMNIST
    from maebench.data.torchvision_sets import MNIST as MNIST
    from maebench.data.torchvision_sets import STL10 as STL10
    from maebench.data.torchvision_sets import SVHN as SVHN
    from maebench.data.torchvision_sets import VOC as VOC
    from maebench.data.torchvision_sets import EMNISTLetters as EMNISTLetters
    from maebench.data.torchvision_sets import FashionMNIST as FashionMNIST
    from maebench.data.torchvision_sets import Food101 as Food101
    from maebench.data.torchvision_sets import ImageNet as ImageNet
    from maebench.data.torchvision_sets import Imagenette as Imagenette
    from maebench.data.torchvision_sets import OxfordPets as OxfordPets
    from maebench.encoders.convnets import ConvNeXt as ConvNeXt
    from maebench.encoders.convnets import ConvNeXtNano as ConvNeXtNano
    from maebench.encoders.convnets import ConvNeXtNanoLeaky as ConvNeXtNanoLeaky
    from maebench.encoders.convnets import ConvNeXtTiny as ConvNeXtTiny
    from maebench.encoders.convnets import ResNet as ResNet
    from maebench.encoders.convnets import ResNet18 as ResNet18
    from maebench.encoders.convnets import ResNetNano as ResNetNano
    from maebench.encoders.encoder import Encoder as Encoder
    from maebench.encoders.encoder import EncoderModule as EncoderModule
    from maebench.encoders.encoder import Tokens as Tokens
    from maebench.encoders.encoder import check_parameter_names as check_parameter_names
    from maebench.encoders.encoder import keep_positions as keep_positions
    from maebench.encoders.hiera import Hiera as Hiera
    from maebench.encoders.hiera import HieraNano as HieraNano
    from maebench.encoders.hiera import HieraTiny as HieraTiny
    from maebench.encoders.inputs import ANY_KIND as ANY_KIND
    from maebench.encoders.inputs import Inputs as Inputs
    from maebench.encoders.swin import Swin as Swin
    from maebench.encoders.swin import SwinNano as SwinNano
    from maebench.encoders.swin import SwinTiny as SwinTiny
    from maebench.encoders.text import TextBase as TextBase
    from maebench.encoders.text import TextMicro as TextMicro
    from maebench.encoders.text import TextNano as TextNano
    from maebench.encoders.text import TextSmall as TextSmall
    from maebench.encoders.text import TextTiny as TextTiny
    from maebench.encoders.timm_cnn import TimmCNN as TimmCNN
    from maebench.encoders.vit import ViT as ViT
    from maebench.encoders.vit import ViTBase as ViTBase
    from maebench.encoders.vit import ViTHuge as ViTHuge
    from maebench.encoders.vit import ViTLarge as ViTLarge
    from maebench.encoders.vit import ViTMicro as ViTMicro
    from maebench.encoders.vit import ViTNano as ViTNano
    from maebench.encoders.vit import ViTSmall as ViTSmall
    from maebench.encoders.vit import ViTTiny as ViTTiny
    from maebench.encoders.vit import default_patch as default_patch
    from maebench.errors import ConfigError as ConfigError
    from maebench.errors import DataError as DataError
    from maebench.errors import MaebenchError as MaebenchError
    from maebench.errors import NotApplicable as NotApplicable
    from maebench.errors import unknown as unknown
    from maebench.evaluating.records import kept as kept
    from maebench.evaluating.suite import evaluate as evaluate
    from maebench.evaluation.choice import Choice as Choice
    from maebench.evaluation.choice import choose as choose
    from maebench.evaluation.contract import Evaluation as Evaluation
    from maebench.evaluation.contract import Metric as Metric
    from maebench.evaluation.contract import Model as Model
    from maebench.evaluation.contract import Partial as Partial
    from maebench.evaluation.contract import Result as Result
    from maebench.evaluation.contract import Summary as Summary
    from maebench.evaluation.folds import Folds as Folds
    from maebench.hookspecs import hookimpl as hookimpl
    from maebench.masking.blocks import Block as Block
    from maebench.masking.blocks import InverseBlock as InverseBlock
    from maebench.masking.blocks import MultiBlock as MultiBlock
    from maebench.masking.grids import Border as Border
    from maebench.masking.grids import Centred as Centred
    from maebench.masking.grids import Grid as Grid
    from maebench.masking.grids import Random as Random
    from maebench.masking.grids import Uniform as Uniform
    from maebench.masking.grids import Units as Units
    from maebench.masking.guided import Attention as Attention
    from maebench.masking.guided import Hard as Hard
    from maebench.masking.mask import Mask as Mask
    from maebench.masking.mask import Masking as Masking
    from maebench.masking.mask import View as View
    from maebench.masking.noise import BlueNoise as BlueNoise
    from maebench.masking.noise import GreenNoise as GreenNoise
    from maebench.masking.noise import PurpleNoise as PurpleNoise
    from maebench.masking.noise import RedNoise as RedNoise
    from maebench.masking.parts import LabelMap as LabelMap
    from maebench.masking.parts import Parts as Parts
    from maebench.masking.patches import hidden_pixels as hidden_pixels
    from maebench.masking.patches import patchify as patchify
    from maebench.masking.patches import unpatchify as unpatchify
    from maebench.models.load import load_model as load_model
    from maebench.objectives.autoencoder import Autoencoder as Autoencoder
    from maebench.objectives.bert import Bert as Bert
    from maebench.objectives.contractive import Contractive as Contractive
    from maebench.objectives.denoising import Denoising as Denoising
    from maebench.objectives.mae import MAE as MAE
    from maebench.objectives.objective import Batch as Batch
    from maebench.objectives.objective import ImageGrid as ImageGrid
    from maebench.objectives.objective import Objective as Objective
    from maebench.objectives.objective import Reconstruction as Reconstruction
    from maebench.objectives.simmim import SimMIM as SimMIM
    from maebench.objectives.sparse import Sparse as Sparse
    from maebench.objectives.supervised import Supervised as Supervised
    from maebench.objectives.variational import Variational as Variational
    from maebench.outputs import Cell as Cell
    from maebench.outputs import Report as Report
    from maebench.outputs import Tracker as Tracker
    from maebench.pretraining.optimiser import half_cosine as half_cosine
    from maebench.pretraining.optimiser import learning_rate as learning_rate
    from maebench.report.masks import mask_statistics as mask_statistics
    from maebench.rng import Draws as Draws

__version__ = version("maebench")
# a test compares it with the imports above
_PUBLIC = {
    "ANY_KIND": "maebench.encoders.inputs",
    "Attention": "maebench.masking.guided",
    "Augment": "maebench.data.augment",
    "Autoencoder": "maebench.objectives.autoencoder",
    "Batch": "maebench.objectives.objective",
    "Bert": "maebench.objectives.bert",
    "Block": "maebench.masking.blocks",
    "BlueNoise": "maebench.masking.noise",
    "Border": "maebench.masking.grids",
    "Budget": "maebench.config.length",
    "Cell": "maebench.outputs",
    "Centred": "maebench.masking.grids",
    "check_parameter_names": "maebench.encoders.encoder",
    "Choice": "maebench.evaluation.choice",
    "choose": "maebench.evaluation.choice",
    "CIFAR10": "maebench.data.torchvision_sets",
    "CIFAR100": "maebench.data.torchvision_sets",
    "ClampedAugment": "maebench.data.augment",
    "compare": "maebench.analysis.compare",
    "Comparison": "maebench.analysis.comparison",
    "Component": "maebench.component",
    "ConfigError": "maebench.errors",
    "Contractive": "maebench.objectives.contractive",
    "ConvNeXt": "maebench.encoders.convnets",
    "ConvNeXtNano": "maebench.encoders.convnets",
    "ConvNeXtNanoLeaky": "maebench.encoders.convnets",
    "ConvNeXtTiny": "maebench.encoders.convnets",
    "Crops": "maebench.data.augment",
    "DataError": "maebench.errors",
    "Dataset": "maebench.data.dataset",
    "default_patch": "maebench.encoders.vit",
    "Denoising": "maebench.objectives.denoising",
    "Digits": "maebench.data.digits",
    "Draws": "maebench.rng",
    "EMNISTLetters": "maebench.data.torchvision_sets",
    "Encoder": "maebench.encoders.encoder",
    "EncoderModule": "maebench.encoders.encoder",
    "evaluate": "maebench.evaluating.suite",
    "Evaluation": "maebench.evaluation.contract",
    "FashionMNIST": "maebench.data.torchvision_sets",
    "Folder": "maebench.data.folder",
    "Folds": "maebench.evaluation.folds",
    "Food101": "maebench.data.torchvision_sets",
    "Fortunes": "maebench.data.corpora",
    "from_arrays": "maebench.data.images",
    "from_files": "maebench.data.from_files",
    "from_rows": "maebench.data.rows",
    "GreenNoise": "maebench.masking.noise",
    "Grid": "maebench.masking.grids",
    "half_cosine": "maebench.pretraining.optimiser",
    "Hard": "maebench.masking.guided",
    "hidden_pixels": "maebench.masking.patches",
    "Hiera": "maebench.encoders.hiera",
    "HieraNano": "maebench.encoders.hiera",
    "HieraTiny": "maebench.encoders.hiera",
    "hookimpl": "maebench.hookspecs",
    "ImageGrid": "maebench.objectives.objective",
    "ImageNet": "maebench.data.torchvision_sets",
    "Imagenette": "maebench.data.torchvision_sets",
    "Images": "maebench.data.images",
    "Inputs": "maebench.encoders.inputs",
    "InverseBlock": "maebench.masking.blocks",
    "keep_positions": "maebench.encoders.encoder",
    "kept": "maebench.evaluating.records",
    "KJV": "maebench.data.corpora",
    "KMNIST": "maebench.data.torchvision_sets",
    "LabelMap": "maebench.masking.parts",
    "LabelMaps": "maebench.data.label_maps",
    "learning_rate": "maebench.pretraining.optimiser",
    "load_model": "maebench.models.load",
    "load_records": "maebench.analysis.records",
    "MAE": "maebench.objectives.mae",
    "MaebenchError": "maebench.errors",
    "Mask": "maebench.masking.mask",
    "mask_statistics": "maebench.report.masks",
    "Masking": "maebench.masking.mask",
    "Metric": "maebench.evaluation.contract",
    "MNIST": "maebench.data.torchvision_sets",
    "Model": "maebench.evaluation.contract",
    "Partial": "maebench.evaluation.contract",
    "MultiBlock": "maebench.masking.blocks",
    "NotApplicable": "maebench.errors",
    "Objective": "maebench.objectives.objective",
    "OxfordPets": "maebench.data.torchvision_sets",
    "Parts": "maebench.masking.parts",
    "patchify": "maebench.masking.patches",
    "PurpleNoise": "maebench.masking.noise",
    "PyDoc": "maebench.data.corpora",
    "Random": "maebench.masking.grids",
    "recipe": "maebench.config.recipes",
    "Reconstruction": "maebench.objectives.objective",
    "RedNoise": "maebench.masking.noise",
    "Remark": "maebench.data.split_info",
    "Report": "maebench.outputs",
    "Request": "maebench.data.dataset",
    "ResNet": "maebench.encoders.convnets",
    "ResNet18": "maebench.encoders.convnets",
    "ResNetNano": "maebench.encoders.convnets",
    "Result": "maebench.evaluation.contract",
    "run": "maebench.analysis.run",
    "RunConfig": "maebench.config.run",
    "SimMIM": "maebench.objectives.simmim",
    "Sparse": "maebench.objectives.sparse",
    "STL10": "maebench.data.torchvision_sets",
    "Summary": "maebench.evaluation.contract",
    "Supervised": "maebench.objectives.supervised",
    "SVHN": "maebench.data.torchvision_sets",
    "Swin": "maebench.encoders.swin",
    "SwinNano": "maebench.encoders.swin",
    "SwinTiny": "maebench.encoders.swin",
    "TextBase": "maebench.encoders.text",
    "TextFiles": "maebench.data.text_files",
    "TextMicro": "maebench.encoders.text",
    "TextNano": "maebench.encoders.text",
    "TextSmall": "maebench.encoders.text",
    "TextTiny": "maebench.encoders.text",
    "TimmCNN": "maebench.encoders.timm_cnn",
    "Tokens": "maebench.encoders.encoder",
    "Tracker": "maebench.outputs",
    "Uniform": "maebench.masking.grids",
    "Units": "maebench.masking.grids",
    "unknown": "maebench.errors",
    "unpatchify": "maebench.masking.patches",
    "Variational": "maebench.objectives.variational",
    "View": "maebench.masking.mask",
    "ViT": "maebench.encoders.vit",
    "ViTBase": "maebench.encoders.vit",
    "ViTHuge": "maebench.encoders.vit",
    "ViTLarge": "maebench.encoders.vit",
    "ViTMicro": "maebench.encoders.vit",
    "ViTNano": "maebench.encoders.vit",
    "ViTSmall": "maebench.encoders.vit",
    "ViTTiny": "maebench.encoders.vit",
    "VOC": "maebench.data.torchvision_sets",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'maebench' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
