"""Groups of images come from a CSV or from folders, and stay together wherever images are divided."""

import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from maebench import Folder, Request, RunConfig
from maebench.data.split_info import SplitInfo
from maebench.encoders.inputs import Inputs
from maebench.errors import DataError


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def by_folder(tmp_path):
    """Two classes, five patients of each, three images of each patient."""
    root = tmp_path / "images"
    for number in range(30):
        name = f"{'ab'[number % 2]}/patient{number % 10}/{number}.png"
        picture(root / name, number)
    return root


@pytest.fixture
def flat(tmp_path):
    """Two classes, no folders below; patients are in a CSV and have images of both classes."""
    root = tmp_path / "flat"
    lines = ["image,group"]
    for number in range(30):
        name = f"{'ab'[number % 2]}/{number}.png"
        picture(root / name, number)
        lines.append(f"{name},patient {number % 5}")
    table = tmp_path / "groups.csv"
    table.write_text("\n".join(lines) + "\n")
    return root, table


def splits(root, groups, **how):
    data = Folder(path=root, groups=groups)
    return [data.load(Request(split, image_size=(8, 8), **how)).info for split in ("train", "test")]


def refused(root, groups, *words):
    with pytest.raises(DataError) as caught:
        splits(root, groups)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_each_image_stands_for_itself_where_it_is_said(by_folder):
    assert [info.groups for info in splits(by_folder, "image")] == [None, None]


def test_folders_below_the_class_are_groups_where_nothing_is_said(by_folder):
    by_default, told = splits(by_folder, None), splits(by_folder, "folder")
    for one, other in zip(by_default, told, strict=True):
        assert one.fingerprint == other.fingerprint
        assert torch.equal(one.groups, other.groups)


def test_images_of_a_folder_below_the_class_are_a_group(by_folder):
    train, test = splits(by_folder, "folder")
    assert len(train.groups.unique()) + len(test.groups.unique()) == 10
    assert len(train.ids) + len(test.ids) == 30
    assert test.groups.bincount().tolist().count(3) == len(test.groups.unique()) == 2


def test_a_group_is_never_in_train_and_test(flat):
    root, table = flat
    train, test = splits(root, str(table))
    assert not set(train.groups.tolist()) & set(test.groups.tolist())
    assert len(test.groups.unique()) == 1
    assert test.labels.unique().tolist() == [0, 1], "a patient has images of both classes"


def test_the_heading_of_a_csv_may_be_missing(flat):
    root, table = flat
    with_heading = splits(root, str(table))[0].groups
    table.write_text("\n".join(table.read_text().splitlines()[1:]))
    assert torch.equal(splits(root, str(table))[0].groups, with_heading)


def test_groups_follow_the_images_that_are_kept(flat):
    root, table = flat
    train, _ = splits(root, str(table))
    part = train.at(torch.tensor([3, 1]))
    assert part.groups.tolist() == train.groups[[3, 1]].tolist()
    (root / "a" / "0.png").write_bytes(b"damaged")
    skipping = splits(root, str(table), on_bad_image="skip")
    kept = {
        (int(i), int(g)) for info in skipping for i, g in zip(info.ids, info.groups, strict=True)
    }
    assert len(kept) == sum(len(info.ids) for info in skipping) == 29


def test_groups_change_no_run(by_folder):
    one, other = (Folder(path=by_folder, groups=g) for g in (None, "folder"))
    assert one.identity() == other.identity()
    assert SplitInfo(torch.arange(1), None, (), "mark", Inputs.of_images(1, (1, 1))).groups is None


def test_groups_are_an_option_on_the_command_line(by_folder):
    config = RunConfig(dataset={"name": f"folder:{by_folder}", "groups": "folder"})
    assert config.splits().load("test").info.groups is not None


