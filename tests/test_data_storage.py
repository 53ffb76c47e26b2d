"""The two kinds of storage cut, crop and mark a split rightly, and each planted bug is found."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass

import pytest
import torch
from test_data_folder import tree
from test_testing_dataset import Plain, changed, finding, images_of

from maebench import Draws
from maebench.data import Digits, Folder
from maebench.data import from_files as from_files_module
from maebench.data import images as images_module
from maebench.data.augment import Augment, Crops
from maebench.data.from_files import from_files
from maebench.data.images import InMemory
from maebench.rng import isolated
from maebench.testing import DatasetContract, NotChecked
from maebench.testing.contract import expect, same
from maebench.testing.dataset import LOOKED_AT, SPLITS

CROPPED = 8  # images of which crops are looked at: by chance, eight boxes are never the same


@contextlib.contextmanager
def turned_labels():
    """Every image in memory has the label of the one before it."""
    make = images_module.in_memory_images

    def turned(pixels, info, names=(), paths=()):
        labels = None if info.labels is None else info.labels.roll(1)
        return make(pixels, dataclasses.replace(info, labels=labels), names, paths)

    with pytest.MonkeyPatch.context() as patch:
        for module in (images_module, from_files_module):
            patch.setattr(module, "in_memory_images", turned)
        yield


def few(images):
    """How many images from the first on are gone through one by one."""
    size = images.info.channels * images.info.size[0] * images.info.size[1]
    return min(len(images), max(4, LOOKED_AT // (4 * size)))


def cropped(images):
    """Positions to crop, in no order that a data set would have by itself."""
    step = max(1, len(images) // CROPPED)
    return torch.arange(0, len(images), step)[:CROPPED].flip(0)


def crops(images, index, epoch=0, seed=0, batch=CROPPED, augment=None):
    """The crops of some images, asked for as pretraining does: by an iterator of batches."""
    epochs = torch.full_like(index, epoch)
    plan = zip(index.split(batch), epochs.split(batch), strict=True)
    found = list(images.crops(plan, augment or Augment(), seed, "cpu"))
    assert [len(one.images) for one in found] == [len(one) for one in index.split(batch)]
    return Crops.stack(found)


def same_crops(one, other):
    """Whether boxes, flips and, but for rounding, pixels are the same."""
    drawn = torch.equal(one.boxes, other.boxes) and torch.equal(one.flips, other.flips)
    # a hundredth of a grey level: matrix products of other sizes round otherwise
    return drawn and torch.allclose(one.images, other.images, rtol=0, atol=0.01)


class StorageContract(DatasetContract):
    """Checks of what load() gives, beside those of the data set itself."""

    def test_whole_and_pick_give_the_same_images_in_the_same_order(self):
        """Features are made by one and pictures by the other, and both are matched with labels."""
        for split in SPLITS:
            images = self.images(split)
            count = few(images)
            wanted = images.pick(range(count))
            for batch in (3, count + 1):
                parts, there = [], 0
                for got in images.whole(batch):
                    expect(len(got) <= batch, f"whole({batch}) of {split} gave {len(got)} at once")
                    parts.append(got)
                    there += len(got)
                    if count < len(images) and there >= count:
                        break
                expect(
                    there == count or (there > count and count < len(images)),
                    f"whole({batch}) of {split} gave {there} images, len() is {len(images)}",
                )
                expect(
                    torch.equal(torch.cat(parts)[:count], wanted),
                    f"whole({batch}) of {split} gives other images, or another order, than pick()",
                )
            index = [count - 1, 0, count // 2, 0]
            expect(
                torch.equal(images.pick(index), wanted[index]),
                f"pick({index}) of {split} does not give these images in this order",
            )

    def test_a_subset_keeps_the_ids_and_labels_of_its_images(self):
        """--limit takes a subset: an image must stay what it was, with its own crops."""
        for split in SPLITS:
            images = self.images(split)
            index = torch.tensor(list(dict.fromkeys([len(images) - 1, 0, len(images) // 2])))
            before = (len(images), images.info.fingerprint, images.info.ids.tolist())
            less = images.subset(index)
            where = f"subset({index.tolist()}) of {split}"
            expect(len(less) == len(index), f"{where} has {len(less)} images")
            for what in ("ids", "labels"):
                mine, theirs = getattr(less.info, what), getattr(images.info, what)
                wanted = None if theirs is None else theirs[index]
                expect(same(mine, wanted), f"{where} has {what} {mine}; {wanted} are wanted")
            for what in ("class_names", "size", "channels"):
                mine, theirs = getattr(less.info, what), getattr(images.info, what)
                expect(mine == theirs, f"{where} has {what} {mine!r} instead of {theirs!r}")
            expect(
                torch.equal(less.pick(range(len(index))), images.pick(index.tolist())),
                f"{where} holds other images",
            )
            after = (len(images), images.info.fingerprint, images.info.ids.tolist())
            expect(before == after, f"{where} changed {split} itself")

    def test_crops_hold_what_the_contract_says(self):
        """Pretraining takes images, positions, ids, epochs, boxes and flips of a batch as stated."""
        for split in SPLITS:
            images, index = self.images(split), cropped(self.images(split))
            got = crops(images, index, epoch=3)
            B, C = len(index), images.info.channels
            wanted = {
                "images": (torch.float32, (B, C, *images.info.size)),
                "index": (torch.int64, (B,)),
                "ids": (torch.int64, (B,)),
                "epoch": (torch.int64, (B,)),
                "boxes": (torch.float32, (B, 4)),
                "flips": (torch.bool, (B,)),
            }
            for what, (dtype, shape) in wanted.items():
                value = getattr(got, what)
                expect(
                    value.dtype == dtype and tuple(value.shape) == shape,
                    f"{what} of crops of {split} are {value.dtype} {tuple(value.shape)}; "
                    f"{dtype} {shape} is wanted",
                )
            expect(torch.equal(got.index, index), f"crops of {split} are not those asked for")
            expect(
                torch.equal(got.ids, images.info.ids[index]) and bool((got.epoch == 3).all()),
                f"crops of {split} have other ids or epochs than were asked for",
            )
            expect(bool((got.boxes[:, 2:] > 0).all()), f"a crop of {split} has an empty box")
            low, high = float(got.images.min()), float(got.images.max())
            expect(
                low >= 0 and 1 < high <= 255,
                f"crops of {split} go from {low:.3g} to {high:.3g}; 0..255 is wanted, normalising "
                "comes later",
            )

    def test_a_crop_is_cut_from_its_own_image(self):
        """Labels and ids go with a crop: one of another image would teach nonsense."""
        for split in SPLITS:
            images, index = self.images(split), cropped(self.images(split))
            shape = images.info.size[1] / images.info.size[0]
            augment = Augment(scale=(1.0, 1.0), aspect=(shape, shape), flip=False)
            got = crops(images, index, augment=augment).images
            own = images.pick(index.tolist()).float()
            if len(index) < 2 or float((own - own.roll(1, 0)).abs().mean()) < 1:
                raise NotChecked(f"{split} has too few different images to tell apart")
            mine, other = (float((got - x).abs().mean()) for x in (own, own.roll(1, 0)))
            expect(
                mine < other / 2,
                f"crops of whole images of {split} are {mine:.3g} away from their own images, "
                f"{other:.3g} from others: crops() must take plan's positions in their order",
            )

    def test_crops_are_drawn_by_seed_id_and_epoch_and_nothing_else(self):
        """A run that is resumed, or cut into other batches, must see the crops that it would."""
        for split in SPLITS:
            images, index = self.images(split), cropped(self.images(split))
            first = crops(images, index)
            with isolated(1, "crops"):
                again = crops(images, index)
            where = f"crops of {split}"
            expect(same_crops(first, again), f"{where} differ the second time, with the same seed")
            in_parts = crops(images, index, batch=3)
            expect(same_crops(first, in_parts), f"{where} depend on the batch they are in")
            other = images.subset(index)
            less = crops(other, torch.arange(len(index)))
            expect(same_crops(first, less), f"{where} differ in a subset: draw them by id")
            for what, redrawn in (
                ("epoch", crops(images, index, epoch=1)),
                ("seed", crops(images, index, seed=1)),
            ):
                expect(not same_crops(first, redrawn), f"{where} are the same in another {what}")

    def test_the_fingerprint_changes_with_the_labels(self):
        """A set whose labels were corrected is another one, and its old numbers are not its own."""
        images, before = self.images("train"), self.labels("train")
        with turned_labels():
            other = self.load("train")
        if other.info.labels is None or same(before, other.info.labels):
            raise NotChecked("its labels do not go through maebench.from_arrays or from_files")
        expect(
            other.info.fingerprint != images.info.fingerprint,
            "with other labels of the same images train has the same fingerprint: keep that of "
            "from_arrays, or make yours of pixels, labels and ids",
        )


LABELS_MARK = "the_fingerprint_changes_with_the_labels"
ORDER = "whole_and_pick_give_the_same_images_in_the_same_order"
SUBSET = "a_subset_keeps_the_ids_and_labels_of_its_images"
HOLD = "crops_hold_what_the_contract_says"
OWN = "a_crop_is_cut_from_its_own_image"
DRAWN = "crops_are_drawn_by_seed_id_and_epoch_and_nothing_else"
OWN_CHECKS = [name for name in vars(StorageContract) if name.startswith("test_")]


def check(component, name, **more):
    return finding(component, name.removeprefix("test_"), StorageContract, **more)


# What is healthy.


@pytest.mark.parametrize("name", OWN_CHECKS)
def test_arrays_in_memory_are_stored_rightly(name):
    assert check(Plain, name).status == "pass"
    assert check(Digits, name).status == "pass"


@pytest.mark.parametrize("name", OWN_CHECKS)
@pytest.mark.parametrize("memory_limit", [2**20, 0])
def test_files_are_stored_rightly_in_memory_and_on_disk(memory_limit, name, tmp_path):
    folder = Folder(path=tree(tmp_path, cat=10, dog=9))
    found = check(folder, name, request={"memory_limit": memory_limit})
    unseen = memory_limit == 0 and name == f"test_{LABELS_MARK}"
    assert found.status == ("not checked" if unseen else "pass"), found.reason


def test_labels_of_files_on_disk_are_in_the_fingerprint(tmp_path):
    paths = sorted(tree(tmp_path, cat=2, dog=2).rglob("*.png"))
    marks = {
        from_files(paths, labels, ["a", "b"], tmp_path, (8, 8), 1, "fail", limit).info.fingerprint
        for labels in ([0, 0, 1, 1], [0, 1, 0, 1])
        for limit in (2**20, 0)
    }
    assert len(marks) == 4


# Planted bugs.


@dataclass(frozen=True)
class DropsLast(InMemory):
    def whole(self, batch):
        for start in range(0, len(self) - batch + 1, batch):
            yield self.pixels[start : start + batch]


@dataclass(frozen=True)
class OtherOrder(InMemory):
    def whole(self, batch):
        yield from self.pixels[self.info.labels.argsort()].split(batch)


@dataclass(frozen=True)
class PicksSorted(InMemory):
    def pick(self, index):
        return self.pixels[sorted(index)]


@dataclass(frozen=True)
class Renumbers(InMemory):
    def subset(self, index):
        info = dataclasses.replace(self.info.at(index), ids=torch.arange(len(index)))
        return type(self)(self.pixels[index], info)


@dataclass(frozen=True)
class LabelsStay(InMemory):
    def subset(self, index):
        labels = self.info.labels[: len(index)]
        return type(self)(
            self.pixels[index], dataclasses.replace(self.info.at(index), labels=labels)
        )


@dataclass(frozen=True)
class Crooked(InMemory):
    """Crops with something changed after or before they are made."""

    def crops(self, plan, augment, seed, device):
        plan = [self.before(index, epoch) for index, epoch in plan]
        for crops in super().crops(plan, augment, seed, device):
            yield self.after(crops)

    def before(self, index, epoch):
        return index, epoch

    def after(self, crops):
        return crops

    def subset(self, index):
        return type(self)(self.pixels[index], self.info.at(index))


class EveryEpochTheSame(Crooked):
    def before(self, index, epoch):
        return index, epoch * 0

    def after(self, crops):
        return crops


class CropsInOrder(Crooked):
    def before(self, index, epoch):
        return index.sort().values, epoch


class NormalisedCrops(Crooked):
    def after(self, crops):
        return dataclasses.replace(crops, images=crops.images / 255)


class ByteCrops(Crooked):
    def after(self, crops):
        return dataclasses.replace(crops, images=crops.images.to(torch.uint8))


class WrongIds(Crooked):
    def after(self, crops):
        return dataclasses.replace(crops, ids=crops.index + 100)


class OthersPixels(Crooked):
    def after(self, crops):
        return dataclasses.replace(crops, images=crops.images.roll(1, 0))


class GlobalFlips(Crooked):
    def after(self, crops):
        flips = torch.rand(len(crops.flips)) < 0.5
        return dataclasses.replace(crops, flips=flips)


class FlipsByBatch(Crooked):
    def after(self, crops):
        flips = Draws(0, "batch", torch.arange(len(crops.ids))).uniform() < 0.5
        return dataclasses.replace(crops, flips=flips)


@dataclass(frozen=True)
class ByPosition(InMemory):
    """Crops drawn by the position in a subset instead of the id."""

    def crops(self, plan, augment, seed, device):
        by_place = dataclasses.replace(self.info, ids=torch.arange(len(self)))
        for crops in InMemory(self.pixels, by_place).crops(plan, augment, seed, device):
            yield dataclasses.replace(crops, ids=self.info.ids[crops.index])

    def subset(self, index):
        return type(self)(self.pixels[index], self.info.at(index))


class LabelsAside(Plain):
    """A fingerprint of the pixels alone."""

    def load(self, request):
        images = super().load(request)
        pixels = images.pixels.numpy().tobytes()
        return changed(images, fingerprint=hashlib.sha256(pixels).hexdigest())


BUGS = {
    "a fingerprint without labels": (LabelsAside, LABELS_MARK, ["with other labels of the same"]),
    "last batch dropped": (images_of(DropsLast), ORDER, ["whole(25) of train gave 0 images"]),
    "another order": (images_of(OtherOrder), ORDER, ["another order, than pick()"]),
    "picked in order": (images_of(PicksSorted), ORDER, ["pick([23, 0, 12, 0]) of train"]),
    "ids renumbered": (images_of(Renumbers), SUBSET, ["subset([23, 0, 12]) of train has ids"]),
    "labels left": (images_of(LabelsStay), SUBSET, ["of train has labels"]),
    "one crop for all epochs": (images_of(EveryEpochTheSame), DRAWN, ["same in another epoch"]),
    "flips from nowhere": (images_of(GlobalFlips), DRAWN, ["differ the second time"]),
    "flips by batch": (images_of(FlipsByBatch), DRAWN, ["depend on the batch they are in"]),
    "crops by position": (images_of(ByPosition), DRAWN, ["differ in a subset: draw them by id"]),
    "crops in order": (images_of(CropsInOrder), HOLD, ["crops of train are not those asked for"]),
    "crops normalised": (images_of(NormalisedCrops), HOLD, ["normalising comes later"]),
    "crops of bytes": (images_of(ByteCrops), HOLD, ["torch.uint8 (8, 1, 8, 10)"]),
    "wrong ids": (images_of(WrongIds), HOLD, ["other ids or epochs"]),
    "another's pixels": (images_of(OthersPixels), OWN, ["away from their own images"]),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_and_explained(bug):
    cls, name, words = BUGS[bug]
    found = check(cls, name)
    assert found.status == "fail"
    assert [word for word in words if word not in found.reason] == [], found.reason


def test_every_check_fails_for_some_bug():
    assert set(OWN_CHECKS) == {f"test_{name}" for _, name, _ in BUGS.values()}
