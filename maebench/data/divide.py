"""Which fifth of a folder's images is test, where the folder does not say so itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from maebench.data.tree import readable
from maebench.errors import DataError
from maebench.rng import permutation

T = TypeVar("T")
TEST_SHARE = 5  # one image in five of a class is test
SPLIT_SEED = 0  # of that choice: never the run's, for all runs report on the same images
Classes = Mapping[str, Sequence[Path]]  # class -> its images; "" where there are no classes


def divided(
    root: Path, classes: Classes, together: Mapping[Path, str] | None = None
) -> tuple[Classes, Classes]:
    """Train and test: a fifth of each class is test, and one at least where there are two.

    With groups it is a fifth of the groups that lie in one class, for each class, and a fifth of
    those that have images of several.

    Raises:
        DataError: no class has two images or groups, or all groups of a class fell into test.
    """
    train, test = {}, {}
    chosen = set() if together is None else _groups_of_test(classes, together)
    for name, paths in classes.items():
        if together is None:
            held = _fifth(paths, name)
        else:
            held = {path for path in paths if together[path] in chosen}
        train[name] = [path for path in paths if path not in held]
        test[name] = [path for path in paths if path in held]
    if not any(test.values()):
        kind = "one image of a kind" if together is None else "one group of a kind"
        raise DataError(f"{readable(str(root))} has {kind}: two are needed for train and test")
    # the groups of a class may all have images of others too, and be test
    if gone := [name for name in train if name and not train[name]]:
        raise DataError(
            f"dataset.groups: by {readable(str(root))}'s groups no image of class "
            f"{readable(gone[0])!r} is left for train: divide the images yourself, into folders "
            "train/ and test/"
        )
    return train, test


def _groups_of_test(classes: Classes, together: Mapping[Path, str]) -> set[str]:
    """A fifth of each class's own groups, and of those that have images of several classes."""
    classes_of: dict[str, set[str]] = {}
    for name, paths in classes.items():
        for path in paths:
            classes_of.setdefault(together[path], set()).add(name)
    alike: dict[str, list[str]] = {}  # a class and its own groups; "" and those of several
    for group in sorted(classes_of):
        names = classes_of[group]
        alike.setdefault(next(iter(names)) if len(names) == 1 else "", []).append(group)
    return {
        group
        for name, some in alike.items()
        for group in _fifth(some, f"groups/{name}" if name else "groups")
    }


def _fifth(items: Sequence[T], name: str) -> set[T]:
    """A fifth of some images or groups, chosen once and for all."""
    order = permutation(len(items), SPLIT_SEED, f"folder split/{readable(name)}").tolist()
    count = max(1, round(len(items) / TEST_SHARE)) if len(items) > 1 else 0
    return {items[i] for i in order[:count]}
