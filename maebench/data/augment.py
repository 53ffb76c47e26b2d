"""Which part of an image a random crop takes, and whether it is mirrored: by the sample alone.

B images, C channels, h w pixels of a crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from maebench.component import Options
from maebench.encoders.inputs import LONGEST_SIDE
from maebench.rng import Draws

TRIES = 10  # torchvision's RandomResizedCrop.get_params
DEVICE_SHARE = 1 / 4  # of a GPU's free memory, for the images of a run


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
        default=0,
        ge=0,
        le=LONGEST_SIDE,
        description="pixels that the picture moves at most, its edge repeated",
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
    """A batch of crops; but for the images all of it is drawn, and lies, on the CPU.

    Args:
        images: float32 (B, C, h, w) in 0..255, on the device that they were asked for.
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

    def on_cpu(self) -> Crops:
        """The same with its images there too."""
        return replace(self, images=self.images.cpu())

    @staticmethod
    def stack(parts: list[Crops]) -> Crops:
        """One batch from several."""
        return Crops(
            **{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Crops)}
        )


def fits(x: Tensor, device: str) -> bool:
    """Whether a tensor may lie on a device for all of a run; on a CPU it does already."""
    if torch.device(device).type == "cpu":
        return True
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch
    return x.nbytes <= DEVICE_SHARE * (torch.cuda.mem_get_info(device)[0] + kept)


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
    if augment.shift:
        moved = draws.integers(2 * augment.shift + 1, 2) - augment.shift
        top, left = top + moved[:, :1], left + moved[:, 1:]
    return torch.cat([top, left, h, w], 1).float()


def _between(share: Tensor, low: float, high: float) -> Tensor:
    return low + share * (high - low)
