"""What the checks of a data set look at: some of its images, its crops, another size."""

from __future__ import annotations

import torch
from torch import Tensor

from maebench.data.augment import Augment, Crops
from maebench.data.images import Images
from maebench.data.split_info import SplitInfo
from maebench.testing.contract import expect

LOOKED_AT = 2**26  # bytes of a split's pixels, evenly chosen: about a second, however large it is
CROPPED = 8  # images of which crops are looked at: by chance, eight boxes are never the same


def image_bytes(info: SplitInfo) -> int:
    """How many bytes the pixels of one image take."""
    return info.channels * info.size[0] * info.size[1]


def chosen(images: Images) -> list[int]:
    """Positions of the images that are looked at: all of them, or evenly chosen ones."""
    most = max(1, LOOKED_AT // image_bytes(images.info))
    return list(range(0, len(images), -(-len(images) // most)))


def looked_at(images: Images) -> Tensor:
    """The images that are looked at."""
    return images.pick(chosen(images))


def few(images: Images) -> int:
    """How many images from the first on are gone through one by one."""
    return min(len(images), max(4, LOOKED_AT // (4 * image_bytes(images.info))))


def marks(pixels: Tensor) -> list[bytes]:
    """What each image is told apart by: its bytes."""
    return [image.numpy().tobytes() for image in pixels.contiguous()]


def part(images: Images, start: int, step: int) -> Images:
    """Every `step`-th image."""
    return images.subset(torch.arange(start, len(images), step))


def other_size(info: SplitInfo) -> tuple[int, int]:
    """A size that is not the split's own and not square, so that rows are told from columns."""
    return (info.size[0] + 2, info.size[1] + 5)


def equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors, or None, are the same."""
    return one is other if one is None or other is None else torch.equal(one, other)


def cropped(images: Images) -> Tensor:
    """Positions to crop, in no order that a data set would have by itself."""
    step = max(1, len(images) // CROPPED)
    return torch.arange(0, len(images), step)[:CROPPED].flip(0)


def crops(
    images: Images,
    index: Tensor,
    epoch: int = 0,
    seed: int = 0,
    batch: int = CROPPED,
    augment: Augment | None = None,
) -> Crops:
    """The crops of some images, asked for as pretraining does: by an iterator of batches."""
    epochs = torch.full_like(index, epoch)
    plan = zip(index.split(batch), epochs.split(batch), strict=True)
    found = list(images.crops(plan, augment or Augment(), seed, "cpu"))
    expect(
        all(isinstance(one, Crops) for one in found),
        f"crops() must give maebench.data.augment.Crops, got {type(found[0]).__name__}",
    )
    expect(
        [len(one.images) for one in found] == [len(one) for one in index.split(batch)],
        f"crops() gives batches of {[len(one.images) for one in found]} images for a plan of "
        f"{[len(one) for one in index.split(batch)]}",
    )
    return Crops.stack(found)


def same_crops(one: Crops, other: Crops) -> bool:
    """Whether boxes, flips and, but for rounding, pixels are the same."""
    drawn = torch.equal(one.boxes, other.boxes) and torch.equal(one.flips, other.flips)
    # a hundredth of a grey level: matrix products of other sizes round otherwise
    return drawn and torch.allclose(one.images, other.images, rtol=0, atol=0.01)
