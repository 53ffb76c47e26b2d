"""What a folder of images holds: which are train and test, their labels, what suits them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field, field_validator, model_validator

from maebench.data.dataset import Dataset, Request, preset_for
from maebench.data.decode import read_header
from maebench.data.groups import BY_FOLDER, numbered, read_groups
from maebench.data.images import Images, from_files
from maebench.encoders.vit import default_patch
from maebench.errors import DataError
from maebench.files import with_home
from maebench.rng import permutation

T = TypeVar("T")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
HEADERS = 64  # images whose header is read: a median of so many is near enough for a size
LARGEST = 224  # what papers train photographs at; larger images are made smaller
TEST_SHARE = 5  # one image in five of a class is test
SPLIT_SEED = 0  # of that choice: never the run's, for all runs report on the same images
Classes = Mapping[str, list[Path]]  # class -> its images; "" where there are no classes


class Folder(Dataset):
    """Your own images: a folder with train/ and test/, class folders, or images alone.

    `folder:PATH` reads one of three layouts; folders in train/ or PATH are the classes.

    - train/ and test/ (or val/), each with class folders, or each with images alone. Where there
      are both, test/ is the test split and val/ is not used.
    - class folders: a fifth of each class, chosen once and for all, is the test split.
    - images alone, without labels: a fifth of them is the test split.

    Hidden files and files of other kinds are ignored; the images of a class may lie in folders
    below its own. Images that belong together, such as several of one patient, are named by
    `groups`: they are never divided between train and test; intervals and tests take them whole.
    """

    name: ClassVar[str] = "folder"
    any_size: ClassVar[bool] = True
    spec: ClassVar[str | None] = "path"
    path: Path = Field(
        description="folder with train/ and test/ (or val/), with class folders, or of images"
    )
    groups: str | None = Field(
        default=None,
        description="which images belong together: folder, the one below the class's, or a CSV of "
        "image and group; none: each stands for itself",
    )

    @model_validator(mode="before")
    @classmethod
    def _has_path(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("path", "") == "":
            raise ValueError("give the path after a colon, as in folder:PATH")
        return value

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        """A run may be evaluated from another working directory."""
        return with_home(value).absolute()

    @field_validator("groups")
    @classmethod
    def _whole_path(cls, value: str | None) -> str | None:
        return value if value in (None, BY_FOLDER) else str(with_home(value).absolute())

    def identity(self) -> dict[str, Any]:
        """Groups change which image is in which split, for which the fingerprint stands."""
        return {k: v for k, v in super().identity().items() if k != "groups"}

    def load(self, request: Request) -> Images:
        """One split; gray where the images looked at are all gray, else in colour."""
        layout = read_layout(self.path, self.groups)
        header = typical_header(layout)
        split = layout.train if request.split == "train" else layout.test
        return from_files(
            split.paths,
            split.labels,
            layout.class_names,
            self.path,
            request.image_size or (header.side, header.side),
            header.channels,
            request.on_bad_image,
            request.memory_limit,
            request.progress,
            split.groups,
        )

    def preset(self) -> dict[str, Any]:
        """By the size of up to 64 images and the number of them."""
        layout = read_layout(self.path, self.groups)
        header = typical_header(layout)
        return preset_for((header.side, header.side), len(layout.train.paths))

    def notes(self) -> list[str]:
        """What the preset chose."""
        layout = read_layout(self.path, self.groups)
        header = typical_header(layout)
        size = (header.side, header.side)
        chosen = preset_for(size, len(layout.train.paths))
        count = len(layout.train.paths) + len(layout.test.paths)
        patch = default_patch(size)
        unused = "; val/ is not used" if layout.unused_val else ""
        return [
            f"folder: {count:,} images of about {header.height}x{header.width}: "
            f"image size {header.side}, {chosen['encoder']}, patch {patch}, "
            f"{chosen['budget']}, batch {chosen['batch']} where no flag says otherwise{unused}"
        ]


@dataclass(frozen=True)
class Split:
    """The files of a split, their labels and groups, or None for none."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    groups: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Layout:
    """What is train and what is test, and the names of the classes."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
    unused_val: bool = False


@dataclass(frozen=True)
class Header:
    """What the headers of train's files say: median rows and columns, number of channels."""

    height: int
    width: int
    channels: int

    @property
    def side(self) -> int:
        """The square to train at: the shorter side, in whole patches of the default size."""
        shorter = min(self.height, self.width, LARGEST)
        patch = default_patch((shorter, shorter))
        return patch * max(2, int(shorter / patch + 0.5))  # one patch cannot be partly hidden


