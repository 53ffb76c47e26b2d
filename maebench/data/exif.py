"""How an image is to be turned: by the orientation in its EXIF data, which may be damaged."""

from __future__ import annotations

import struct

from PIL import ExifTags, Image

ORIENTATION = ExifTags.Base.Orientation
# What makes the picture upright again, by the numbers of the EXIF standard (CIPA DC-008, 0112).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What PIL raises on damaged EXIF data, over 20,000 kinds of damage.
DAMAGED = (SyntaxError, struct.error, TypeError, ValueError, LookupError, OSError, ArithmeticError)


def orientation_of(image: Image.Image) -> int | None:
    """1 to 8 as EXIF numbers them, 1 where it says nothing; None where the data is damaged.

    PIL itself turns a TIFF. The data is read anew, for PIL remembers damaged data as empty.
    """
    data = image.info.get("exif")
    if not data or image.format == "TIFF":
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        value = exif.get(ORIENTATION, 1)
    except DAMAGED:
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """The image as it is to be looked at."""
    turn = TURNS.get(orientation or 1)
    return image if turn is None else image.transpose(turn)
