"""Which folders are train and test: by the names people use and by what the folders hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from maebench.data.tree import composed, readable
from maebench.errors import DataError

Role = Literal["train", "val", "test"]
WORDS: dict[str, Role] = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout"), "test"),
}
# Words that say nothing of which data it is: "train_images", "Test Set", "images-val".
FILLERS = tuple(
    "set data dataset images image imgs img pictures photos pics split folder dir files".split()
)
_GLUED = re.compile(
    rf"(?:{'|'.join(FILLERS)})?({'|'.join(sorted(WORDS, key=len, reverse=True))})"
    rf"(?:{'|'.join(FILLERS)})?"
)
# Parts that people rotate through, or search and search in: no classes, and no train and test.
_PARTS = re.compile(r"(?:cv|fold|k[ _-]?fold|part|partition|shard|split|subset)s?[ _.-]*\d+", re.I)
_PAIRS = ({"query", "gallery"}, {"labeled", "unlabeled"}, {"labelled", "unlabelled"})
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # trainSet, PublicTest
_HOLDOUT = re.compile(r"h[eo]ld[\W_]out")  # the one name that is written in two words
_BREAKS = re.compile(r"[\W_\d]+")  # 01_train, train2017, "Training Set"
CLASSES = "classes"  # what `splits` is where no folder is a split
SAY = f"say it: -o dataset.splits=TRAIN,TEST (two folders), or ={CLASSES} where each is a class"
MOST_SEEN = 6  # folders that a message lists


@dataclass(frozen=True)
class Shape:
    """What a folder at the top holds: images of its own, and folders with images in them."""

    flat: bool
    classes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        parts = ["images"] if self.flat else []
        if self.classes:
            parts.append(f"{len(self.classes)} folder{'s' * (len(self.classes) > 1)} of images")
        return " and ".join(parts)


@dataclass(frozen=True)
class Chosen:
    """The folders that are the splits, and those that are left out.

    Args:
        train: name of the folder of train.
        test: name of the folder of test, which may be called val.
        unused: other folders with images.
    """

    train: str
    test: str
    unused: tuple[str, ...] = ()


def role_of(name: str) -> tuple[Role | None, tuple[str, ...]]:
    """The split that a folder's name speaks of, and the words that are no part of that.

    "imagenet_train" is train of ("imagenet",), "Training Set" is train of (), "cats" is None.
    Words count whole: "trains", "contest" and "latest" are no splits.
    """
    roles: set[Role] = set()
    rest = []
    text = _HOLDOUT.sub("holdout", _CAMEL.sub(" ", composed(name)).lower())
    for word in _BREAKS.split(text):
        if match := _GLUED.fullmatch(word):
            roles.add(WORDS[match[1]])
        elif word and word not in FILLERS:
            rest.append(word)
    if not roles or {"train", "test"} <= roles:  # "train_test_split" is neither
        return None, tuple(rest)
    # "train_val" is what was joined to train on; "test_val" is held out
    return next(role for role in ("train", "test", "val") if role in roles), tuple(rest)


def choose(where: str, shapes: Mapping[str, Shape]) -> Chosen | None:
    """Which folders are train and test; None where all of them are classes.

    What decides: names with the same other words (train and val, x_train and x_test), whether
    there are further folders, and whether those of a split hold folders of the same names.

    Args:
        where: the folder that they lie in, for messages.
        shapes: folders with images, by name.

    Raises:
        DataError: names look like splits and nothing decides.
    """
    if is_partition(shapes):
        raise _unclear(where, shapes, "nothing says which part is which")
    found = {name: role_of(name) for name in shapes}
    roles = {name: role for name, (role, _) in found.items() if role}
    if not roles:
        return None
    stems = {name: stem for name, (role, stem) in found.items() if role}
    paired = {
        stem
        for stem in stems.values()
        if {"train"} < {roles[name] for name in roles if stems[name] == stem}
    }
    if len(paired) > 1:
        raise _unclear(where, shapes, "there is more than one pair of them")
    if paired:
        (stem,) = paired
        return _pair(where, shapes, {n: r for n, r in roles.items() if stems[n] == stem}, roles)
    if len(roles) == len(shapes):  # such as train and imagenet_val
        chosen = _pair(where, shapes, roles, roles)
        if not _alike(shapes[chosen.train], shapes[chosen.test]):
            raise _unclear(where, shapes, "their folders have no name in common")
        return chosen
    plain = [name for name in roles if not stems[name]]
    if not plain or only_a_vehicle(shapes):
        return None  # steam_train beside bus, test_tube beside beaker
    raise _unclear(where, shapes, f"{readable(plain[0])}/ looks like a split, others do not")


def is_partition(names: Iterable[str]) -> bool:
    """Whether folders are parts of one data set and no classes: fold_1 and fold_2, query, gallery.

    One other folder among them, and they are classes.
    """
    words = {composed(name).lower() for name in names}
    return len(words) > 1 and (words in _PAIRS or all(_PARTS.fullmatch(word) for word in words))


def only_a_vehicle(shapes: Mapping[str, Shape]) -> bool:
    """Whether train is a class beside others, as in Pascal VOC and COCO, and no split's name.

    It holds images as they do, and none of the others is called as a split.
    """
    plain = [name for name in shapes if role_of(name)[0] and not role_of(name)[1]]
    flat = all(shape.flat and not shape.classes for shape in shapes.values())
    return flat and len(shapes) > 1 and [name.lower() for name in plain] == ["train"]


def _pair(
    where: str, shapes: Mapping[str, Shape], of_pair: Mapping[str, Role], roles: Mapping[str, Role]
) -> Chosen:
    """Train, and test where there is one, else val; further folders are left out if it is clear."""
    trains, tests, vals = (
        [name for name, role in of_pair.items() if role == wanted]
        for wanted in ("train", "test", "val")
    )
    held_out = tests or vals
    if not trains or not held_out:
        raise _unclear(where, shapes, f"there is none of {'test' if trains else 'train'}")
    for some in (trains, held_out):
        if len(some) > 1:
            both = " and ".join(f"{readable(name)}/" for name in some)
            raise _unclear(where, shapes, f"{both} may both be {roles[some[0]]}")
    chosen = Chosen(trains[0], held_out[0], tuple(n for n in shapes if n not in trains + held_out))
    further = [name for name in chosen.unused if name not in of_pair]
    if strange := [name for name in further if name in roles]:
        raise _unclear(where, shapes, f"{readable(strange[0])}/ may be a split too")
    if further and not _alike(shapes[chosen.train], shapes[chosen.test]):
        raise _unclear(where, shapes, f"{readable(further[0])}/ is none")
    return chosen


def _alike(one: Shape, other: Shape) -> bool:
    """Whether two folders hold folders of the same names, as the splits of labelled images do."""
    names = [{composed(name).casefold() for name in shape.classes} for shape in (one, other)]
    return bool(names[0] & names[1])


def _unclear(where: str, shapes: Mapping[str, Shape], why: str) -> DataError:
    return DataError(
        f"{where} has folders that look like train and test but cannot be read so, for {why}: "
        f"{_seen(shapes)}; {SAY}"
    )


def _seen(shapes: Mapping[str, Shape]) -> str:
    first: Iterable[str] = sorted(shapes, key=lambda name: role_of(name)[0] is None)
    listing = [f"{readable(name)}/ ({shapes[name]})" for name in first]
    more = f" and {len(listing) - MOST_SEEN} more" * (len(listing) > MOST_SEEN)
    return ", ".join(listing[:MOST_SEEN]) + more
