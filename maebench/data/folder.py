"""What a folder of images holds: which are train and test, their labels, what suits them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, ClassVar

from pydantic import Field, field_validator

from maebench.data.dataset import Dataset, Request, preset_for
from maebench.data.decode import FileHeader, read_header
from maebench.data.from_files import from_files
from maebench.data.groups import BY_FOLDER, BY_IMAGE
from maebench.data.images import Images, with_maps
from maebench.data.label_maps import maps_beside
from maebench.data.layout import Layout, read_layout
from maebench.data.split_names import CLASSES
from maebench.data.tree import WholePath, whole_path
from maebench.encoders.vit import default_patch
from maebench.errors import DataError

HEADERS = 64  # images whose header is read: a median of so many is near enough for a size
LARGEST = 224  # what papers train photographs at; larger images are made smaller


class Folder(Dataset):
    """Your own images: a folder with train/ and test/, class folders, or images alone.

    `folder:PATH` reads one of three layouts; folders in train/ or PATH are the classes.

    - train/ and test/ (or val/, or such names as Training Set and images-valid), each with class
      folders, or each with images alone. Where there are both, test/ is the test split and val/ is
      not used. Where names do not tell splits from classes, `splits` is asked for.
    - class folders: a fifth of each class, chosen once and for all, is the test split. Images in
      the same folder below their class stay together in it.
    - images alone, without labels: a fifth of them is the test split.

    Where PATH has a folder masks/ in which a PNG lies where an image lies in PATH, such as
    masks/train/cat/1.png of train/cat/1.jpg, these are label maps: of each pixel the number of its
    class, from 0, and 255 for none. Every image then wants one.

    Images are known by their suffix or their content; other files, hidden ones and links in a
    circle are left out and counted. Images that belong together, such as several of one patient,
    are named by `groups`: they are never divided between train and test; intervals and tests take
    them whole.
    """

    name: ClassVar[str] = "folder"
    any_size: ClassVar[bool] = True
    spec: ClassVar[str | None] = "path"
    path: WholePath = Field(
        description="folder with train/ and test/ (or val/), with class folders, or of images"
    )
    groups: str | None = Field(
        default=None,
        description="which images belong together: folder, the one below the class's, a CSV of "
        "image and group, or image: each stands for itself; none: as folder where there are such "
        "and a fifth becomes test, else as image",
    )
    splits: tuple[str, ...] | None = Field(
        default=None,
        description="TRAIN,TEST: the folders below the path that are the splits; classes: no "
        "folder is a split; none: by their names",
    )

    @field_validator("groups")
    @classmethod
    def _whole_path(cls, value: str | None) -> str | None:
        if value in (None, BY_FOLDER, BY_IMAGE):
            return value
        return str(whole_path(value))

    @field_validator("splits")
    @classmethod
    def _two_folders(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None or value == (CLASSES,):
            return value
        if len(value) != 2:
            given = ",".join(value)
            raise ValueError(f"write TRAIN,TEST (two folders) or {CLASSES}, given {given!r}")
        for name in map(PurePath, value):
            if name.is_absolute() or ".." in name.parts:
                raise ValueError(f"folders below the path, such as train,test, given {str(name)!r}")
        return value

    def identity(self) -> dict[str, Any]:
        """Which image is in which split is what the fingerprint stands for."""
        return {k: v for k, v in super().identity().items() if k not in ("groups", "splits")}

    def load(self, request: Request) -> Images:
        """One split; gray where the images looked at are all gray, else in colour."""
        layout = read_layout(self.path, self.groups, self.splits)
        header = typical_header(layout)
        split = layout.train if request.split == "train" else layout.test
        size = request.image_size or (header.side, header.side)
        found = from_files(
            split.paths,
            split.labels,
            layout.class_names,
            self.path,
            size,
            header.channels,
            request.on_bad_image,
            request.memory_limit,
            request.progress,
            split.groups,
            request.reading,
            layout.remarks,
            same_levels=[*layout.train.paths, *layout.test.paths],
        )
        if layout.maps is None:
            return found
        paths = [split.paths[i] for i in found.info.ids.tolist()]
        return with_maps(found, maps_beside(paths, self.path, layout.maps, size))

    def read_from(self, request: Request) -> tuple[Path, ...] | None:
        """The folder, and the CSV of groups where there is one."""
        named = self.groups not in (None, BY_FOLDER, BY_IMAGE)
        return (self.path, Path(self.groups)) if named and self.groups else (self.path,)

    def preset(self) -> dict[str, Any]:
        """By the size of up to 64 images and the number of them."""
        layout = read_layout(self.path, self.groups, self.splits)
        header = typical_header(layout)
        return preset_for((header.side, header.side), len(layout.train.paths))

    def notes(self) -> list[str]:
        """What the preset chose."""
        layout = read_layout(self.path, self.groups, self.splits)
        header = typical_header(layout)
        size = (header.side, header.side)
        chosen = preset_for(size, len(layout.train.paths))
        count = len(layout.train.paths) + len(layout.test.paths)
        patch = default_patch(size)
        return [
            f"folder: {count:,} images of about {header.height}x{header.width}: "
            f"image size {header.side}, {chosen['encoder']}, patch {patch}, "
            f"{chosen['budget']}, batch {chosen['batch']} where no flag says otherwise"
        ]


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


def typical_header(layout: Layout) -> Header:
    """The median of up to 64 evenly chosen headers of train, of those that can be read.

    Gray where those of test are, too.

    Raises:
        DataError: none of them can be read.
    """
    train, problem = _headers(layout.train.paths)
    if not train:
        count = min(HEADERS, len(layout.train.paths))
        raise DataError(f"none of {count} images looked at can be read; the last: {problem}")
    test, _ = _headers(layout.test.paths)
    return Header(
        round(statistics.median(found.height for found in train)),
        round(statistics.median(found.width for found in train)),
        1 if all(found.gray for found in [*train, *test]) else 3,
    )


def _headers(paths: Sequence[Path]) -> tuple[list[FileHeader], DataError | None]:
    """Up to 64 evenly chosen headers of those that can be read, and the last error of others."""
    count = min(HEADERS, len(paths))
    headers, problem = list[FileHeader](), None
    for path in (paths[i * len(paths) // count] for i in range(count)):
        try:
            headers.append(read_header(path))
        except DataError as error:  # `load` deals with it, by --on-bad-image
            problem = error
    return headers, problem
