"""Images and text: the contract of a data set and the built-in ones."""

from maebench.data.augment import Augment
from maebench.data.corpora import KJV, Fortunes, PyDoc
from maebench.data.dataset import Dataset, Request, preset_for
from maebench.data.digits import Digits
from maebench.data.folder import Folder
from maebench.data.text_files import TextFiles
from maebench.data.torchvision_sets import (
    CIFAR10,
    CIFAR100,
    KMNIST,
    MNIST,
    STL10,
    SVHN,
    VOC,
    EMNISTLetters,
    FashionMNIST,
    Food101,
    ImageNet,
    Imagenette,
    OxfordPets,
)

BUILT_IN: tuple[type[Dataset], ...] = (
    *(Digits, Folder, MNIST, FashionMNIST, KMNIST, EMNISTLetters, CIFAR10, CIFAR100, SVHN, STL10),
    *(Food101, OxfordPets, VOC, Imagenette, ImageNet),
    *(PyDoc, Fortunes, KJV, TextFiles),
)
__all__ = [
    "BUILT_IN",
    "CIFAR10",
    "CIFAR100",
    "KJV",
    "KMNIST",
    "MNIST",
    "STL10",
    "SVHN",
    "VOC",
    "Augment",
    "Dataset",
    "Digits",
    "EMNISTLetters",
    "FashionMNIST",
    "Folder",
    "Food101",
    "Fortunes",
    "ImageNet",
    "Imagenette",
    "OxfordPets",
    "PyDoc",
    "Request",
    "TextFiles",
    "preset_for",
]
