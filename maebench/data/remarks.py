"""What was lost or changed on the way from files to pixels, in sentences with their counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from maebench.data.decode import Decoding
from maebench.data.split_info import Remark


def remarks_of(
    traits: Iterable[frozenset[str]], how: Decoding, decoded: bool = True
) -> tuple[Remark, ...]:
    """What became of the images of a split.

    Args:
        traits: of each image, as `read_image` and `read_header` give them.
        how: what was done with them.
        decoded: whether the images were decoded; else only their headers were read, which say that
            there is alpha and not whether it is used.
    """
    each = list(traits)
    counts = Counter(trait for some in each for trait in some)
    return tuple(
        Remark(what, n, text.format(f"{n:,} of {len(each):,} images"), advice)
        for what, (text, advice) in _texts(how, decoded).items()
        if (n := counts[what])
    )


def _texts(how: Decoding, decoded: bool) -> dict[str, tuple[str, str]]:
    """What is said of each trait, with a place for the count, and what does otherwise."""
    if how.levels is None:
        deep, ends = "the levels of {} became 0 to 255, in each image by its own range", ""
    else:
        ends = f"{how.levels[0]:g} to {how.levels[1]:g}"
        deep = f"levels {ends} of {{}} became 0 to 255"
    alpha = "transparent pixels of {}" if decoded else "the alpha channel of {}"
    exif = ("applied", "ignore") if how.exif else ("ignored", "apply")
    texts = {
        "deep": (deep, "-o data.levels=BLACK,WHITE says otherwise"),
        "outside": (f"levels outside of {ends} were cut off in {{}}", ""),
        "upper byte": ("of 16 bits a colour in {} the upper 8 were read", ""),
        "alpha": (
            f"{alpha} laid over {how.background}",
            "-o data.background=COLOUR takes another colour",
        ),
        "orientation": (
            f"the EXIF orientation of {{}} was {exif[0]}",
            f"-o data.exif={exif[1]} does otherwise",
        ),
        "damaged EXIF": ("the EXIF data of {} is damaged, and no orientation was read", ""),
        "profile": ("the colour profile of {} is not sRGB and was not applied", ""),
        "frames": ("the first of several frames was taken of {}", ""),
    }
    if how.channels == 1:
        lost = "colours were lost in {}, for the images looked at are gray"
        return texts | {"colour": (lost, "")}
    return texts | {"gray": ("{} are gray, and were given to all channels", "")}
