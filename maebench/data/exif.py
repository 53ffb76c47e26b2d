"""How an image is to be turned: by the orientation in its EXIF data, which may be damaged."""

from __future__ import annotations

import struct

from PIL import ExifTags, Image

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
HEAD = b"Exif\0\0"
ORDERS = {b"II*\0": "<", b"MM\0*": ">"}  # how a TIFF begins, which EXIF data is
WHOLE = {1: "B", 3: "H", 4: "I"}  # TIFF's types of whole numbers; 3 is right, others are met


def orientation_of(image: Image.Image) -> int | None:
    """1 to 8 as EXIF numbers them, 1 where it says nothing; None where nobody can tell.

    Read here, for PIL gives up, or loses this number, where another of a camera's is damaged. It
    turns a TIFF itself.
    """
    data = image.info.get("exif")
    if not data or image.format == "TIFF":
        return 1
    while data.startswith(HEAD):
        data = data[len(HEAD) :]
    try:
        return _in_tiff(data, ORDERS[data[:4]])
    except (KeyError, struct.error):
        return None


def _in_tiff(data: bytes, order: str) -> int:
    """The orientation in the first directory: entries of 12 bytes, of tag, type, count, value."""
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, place)
        if tag == ExifTags.Base.Orientation:
            (value,) = struct.unpack_from(order + WHOLE[kind], data, place + 8)
            return int(value) if 1 <= value <= 8 else 1
    return 1


def upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """The image as it is to be looked at."""
    turn = TURNS.get(orientation or 1)
    return image if turn is None else image.transpose(turn)
