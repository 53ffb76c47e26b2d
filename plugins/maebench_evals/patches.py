"""Classes of patches and of pixels: majorities, intersections and unions.

B images, H W their pixels, N = h * w patches, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

VOID = 255  # of no class, as in label maps


def majority(maps_BHW: Tensor, grid: tuple[int, int], num_classes: int) -> Tensor:
    """The class that most pixels of each patch have, VOID where none has one, int64 (B, N).

    Of equally frequent classes the first.
    """
    B, H, W = maps_BHW.shape
    (h, w), C = grid, num_classes
    cells = maps_BHW.view(B, h, H // h, w, W // w).permute(0, 1, 3, 2, 4).flatten(3).flatten(0, 2)
    # one column more takes what has no class
    at = torch.where(cells == VOID, C, cells.long())
    count = torch.zeros(len(at), C + 1, dtype=torch.int32)
    count.scatter_add_(1, at, torch.ones_like(at, dtype=torch.int32))
    most, found = count[:, :C].max(1)
    return found.masked_fill(most == 0, VOID).view(B, h * w)


def on_pixels(classes_BN: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Classes of patches as those of all their pixels, (B, H, W)."""
    (h, w), (H, W) = grid, size
    cells = classes_BN.view(-1, h, w)
    return cells.repeat_interleave(H // h, 1).repeat_interleave(W // w, 2)


def confusion(truth_BHW: Tensor, guess_BHW: Tensor, num_classes: int) -> Tensor:
    """How many pixels of each true class are given each class in each image, int64 (B, C, C).

    Pixels without a true class count for nothing.
    """
    B, C = len(truth_BHW), num_classes
    truth, guess = truth_BHW.flatten(1).long(), guess_BHW.flatten(1).long()
    image = torch.arange(B)[:, None].expand_as(truth)
    there = truth != VOID
    at = (image * C + truth) * C + guess
    return at[there].bincount(minlength=B * C * C).view(B, C, C)


def iou(confusion_BCC: Tensor) -> Tensor:
    """Intersection over union of each class, NaN where neither truth nor guess has it, (B, C)."""
    shared = confusion_BCC.diagonal(dim1=-2, dim2=-1).double()
    union = confusion_BCC.sum(-1) + confusion_BCC.sum(-2) - shared
    return shared / union.masked_fill(union == 0, torch.nan)


def iou_of_images(confusion_BCC: Tensor) -> Tensor:
    """The mean over the classes that an image has, float64 (B,).

    A guess of a class that it has not takes pixels from one that it has; to count that class as 0
    too would reward whoever always guesses the background.
    """
    there = confusion_BCC.sum(-1) > 0
    return iou(confusion_BCC).masked_fill(~there, torch.nan).nanmean(-1)


def mean_iou(confusion_CC: Tensor) -> float:
    """The mean over the classes that truth or guess has, of all images together."""
    return float(iou(confusion_CC).nanmean())
