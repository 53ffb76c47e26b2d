"""How a folder of images is read: its splits, its classes, and what a reader must know of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maebench.data.divide import Classes, divided
from maebench.data.findings import named, of_classes, of_tree, on_names
from maebench.data.groups import BY_IMAGE, by_default, numbered, read_groups
from maebench.data.label_maps import map_folder, without_image
from maebench.data.sides import find_sides
from maebench.data.split_info import Remark, some_of
from maebench.data.split_names import role_of
from maebench.data.stand_ins import is_archive
from maebench.data.tree import SUFFIXES, Tree, below, composed, readable, walk
from maebench.errors import DataError, unknown


@dataclass(frozen=True)
class Split:
    """The files of a split, their labels and groups, or None for none."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    groups: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Layout:
    """What is train and what is test, the names of the classes, and what is to be said of them.

    `maps` is the folder of label maps, or None.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    remarks: tuple[Remark, ...] = ()
    maps: Path | None = None


def read_layout(
    root: Path, groups: str | None = None, splits: tuple[str, ...] | None = None
) -> Layout:
    """The splits of a folder; their order does not depend on the file system.

    Args:
        root: the folder.
        groups: which images belong together, as `Folder` takes it.
        splits: which folders are train and test, as `Folder` takes it.

    Raises:
        DataError: no such folder, no image, names or labels that do not fit together, or links that
            give a folder two classes or put an image on both sides.
    """
    if not root.is_dir():
        problem = "is a file, no folder" if root.exists() else "does not exist"
        problem += ": unpack it first" if is_archive(root) else ""
        raise DataError(f"folder:{readable(str(root))} {problem}")
    maps = map_folder(root)
    sides = find_sides(root, splits, without=maps)
    starts = [root] if sides.whole else [sides.train, sides.test]
    tree = walk(starts, without=maps)
    in_two = _check_links(tree, root)
    read = [by_class(start, tree, may_be_empty=start != starts[0]) for start in starts]
    _check(starts[0], read[0], starts[-1], read[-1])
    if sides.whole and groups is None and splits is None:
        _check_inner_splits(root, read[0])
    together, said = _grouped(root, starts, read, groups)
    if sides.whole:
        train, test = divided(root, read[0], together)
    else:
        train, test = read
        _check_apart(train, test, together)
    if maps is not None:
        images = [path for part in (train, test) for some in part.values() for path in some]
        alone = on_names(
            *("maps without an image", without_image(maps, root, images)),
            "label map has no image and was left out",
            "label maps have no image and were left out",
        )
        said = [*said, *([alone] if alone else [])]
    labels = None if "" in train else {name: label for label, name in enumerate(train)}
    return Layout(
        _split(train, labels, together),
        _split(test, labels, together),
        tuple(readable(name) for name in labels or ()),
        (*sides.remarks, *of_tree(root, tree), *in_two, *said, *of_classes(tree, train, test)),
        maps,
    )


def by_class(start: Path, tree: Tree, may_be_empty: bool = False) -> Classes:
    """Images by the name of their class folder, or under "" where there is none.

    Folders whose names differ only in how Unicode composes them are one class.

    Args:
        start: the folder with class folders.
        tree: what lies below it.
        may_be_empty: whether a class folder without images is left out, not refused.

    Raises:
        DataError: no image, a class folder without one, or images beside class folders.
    """
    here: list[Path] = []
    found: dict[str, list[Path]] = {}
    for path, parts in below(start, tree.images):
        (here if len(parts) == 1 else found.setdefault(composed(parts[0]), [])).append(path)
    where = readable(str(start))
    if not here and not found:
        others = [path for path in tree.others if start in path.parents and is_archive(path)]
        archives = [named(start, path) for path in others]
        more = f"; {some_of(archives)} may hold them: unpack it first" if archives else ""
        raise DataError(f"{where} holds no image ({' '.join(SUFFIXES)}, or by content){more}")
    if here and found:
        raise DataError(
            f"{where} holds both images ({readable(here[0].name)}) and class folders "
            f"({readable(min(found))}): put each image into a class folder, or choose a folder of "
            "one kind"
        )
    if here:
        return {"": here}
    folders = [path for path in tree.folders if path.parent == start]
    empty = [path for path in folders if composed(path.name) not in found]
    if empty and not may_be_empty:
        where = readable(str(empty[0]))
        raise DataError(f"class folder {where} holds no image: fill it or take it away")
    return {name: found[name] for name in sorted(found)}


def _grouped(
    root: Path, starts: list[Path], read: list[Classes], groups: str | None
) -> tuple[Mapping[Path, str] | None, list[Remark]]:
    """The group of each image, or None where each stands for itself, and what is said of it."""
    if groups == BY_IMAGE:
        return None, []
    if groups is None:
        return by_default(root, read[0]) if len(starts) == 1 else (None, [])
    paths = [path for part in read for some in part.values() for path in some]
    return read_groups(groups, root, starts, paths), []


def _split(
    classes: Classes, labels: Mapping[str, int] | None, together: Mapping[Path, str] | None
) -> Split:
    pairs = [(path, name) for name, paths in classes.items() for path in paths]
    paths = tuple(path for path, _ in pairs)
    groups = None if together is None else tuple(numbered(together, paths))
    found = None if labels is None else tuple(labels[name] for _, name in pairs)
    return Split(paths, found, groups)


# What is refused.


def _check_links(tree: Tree, root: Path) -> list[Remark]:
    """Refuses a class that cannot be reached, and links that give images two places.

    An image that a link puts into a second class stays in its first: that is remarked, for data
    sets that sort by several topics are made so.

    Raises:
        DataError: names the first link and where it leads.
    """
    if lost := [link for link in tree.broken if link.parent in tree.starts]:
        where = readable(str(lost[0]))
        raise DataError(f"the link {where} cannot be followed: mend it or take it away")
    folders = [(*pair, [_owner(path, tree, 0) for path in pair]) for pair in tree.again_folders]
    images = [(*pair, [_owner(path, tree, 1) for path in pair]) for pair in tree.again_images]
    wrong = [found for found in images if found[2][0][0] != found[2][1][0]]
    wrong += [
        (link, place, owners)
        for link, place, owners in folders
        if len({*owners}) > 1 and any(below(place, tree.images))
    ]
    if not wrong:
        two = [
            f"{named(root, link)} is in {first[1]!r} already"
            for link, _, (second, first) in images
            if first != second
        ]
        remark = on_names(
            *("in two classes", two),
            "link puts an image into a second class and was left out",
            "links put images into a second class and were left out",
        )
        return [remark] if remark is not None else []
    link, place, (one, other) = wrong[0]
    if one[0] != other[0]:
        problem = "what is tested on would be trained on"
    else:
        problem = f"its images would be of class {one[1]!r} and of {other[1]!r}"
    more = f" (the first of {len(wrong)} such links)" if len(wrong) > 1 else ""
    raise DataError(
        f"the link {readable(str(link))} leads to {readable(str(place))}{more}, and {problem}: "
        "take one of them away"
    )


def _owner(path: Path, tree: Tree, depth: int) -> tuple[Path | None, str]:
    """The side and the class of a folder (depth 0) or an image (depth 1)."""
    for start in tree.starts:
        for _, parts in below(start, [path]):
            return start, readable(parts[0]) if len(parts) > depth else ""
    return (path if path in tree.starts else None), ""


def _check(train_folder: Path, train: Classes, test_folder: Path, test: Classes) -> None:
    """Refuses labels that do not fit together.

    Raises:
        DataError: one class, a class of test that train has not, or labels in one split only.
    """
    where = readable(str(train_folder))
    if "" not in train and len(train) == 1:
        name = readable(next(iter(train)))
        raise DataError(
            f"{where} has one class folder, {name!r}, and one label tells nothing apart: "
            "give the path of that folder, take its images out of it, or name two folders below "
            "the path by -o dataset.splits=TRAIN,TEST, such as train/images,test/images"
        )
    if ("" in train) != ("" in test):
        pair = where, readable(str(test_folder))
        bare, labelled = pair[:: 1 if "" in train else -1]
        raise DataError(
            f"{labelled} has class folders, {bare} has none: labels are all or none; give "
            f"folder:{labelled} alone, of which a fifth will be test"
        )
    for name in sorted(test.keys() - train.keys()):
        folded = [other for other in train if other.casefold() == name.casefold()]
        text = unknown("class", readable(name), map(readable, folded or train))
        if folded:
            text = f"Did you mean {readable(folded[0])!r}? {text.split(' There is: ')[-1]}"
        raise DataError(
            f"class folder {readable(str(test_folder / name))}: train has no such class; {text}"
        )


def _check_apart(train: Classes, test: Classes, together: Mapping[Path, str] | None) -> None:
    """Refuses a group with images in both splits: test would not be new to whoever saw train.

    Raises:
        DataError: names the first one.
    """
    if together is None:
        return
    found = [{together[path] for some in part.values() for path in some} for part in (train, test)]
    if both := sorted(found[0] & found[1]):
        raise DataError(
            f"dataset.groups: {len(both)} groups have images in train and in test, the first is "
            f"{readable(both[0])!r}: move each to one side"
        )


def _check_inner_splits(root: Path, classes: Classes) -> None:
    """Refuses classes that are divided already, as cat/train and cat/test.

    Raises:
        DataError: names the first one.
    """
    for name, paths in classes.items():
        inner = {parts[1] for _, parts in below(root, paths) if len(parts) > 2}
        plain = {role_of(folder)[0]: folder for folder in sorted(inner) if not role_of(folder)[1]}
        if "train" in plain and plain.keys() & {"val", "test"}:
            found = " and ".join(f"{name}/{folder}" for role, folder in plain.items() if role)
            raise DataError(
                f"{readable(str(root))} has splits inside its classes ({readable(found)}): put the "
                "splits above the classes, as train/CLASS and test/CLASS, or divide all images "
                "anew by -o dataset.splits=classes"
            )
