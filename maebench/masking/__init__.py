"""Which patches are hidden: the contract and the built-in strategies."""

from maebench.masking.blocks import Block, InverseBlock, MultiBlock
from maebench.masking.grids import Border, Centred, Grid, Random, Uniform, Units
from maebench.masking.guided import Attention, Hard
from maebench.masking.mask import Mask, Masking, View, count_hidden, draw, hide, units_of
from maebench.masking.noise import BlueNoise, GreenNoise, PurpleNoise, RedNoise
from maebench.masking.parts import LabelMap, Parts

BUILT_IN: tuple[type[Masking], ...] = (
    *(Random, Block, InverseBlock, MultiBlock, Grid, Uniform, Units, Centred, Border),
    *(RedNoise, GreenNoise, BlueNoise, PurpleNoise, Attention, Hard, Parts, LabelMap),
)
__all__ = [
    "BUILT_IN",
    "Attention",
    "Block",
    "BlueNoise",
    "Border",
    "Centred",
    "GreenNoise",
    "Grid",
    "Hard",
    "InverseBlock",
    "LabelMap",
    "Mask",
    "Masking",
    "MultiBlock",
    "Parts",
    "PurpleNoise",
    "Random",
    "RedNoise",
    "Uniform",
    "Units",
    "View",
    "count_hidden",
    "draw",
    "hide",
    "units_of",
]
