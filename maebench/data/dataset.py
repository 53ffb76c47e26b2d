"""What a data set is: a name, its splits, the settings that suit it, and how to load a split."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, ClassVar

import torch
from torch import Tensor

from maebench.component import Component
from maebench.data.copies import find_copies
from maebench.data.images import Images, OnBadImage, limited
from maebench.data.reading import Reading
from maebench.data.split_info import Remark, SplitInfo
from maebench.encoders.inputs import IMAGES, examples_of
from maebench.errors import DataError

MEMORY_LIMIT_GB = 2.0  # a split up to this size is decoded once


@dataclass(frozen=True)
class Request:
    """What is asked of a data set; fields are only ever added.

    Args:
        split: "train" or "test".
        data_dir: where files lie, or None.
        download: whether files may be fetched.
        image_size: rows and columns to bring images to; None keeps the data set's own.
        on_bad_image: "fail" names the first unreadable image, "skip" leaves them out and counts.
        memory_limit: bytes up to which a split is decoded into memory.
        progress: called with (done, total) while images are decoded.
        reading: how files become images.
        kept: what a run has kept of its data set (`SplitInfo.kept`) where its model is to be fed:
            what makes tokens of text then, whatever this text would have made; else empty.
    """

    split: str
    data_dir: Path | None = None
    download: bool = False
    image_size: tuple[int, int] | None = None
    on_bad_image: OnBadImage = "fail"
    memory_limit: int = int(MEMORY_LIMIT_GB * 2**30)
    progress: Callable[[int, int], None] = lambda done, total: None
    reading: Reading = field(default_factory=Reading)
    kept: Mapping[str, str] = field(default_factory=dict)


class Dataset(Component):
    """Labelled or unlabelled images, or others, in the splits train and test.

    `gives` is the kind of inputs that it yields: "images", "text", or a plugin's own.
    `any_size` is True where the originals come in sizes of their own, so that a split is cut at
    whatever size is asked for; a preset's size is then a proposal and not the images'.
    """

    kind: ClassVar[str] = "dataset"
    gives: ClassVar[str] = IMAGES
    any_size: ClassVar[bool] = False

    def load(self, request: Request) -> Images:
        """One split.

        Raises:
            DataError: files are missing or cannot be read; says which, where, and what to do.
        """
        raise NotImplementedError(f"{type(self).__name__} has no load(request)")

    def read_from(self, request: Request) -> tuple[Path, ...] | None:
        """The files and folders that all splits are read from, there or not; None: nobody knows.

        While nothing has changed there, a finished `maebench run` shows its table without loading
        the images. What is read beside them would change unseen.
        """
        return None

    def preset(self) -> dict[str, Any]:
        """Settings of a run that suit this data set, used where the user gives none.

        Keys are RunConfig's: encoder, budget, batch, lr; of images image_size and augment too, and
        where it suits objective, masking and ratio.
        """
        raise NotImplementedError(f"{type(self).__name__} has no preset()")

    def notes(self) -> list[str]:
        """Lines to tell the user before a run, such as what was chosen by itself."""
        return []

    @property
    def title(self) -> str:
        """Its name in tables: `digits`; of a folder `folder:` and the last part of its path."""
        where = getattr(self, self.spec) if self.spec else None
        return self.name if where is None else f"{self.name}:{_last_part(str(where))}"

    def changed(self) -> str:
        """The title and the options that differ from their defaults, in one short text."""
        options = self.changed_options().items()
        parts = [f"{key}={_last_part(value)}" for key, value in options if key != self.spec]
        return self.title + (f"({', '.join(parts)})" if parts else "")


def _last_part(value: str) -> str:
    """The last part of an absolute path, and any other text as it is."""
    path = PurePath(os.path.normpath(value))
    return path.name if path.is_absolute() and path.name else value


# MAE's 1.5e-4 for ViT-B; a narrower encoder takes, and needs, a larger one. On 10,000 images of
# Fashion-MNIST, 600 steps of 256, vit-nano's kNN is 74.1 at 1e-3 and 74.3 at 4e-3, its linear probe
# 75.0 and 75.9; those between follow the width.
LR = {
    "vit-nano": 4e-3,
    "vit-micro": 2e-3,
    "vit-tiny": 1.3e-3,
    "vit-small": 7e-4,
    "vit-base": 1.5e-4,
}


def preset_for(image_size: tuple[int, int], num_images: int) -> dict[str, Any]:
    """Settings from image size and count alone.

    Encoder: vit-nano to 32 px (vit-micro from 100,000 images), vit-tiny to 96 px, vit-small above
    and vit-base from 500,000 images. Length: 1.2 million images, at least 20 and at most 200
    epochs; small sets want many small steps, so their batch is 64.
    """
    side, many = max(image_size), num_images >= 500_000
    if side <= 32:
        encoder = "vit-micro" if num_images >= 100_000 else "vit-nano"
    elif side <= 96:
        encoder = "vit-tiny"
    else:
        encoder = "vit-base" if many else "vit-small"
    epochs = min(200, max(20, round(1_200_000 / max(1, num_images))))
    return {
        "image_size": image_size,
        "encoder": encoder,
        "budget": f"epochs={epochs}",
        "batch": 64 if num_images < 5000 else 256,
        "lr": LR[encoder],
        "augment": {},
    }


# For characters: mirrored, or cut to a fifth, they are others.
GENTLE: dict[str, Any] = {"scale": (0.6, 1.0), "flip": False}


@dataclass(frozen=True)
class Splits:
    """Loads splits on demand and keeps them.

    Args:
        dataset: what to load.
        request: how; its split is replaced.
        limit: number of training images, class-balanced, or None for all.
        mirrored: whether a mirrored image of train is a copy of one in test.
    """

    dataset: Dataset
    request: Request
    limit: int | None = None
    mirrored: bool = False
    _loaded: dict[str, Images] = field(default_factory=dict, compare=False)
    _said: dict[str, list[Remark]] = field(default_factory=dict, compare=False)

    def load(
        self, split: str, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Images:
        """A split; its training part without copies of test where asked, and cut to the limit.

        Raises:
            DataError: files are missing or unreadable, the limit is larger than train, or train
                has images of test and that is to fail.
        """
        if split not in self._loaded:
            images = self.dataset.load(replace(self.request, split=split, progress=progress))
            self._said[split] = list(images.info.remarks)
            if split == "train" and self.request.reading.on_duplicates != "warn":
                images = self._apart(images, self.load("test", progress))
            if split == "train" and self.limit is not None:
                images = limited(images, self.limit)
            self._loaded[split] = images
        return self._loaded[split]

    def has(self, split: str) -> bool:
        """Whether a split is loaded."""
        return split in self._loaded

    def look_at_test(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Loads test, so that copies of it in train are found; says so where it cannot be read."""
        if "copies" in self._said:
            return
        try:
            self.load("test", progress)
        except DataError as error:  # pretraining alone needs no test
            text = f"test cannot be read, and was not searched for copies of train: {error}"
            self._said["copies"] = [Remark("no test", 1, text)]

    def remark_facts(self) -> list[dict[str, Any]]:
        """What is said of the loaded splits, as JSON values."""
        return [
            {"split": split, "what": remark.what, "count": remark.count, "text": remark.text}
            for split, remark in self.remarks()
        ]

    def remarks(self) -> list[tuple[str, Remark]]:
        """What is said of the splits that are loaded, each with the name of the split.

        What is said of both alike stands once, without a name.
        """
        if {"train", "test"} <= self._loaded.keys() and "copies" not in self._said:
            copies = find_copies(self._loaded["train"], self._loaded["test"], self.mirrored)
            remark = None if copies is None else copies.remark()
            self._said["copies"] = [] if remark is None else [remark]
        train, test = (self._said.get(split, []) for split in ("train", "test"))
        both = [remark for remark in train if remark in test]
        return [
            *(("", remark) for remark in [*both, *self._said.get("copies", ())]),
            *(("train", remark) for remark in train if remark not in both),
            *(("test", remark) for remark in test if remark not in both),
        ]

    def _apart(self, train: Images, test: Images) -> Images:
        """Train without the images that test has too.

        Raises:
            DataError: there are some, and that is to fail; or nothing is left.
        """
        copies = find_copies(train, test, self.mirrored)
        remark = None if copies is None else copies.remark()
        if copies is None or remark is None:
            return train
        if self.request.reading.on_duplicates == "fail":
            raise DataError(
                f"dataset {self.dataset.name}: {remark.text}; data.on_duplicates=fail stops here, "
                "drop leaves them out of train, warn goes on"
            )
        kept = torch.ones(len(train), dtype=torch.bool)
        kept[copies.train] = False
        self._check_left(train.info, kept)
        each = examples_of(self.dataset.gives)
        text = (
            f"{len(copies.train):,} of {len(train):,} train {each} are in test too, and were left "
            "out of train"
        )
        self._said["train"].append(Remark("copies left out", len(copies.train), text))
        return train.subset(kept.nonzero()[:, 0])

    def _check_left(self, info: SplitInfo, kept: Tensor) -> None:
        """Refuses to leave train, or a class of it, without an image.

        Raises:
            DataError: names what would be empty.
        """
        if not kept.any():
            raise DataError(f"dataset {self.dataset.name}: every train image is in test too")
        if info.labels is None:
            return
        # as with a limit: no probe can name a class that it never saw
        left = set(info.labels[kept].tolist())
        if gone := [c for c in info.labels.unique().tolist() if c not in left]:
            raise DataError(
                f"dataset {self.dataset.name}: every train image of class "
                f"{info.class_names[gone[0]]!r} is in test too, and data.on_duplicates=drop would "
                "leave none; warn goes on with all"
            )
