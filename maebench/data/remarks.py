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
    texts = _texts(how, decoded)
    lost = [what for what in texts if counts[what]]
    return tuple(
        Remark(what, counts[what], texts[what].format(f"{counts[what]:,} of {len(each):,} images"))
        for what in lost
    )


def _texts(how: Decoding, decoded: bool) -> dict[str, str]:
    """What is said of each trait, with a place for the count."""
    if how.levels is None:
        deep, ends = "the levels of {} became 0 to 255, in each image by its own range", ""
    else:
        ends = f"{how.levels[0]:g} to {how.levels[1]:g}"
        deep = f"levels {ends} of {{}} became 0 to 255"
    alpha = "transparent pixels of {}" if decoded else "an alpha channel of {}"
    ignored = "was applied; -o data.exif=ignore" if how.exif else "was ignored; -o data.exif=apply"
    texts = {
        "deep": f"{deep}; -o data.levels=BLACK,WHITE says otherwise",
        "outside": f"levels outside of {ends} were cut off in {{}}",
        "upper byte": "of 16 bits a colour in {} the upper 8 were read",
        "alpha": f"{alpha} laid over {how.background}; -o data.background=COLOUR takes another",
        "orientation": f"the EXIF orientation of {{}} {ignored} does otherwise",
        "frames": "the first of several frames was taken of {}",
    }
    if how.channels == 1:
        return texts | {"colour": "colours were lost in {}, for the images looked at are gray"}
    return texts | {"gray": "{} are gray, and were given to all channels"}
