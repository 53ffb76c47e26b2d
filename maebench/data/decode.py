"""How an image file becomes pixels of the channels and the size asked for.

C channels, H W pixels.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from maebench.data.exif import orientation_of, upright
from maebench.data.levels import DEEP, apart, deep_colour, eight_bits, levels_of
from maebench.data.profile import is_other
from maebench.data.reading import Reading
from maebench.data.stand_ins import no_image
from maebench.errors import DataError

# formats that can hold several pictures one after the other; an MPO's second is another size
ANIMATED = ("GIF", "PNG", "TIFF", "WEBP")
JPEGS = ("JPEG", "MPO")
REDUCED = (8, 4, 2)  # of which libjpeg's transform gives one pixel instead of so many a side
# Times the image size that a reduced JPEG keeps at least, as Pillow's thumbnails (reducing_gap): a
# crop of a quarter of the area is then not enlarged.
ROOM = 2


@dataclass(frozen=True)
class Decoding:
    """How the files of a split become pixels.

    Args:
        channels: 1 for gray, 3 for colour.
        levels: black and white of images of more than 8 bits; None where there are none.
        stated: whether the user gave the levels, so that what lies outside is cut off.
        exif: whether images are turned as their EXIF orientation says.
        background: the colour under transparent pixels.
        least: pixels that the shorter side of a JPEG keeps where it is decoded at a reduced size;
            None decodes all at their own.
    """

    channels: int
    levels: tuple[float, float] | None = None
    stated: bool = False
    exif: bool = True
    background: str = "white"
    least: int | None = field(default=None, repr=False)  # see `mark`

    @classmethod
    def of(
        cls,
        reading: Reading,
        channels: int,
        levels: tuple[float, float] | None,
        size: tuple[int, int],
    ) -> Decoding:
        """The settings of a user, and the levels where they are stated or were found.

        Args:
            reading: the settings.
            channels: 1 or 3.
            levels: that were found, or None.
            size: rows and columns that images are brought to, or crops of them.
        """
        stated = reading.levels is not None
        both = (reading.levels[0], reading.levels[1]) if reading.levels else levels
        least = ROOM * max(size) if reading.reduced_jpeg else None
        return cls(channels, both, stated, reading.exif == "apply", reading.background, least)

    @property
    def mark(self) -> str:
        """What stands for it in fingerprints: as it was before `least`, where that is not used."""
        return repr(self) + (f" reduced to {self.least}" if self.least else "")

    def factor(self, format_: str | None, height: int, width: int) -> int:
        """How many pixels a side become one when a file of this format is decoded."""
        if self.least is None or format_ not in JPEGS:
            return 1
        return next((f for f in REDUCED if min(height, width) >= f * self.least), 1)


class FileHeader(NamedTuple):
    """What the first bytes of an image file say, as it is shown: turned, where that is applied.

    `kind` is the format and PIL's mode, which tells channels and bits, as in "PNG I;16".
    """

    height: int
    width: int
    gray: bool
    traits: frozenset[str]
    kind: str


def read_image(path: Path, how: Decoding) -> tuple[Image.Image, frozenset[str]]:
    """A decoded image of one or three channels, whatever the file holds, and what it had besides.

    Gray, 1-bit, palette, CMYK and deeper images are brought there; transparent pixels are laid
    over a background.

    Args:
        path: the file.
        how: what becomes of them.

    Returns:
        The image, and its traits: "gray" or "colour", "alpha" where a pixel was not opaque,
        "orientation" where EXIF turns it, "damaged EXIF" where nobody can tell, "deep" where it had
        more than 8 bits, "upper byte" where only the upper 8 of 16 bits could be read, "outside"
        where levels were cut off, "frames" where it had several, "profile" where its colour profile
        is not sRGB.

    Raises:
        DataError: the file is no image, is cut off, or has levels that nobody explains; names it.
    """
    with _opened(path) as image:
        traits, deep = _traits(image) - {"alpha"}, deep_colour(image)
        orientation = orientation_of(image) if how.exif else 1
        if (factor := how.factor(image.format, image.height, image.width)) > 1:
            image.draft(None, (image.width // factor, image.height // factor))
        image.load()
        made, lost = eight_bits(image, deep, path, how.levels, how.stated)
        made, had_alpha = _without_alpha(made, how.background)
        made = upright(made, orientation)
        traits |= lost | ({"alpha"} if had_alpha else set())
        return made.convert("L" if how.channels == 1 else "RGB"), frozenset(traits)


def read_pixels(path: Path, how: Decoding) -> tuple[Tensor, frozenset[str]]:
    """The pixels of what `read_image` reads, uint8 (C, H, W), and its traits; JPEG quicker.

    Raises:
        DataError: as `read_image` does.
    """
    with _opened(path) as image:
        as_it_is = not how.exif or orientation_of(image) in (1, None)
        plain = image.format == "JPEG" and image.mode == ("L" if how.channels == 1 else "RGB")
        if plain and as_it_is:
            factor = how.factor(image.format, image.height, image.width)
            size = (-(-image.height // factor), -(-image.width // factor))  # rounded up, as libjpeg
            pixels = _jpeg(path, "GRAY" if how.channels == 1 else "RGB", *size)
            if pixels is not None:
                return pixels, frozenset(_traits(image))
    image, traits = read_image(path, how)
    return to_tensor(image), traits


def _jpeg(path: Path, colours: str, height: int, width: int) -> Tensor | None:
    """The pixels of a JPEG by simplejpeg; None where it cannot, so that PIL tries and says why.

    Height and width are its own, or those of a reduced size.

    It takes three quarters of PIL's time, and leaves other threads alone while it works. Both
    decode with libjpeg-turbo and its exact transform, so that nothing depends on whether it is
    installed: of 20,000 files, most of them damaged, it read 3,704, all with PIL's pixels to the
    bit. torchvision's decoder is as quick, but on its way out (0.29).
    """
    decode = _simplejpeg()
    if decode is None:
        return None
    try:
        return torch.from_numpy(
            decode(path.read_bytes(), colours, False, False, height, width)
        ).permute(2, 0, 1)
    except ValueError:
        return None


@functools.cache
def _simplejpeg() -> Callable[..., np.ndarray] | None:
    """The decoder of the extra `fast`; None where it is not installed."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    return decode_jpeg


