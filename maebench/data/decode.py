"""How an image file becomes pixels of the channels and the size asked for.

C channels, H W pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from maebench.errors import DataError

WHITE_16, TO_8 = 65535, 257  # 65535 = 257 * 255: what 16 bits of gray are divided by


def read_image(path: Path, channels: int) -> Image.Image:
    """A decoded image of one or three channels, whatever the file holds.

    Gray, 1-bit, palette, CMYK and 16-bit gray are brought there; alpha is dropped and the EXIF
    orientation left alone, as torchvision's loader does.

    Args:
        path: the file.
        channels: 1 for gray, 3 for colour.

    Raises:
        DataError: the file is no image or is cut off; names it.
    """
    with _opened(path) as image:
        image.load()
        image.info.pop("transparency", None)  # a palette's would warn that it is dropped
        return _eight_bits(image).convert("L" if channels == 1 else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16 bits of gray as 8 (PIL would clip them at 255); other images as they are.

    Raises:
        ValueError: numbers whose white is unknown.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    levels = np.asarray(image)
    low, high = levels.min(), levels.max()
    if image.mode == "F" or low < 0 or high > WHITE_16:
        raise ValueError(f"gray levels from {low:g} to {high:g}, wanted 8 or 16 bits of gray")
    return Image.fromarray(((levels.astype("uint32") + TO_8 // 2) // TO_8).astype("uint8"))


def read_header(path: Path) -> tuple[int, int, bool]:
    """Rows, columns and whether an image is gray, from the first bytes of its file.

    Raises:
        DataError: the file is no image; names it.
    """
    with _opened(path) as image:
        return image.height, image.width, image.mode[0] in "1LI"  # 1, L, LA, I, I;16 ...


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    # What PIL's decoders raise on damaged bytes: 20,000 damaged files gave these and no other.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read: which, why and what to do."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    reason = " ".join(reason.replace(str(path), path.name).split()) or type(error).__name__
    return DataError(f"cannot read image {path}: {reason}. Remove it, or use --on-bad-image skip")


def to_tensor(image: Image.Image) -> Tensor:
    """The pixels of a gray or colour image, uint8 (C, H, W)."""
    pixels = torch.from_numpy(np.array(image))  # a copy: torch wants memory it may write to
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def fit(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """The largest centred part of the wanted shape, resized (bicubic, antialiased).

    Args:
        image: a gray or colour image.
        size: rows and columns that come out.

    Returns:
        uint8 (C, H, W).
    """
    width, height = image.size
    if (height, width) == size:
        return to_tensor(image)
    scale = min(width / size[1], height / size[0])
    # 7 * (29 / 7) is more than 29 in floating point, and PIL refuses a box over the edge
    w, h = min(width, size[1] * scale), min(height, size[0] * scale)
    left, top = (width - w) / 2, (height - h) / 2
    box = (left, top, left + w, top + h)
    return to_tensor(image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=box))


def crop(
    image: Image.Image, box: tuple[int, int, int, int], flip: bool, size: tuple[int, int]
) -> Tensor:
    """One box of an image, cut out and resized, antialiased bicubic.

    The same as `augment.cut`, whose matrices are as large as the image: that suits many small
    images at once, and takes 8 times as long for one of 500x375.

    Args:
        image: a gray or colour image.
        box: top, left, height, width; where it reaches over the edge, the edge is repeated.
        flip: whether the result is mirrored left to right.
        size: rows and columns that come out.

    Returns:
        float32 (1, C, H, W), in 0..255.
    """
    top, bottom, above, below = _within(box[0], box[2], image.height)
    left, right, before, after = _within(box[1], box[3], image.width)
    pixels = to_tensor(image.crop((left, top, right, bottom)))[None].float()
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