def read_layout(root: Path, groups: str | None = None) -> Layout:
    """The splits of a folder; their order does not depend on the file system.

    Args:
        root: the folder.
        groups: which images belong together, as `Folder` takes it.

    Raises:
        DataError: no such folder, no image, or labels that do not fit together.
    """
    if not root.is_dir():
        problem = "is a file, no folder" if root.exists() else "does not exist"
        raise DataError(f"folder:{root} {problem}")
    held_out = [root / name for name in ("test", "val") if (root / name).is_dir()]
    has_splits = (root / "train").is_dir() and bool(held_out)
    if has_splits:
        train, test = by_class(root / "train"), by_class(held_out[0])
        _check(root / "train", train, held_out[0], test)
    else:
        whole = by_class(root)
        _check(root, whole, root, whole)
        train, test = whole, {}
    paths = [path for part in (train, test) for some in part.values() for path in some]
    together = None if groups is None else read_groups(groups, root, paths, has_splits)
    if not has_splits:
        train, test = divided(root, train, together)
    elif together is not None:
        _check_apart(train, test, together)
    labels = None if "" in train else {name: label for label, name in enumerate(train)}
    return Layout(
        _split(train, labels, together),
        _split(test, labels, together),
        tuple(labels or ()),
        unused_val=has_splits and len(held_out) == 2,
    )


def _check_apart(train: Classes, test: Classes, together: Mapping[Path, str]) -> None:
    """Refuses a group with images in both splits: test would not be new to whoever saw train.

    Raises:
        DataError: names the first one.
    """
    found = [{together[path] for some in part.values() for path in some} for part in (train, test)]
    if both := sorted(found[0] & found[1]):
        raise DataError(
            f"dataset.groups: {len(both)} groups have images in train and in test, the first is "
            f"{both[0]!r}: move each to one side"
        )


def by_class(folder: Path) -> Classes:
    """Images by the name of their class folder, or under "" where there is none.

    Raises:
        DataError: no image, a class folder without one, or images beside class folders.
    """
    entries = sorted(_entries(folder), key=lambda entry: entry.name)
    here = [entry for entry in entries if _is_image(entry.name) and entry.is_file()]
    below = {entry.name: images_below(entry) for entry in entries if entry.is_dir()}
    filled = [name for name, paths in below.items() if paths]
    if not here and not filled:
        raise DataError(f"{folder} holds no image ({' '.join(SUFFIXES)})")
    if here and filled:
        raise DataError(
            f"{folder} holds both images ({here[0].name}) and class folders ({filled[0]}): "
            "put each image into a class folder, or choose a folder of one kind"
        )
    if here:
        return {"": here}
    if len(filled) < len(below):
        empty = next(name for name in below if name not in filled)
        raise DataError(f"class folder {folder / empty} holds no image: fill it or take it away")
    return below


def images_below(folder: Path) -> list[Path]:
    """All images in a folder and the folders below it, sorted by name."""
    found = []
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if _is_image(name)]
    return sorted(found, key=lambda path: path.as_posix())


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
        raise DataError(f"{root} has {kind}: two are needed for train and test")
    # the groups of a class may all have images of others too, and be test
    if gone := [name for name in train if name and not train[name]]:
        raise DataError(
            f"dataset.groups: by {root}'s groups no image of class {gone[0]!r} is left for train: "
            "divide the images yourself, into folders train/ and test/"
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
    order = permutation(len(items), SPLIT_SEED, f"folder split/{name}").tolist()
    count = max(1, round(len(items) / TEST_SHARE)) if len(items) > 1 else 0
    return {items[i] for i in order[:count]}


def typical_header(layout: Layout) -> Header:
    """The median of up to 64 evenly chosen headers of train, of those that can be read.

    Raises:
        DataError: none of them can be read.
    """
    paths = layout.train.paths
    count = min(HEADERS, len(paths))
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    headers, problem = [], None
    for path in chosen:
        try:
            headers.append(read_header(path))
        except DataError as error:  # `load` deals with it, by --on-bad-image
            problem = error
    if not headers:
        raise DataError(f"none of {count} images looked at can be read; the last: {problem}")
    heights, widths, gray = zip(*headers, strict=True)
    return Header(
        round(statistics.median(heights)), round(statistics.median(widths)), 1 if all(gray) else 3
    )


def _split(
    classes: Classes, labels: Mapping[str, int] | None, together: Mapping[Path, str] | None
) -> Split:
    pairs = [(path, name) for name, paths in classes.items() for path in paths]
    paths = tuple(path for path, _ in pairs)
    groups = None if together is None else tuple(numbered(together, paths))
    found = None if labels is None else tuple(labels[name] for _, name in pairs)
    return Split(paths, found, groups)


def _check(train_folder: Path, train: Classes, test_folder: Path, test: Classes) -> None:
    """Refuses labels that do not fit together.

    Raises:
        DataError: one class, a class of test that train has not, or labels in one split only.
    """
    if "" not in train and len(train) == 1:
        raise DataError(
            f"{train_folder} has one class folder, {next(iter(train))!r}, and one label tells "
            "nothing apart: give the path of that folder, or take its images out of it"
        )
    if ("" in train) != ("" in test):
        bare, labelled = (train_folder, test_folder)[:: 1 if "" in train else -1]
        raise DataError(f"{labelled} has class folders, {bare} has none: labels are all or none")
    unknown = sorted(test.keys() - train.keys())
    if unknown:
        raise DataError(
            f"class folder {test_folder / unknown[0]}: train has no such class, it has "
            + ", ".join(train)
        )


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        _refuse(error)


def _refuse(error: OSError) -> None:
    raise DataError(f"cannot list folder {error.filename}: {error.strerror}") from error


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)
