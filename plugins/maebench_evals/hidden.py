"""Which pixels and targets are hidden, and how far they are from what is seen.

B images, L = h * w patches, M hidden patches of each image, T dimension of a target, C, H, W of
images in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from maebench import Mask, hidden_pixels, unpatchify


def patch_of(mask: Mask, images_BCHW: Tensor) -> tuple[int, int]:
    """Rows and columns of a patch in pixels."""
    return images_BCHW.shape[2] // mask.grid[0], images_BCHW.shape[3] // mask.grid[1]


def hidden_of(patches_BLT: Tensor, mask: Mask) -> Tensor:
    """The hidden patches of each image, (B, M, T)."""
    return patches_BLT[mask.hidden].view(len(patches_BLT), mask.num_hidden, -1)


def first(mask: Mask, count: int) -> Mask:
    """The masks of the first images."""
    return Mask(mask.hidden[:count], mask.seen[:count], mask.grid)


def distance_to_seen(mask: Mask) -> Tensor:
    """Steps of a chess king from each patch to the nearest seen one, int64 (B, L); 0 where seen."""
    reached = (~mask.hidden).float().view(-1, 1, *mask.grid)
    distance = torch.zeros_like(reached)
    # what is seen grows by one patch to all eight sides until it fills the grid
    for _ in range(max(mask.grid) - 1):
        distance += 1 - reached
        reached = max_pool2d(reached, 3, stride=1, padding=1)
    return distance.flatten(1).long()


def sum_at(distance_BM: Tensor, mask: Mask, values_BM: Tensor | None = None) -> Tensor:
    """The sum of values at each distance, or the number of patches, float64 (longest side,)."""
    values = torch.ones_like(distance_BM) if values_BM is None else values_BM
    at, length = distance_BM.flatten().cpu(), max(mask.grid)
    return torch.bincount(at, values.flatten().double().cpu(), length)


def pasted(patches_BLT: Tensor, images_BCHW: Tensor, mask: Mask) -> Tensor:
    """The images with predicted pixels in place of the hidden ones, (B, C, H, W)."""
    patch = patch_of(mask, images_BCHW)
    predicted = unpatchify(patches_BLT, mask.grid, patch)
    return torch.where(hidden_pixels(mask, patch), predicted, images_BCHW)
