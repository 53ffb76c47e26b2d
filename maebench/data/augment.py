"""Random crops and flips, batched on the device, their parameters a function of the sample.

B images, C channels, H W pixels in, h w pixels out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from maebench.component import Options
from maebench.rng import Draws

TRIES = 10  # torchvision's RandomResizedCrop.get_params
CUBIC = -0.5  # Catmull and Rom's kernel, as Pillow and torch's antialiased resize use it


class Augment(Options):
    """How training images are cropped and mirrored."""

    clamps: ClassVar[bool] = False  # whether a box is cut to the image where it does not fit

    scale: tuple[float, float] = Field(
        default=(0.2, 1.0), description="smallest and largest share of the area that a crop keeps"
    )
    aspect: tuple[float, float] = Field(
        default=(3 / 4, 4 / 3), description="smallest and largest width over height of a crop"
    )
    shift: int = Field(
        default=0, ge=0, description="pixels that the picture moves at most, its edge repeated"
    )
    flip: bool = Field(
        default=True, description="whether half of the images are mirrored left to right"
    )

    def model_post_init(self, _: Any) -> None:
        """Refuses ranges that are empty or out of bounds."""
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale: 0 < smallest <= largest <= 1, given {self.scale}")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect: 0 < smallest <= largest, given {self.aspect}")


class ClampedAugment(Augment):
    """Crops whose area and aspect are drawn once, height and width then cut to the image's.

    Of wide or high boxes more come out whole than where ten are tried. The linear probe of
    the masked autoencoder crops so (arXiv 2111.06377, official code, util/crop.py).
    """

    clamps: ClassVar[bool] = True


@dataclass(frozen=True)
class Crops:
    """A batch of crops.

    Args:
        images: float32 (B, C, h, w) in 0..255.
        index: positions in the split, int64 (B,).
        ids: sample ids, int64 (B,).
        epoch: the epoch each was drawn in, int64 (B,).
        boxes: float32 (B, 4), top, left, height and width in original pixels.
        flips: bool (B,).
        sizes: rows and columns of the images that the boxes lie in, int64 (B, 2).
    """

    images: Tensor
    index: Tensor
    ids: Tensor
    epoch: Tensor
    boxes: Tensor
    flips: Tensor
    sizes: Tensor

    @staticmethod
    def stack(parts: list[Crops]) -> Crops:
        """One batch from batches of one image."""
        return Crops(
            **{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Crops)}
        )

    def to(self, device: str) -> Crops:
        """The same on a device; `index` stays where it is."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(Crops)}
        return Crops(**{**moved, "index": self.index})