def test_what_a_csv_lacks_or_has_too_much_is_refused(flat, tmp_path):
    root, table = flat
    whole = table.read_text()
    refused(root, str(tmp_path / "none.csv"), "none.csv", "No such file")
    table.write_text(whole.replace("a/2.png,patient 2\n", ""))
    refused(root, str(table), "no line for a/2.png")
    table.write_text(whole + "a/02.png,patient 1\n")
    refused(root, str(table), "line 32", "a/02.png", "Did you mean")
    table.write_text(whole + "a/2.png,patient 1\n")
    refused(root, str(table), "a/2.png is in groups 'patient 2' and 'patient 1'")
    table.write_text(whole.replace("a/2.png,patient 2", "a/2.png, "))
    refused(root, str(table), "line 4", "a/2.png has an empty group")
    table.write_text(whole + "a/2.png\n")
    refused(root, str(table), "line 32", "image,group")


def test_images_without_a_folder_below_the_class_are_named(flat):
    root, _ = flat
    refused(root, "folder", "a/0.png", "no folder below its class")


def test_a_group_on_both_sides_of_a_given_split_is_refused(by_folder, tmp_path):
    root = tmp_path / "given"
    for split in ("train", "test"):
        for number in range(4):
            picture(root / split / "ab"[number % 2] / "one" / f"{split}{number}.png", number)
    refused(root, "folder", "2 groups", "a/one", "one side")


def test_a_fifth_of_each_class_own_groups_is_test_and_never_its_only_one(tmp_path):
    for name, patients in {"a": 10, "b": 5, "c": 2, "d": 1}.items():
        for patient in range(patients):
            for number in range(2):
                file = f"{name}/{name}{patient}/{number}.png"
                picture(tmp_path / file, zlib.crc32(file.encode()))
    train, test = splits(tmp_path, "folder")
    assert train.labels.bincount(minlength=4).tolist() == [16, 8, 2, 2]
    assert test.labels.bincount(minlength=4).tolist() == [4, 2, 2, 0]


def test_groups_of_one_class_and_of_several_are_divided_apart(tmp_path):
    lines = []
    for number in range(20):
        own, other = ("b", "b") if number < 10 else ("a", "b")
        for name, part in ((own, "left"), (other, "right")):
            picture(tmp_path / "images" / name / f"{number}{part}.png", len(lines))
            lines.append(f"{name}/{number}{part}.png,{number:02}")
    table = tmp_path / "groups.csv"
    table.write_text("\n".join(lines))
    train, test = splits(tmp_path / "images", str(table))
    of_test = test.groups.unique()
    assert ((of_test < 10).sum(), (of_test >= 10).sum()) == (2, 2)
    assert not set(train.groups.tolist()) & set(of_test.tolist())


def test_a_class_that_would_be_in_test_alone_is_named(flat):
    root, table = flat
    (patient,) = splits(root, str(table))[1].groups.unique().tolist()
    picture(root / "c" / "rare.png", 99)
    table.write_text(f"{table.read_text()}c/rare.png,patient {patient}\n")
    refused(root, str(table), "no image of class 'c' is left for train", "folders train/ and test/")


def test_the_folder_of_a_split_is_no_class_and_a_class_may_be_called_train(tmp_path):
    for name in ("train", "car"):
        for number in range(10):
            picture(tmp_path / name / f"{number // 2}" / f"{number}.png", number)
    data = Folder(path=tmp_path, groups="folder", splits=("classes",))
    train, test = (data.load(Request(split, image_size=(8, 8))).info for split in ("train", "test"))
    assert [len(info.groups.unique()) for info in (train, test)] == [8, 2]


def test_one_group_cannot_be_divided(tmp_path):
    for number in range(4):
        picture(tmp_path / "one" / "ab"[number % 2] / f"{number}.png", number)
    table = tmp_path / "groups.csv"
    table.write_text("".join(f"{'ab'[n % 2]}/{n}.png,same\n" for n in range(4)))
    refused(tmp_path / "one", str(table), "one group of a kind")
