"""Whether an image's numbers are the colours that are seen, or its ICC profile says others."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# By the profile's own name of its colours, PIL's.
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
# Levels of 255, on average over evenly spread colours. Writing sRGB as a gamma of 2.2 changes 1;
# Adobe RGB and Display P3 change 10 each.
TOLERANCE = 3.0
STEPS = range(0, 256, 51)  # of each channel: 216 colours


def is_other(profile: bytes | None) -> bool:
    """Whether a profile makes other colours of the numbers than a reader who ignores it."""
    return bool(profile) and _differs(bytes(profile or b""))


@lru_cache(maxsize=64)  # the images of one camera or program have one
def _differs(profile: bytes) -> bool:
    try:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = MODES.get(found.profile.xcolor_space.strip(), "")
        if not mode:
            return False
        colours = _colours(mode)
        seen = ImageCms.profileToProfile(
            colours, found, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, ImportError):
        return False  # damaged, or PIL was built without the library: nobody could apply it
    assert seen is not None
    as_read = np.asarray(colours.convert("RGB"), dtype=float)
    return bool(np.abs(np.asarray(seen, dtype=float) - as_read).mean() > TOLERANCE)


def _colours(mode: str) -> Image.Image:
    values = np.stack(np.meshgrid(*[np.array(STEPS, np.uint8)] * 3), -1)
    return Image.fromarray(values.reshape(1, -1, 3)).convert(mode)
