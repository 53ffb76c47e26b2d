"""What a GPU makes crops of: the boxes of images as they were decoded, packed to be sent there.

A crop is four bytes a number, a box of the image one, and cutting takes a core as long as decoding.
B images, C channels, H W pixels of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from maebench.data.augment import Crops
from maebench.data.resizing import cut

# Of a block, whose images are as large as its largest: bytes, for its products are float32, and how
# often its images' own.
MOST_BYTES, MOST_TIMES = 2**25, 2


@dataclass(frozen=True)
class Block:
    """Boxes of some images of a batch, of much the same size.

    Args:
        pixels: uint8 (b, C, H, W); each box begins at the top left, beyond it is nothing.
        boxes: where in `pixels`, int64 (b, 4): 0, 0, height, width.
        flips: which crops are mirrored, bool (b,).
        place: which images of the batch, int64 (b,).
    """

    pixels: Tensor
    boxes: Tensor
    flips: Tensor
    place: Tensor

    def pin_memory(self) -> Block:
        """The same in memory that a GPU copies from by itself."""
        return Block(*(getattr(self, f.name).pin_memory() for f in fields(Block)))

    def on(self, device: str) -> Block:
        """The same on a device."""
        return Block(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(Block)))


@dataclass(frozen=True)
class Regions:
    """A batch whose crops are still to be cut.

    Args:
        blocks: the pixels.
        crops: all else; its images are empty.
    """

    blocks: tuple[Block, ...]
    crops: Crops

    def pin_memory(self) -> Regions:
        """The same in memory that a GPU copies from by itself; torch's loader asks for it."""
        return Regions(tuple(block.pin_memory() for block in self.blocks), self.crops)

    def cut(self, device: str, size: tuple[int, int]) -> Crops:
        """The crops, on a device, of this size: a few products for each block."""
        channels = self.blocks[0].pixels.shape[1]
        images = torch.empty(len(self.crops.ids), channels, *size, device=device)
        for block in self.blocks:
            there = block.on(device)
            made = cut(there.pixels, there.boxes, there.flips, size)
            images.index_copy_(0, there.place, made)
        return replace(self.crops, images=images)


def region(image: Tensor, box: Sequence[int]) -> Tensor:
    """A box of an image (C, H, W), copied; where it reaches over the edge, the edge is repeated."""
    top, left, height, width = box
    rows, columns = image.shape[1:]
    if 0 <= top <= rows - height and 0 <= left <= columns - width:
        return image[:, top : top + height, left : left + width].clone()
    row = torch.arange(top, top + height).clamp(0, rows - 1)
    column = torch.arange(left, left + width).clamp(0, columns - 1)
    return image[:, row][:, :, column]


def packed(regions: Sequence[Tensor], flips: Tensor) -> tuple[Block, ...]:
    """Regions (C, h, w) of a batch in blocks, those of much the same size together.

    Args:
        regions: uint8, of each image.
        flips: bool (B,).
    """
    blocks, some, rows, columns, own = list[list[int]](), list[int](), 0, 0, 0
    for place in sorted(range(len(regions)), key=lambda i: regions[i].shape):
        x = regions[place]
        rows, columns = max(rows, x.shape[1]), max(columns, x.shape[2])
        whole = (len(some) + 1) * len(x) * rows * columns
        if some and whole > min(MOST_BYTES, MOST_TIMES * (own + x.numel())):
            blocks.append(some)
            some, rows, columns, own = [], x.shape[1], x.shape[2], 0
        some.append(place)
        own += x.numel()
    return tuple(_block(regions, flips, places) for places in (*blocks, some))


def _block(regions: Sequence[Tensor], flips: Tensor, places: list[int]) -> Block:
    some = [regions[i] for i in places]
    rows, columns = (max(x.shape[side] for x in some) for side in (1, 2))
    pixels = torch.zeros(len(some), len(some[0]), rows, columns, dtype=torch.uint8)
    for x, there in zip(some, pixels, strict=True):
        there[:, : x.shape[1], : x.shape[2]] = x
    boxes = torch.tensor([[0, 0, *x.shape[1:]] for x in some])
    return Block(pixels, boxes, flips[places], torch.tensor(places))
