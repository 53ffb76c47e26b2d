"""The contract of data sets: the built-in ones keep to it, and each planted bug is found."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field
from test_data_folder import tree
from test_data_torchvision_sets import write_cifar, write_idx
from torchvision import datasets

from maebench import DataError, Dataset, Draws
from maebench.data import CIFAR10, KMNIST, MNIST, Digits, Folder, preset_for
from maebench.data.images import InMemory, from_arrays
from maebench.encoders.inputs import Inputs
from maebench.testing.contract import NotChecked, examine
from maebench.testing.dataset import DatasetContract

number = itertools.count()


class Plain(Dataset):
    """Noise, darker or brighter by class; a healthy data set to plant bugs in."""

    name: ClassVar[str] = "plain"
    contrast: int = Field(60, ge=1, le=100, description="how far apart the classes are")

    def load(self, request):
        return self.made(*self.drawn(request.split), request.image_size)

    def drawn(self, split, count=24, first=0, classes=3):
        """Pixels (N, 1, 8, 10) and labels (N,) of some images."""
        ids = torch.arange(first, first + count)
        draws = Draws(0, f"plain {split}", ids)
        labels = ids % classes
        pixels = draws.uniform(1, 8, 10) * 100 + labels[:, None, None, None] * self.contrast / 2
        return pixels.to(torch.uint8).numpy(), labels.numpy()

    def made(self, pixels, labels, size=None, names=("a", "b", "c")):
        return from_arrays(pixels, labels, names, size)

    def preset(self):
        return preset_for((8, 10), 24) | {"encoder": {"name": "vit-nano", "patch": 2}}


def finding(component, check, contract=DatasetContract, **more):
    """What one check finds."""
    body = {"component": component, "checks": classmethod(lambda cls: ["test_" + check]), **more}
    (found,) = examine(type("One", (contract,), body))
    return found


def outcome(component, **more):
    contract = type("Every", (DatasetContract,), {"component": component, **more})
    findings = list(examine(contract))
    failed = {f.check: f.reason for f in findings if f.status == "fail"}
    return failed, {f.check.replace(" ", "_") for f in findings if f.status == "not checked"}


# What is healthy.


class TestPlain(DatasetContract):
    component = Plain


class TestDigits(DatasetContract):
    component = Digits


NO_OPTIONS = "every_option_matters"
NO_FILES = "missing_files_are_a_data_error_and_nothing_is_written_unasked"
NO_LABELS = {"every_label_names_a_class", "every_class_of_test_is_learned_in_train"}


def options_of(root, folder, splits):
    """Values to try: other splits, and a CSV of groups in which two images belong together."""
    images = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = [f"{name},{number // 2}" for number, name in enumerate(images)]
    (root / "groups.csv").write_text("\n".join(lines))
    return {"groups": [str(root / "groups.csv")], "splits": [splits]}


def test_a_folder_with_class_folders_keeps_to_the_contract(tmp_path):
    root = tree(tmp_path / "images", cat=10, dog=9)
    variants = options_of(tmp_path, root, ("cat", "dog"))
    assert outcome(Folder(path=root), variants=variants) == ({}, {NO_FILES})


def test_a_folder_that_does_not_fit_into_memory_keeps_to_the_contract(tmp_path):
    root = tree(tmp_path / "images", cat=10, dog=9)
    more = {"request": {"memory_limit": 0}, "variants": options_of(tmp_path, root, ("cat", "dog"))}
    assert outcome(Folder(path=root), **more) == ({}, {NO_FILES})


def test_a_folder_without_labels_keeps_to_the_contract(tmp_path):
    root = tree(tmp_path / "pictures", train=16, test=4)
    variants = options_of(tmp_path, root, ("test", "train"))
    assert outcome(Folder(path=root), variants=variants) == ({}, {NO_FILES, *NO_LABELS})


@pytest.mark.parametrize("cls", [MNIST, KMNIST])
def test_idx_sets_keep_to_the_contract(cls, tmp_path):
    write_idx(tmp_path, cls.name, seed=0)
    for what in (
        "images-idx3",
        "labels-idx1",
    ):  # the maker gives train the classes 0, 3, 6, 9, 2, 5
        path = tmp_path / f"t10k-{what}-ubyte"
        content = bytearray(path.read_bytes())
        content[4:8] = (6).to_bytes(4)
        path.write_bytes(content[: 16 + 6 * 784 if what == "images-idx3" else 8 + 6])
    assert outcome(cls, request={"data_dir": tmp_path}) == ({}, {NO_OPTIONS})


def test_cifar10_keeps_to_the_contract(tmp_path, monkeypatch):

    write_cifar(tmp_path, monkeypatch, "cifar10")
    # the maker's files hold the same noise in each split: another for test
    path = tmp_path / datasets.CIFAR10.base_folder / "test_batch"
    noise = np.random.default_rng(99).integers(0, 256, (3, 3072), dtype=np.uint8)
    path.write_bytes(pickle.dumps({"data": noise, "labels": [0, 9, 4]}))
    entry = ["test_batch", hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [entry])
    assert outcome(CIFAR10, request={"data_dir": tmp_path}) == ({}, {NO_OPTIONS})


def test_a_set_whose_files_are_not_there_is_not_checked_and_its_preset_is():
    failed, unchecked = outcome(MNIST)
    assert failed == {}
    assert {"train_and_test_share_no_image", *NO_LABELS} <= unchecked
    assert not {NO_FILES, "the_preset_makes_a_run", "notes_are_lines_of_text"} & unchecked
    found = finding(MNIST, "train_and_test_share_no_image")
    assert "train-images-idx3-ubyte" in found.reason and "data_dir" in found.reason


def test_a_set_that_wants_a_path_is_not_checked_without():
    found = finding(Folder, "loading_twice_gives_the_same")
    assert found.status == "not checked" and "Folder(path=...)" in found.reason


def test_a_published_set_with_repeated_images_may_say_so():
    check = "train_and_test_share_no_image"
    assert finding(LeaksHalf, check).status == "fail"
    assert finding(LeaksHalf, check, repeated=0.5).status == "pass"


# Planted bugs.


def changed(images, **info):
    return InMemory(images.pixels, dataclasses.replace(images.info, **info))


class ZeroToOne(Plain):
    """Bytes made of floats in 0..1."""

    def load(self, request):
        pixels, labels = self.drawn(request.split)
        return self.made((pixels / 255.0).round().astype("uint8"), labels, request.image_size)


class ChannelsLast(Plain):
    """(N, H, W, C) while info states the right size."""

    def load(self, request):
        images = super().load(request)
        return InMemory(images.pixels.permute(0, 2, 3, 1).contiguous(), images.info)


class IdsAreLabels(Plain):
    """Ids that many images share."""

    def load(self, request):
        images = super().load(request)
        return changed(images, ids=images.info.labels.clone())


class FromOne(Plain):
    """Labels as they are in the file, from 1."""

    def load(self, request):
        images = super().load(request)
        return changed(images, labels=images.info.labels + 1)


class SmallLabels(Plain):
    """Labels that are no int64."""

    def load(self, request):
        images = super().load(request)
        return changed(images, labels=images.info.labels.to(torch.uint8))


class MinusOne(Plain):
    """No labels, written as -1."""

    def load(self, request):
        images = super().load(request)
        return changed(images, labels=torch.full((24,), -1))


class OneClass(Plain):
    """All labels are one."""

    def load(self, request):
        images = super().load(request)
        return changed(images, labels=torch.zeros(24, dtype=torch.int64))


class ByClass(Plain):
    """Sorted by class and then cut: test has a class that train never shows."""

    def load(self, request):
        pixels, labels = self.drawn("all", 48)
        order = np.argsort(labels, kind="stable")
        part = order[:30] if request.split == "train" else order[30:]
        return self.made(pixels[part], labels[part], request.image_size)


class NamesByFolder(Plain):
    """Names of the classes that a split happens to hold."""

    def load(self, request):
        images = super().load(request)
        return changed(images, class_names=tuple("abc" if request.split == "train" else "cba"))


class SplitIgnored(Plain):
    """One part for both."""

    def load(self, request):
        return self.made(*self.drawn("all"), request.image_size)


class LeaksHalf(Plain):
    """Half of test is in train."""

    def load(self, request):
        part = self.drawn("all", 24, 12 if request.split == "test" else 0)
        return self.made(*part, request.image_size)


class GlobalSplit(Plain):
    """A split that the global random state chooses."""

    def load(self, request):
        pixels, labels = self.drawn("all", 48)
        part = torch.randperm(48)[:24].numpy()
        return self.made(pixels[part], labels[part], request.image_size)


class Seeds(Plain):
    """A split that is repeatable at everybody's cost."""

    def load(self, request):
        torch.manual_seed(0)
        pixels, labels = self.drawn("all", 48)
        order = torch.randperm(48).numpy()
        part = order[:24] if request.split == "train" else order[24:]
        return self.made(pixels[part], labels[part], request.image_size)


