"""Which patches are hidden: the contract and the built-in strategies."""

from maebench.masking.block import Block
from maebench.masking.centred import Centred
from maebench.masking.grid import Grid
from maebench.masking.mask import Mask, Masking, View, count_hidden, draw, hide, units_of
from maebench.masking.random import Random

BUILT_IN: tuple[type[Masking], ...] = (Random, Block, Grid, Centred)

__all__ = [
    "BUILT_IN",
    "Block",
    "Centred",
    "Grid",
    "Mask",
    "Masking",
    "Random",
    "View",
    "count_hidden",
    "draw",
    "hide",
    "units_of",
]
