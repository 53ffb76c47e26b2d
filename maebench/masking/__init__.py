"""Which patches are hidden: the contract and the built-in strategies."""

from maebench.masking.mask import Mask, Masking, View, count_hidden, draw, hide, units_of
from maebench.masking.random import Random

BUILT_IN: tuple[type[Masking], ...] = (Random,)

__all__ = ["BUILT_IN", "Mask", "Masking", "Random", "View", "count_hidden", "draw", "hide", "units_of"]
