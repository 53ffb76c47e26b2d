"""How boxes of many images are cut out and resized at once: two matrix products per image.

B images, C channels, H W pixels in, h w pixels out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CUBIC = -0.5  # Catmull and Rom's kernel, as Pillow and torch's antialiased resize use it
# What a processor's caches hold: 1,024 images of 32x32x3 take 27 us each at once, 12 in parts.
PART = 2**18  # pixels and weights
# What a table of weights holds: up to 100 pixels a side. Beyond, most of the products is 0 times a
# pixel: of 224x224x3 they take 2.8 ms, image by image it is 1.1; of 96x96x3 0.18 and 0.15.
TABLE = 2**21  # numbers


def cut(
    images: Tensor, boxes: Tensor, flips: Tensor, size: tuple[int, int], reach: int = 0
) -> Tensor:
    """Cuts one box out of each image and resizes it, antialiased bicubic.

    Args:
        images: uint8 or float32 (B, C, H, W) in 0..255.
        boxes: (B, 4) of top, left, height, width in whole pixels; over the edge, the edge is
            repeated.
        flips: bool (B,), mirrored left to right.
        size: rows and columns that come out.
        reach: how many pixels a box may reach over the edge.

    Returns:
        float32 (B, C, h, w), in 0..255.
    """
    B, C, H, W = images.shape
    # asking a GPU would stop it, and it has no need to
    on_cpu = images.device.type == "cpu"
    if on_cpu and bool((boxes[:, 2:] == boxes.new_tensor(size)).all()):
        return _moved(images, boxes, flips, size)
    boxes = boxes.long()
    out = torch.empty(B, C, *size, device=images.device)
    if on_cpu and not _has_table(max(size), max(H, W) + 2 * reach):
        for image, box, flip, made in zip(images, boxes.tolist(), flips.tolist(), out, strict=True):
            made[None] = cut_one(image, box, flip, size)
        return out
    flips = flips.long()
    rows = BoxWeights.of(boxes[:, 0], boxes[:, 2], torch.zeros_like(flips), size[0], H, reach)
    columns = BoxWeights.of(boxes[:, 1], boxes[:, 3], flips, size[1], W, reach)
    part = max(1, PART // ((C + 2) * H * W)) if on_cpu else max(1, B)
    for start in range(0, B, part):
        some = slice(start, start + part)
        _resized(images[some].float(), rows[some], columns[some], reach, out[some])
    return out


def cut_one(image: Tensor, box: Sequence[int], flip: bool, size: tuple[int, int]) -> Tensor:
    """The same as `cut`, of one image, whatever its size; for large ones it is quicker.

    Args:
        image: uint8 or float32 (C, H, W) in 0..255.
        box: top, left, height, width; where it reaches over the edge, the edge is repeated.
        flip: whether the result is mirrored left to right.
        size: rows and columns that come out.

    Returns:
        float32 (1, C, h, w), in 0..255.
    """
    top, bottom, above, below = _within(box[0], box[2], image.shape[1])
    left, right, before, after = _within(box[1], box[3], image.shape[2])
    # contiguous: the kernel for pixels that lie together rounds otherwise
    pixels = image[None, :, top:bottom, left:right].float().contiguous()
    if above or below or before or after:
        pixels = F.pad(pixels, (before, after, above, below), mode="replicate")
    if pixels.shape[2:] != size:
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 255)
    return pixels.flip(3) if flip else pixels


def _within(start: int, length: int, full: int) -> tuple[int, int, int, int]:
    """First and last + 1 pixel of a range inside an image, and how often each edge is repeated."""
    first = min(max(start, 0), full - 1)
    last = max(min(start + length, full), first + 1)
    missing = length - (last - first)
    before = min(max(-start, 0), missing)
    return first, last, before, missing - before


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest centred part of the wanted shape, resized; float32 (B, C, h, w)."""
    B, C, H, W = images.shape
    scale = min(W / size[1], H / size[0])
    h, w = size[0] * scale, size[1] * scale
    top, left, h, w = images.new_tensor([(H - h) / 2, (W - w) / 2, h, w], dtype=torch.float32)
    rows_1hH = _weights(top[None], h[None], size[0], H)
    columns_1wW = _weights(left[None], w[None], size[1], W)
    out = torch.empty(B, C, *size, device=images.device)
    return _resized(
        images.float(), rows_1hH.expand(B, -1, -1), columns_1wW.expand(B, -1, -1), 0, out
    )


