"""What black and white are in images of more than 8 bits, which become 8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# What more than 8 bits are taken for: white of 8, 10, 12, 14 and 16 bits, as cameras, microscopes
# and scanners have them.
WHITES = (255, 1023, 4095, 16383, 65535)
DEEP = ("I", "F")  # modes of PIL with more than 8 bits
# PIL's names of 16 bits a colour, and under which it reads the other byte of each.
OTHER_BYTE = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
}
# Of 12 bits in 16, the upper byte ends at 15: such colours would be nearly black.
UPPER_BYTE = 15


def deep_colour(image: Image.Image) -> str:
    """PIL's name of 16 bits a colour, of which it reads the upper 8; empty where there are 8."""
    tiles: Any = getattr(image, "tile", None)  # those of an image file that is not decoded yet
    arguments = tiles[0][3] if tiles else None
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    deep = isinstance(raw, str) and raw.startswith(("RGB", "LA")) and ";16" in raw
    return str(raw) if deep else ""


def eight_bits(
    image: Image.Image,
    deep: str,
    path: Path,
    levels: tuple[float, float] | None,
    stated: bool,
) -> tuple[Image.Image, set[str]]:
    """An image of more than 8 bits as 8, black to white; others as they are.

    Args:
        image: the decoded image.
        deep: what `deep_colour` said of it before.
        path: its file.
        levels: black and white; None: 0 and the white of this image alone.
        stated: whether a user gave them, so that what lies outside is cut off.

    Returns:
        The image; "upper byte" where only the upper 8 of its 16 bits were read, "outside" where
        levels lay outside of black and white.

    Raises:
        ValueError: levels beyond white, or colour that cannot be read in full.
    """
    if deep and deep not in OTHER_BYTE:
        highest = max(high for _, high in image.getextrema()[:3])  # type: ignore[misc]  # no alpha
        if 0 < highest <= UPPER_BYTE:
            raise ValueError("it has 12 bits or fewer in 16, of which the upper 8 are read")
        return image, {"upper byte"}
    found = levels_of(image, deep, path)
    if found is None:
        return image, set()
    colours, alpha = apart(found)
    black, white = levels or (0.0, white_of(colours))
    if not stated:
        _check_within(colours, white)
    made = Image.fromarray(scaled(colours, black, white))
    if alpha is not None:
        made.putalpha(Image.fromarray(scaled(alpha, 0, WHITES[-1])))
    outside = bool((colours < black).any() or (colours > white).any())
    return made, {"outside"} if outside else set()


def levels_of(image: Image.Image, deep: str, path: Path) -> np.ndarray | None:
    """The levels of a deep image, (H, W) or (H, W, C); None where it has 8 bits, or is read so."""
    if deep in OTHER_BYTE:
        with Image.open(path) as lower:  # PIL reads one of two bytes: it is asked for each of them
            tiles: Any = lower
            tiles.tile = [_with_raw_mode(tile, OTHER_BYTE[deep]) for tile in tiles.tile]
            lower.load()
            return np.asarray(image).astype("uint16") << 8 | np.asarray(lower)
    return np.asarray(image) if image.mode.startswith(DEEP) else None


def _with_raw_mode(tile: Any, raw: str) -> Any:
    arguments = raw if isinstance(tile.args, str) else (raw, *tile.args[1:])
    return tile._replace(args=arguments)


def apart(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Gray (H, W) or colours (H, W, 3), and alpha (H, W) where there is some."""
    if levels.ndim == 2 or levels.shape[2] not in (2, 4):
        return levels, None
    colours = levels[..., :-1]
    return colours[..., 0] if colours.shape[2] == 1 else colours, levels[..., -1]


def white_of(levels: np.ndarray) -> float:
    """What white is taken to be, from levels seen: of the fewest bits that hold them.

    Fractions from 0 to 1 end at 1.

    Raises:
        ValueError: levels below 0, above 16 bits, or none that are numbers.
    """
    low, high = levels.min(), levels.max()
    if not np.isfinite([low, high]).all() or low < 0 or high > WHITES[-1]:
        raise ValueError(
            f"gray levels from {low:g} to {high:g}, wanted 0 to {WHITES[-1]}: "
            "say which are black and white with -o data.levels=BLACK,WHITE"
        )
    if levels.dtype.kind == "f" and high <= 1:
        return 1.0
    return float(next(white for white in WHITES if high <= white))


def _check_within(levels: np.ndarray, white: float) -> None:
    """Refuses levels above the white that other images of the set led to, or below black.

    Raises:
        ValueError: names both.
    """
    if white_of(levels) > white:
        raise ValueError(
            f"gray levels to {levels.max():g}, but of the images looked at none is above "
            f"{white:g}: say which are black and white with -o data.levels=BLACK,WHITE"
        )


def scaled(levels: np.ndarray, black: float, white: float) -> np.ndarray:
    """Levels from black to white as 0 to 255, uint8, what is outside cut off.

    Source: 16 bits become 8 by dividing by 257, for 65535 is 257 * 255.
    """
    share = (levels.astype("float64") - black) / (white - black)
    return np.floor(np.nan_to_num(share).clip(0, 1) * 255 + 0.5).astype("uint8")
