"""What is in the splits of a data set: pixels, ids, labels, fingerprints, and nothing twice."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from maebench.data import images as images_module
from maebench.data.dataset import Dataset, Request
from maebench.data.images import Images, InMemory
from maebench.errors import DataError
from maebench.rng import isolated
from maebench.testing.contract import Broken, Contract, NotChecked, expect
from maebench.testing.splits import chosen, equal, looked_at, marks, other_size, part

SPLITS = ("train", "test")
REPEATED = 0.01  # published sets hold some images twice; a split that leaks holds far more
MEMBERS = ("info", "__len__", "whole", "pick", "crops", "subset")  # of maebench.Images


@contextlib.contextmanager
def _turned_labels() -> Iterator[None]:
    """Makes every image in memory have the label of the one before it."""
    make = images_module.in_memory_images

    def turned(pixels: Tensor, info: Any, names: Sequence[str] = ()) -> InMemory:
        labels = None if info.labels is None else info.labels.roll(1)
        return make(pixels, dataclasses.replace(info, labels=labels), names)

    images_module.in_memory_images = turned
    try:
        yield
    finally:
        images_module.in_memory_images = make


class ContentChecks(Contract):
    """Checks of what the splits hold; DatasetContract adds how they are cut and shown."""

    kind = "dataset"
    request: ClassVar[Mapping[str, Any]] = {}
    repeated: ClassVar[float] = REPEATED
    _kept: ClassVar[dict[Any, Images]] = {}

    def __init_subclass__(cls, **more: Any) -> None:
        """Gives each test class a place for what it has loaded."""
        super().__init_subclass__(**more)
        cls._kept = {}

    def load(self, split: str, dataset: Dataset | None = None, **how: Any) -> Images:
        """A split, loaded anew.

        Raises:
            NotChecked: its files are not there.
        """
        made = dataset or self.made()
        try:
            images = made.load(Request(split, **{**self.request, **how}))
        except DataError as error:
            raise NotChecked(
                f"{split} cannot be loaded here: {error} (request = {{'data_dir': ...}} in the "
                "test class says where files are)"
            ) from error
        lacks = [name for name in MEMBERS if not hasattr(images, name)]
        expect(
            not lacks,
            f"load() of {split} gives a {type(images).__name__} without {', '.join(lacks)}: "
            "return what maebench.from_arrays or from_files gives",
        )
        expect(len(images) > 0, f"{split} holds no image")
        return images

    def images(self, split: str) -> Images:
        """A split, loaded once for all checks."""
        key = (self.made(), split, repr(self.request))
        if key not in self._kept:
            self._kept[key] = self.load(split)
        return self._kept[key]

    # --- what is in a split

    def test_pixels_are_bytes_of_the_size_that_about_tells(self) -> None:
        """Everything behind it reckons with uint8 (B, C, H, W) in 0..255."""
        for split in SPLITS:
            images = self.images(split)
            shape = (images.info.channels, *images.info.size)
            pixels = looked_at(images)
            got = f"{str(pixels.dtype).removeprefix('torch.')} {tuple(pixels.shape)}"
            expect(
                pixels.dtype == torch.uint8 and tuple(pixels.shape[1:]) == shape,
                f"images of {split} are {got}; info says uint8 (B, {', '.join(map(str, shape))}) "
                "as (B, channels, rows, columns)",
            )
            expect(
                int(pixels.max()) > 1,
                f"the brightest pixel of {split} is {int(pixels.max())}: pixels go from 0 to 255, "
                "multiply those in 0..1 before they become bytes",
            )

    def test_every_image_has_an_id_of_its_own(self) -> None:
        """Crops, masks and held-out sets are drawn by id: two images with one would share them."""
        for split in SPLITS:
            images = self.images(split)
            ids = images.info.ids
            expect(
                ids.dtype == torch.int64 and ids.shape == (len(images),),
                f"ids of {split} are {ids.dtype} {tuple(ids.shape)}; "
                f"int64 ({len(images)},) is wanted, one for each image",
            )
            num = len(ids.unique())
            expect(num == len(ids), f"{len(ids)} images of {split} have only {num} different ids")

    def test_every_label_names_a_class(self) -> None:
        """Labels are positions in class_names; another number would be another class, or none."""
        for split in SPLITS:
            images = self.images(split)
            labels, names = images.info.labels, images.info.class_names
            if labels is None:
                expect(
                    not names,
                    f"{split} has no labels but {len(names)} class names: labels, or none of both",
                )
                continue
            expect(
                labels.dtype == torch.int64 and labels.shape == (len(images),),
                f"labels of {split} are {labels.dtype} {tuple(labels.shape)}; "
                f"int64 ({len(images)},) is wanted, or None for no labels",
            )
            low, high = int(labels.min()), int(labels.max())
            expect(
                0 <= low and high < len(names),
                f"labels of {split} go from {low} to {high}, class_names has {len(names)}: "
                f"0 to {len(names) - 1} are wanted",
            )
            texts = [name for name in names if isinstance(name, str) and name.strip()]
            expect(
                isinstance(names, tuple) and len(set(texts)) == len(names),
                f"class_names of {split} must be a tuple of different texts, got {names!r}",
            )
        self._labels("train")

    def test_every_class_of_test_is_learned_in_train(self) -> None:
        """A class that train never shows can only be missed, whatever the encoder learned."""
        train, test = self._labels("train"), self._labels("test")
        seen = train.unique().tolist()
        expect(
            len(seen) > 1,
            f"all labels of train are {seen[0]}: one class tells nothing apart, give labels=None",
        )
        names = self.images("test").info.class_names
        missing = [names[i] for i in test.unique().tolist() if i not in seen]
        expect(not missing, f"test has images of {', '.join(missing[:5])}, train has none")

    def test_train_and_test_speak_of_the_same_things(self) -> None:
        """An encoder and its classes are made for train and used on test."""
        train, test = (self.images(split).info for split in SPLITS)
        for what in ("channels", "size", "class_names"):
            mine, theirs = getattr(train, what), getattr(test, what)
            expect(mine == theirs, f"{what} of train is {mine!r}, of test {theirs!r}")
        labelled = [info.labels is not None for info in (train, test)]
        expect(labelled[0] == labelled[1], f"labels in train, test: {labelled}; both or none")

    def test_train_and_test_share_no_image(self) -> None:
        """What was seen in training says nothing about what was not: every number would flatter."""
        train, test = (self.images(split) for split in SPLITS)
        expect(train is not test, "load() gives one and the same object for train and for test")
        known = {mark: i for i, mark in enumerate(marks(looked_at(train)))}
        twice = [(i, known[mark]) for i, mark in enumerate(marks(looked_at(test))) if mark in known]
        share = len(twice) / len(looked_at(test))
        if share > self.repeated:
            where = [chosen(images) for images in (test, train)]
            i, j = (positions[k] for positions, k in zip(where, twice[0], strict=True))
            raise Broken(
                f"{len(twice)} of {len(looked_at(test))} test images are in train too, byte for "
                f"byte (image {i} of test is image {j} of train); {self.repeated:.1%} may be. "
                "Split so that they are apart; where the published set is so, set "
                f"repeated = {share:.2g} and say why beside it"
            )

    # --- again, smaller, larger

    def test_loading_twice_gives_the_same(self) -> None:
        """A run goes on, and is compared, with the images that it began with."""
        for split in SPLITS:
            found = []
            for state in range(2):  # another global state must not be another split
                with isolated(state, "load"):
                    found.append(self.load(split))
            self._same(found[0], found[1], f"{split}, loaded twice")

    def test_the_fingerprint_changes_with_the_content(self) -> None:
        """Runs and cached features are told apart by it, and by nothing else."""
        told = {}
        for split in SPLITS:
            images = self.images(split)
            mark = images.info.fingerprint
            expect(
                isinstance(mark, str) and mark.strip(),
                f"the fingerprint of {split} is {mark!r}: text is wanted, that stands for pixels, "
                "labels and ids",
            )
            told[split] = mark
            if len(images) > 1:
                told[f"every other image of {split}"] = part(images, 0, 2).info.fingerprint
                told[f"the others of {split}"] = part(images, 1, 2).info.fingerprint
            told[f"{split} in another size"] = self.load(
                split, image_size=other_size(images.info)
            ).info.fingerprint
        for (one, mark), (other, again) in itertools.combinations(told.items(), 2):
            expect(mark != again, f"{one} and {other} have one fingerprint, {mark}")

    def test_the_fingerprint_changes_with_the_labels(self) -> None:
        """A set whose labels were corrected is another one, and its old numbers are not its own."""
        images, before = self.images("train"), self._labels("train")
        with _turned_labels():
            other = self.load("train")
        if other.info.labels is None or equal(before, other.info.labels):
            raise NotChecked("its labels do not go through maebench.from_arrays or from_files")
        expect(
            other.info.fingerprint != images.info.fingerprint,
            "with other labels of the same images train has the same fingerprint: keep that of "
            "from_arrays, or make yours of pixels, labels and ids",
        )

    def test_images_come_in_the_size_that_is_asked_for(self) -> None:
        """--image-size speaks of rows and columns, and changes neither labels nor ids."""
        for split in SPLITS:
            images = self.images(split)
            size = other_size(images.info)
            other = self.load(split, image_size=size)
            got, told = tuple(looked_at(other).shape[2:]), other.info.size
            expect(
                got == size and told == size,
                f"{split} was asked for in {size} as (rows, columns): images are {got}, "
                f"info.size is {told}",
            )
            same = equal(images.info.ids, other.info.ids)
            same = same and equal(images.info.labels, other.info.labels)
            expect(same, f"{split} has other ids or labels in another size")
            own = self.load(split, image_size=images.info.size)
            self._same(images, own, f"{split}, and when asked for in its own size,")

    def _labels(self, split: str) -> Tensor:
        labels = self.images(split).info.labels
        if labels is None:
            raise NotChecked("it has no labels")
        return labels

    def _same(self, one: Images, other: Images, what: str) -> None:
        for key in ("ids", "labels"):
            mine, theirs = getattr(one.info, key), getattr(other.info, key)
            expect(equal(mine, theirs), f"{what} has other {key}")
        for key in ("class_names", "size", "channels"):
            mine, theirs = getattr(one.info, key), getattr(other.info, key)
            expect(mine == theirs, f"{what} has {key} {mine!r}, then {theirs!r}")
        expect(torch.equal(looked_at(one), looked_at(other)), f"{what} has other pixels")
        marks = [images.info.fingerprint for images in (one, other)]
        expect(marks[0] == marks[1], f"{what} has fingerprints {marks[0]!r} and {marks[1]!r}")