def read_header(path: Path, exif: bool = True) -> FileHeader:
    """Size and traits of an image from the first bytes of its file; alpha where it has a channel.

    Raises:
        DataError: the file is no image; names it.
    """
    with _opened(path) as image:
        traits = frozenset(_traits(image))
        turned = exif and (orientation_of(image) or 1) >= 5  # by 90 degrees
        rows, columns = (image.width, image.height) if turned else (image.height, image.width)
        return FileHeader(rows, columns, "gray" in traits, traits, f"{image.format} {image.mode}")


def _traits(image: Image.Image) -> set[str]:
    """What a file's header says of it; before it is decoded, for PIL then forgets its bits."""
    deep = deep_colour(image)
    gray = (image.mode[0] in "1LIF" and image.mode != "LAB") or deep.startswith("LA")
    found = {"gray" if gray else "colour"}  # gray: 1, L, LA, I, I;16, F
    if image.has_transparency_data:
        found.add("alpha")
    orientation = orientation_of(image)
    if orientation != 1:
        found.add("damaged EXIF" if orientation is None else "orientation")
    if is_other(image.info.get("icc_profile")):
        found.add("profile")
    if image.mode.startswith(DEEP) or deep:
        found.add("deep")
    if image.format in ANIMATED and getattr(image, "is_animated", False):
        found.add("frames")
    return found


# ---- transparent pixels


def _without_alpha(image: Image.Image, background: str) -> tuple[Image.Image, bool]:
    """The image over a background, and whether any pixel was not opaque."""
    if not image.has_transparency_data:
        return image, False
    gray = image.mode in ("L", "LA", "La", "1")
    whole = image.convert("RGBA")
    if whole.getchannel("A").getextrema()[0] == 255:
        return whole.convert("L" if gray else "RGB"), False
    under = Image.new("RGBA", image.size, background)
    under.alpha_composite(whole)
    return under.convert("RGB"), True


def deepest(path: Path) -> np.ndarray | None:
    """Lowest and highest level of an image of more than 8 bits; None where it has 8.

    Raises:
        DataError: the file cannot be read; names it.
    """
    with _opened(path) as image:
        deep = deep_colour(image)
        if deep or image.mode.startswith(DEEP):
            image.load()
        levels = levels_of(image, deep, path)
        if levels is None:
            return None
        colours, _ = apart(levels)
        return np.asarray([colours.min(), colours.max()])


# ---- files


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
    if isinstance(error, UnidentifiedImageError):
        reason = no_image(path) or reason
    reason = " ".join(reason.replace(str(path), path.name).split()) or type(error).__name__
    return DataError(f"cannot read image {path}: {reason}. Remove it, or use --on-bad-image skip")


def to_tensor(image: Image.Image) -> Tensor:
    """The pixels of a gray or colour image, uint8 (C, H, W)."""
    pixels = torch.from_numpy(np.array(image))  # a copy: torch wants memory it may write to
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def to_image(pixels: Tensor) -> Image.Image:
    """A gray or colour image from its pixels, uint8 (C, H, W)."""
    return Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy())


def fit(
    image: Image.Image,
    size: tuple[int, int],
    how: Image.Resampling = Image.Resampling.BICUBIC,
) -> Tensor:
    """The largest centred part of the wanted shape, resized (antialiased).

    Args:
        image: a gray or colour image.
        size: rows and columns that come out.
        how: bicubic, or by the nearest pixel where numbers are classes.

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
    return to_tensor(image.resize((size[1], size[0]), how, box=box))