class NameAsMark(Plain):
    """A fingerprint that is the name."""

    def load(self, request):
        return changed(super().load(request), fingerprint="plain")


class SizelessMark(Plain):
    """A fingerprint made before the images were resized."""

    def load(self, request):
        mark = self.made(*self.drawn(request.split)).info.fingerprint
        return changed(super().load(request), fingerprint=mark)


class NewMark(Plain):
    """A fingerprint that is another one every time."""

    def load(self, request):
        return changed(super().load(request), fingerprint=f"{next(number)}")


class NumberAsMark(Plain):
    """A fingerprint that is no text."""

    def load(self, request):
        return changed(super().load(request), fingerprint=len(request.split))


class OwnSize(Plain):
    """Images that stay as they are, whatever size is asked for."""

    def load(self, request):
        return self.made(*self.drawn(request.split))


class Turned(Plain):
    """Columns taken for rows."""

    def load(self, request):
        size = request.image_size
        return self.made(*self.drawn(request.split), size and (size[1], size[0]))


class StatedSize(Plain):
    """A size that is stated and not made."""

    def load(self, request):
        images = self.made(*self.drawn(request.split))
        size = request.image_size or images.info.size
        return changed(images, inputs=Inputs.of_images(images.info.channels, size))


class Blurred(Plain):
    """Images that are resized twice where a size is asked for."""

    def load(self, request):
        if request.image_size is None:
            return super().load(request)
        small = self.made(*self.drawn(request.split), (4, 5)).pixels.numpy()
        return self.made(small, self.drawn(request.split)[1], request.image_size)