def crop_parameters(
    augment: Augment, seed: int, ids: Tensor, epoch: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    """The box (B, 4) and the flip (B,) of each image, the same for any batch or worker."""
    boxes = crop_boxes(augment, Draws(seed, "crop", ids, epoch), size)
    flips = Draws(seed, "flip", ids, epoch).uniform() < 0.5
    return boxes, flips & augment.flip


def crop_boxes(augment: Augment, draws: Draws, size: Tensor) -> Tensor:
    """Boxes of a random resized crop in whole pixels, float32 (B, 4): top, left, height, width.

    The first of ten tries that fits is taken, else the largest centred box of an allowed aspect,
    as torchvision's RandomResizedCrop does; `ClampedAugment` tries once. With `shift` the box moves
    up to that many pixels, also over the edge.

    Args:
        augment: the ranges.
        draws: random numbers of these samples.
        size: rows and columns of each image, int64 (B, 2).
    """
    height, width = size[:, :1].double(), size[:, 1:].double()
    tries = 1 if augment.clamps else TRIES
    area = height * width * _between(draws.uniform(tries).double(), *augment.scale)
    low, high = augment.aspect
    aspect = _between(draws.uniform(tries).double(), math.log(low), math.log(high)).exp()
    w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    if augment.clamps:
        w, h = (torch.minimum(side.clamp(min=1), full) for side, full in ((w, width), (h, height)))
    fits = (w > 0) & (h > 0) & (w <= width) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    # where none fits: all of the image whose aspect is already allowed, else its centre
    ratio = (width / height).clamp(*augment.aspect)
    whole_w, whole_h = torch.minimum(width, height * ratio), torch.minimum(height, width / ratio)
    none = ~fits.any(1, keepdim=True)
    h = torch.where(none, whole_h.round(), h.gather(1, first))
    w = torch.where(none, whole_w.round(), w.gather(1, first))
    place = draws.uniform(2).double()
    top = torch.where(none, ((height - h) / 2).floor(), (place[:, :1] * (height - h + 1)).floor())
    left = torch.where(none, ((width - w) / 2).floor(), (place[:, 1:] * (width - w + 1)).floor())
    moved = draws.integers(2 * augment.shift + 1, 2) - augment.shift
    return torch.cat([top + moved[:, :1], left + moved[:, 1:], h, w], 1).float()


def cut(
    images: Tensor, boxes: Tensor, flips: Tensor, size: tuple[int, int], reach: int = 0
) -> Tensor:
    """Cuts one box out of each image and resizes it, antialiased bicubic, as two matmuls per image.

    Args:
        images: float32 (B, C, H, W) in 0..255.
        boxes: (B, 4) of top, left, height, width; over the edge, the edge is repeated.
        flips: bool (B,), mirrored left to right.
        size: rows and columns that come out.
        reach: how many pixels a box may reach over the edge.

    Returns:
        float32 (B, C, h, w), in 0..255.
    """
    B, C, H, W = images.shape
    rows_BhH = _weights(boxes[:, 0], boxes[:, 2], size[0], H, reach)
    columns_BwW = _weights(boxes[:, 1], boxes[:, 3], size[1], W, reach)
    columns_BwW = torch.where(flips[:, None, None], columns_BwW.flip(1), columns_BwW)
    x_BhCW = rows_BhH @ images.permute(0, 2, 1, 3).reshape(B, H, C * W)
    x_BChW = x_BhCW.view(B, size[0], C, W).permute(0, 2, 1, 3).reshape(B, C * size[0], W)
    out = (x_BChW @ columns_BwW.transpose(1, 2)).view(B, C, size[0], size[1])
    return out.clamp(0, 255)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest centred part of the wanted shape, resized; float32 (B, C, h, w)."""
    B, _, H, W = images.shape
    scale = min(W / size[1], H / size[0])
    h, w = size[0] * scale, size[1] * scale
    box = torch.tensor([(H - h) / 2, (W - w) / 2, h, w], device=images.device)
    return cut(images, box.expand(B, 4), images.new_zeros(B, dtype=torch.bool), size)


def _between(share: Tensor, low: float, high: float) -> Tensor:
    return low + share * (high - low)


def _weights(start: Tensor, length: Tensor, out: int, full: int, reach: int) -> Tensor:
    """How much each of `full` pixels gives to each of `out`, float32 (B, out, full).

    Output pixel i has its centre at start + (i + .5) * length / out; shrinking widens the kernel.
    Pixels outside the box do not count, as in cropping first and resizing then, but one that a
    fractional box cuts through does; where the box reaches over the edge, the edge is repeated.
    """
    pixel = torch.arange(-reach, full + reach, device=start.device) + 0.5
    start, length = start[:, None], length[:, None]
    scale = (length / out).clamp(min=1.0)
    centre = start + (torch.arange(out, device=start.device) + 0.5) * length / out
    distance = ((pixel[None, None] - centre[:, :, None]) / scale[:, :, None]).abs()
    weight = _cubic(distance)
    inside = (pixel > start - 0.5) & (pixel < start + length + 0.5)
    weight = weight * inside[:, None]
    weight = weight / weight.sum(-1, keepdim=True)
    if not reach:
        return weight
    middle = weight[:, :, reach : reach + full].clone()
    middle[:, :, 0] += weight[:, :, :reach].sum(-1)
    middle[:, :, -1] += weight[:, :, reach + full :].sum(-1)
    return middle


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (1981) with a = -0.5."""
    a = CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
