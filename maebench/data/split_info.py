"""What is known of a split beside its pixels, and the fingerprint that stands for all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from maebench.encoders.inputs import IMAGES, Inputs

if TYPE_CHECKING:
    from maebench.data.label_maps import LabelMaps


@dataclass(frozen=True)
class Remark:
    """What was found in a user's files that a reader of the numbers must know, and how often.

    It is one line on the screen, a count in the run's facts and a note under the table.

    Args:
        what: its key in the facts, such as "alpha".
        count: how many files it is true of.
        text: one sentence with the count in it, without a full stop.
        examples: what it is true of, the first few for the screen alone.
        advice: what to do for something else to happen, for the screen alone.
    """

    what: str
    count: int
    text: str
    advice: str = ""
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        some = f": {some_of(self.examples)}" if self.examples else ""
        return self.text + some + (f"; {self.advice}" if self.advice else "")


MOST_NAMES = 3  # in a line; the others are counted


def some_of(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


@dataclass(frozen=True)
class SplitInfo:
    """What is known of a split beside its pixels.

    Args:
        ids: int64 (N,), each image's number in the whole split, kept by subsets.
        labels: int64 (N,) or None.
        class_names: one name per class, in the order of the labels.
        fingerprint: changes when the content does.
        inputs: what each of them is: of images channels and the size they are brought to.
        skipped: names of images, or of files of another kind, that could not be read.
        groups: int64 (N,), equal for images that belong together, such as those of one patient;
            None where each stands for itself. They change no image and no fingerprint.
        remarks: what was lost or found on the way from files to pixels.
        kept: texts to be kept beside a run, by file name, such as what makes tokens of text.
        maps: the class of each pixel, or None. They change no image and no fingerprint but their
            own.
    """

    ids: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    fingerprint: str
    inputs: Inputs
    skipped: tuple[str, ...] = ()
    groups: Tensor | None = None
    remarks: tuple[Remark, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    maps: LabelMaps | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Of images: rows and columns in pixels."""
        return self.inputs.image_size

    @property
    def channels(self) -> int:
        """Of images: how many."""
        return self.inputs.channels

    def at(self, index: Tensor) -> SplitInfo:
        """The same for a part of the split; the fingerprint covers which part."""
        ids = self.ids[index]
        labels = None if self.labels is None else self.labels[index]
        groups = None if self.groups is None else self.groups[index]
        maps = None if self.maps is None else self.maps.at(index)
        mark = digest(self.fingerprint.encode(), ids.numpy().tobytes())
        return replace(self, ids=ids, labels=labels, fingerprint=mark, groups=groups, maps=maps)


def digest(*parts: bytes | memoryview) -> str:
    """Twenty hex digits that stand for these bytes."""
    mark = hashlib.blake2b(digest_size=10)
    for part in parts:
        mark.update(len(part).to_bytes(8))
        mark.update(part)  # apart: joining would copy gigabytes
    return mark.hexdigest()


def identity(info: SplitInfo) -> tuple[bytes, ...]:
    """What of a split, beside its pixels, changes numbers: shape, ids (they give crops), labels."""
    shape: tuple[object, ...] = (len(info.ids), *info.inputs.shape)
    if info.inputs.kind != IMAGES:
        shape += (info.inputs.kind, info.inputs.vocabulary)
    labels = b"" if info.labels is None else info.labels.numpy().tobytes()
    kept = (text.encode() for _, text in sorted(info.kept.items()))
    return repr(shape).encode(), info.ids.numpy().tobytes(), labels, *kept