@dataclass(frozen=True)
class SubsetKeepsMark(InMemory):
    def subset(self, index):
        info = dataclasses.replace(self.info.at(index), fingerprint=self.info.fingerprint)
        return type(self)(self.pixels[index], info)


def images_of(cls):
    """A data set whose images are of this class."""

    class Wrapped(Plain):
        """Images of another class than ours."""

        def load(self, request):
            images = super().load(request)
            return cls(images.pixels, images.info)

    return Wrapped


class TorchLike(Plain):
    """A torch data set where images are wanted."""

    def load(self, request):
        return torch.utils.data.TensorDataset(torch.zeros(3))


class Empty(Plain):
    """Nothing in test."""

    def load(self, request):
        images = super().load(request)
        return images.subset(torch.arange(0)) if request.split == "test" else images


def presetting(**values):
    class Presetting(Plain):
        """A preset with something changed in it; None takes it out."""

        def preset(self):
            given = {**super().preset(), **values}
            return {key: value for key, value in given.items() if value is not None}

    return Presetting


class MoodyPreset(Plain):
    """Another preset each time."""

    def preset(self):
        return {**super().preset(), "lr": 1e-3 + next(number) * 1e-6}


def noting(notes):
    class Noting(Plain):
        """Notes of another form."""

        def notes(self):
            return notes

    return Noting


class RawError(Plain):
    """What the system says of a missing file, as it comes."""

    def load(self, request):
        (Path(request.data_dir or "/nowhere") / "pixels.bin").read_bytes()
        return super().load(request)


class LongError(Plain):
    """A message of two lines."""

    def load(self, request):
        raise DataError("pixels.bin is missing\nask the internet")


class Unasked(Plain):
    """A folder that is made at once."""

    def load(self, request):
        if request.data_dir is not None:
            (request.data_dir / "cache").mkdir(parents=True, exist_ok=True)
        return super().load(request)


class DeadOption(Plain):
    """An option that nobody reads."""

    speed: int = Field(1, ge=1, le=3, description="how fast it loads")


class HiddenOption(Plain):
    """An option that changes pixels behind the fingerprint's back."""

    def load(self, request):
        mark = Plain().load(request).info.fingerprint
        return changed(super().load(request), fingerprint=mark)


class Undeclared(Plain):
    """An option with no value to try."""

    tint: str = Field("none", description="a colour")


BYTES = "pixels_are_bytes_of_the_size_that_info_states"
IDS = "every_image_has_an_id_of_its_own"
LABELS = "every_label_names_a_class"
CLASSES = "every_class_of_test_is_learned_in_train"
SAME_THINGS = "train_and_test_speak_of_the_same_things"
APART = "train_and_test_share_no_image"
AGAIN = "loading_twice_gives_the_same"
MARK = "the_fingerprint_changes_with_the_content"
SIZE = "images_come_in_the_size_that_is_asked_for"
GLOBAL = "the_global_random_state_is_left_as_it_was"
PRESET = "the_preset_makes_a_run"
NOTES = "notes_are_lines_of_text"

