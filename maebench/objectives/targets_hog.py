"""Histograms of oriented gradients as what is predicted of each patch.

Shape suffixes: B images, C channels, H W pixels, L patches, T numbers of a patch, O orientations.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import patchify
from maebench.objectives.objective import Inputs, Reconstruction

ORIENTATIONS = 9  # of 20 degrees each, a gradient and its opposite alike (arXiv 2112.09133)
NORM_EPS = 1e-5  # scikit-image's hog, which this equals number for number


class Hog:
    """Histograms of oriented gradients, of each channel and in cells of their own.

    Gradients are differences [-1, 0, 1], 0 across the border of the image: the plain mask is what
    Dalal and Triggs (CVPR 2005) found best; MaskFeat takes Sobel's. A pixel votes for one
    orientation with the length of its gradient, and a cell's histogram has length 1. A pixel at
    the edge of a patch looks one pixel into the next.

    Args:
        patch: rows and columns of a patch in pixels.
        inputs: gives the channels.
        cell: side of a cell in pixels; default half the patch, or all where that is under 2 px.

    Raises:
        ConfigError: cells do not divide the patch.
    """

    space = "hog"

    def __init__(self, patch: tuple[int, int], inputs: Inputs, cell: int | None = None) -> None:
        self.cell = (cell, cell) if cell else (default_cell(patch[0]), default_cell(patch[1]))
        if any(side % c for side, c in zip(patch, self.cell, strict=True)):
            common = math.gcd(*patch)
            fits = [str(n) for n in range(1, common + 1) if common % n == 0]
            raise ConfigError(
                f"objective.hog_cell: {cell} does not divide patches of {patch[0]}x{patch[1]}; "
                f"cells that do: {', '.join(fits)}"
            )
        self.per = (patch[0] // self.cell[0], patch[1] // self.cell[1])  # cells of a patch
        self.numbers = self.per[0] * self.per[1] * ORIENTATIONS * inputs.channels

    def __call__(self, images: Tensor) -> Tensor:
        """The histograms, float32 (B, L, T)."""
        x_BCHW = images.detach().float()
        down_BCHW = F.pad(x_BCHW[:, :, 2:] - x_BCHW[:, :, :-2], (0, 0, 1, 1))
        right_BCHW = F.pad(x_BCHW[..., 2:] - x_BCHW[..., :-2], (1, 1))
        angle_BCHW = torch.atan2(down_BCHW, right_BCHW) % math.pi
        # an angle just below 0 comes out of the remainder as pi itself
        bin_BCHW = (angle_BCHW * (ORIENTATIONS / math.pi)).long().clamp(max=ORIENTATIONS - 1)
        votes_BCOHW = x_BCHW.new_zeros(*x_BCHW.shape[:2], ORIENTATIONS, *x_BCHW.shape[2:])
        votes_BCOHW.scatter_(
            2, bin_BCHW[:, :, None], torch.hypot(down_BCHW, right_BCHW)[:, :, None]
        )
        cells = F.avg_pool2d(votes_BCOHW.flatten(1, 2), self.cell).unflatten(1, (-1, ORIENTATIONS))
        cells = cells / (cells.square().sum(2, keepdim=True) + NORM_EPS**2).sqrt()
        return patchify(cells.flatten(1, 2), self.per)

    def reconstruction(self, prediction_BLT: Tensor, images: Tensor, mask: Mask) -> Reconstruction:
        """The prediction beside the truth; there are no pixels."""
        how = "no pixels: histograms of gradients do not say where in its cell a gradient lies"
        return Reconstruction(prediction_BLT, self(images), self.space, how=how)


def default_cell(side: int) -> int:
    """Half the side of a patch, as MaskFeat's 8 of 16; all of it where half is odd or under 2."""
    return side // 2 if side % 2 == 0 and side >= 4 else side
