"""Which images belong together, such as those of one patient: by a CSV or by folders."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from maebench.data.split_info import Remark
from maebench.data.tree import below, composed, readable
from maebench.errors import DataError, unknown

BY_FOLDER = "folder"  # the folder below the class
BY_IMAGE = "image"  # each image stands for itself


def read_groups(
    how: str, root: Path, starts: Sequence[Path], paths: Sequence[Path]
) -> dict[Path, str]:
    """The group of each image.

    Args:
        how: "folder" for the folder below the class's, or the path of a CSV of image and group.
        root: the folder that images are named from.
        starts: the folders that class folders lie in: those of the splits, or the root.
        paths: the images.

    Raises:
        DataError: no such file, a line that is none, an image without a group or in two of them.
    """
    if how == BY_FOLDER:
        return {path: _folder(root, starts, path) for path in paths}
    names = {path: composed(path.relative_to(root).as_posix()) for path in paths}
    table = read_csv(Path(how), list(names.values()))
    for path in paths:
        if names[path] not in table:
            raise DataError(
                f"dataset.groups: {how} has no line for {readable(names[path])} "
                f"(it has {len(table)}, there are {len(paths)} images)"
            )
    return {path: table[names[path]] for path in paths}


def read_csv(file: Path, names: Sequence[str]) -> dict[str, str]:
    """Image and group of each line; a first line that names no image is a heading.

    Raises:
        DataError: it cannot be read, a line has not two fields or names no group, an image is
            unknown or twice.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
            lines = [line for line in csv.reader(opened) if line]
    except (OSError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"dataset.groups: cannot read {file}: {why}") from error
    known, found = set(names), dict[str, str]()
    for number, line in enumerate(lines, 1):
        if len(line) < 2:
            raise DataError(f"dataset.groups: {file}, line {number}: write image,group")
        name = composed(PurePosixPath(line[0].strip()).as_posix())
        if name not in known:
            if number == 1:
                continue
            problem = unknown("image", readable(name), map(readable, names[:1000]))
            raise DataError(f"dataset.groups: {file}, line {number}: {problem.split(' There ')[0]}")
        group = line[1].strip()
        if not group:  # else all images without one would be one group
            raise DataError(
                f"dataset.groups: {file}, line {number}: {readable(name)} has an empty group"
            )
        if found.setdefault(name, group) != group:
            raise DataError(
                f"dataset.groups: {file}, line {number}: {readable(name)} is in groups "
                f"{found[name]!r} and {group!r}"
            )
    return found


def _folder(root: Path, starts: Sequence[Path], path: Path) -> str:
    """The folder below the class's, such as b in train/cat/b/1.png; classes share no group."""
    inner = next(parts for start in starts for _, parts in below(start, [path]))[:-1]
    if len(inner) < 2:
        raise DataError(
            f"dataset.groups=folder: {readable(path.relative_to(root).as_posix())} lies in no "
            "folder below its class: put it into one, or name groups in a CSV"
        )
    return composed("/".join(inner[:2]))


def by_default(
    root: Path, classes: Mapping[str, Sequence[Path]]
) -> tuple[dict[Path, str] | None, list[Remark]]:
    """Images in the same folder below their class belong together; others stand for themselves.

    None where there are no such folders, or one in each class, which cannot be divided.

    Args:
        root: the folder with class folders.
        classes: class and its images.
    """
    if "" in classes:
        return None, []
    found: dict[Path, str] = {}
    folders: set[str] = set()
    for paths in classes.values():
        for path, parts in below(root, paths):
            found[path] = composed("/".join(parts[:2]))
            if len(parts) > 2:
                folders.add(found[path])
    if not folders:
        return None, []
    count = f"{len(folders):,} folder{'s' * (len(folders) > 1)} below their class"
    if all(len({found[path] for path in paths}) == 1 for paths in classes.values()):
        text = f"{count}, one in each class: their images are divided one by one"
        return None, [Remark("folders divided", len(folders), text)]
    text = (
        f"{count}: the images of each stay together in train or in test, and intervals take them "
        "whole"
    )
    return found, [Remark("groups", len(folders), text, "-o dataset.groups=image divides them")]


def numbered(groups: Mapping[Path, str], paths: Sequence[Path]) -> list[int]:
    """A number for the group of each image, the same in every split."""
    number = {name: i for i, name in enumerate(sorted(set(groups.values())))}
    return [number[groups[path]] for path in paths]