BUGS = {
    "pixels in 0..1": (ZeroToOne, BYTES, ["brightest pixel of train is 1", "0 to 255"]),
    "channels last": (ChannelsLast, BYTES, ["uint8 (24, 8, 10, 1)", "(B, 1, 8, 10)"]),
    "no images": (TorchLike, BYTES, ["gives a TensorDataset", "from_arrays"]),
    "an empty split": (Empty, BYTES, ["test holds no image"]),
    "ids shared": (IdsAreLabels, IDS, ["24 images of train have only 3 different ids"]),
    "labels from one": (FromOne, LABELS, ["from 1 to 3", "0 to 2 are wanted"]),
    "labels uint8": (SmallLabels, LABELS, ["torch.uint8 (24,)", "int64"]),
    "no labels written as -1": (MinusOne, LABELS, ["from -1 to -1"]),
    "one class": (OneClass, CLASSES, ["all labels of train are 0", "labels=None"]),
    "a class unseen": (ByClass, CLASSES, ["test has images of c, train has none"]),
    "names by split": (NamesByFolder, SAME_THINGS, ["class_names of train is ('a', 'b', 'c')"]),
    "split ignored": (SplitIgnored, APART, ["24 of 24 test images", "image 0 of test is image 0"]),
    "a leak": (LeaksHalf, APART, ["12 of 24 test images", "image 12 of train", "1.0% may be"]),
    "a global split": (GlobalSplit, AGAIN, ["train, loaded twice has other labels"]),
    "a new fingerprint": (NewMark, AGAIN, ["train, loaded twice has fingerprints"]),
    "a seed for all": (Seeds, GLOBAL, ["changed the global random state", "isolated"]),
    "a name as fingerprint": (NameAsMark, MARK, ["train and ", "have one fingerprint, plain"]),
    "a fingerprint without size": (SizelessMark, MARK, ["train and train in another size"]),
    "a number as fingerprint": (NumberAsMark, MARK, ["is 5: text is wanted"]),
    "a subset's fingerprint": (images_of(SubsetKeepsMark), MARK, ["train and every other image"]),
    "size ignored": (OwnSize, SIZE, ["asked for in (10, 15)", "images are (8, 10)"]),
    "rows for columns": (Turned, SIZE, ["images are (15, 10)"]),
    "size stated": (StatedSize, SIZE, ["images are (8, 10), info.size is (10, 15)"]),
    "resized twice": (
        Blurred,
        SIZE,
        ["train, and when asked for in its own size, has other pixels"],
    ),
    "an unknown setting": (presetting(epochs=3), PRESET, ["preset() gives epochs; it may give"]),
    "no size": (presetting(image_size=None), PRESET, ["no image_size"]),
    "a bad budget": (presetting(budget="100"), PRESET, ["makes no run", "epochs=N, steps=N"]),
    "no such encoder": (presetting(encoder="vit"), PRESET, ["makes no run", "unknown encoder"]),
    "no patch fits": (presetting(image_size=(8, 9)), PRESET, ["does not divide images of 8x9"]),
    "a moody preset": (MoodyPreset, PRESET, ["and the next time"]),
    "one text": (noting("none"), NOTES, ["list of single lines", "'none'"]),
    "two lines": (noting(["a\nb"]), NOTES, ["list of single lines"]),
    "the system's error": (RawError, NO_FILES, ["FileNotFoundError", "raise DataError"]),
    "a long message": (LongError, NO_FILES, ["must be one line"]),
    "a folder made unasked": (Unasked, NO_FILES, ["load() wrote", "download was False"]),
    "a dead option": (DeadOption, NO_OPTIONS, ["option 'speed' changes neither", "2, 3"]),
    "a hidden option": (HiddenOption, NO_OPTIONS, ["plain(contrast=61)", "same fingerprint"]),
    "nothing to try": (Undeclared, NO_OPTIONS, ["option 'tint': no value", "examples=[...]"]),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_and_explained(bug):
    cls, check, words = BUGS[bug]
    assert finding(Plain, check).status in ("pass", "not checked"), "it is healthy without the bug"
    found = finding(cls, check)
    assert found.status == "fail"
    assert [word for word in words if word not in found.reason] == [], found.reason


def test_every_check_fails_for_some_bug():
    own = set(DatasetContract.checks()) - {
        # they are of the base class, or part of another check's bugs
        *("test_it_is_documented_and_can_be_registered", "test_it_survives_json_and_back"),
        "test_images_come_in_the_size_of_the_preset",
    }
    assert own == {f"test_{check}" for _, check, _ in BUGS.values()}


def test_images_that_ignore_the_size_of_the_preset_are_found():
    found = finding(OwnSize, "images_come_in_the_size_of_the_preset")
    assert found.status == "pass", "the preset asks for the very size that they have"

    class Larger(OwnSize):
        """A preset of another size."""

        def preset(self):
            return {**super().preset(), "image_size": (16, 16)}

    found = finding(Larger, "images_come_in_the_size_of_the_preset")
    assert found.reason == "the preset asks for (16, 16), images of test come in (8, 10)"


def test_what_cannot_be_loaded_is_skipped_under_pytest():
    class Test(DatasetContract):
        component = MNIST

    with pytest.raises(NotChecked, match="mnist: give the folder"):
        Test().test_loading_twice_gives_the_same()
