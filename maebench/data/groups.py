"""Which images belong together, such as those of one patient: by a CSV or by folders."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from maebench.errors import DataError, unknown

BY_FOLDER = "folder"  # the folder below the class


def read_groups(
    how: str, root: Path, paths: Sequence[Path], has_splits: bool = False
) -> dict[Path, str]:
    """The group of each image.

    Args:
        how: "folder" for the folder below the class's, or the path of a CSV of image and group.
        root: the folder that images are named from.
        paths: the images.
        has_splits: whether the first folder is a split's, not a class's.

    Raises:
        DataError: no such file, a line that is none, an image without a group or in two of them.
    """
    names = {path: path.relative_to(root).as_posix() for path in paths}
    if how == BY_FOLDER:
        return {path: _folder(root, path, has_splits) for path in paths}
    table = read_csv(Path(how), list(names.values()))
    for path in paths:
        if names[path] not in table:
            raise DataError(
                f"dataset.groups: {how} has no line for {names[path]} "
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
        with file.open(newline="", encoding="utf-8-sig") as opened:
            lines = [line for line in csv.reader(opened) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"dataset.groups: cannot read {file}: {why}") from error
    known, found = set(names), dict[str, str]()
    for number, line in enumerate(lines, 1):
        if len(line) < 2:
            raise DataError(f"dataset.groups: {file}, line {number}: write image,group")
        name = PurePosixPath(line[0].strip()).as_posix()
        if name not in known:
            if number == 1:
                continue
            problem = unknown("image", name, names[:1000])
            raise DataError(f"dataset.groups: {file}, line {number}: {problem.split(' There ')[0]}")
        group = line[1].strip()
        if not group:  # else all images without one would be one group
            raise DataError(f"dataset.groups: {file}, line {number}: {name} has an empty group")
        if found.setdefault(name, group) != group:
            raise DataError(
                f"dataset.groups: {file}, line {number}: {name} is in groups {found[name]!r} and "
                f"{group!r}"
            )
    return found


def _folder(root: Path, path: Path, has_splits: bool) -> str:
    """The folder below the class's, such as b in train/cat/b/1.png; classes share no group."""
    inner = path.relative_to(root).parts[int(has_splits) : -1]
    if len(inner) < 2:
        raise DataError(
            f"dataset.groups=folder: {path.relative_to(root).as_posix()} lies in no folder below "
            "its class: put it into one, or name groups in a CSV"
        )
    return "/".join(inner[:2])


def numbered(groups: Mapping[Path, str], paths: Sequence[Path]) -> list[int]:
    """A number for the group of each image, the same in every split."""
    number = {name: i for i, name in enumerate(sorted(set(groups.values())))}
    return [number[groups[path]] for path in paths]