def _moved(images: Tensor, boxes: Tensor, flips: Tensor, size: tuple[int, int]) -> Tensor:
    """What the matrix products give where every weight is 0 or 1: pixels from another place."""
    B, C, H, W = images.shape
    across = torch.arange(size[1]).expand(B, -1)
    across = torch.where(flips[:, None], size[1] - 1 - across, across)
    rows_Bh = (boxes[:, :1].long() + torch.arange(size[0])).clamp(0, H - 1)
    columns_Bw = (boxes[:, 1:2].long() + across).clamp(0, W - 1)
    place = (rows_Bh[:, :, None] * W + columns_Bw[:, None]).view(B, 1, -1)
    found = images.reshape(B, C, H * W).gather(2, place.expand(B, C, -1))
    return found.view(B, C, *size).float()


def _resized(images: Tensor, rows: Tensor, columns: Tensor, reach: int, out: Tensor) -> Tensor:
    """Weighted sums of pixels along rows (B, h, H) and columns (B, w, W), in 0..255."""
    if reach:
        images = F.pad(images, (reach,) * 4, mode="replicate")
    B, C, H, W = images.shape
    x_BCHw = (images.reshape(B, C * H, W) @ columns.transpose(1, 2)).view(B, C, H, -1)
    return torch.clamp(rows[:, None] @ x_BCHw, 0, 255, out=out)


@dataclass(frozen=True)
class BoxWeights:
    """`_weights` of boxes in whole pixels that may be mirrored and reach over the edge.

    Args:
        of_rows: float32 (any, full + 2 * reach): each image's edge is repeated `reach` times.
        place: which of them an image's rows are, int64 (B, out).
    """

    of_rows: Tensor
    place: Tensor

    @classmethod
    def of(
        cls, start: Tensor, length: Tensor, flips: Tensor, out: int, full: int, reach: int
    ) -> BoxWeights:
        """The weights of boxes: integers (B,), as `flips` is, 0 or 1."""
        full, start = full + 2 * reach, start + reach
        number = torch.arange(out, device=start.device)
        orders = torch.stack([number, number.flip(0)])
        if not _has_table(out, full):
            made = _weights(start.float(), length.float(), out, full)
            first = out * torch.arange(len(start), device=start.device)
            return cls(made.view(-1, full), first[:, None] + orders[flips])
        table = _table(out, full, start.device)
        windows = table.as_strided((table.numel() - full + 1, full), (1, 1))
        # row `number` of the weights of a length, beginning `start` pixels further left
        first = (length - 1) * (out * 2 * full) + full - start
        return cls(windows, first[:, None] + (orders * 2 * full)[flips])

    def __getitem__(self, images: slice) -> Tensor:
        """Weights of these images, float32 (b, out, full + 2 * reach)."""
        place = self.place[images]
        return self.of_rows.index_select(0, place.reshape(-1)).view(*place.shape, -1)


def _has_table(out: int, full: int) -> bool:
    return out * full * 2 * full <= TABLE


@functools.lru_cache(maxsize=8)  # rows and columns of the sets of a command
def _table(out: int, full: int, device: torch.device) -> Tensor:
    """The weights of boxes of every length that begin at pixel 0, each row after as many zeros.

    Float32 (full, out, 2 * full). What begins at another pixel has the same weights there: moved.
    """
    with torch.inference_mode(False):  # it outlives the first caller
        length = torch.arange(1, full + 1, device=device)
        return F.pad(_weights(torch.zeros_like(length), length, out, full), (full, 0))


def _weights(start: Tensor, length: Tensor, out: int, full: int) -> Tensor:
    """How much each of `full` pixels gives to each of `out`, float32 (B, out, full).

    Output pixel i has its centre at start + (i + .5) * length / out; shrinking widens the kernel.
    Pixels outside the box do not count, as in cropping first and resizing then, but one that a
    fractional box cuts through does.
    """
    pixel = torch.arange(full, device=start.device) + 0.5
    start, length = start[:, None], length[:, None]
    scale = (length / out).clamp(min=1.0)
    centre = start + (torch.arange(out, device=start.device) + 0.5) * length / out
    distance = ((pixel[None, None] - centre[:, :, None]) / scale[:, :, None]).abs()
    weight = _cubic(distance)
    inside = (pixel > start - 0.5) & (pixel < start + length + 0.5)
    weight = weight * inside[:, None]
    return weight / weight.sum(-1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (1981) with a = -0.5."""
    a = CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
