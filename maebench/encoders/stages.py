"""What encoders in stages have in common: each merges 2x2 cells of the one before."""

from __future__ import annotations

from collections.abc import Sequence

from maebench.errors import ConfigError


def first_patch(image_size: tuple[int, int]) -> int:
    """The default side in pixels of a patch of the first stage; 4 is that of the papers."""
    return 2 if max(image_size) <= 32 else 4


def merged_patch(
    image_size: tuple[int, int], patch: tuple[int, int], depths: Sequence[int], masked: bool = False
) -> tuple[int, int]:
    """Rows and columns in pixels of a cell of the last stage.

    Args:
        image_size: rows and columns in pixels.
        patch: those of a cell of the first stage.
        depths: one number for each stage.
        masked: whether masks are drawn on the cells of the last stage, which then must be two.

    Raises:
        ConfigError: it does not divide the image, or leaves too few cells; says what would do.
    """
    merged = 2 ** (len(depths) - 1)
    if masked and image_size == (patch[0] * merged, patch[1] * merged):
        raise ConfigError(
            f"encoder.patch: patches of {patch[0]}x{patch[1]} merged by {merged}x{merged} over "
            f"encoder.depths={tuple(depths)} leave one cell of images of "
            f"{image_size[0]}x{image_size[1]}, and masks need two; "
            f"{_what_fits(image_size, patch, merged, masked)}"
        )
    if any(side % (p * merged) for side, p in zip(image_size, patch, strict=True)):
        raise ConfigError(
            f"encoder.patch: patches of {patch[0]}x{patch[1]} merged by {merged}x{merged} over "
            f"encoder.depths={tuple(depths)} do not divide images of "
            f"{image_size[0]}x{image_size[1]}; {_what_fits(image_size, patch, merged, masked)}"
        )
    return patch[0] * merged, patch[1] * merged


def _what_fits(
    image_size: tuple[int, int], patch: tuple[int, int], merged: int, masked: bool
) -> str:
    """Patches that would do with this image, or else the nearest image sizes."""
    sides = range(1, min(image_size) // merged + 1)
    fits = [
        str(s)
        for s in sides
        if not any(side % (s * merged) for side in image_size)
        and not (masked and image_size == (s * merged, s * merged))
    ]
    if fits:
        return f"square patches that do: {', '.join(fits)}"
    rows, columns = (
        max(1 + masked, round(side / (p * merged))) * p * merged
        for side, p in zip(image_size, patch, strict=True)
    )
    return f"give fewer stages, or images of {rows}x{columns}"
