"""Which folders of a tree are its train and test, and what is left out for that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maebench.data.findings import on_names
from maebench.data.split_info import Remark, some_of
from maebench.data.split_names import (
    CLASSES,
    Chosen,
    Shape,
    choose,
    is_partition,
    only_a_vehicle,
    role_of,
)
from maebench.data.tree import (
    holds,
    holds_image,
    is_image,
    is_system,
    kind_of,
    leads_back,
    listed,
    readable,
    walk,
)
from maebench.errors import DataError, unknown


@dataclass(frozen=True)
class Sides:
    """Where train and test lie: in two folders, or in one that is still to be divided.

    Args:
        train: the folder of train.
        test: the folder of test; the same where the whole is to be divided.
        remarks: what was left out.
    """

    train: Path
    test: Path
    remarks: tuple[Remark, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether a part of the one folder is to become test."""
        return self.train == self.test


def find_sides(
    root: Path, splits: tuple[str, ...] | None = None, without: Path | None = None
) -> Sides:
    """The folders of train and test as the user names them, or by their own names.

    Args:
        root: the folder.
        splits: ("classes",) where no folder is a split, (train, test) below `root`, or None.
        without: a folder below `root` that holds no images of a split, such as label maps.

    Raises:
        DataError: a named folder does not exist, or names look like splits and nothing decides.
    """
    if splits == (CLASSES,):
        return Sides(root, root)
    if splits is not None:
        return _named(root, splits)
    folders = [name for name in _folders(root) if root / name != without]
    if not any(role_of(name)[0] for name in folders) and not is_partition(folders):
        return Sides(root, root)
    shapes = {name: _shape(root / name) for name in folders}
    filled = {name: shape for name, shape in shapes.items() if shape.flat or shape.classes}
    chosen = choose(readable(str(root)), filled)
    if chosen is not None:
        empty = [name for name in shapes if name not in filled]
        remarks = _unused(root, chosen, empty)
        return Sides(root / chosen.train, root / chosen.test, tuple(remarks))
    said = "train/ is taken as a class, for it holds images as the others do; -o dataset.splits"
    remark = Remark("class named train", 1, f"{said} says it otherwise")
    return Sides(root, root, (remark,) if only_a_vehicle(filled) else ())


def _named(root: Path, splits: Sequence[str]) -> Sides:
    train, test = (root / name for name in splits)
    for name, folder in zip(splits, (train, test), strict=True):
        if not folder.is_dir():
            where = readable(str(root))
            raise DataError(f"dataset.splits: {unknown('folder', name, _folders(root), where)}")
    real = [os.path.realpath(folder) for folder in (train, test)]
    if holds(*real) or holds(*reversed(real)):
        raise DataError(
            f"dataset.splits: {splits[0]} and {splits[1]} are one folder, or one lies in the other"
        )
    return Sides(train, test)


def _folders(root: Path) -> list[str]:
    return [e.name for e in listed(root) if not is_system(e.name) and kind_of(e) == "folder"]


def _shape(folder: Path) -> Shape:
    """What a folder holds, without looking further than the first image of each folder in it."""
    if folder.is_symlink() and leads_back(folder):
        return Shape(False)
    entries = [(e.name, kind_of(e)) for e in listed(folder) if not is_system(e.name)]
    return Shape(
        any(kind == "file" and is_image(folder / name) for name, kind in entries),
        frozenset(
            name for name, kind in entries if kind == "folder" and holds_image(folder / name)
        ),
    )


def _unused(root: Path, chosen: Chosen, empty: Sequence[str]) -> list[Remark]:
    """What is said of folders and images beside train and test."""
    test = readable(chosen.test)
    splits = [name for name in chosen.unused if role_of(name)[0]]
    others = [name for name in chosen.unused if name not in splits]
    remarks = []
    for what, some, why in (
        ("unused split", splits, f"{test}/ is the test split"),
        ("unused folder", others, "it is no split" if len(others) == 1 else "they are no splits"),
    ):
        if some:
            count = sum(len(walk([root / name]).images) for name in some)
            where = some_of([f"{readable(name)}/" for name in some])
            images = "image" if count == 1 else "images"
            are = "is" if count == 1 else "are"
            text = f"{count:,} {images} in {where} {are} not used: {why}"
            remarks.append(Remark(what, count, text))
    stray = [
        e.name
        for e in listed(root)
        if not is_system(e.name) and kind_of(e) == "file" and is_image(root / e.name)
    ]
    beside = f"beside {readable(chosen.train)}/ and {test}/"
    found = [
        on_names(
            "empty split",
            [readable(name) for name in empty if role_of(name)[0] == "test"],
            f"folder of a split holds no image, and {test}/ is the test split",
            f"folders of splits hold no image, and {test}/ is the test split",
        ),
        on_names(
            "unused images",
            [readable(name) for name in stray],
            f"image {beside} is not used",
            f"images {beside} are not used",
        ),
    ]
    return [*remarks, *(remark for remark in found if remark is not None)]
