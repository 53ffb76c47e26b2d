"""Images: the contract of a data set and the built-in ones."""

from maebench.data.augment import Augment
from maebench.data.dataset import Dataset, Request, preset_for
from maebench.data.digits import Digits

BUILT_IN: tuple[type[Dataset], ...] = (Digits,)

__all__ = ["BUILT_IN", "Augment", "Dataset", "Digits", "Request", "preset_for"]
