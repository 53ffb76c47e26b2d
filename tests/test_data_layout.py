"""A folder's tree gives splits and classes, and what a reader must know of it is remarked."""

import csv
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maebench.config.run import RunConfig
from maebench.data import Folder, Request
from maebench.data.layout import read_layout
from maebench.errors import ConfigError, DataError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def touch(folder, count=2, suffix=".png"):
    """Files with an image's suffix: reading a layout opens none of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i:03}{suffix}").write_bytes(b"")
    return folder


def tree(root, *names, count=2):
    for name in names:
        touch(root / name, count)
    return root


def names(root, split):
    return [path.relative_to(root).as_posix() for path in split.paths]


def remarks(root, **how):
    return {remark.what: remark for remark in read_layout(root, **how).remarks}


def refused(root, *words, **how):
    with pytest.raises(DataError) as caught:
        read_layout(root, **how)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and message.encode()
    for word in words:
        assert word in message, message


# Which folders are splits.


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "valid"),
        ("Training", "Dev"),
        ("train_images", "test_images"),
        ("01 trn", "02 tst"),
    ],
)
def test_splits_are_known_by_the_names_people_use(tmp_path, train, test):
    for split in (train, test):
        tree(tmp_path / split, "cat", "dog")
    layout = read_layout(tmp_path)
    assert layout.class_names == ("cat", "dog")
    assert layout.remarks == ()
    assert names(tmp_path, layout.train)[0] == f"{train}/cat/000.png"
    assert names(tmp_path, layout.test)[0] == f"{test}/cat/000.png"


def test_what_is_not_used_beside_the_splits_is_remarked(tmp_path):
    for split in ("train", "val", "test"):
        tree(tmp_path / split, "a", "b")
    touch(tmp_path / "extra", 5)
    touch(tmp_path, 3)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "x.txt").write_text("no image")
    found = remarks(tmp_path)
    assert {what: remark.count for what, remark in found.items()} == {
        **{"unused split": 4, "unused folder": 5, "unused images": 3}
    }
    assert found["unused split"].text == "4 images in val/ are not used: test/ is the test split"
    assert found["unused folder"].text == "5 images in extra/ are not used: it is no split"
    assert str(found["unused images"]) == (
        "3 images beside train/ and test/ are not used: 000.png, 001.png, 002.png"
    )


def test_an_empty_test_folder_is_remarked_where_validation_stands_in(tmp_path):
    for split in ("train", "val"):
        tree(tmp_path / split, "a", "b")
    (tmp_path / "test").mkdir()
    assert str(remarks(tmp_path)["empty split"]) == (
        "1 folder of a split holds no image, and val/ is the test split: test"
    )
    (tmp_path / "val").rename(tmp_path / "x")
    refused(tmp_path, "train/ looks like a split, others do not")


def test_what_looks_like_splits_and_is_none_is_refused_until_it_is_said(tmp_path):
    tree(tmp_path, "train", "test", "cats", count=5)
    refused(tmp_path, "train/ (images)", "cats/ is none", "-o dataset.splits=TRAIN,TEST")
    told = read_layout(tmp_path, splits=("classes",))
    assert told.class_names == ("cats", "test", "train")
    told = read_layout(tmp_path, splits=("train", "cats"))
    assert names(tmp_path, told.test) == [f"cats/00{i}.png" for i in range(5)]


def test_train_is_a_class_beside_other_classes_and_this_is_remarked(tmp_path):
    tree(tmp_path, "train", "bus", "car")
    assert read_layout(tmp_path).class_names == ("bus", "car", "train")
    assert "taken as a class" in str(remarks(tmp_path)["class named train"])
    assert remarks(tmp_path, splits=("classes",)) == {}


def test_splits_inside_classes_are_refused_and_may_be_divided_anew(tmp_path):
    tree(tmp_path, "a/train", "a/val", "b/train", "b/val")
    refused(tmp_path, "splits inside its classes (a/train and a/val)", "splits=classes")
    assert len(read_layout(tmp_path, splits=("classes",)).train.paths) > 0


def test_splits_may_lie_deeper_and_are_named_from_the_path(tmp_path):
    tree(tmp_path, "images/one", "images/two", "labels/one")
    layout = read_layout(tmp_path, splits=("images/one", "images/two"))
    assert names(tmp_path, layout.test) == ["images/two/000.png", "images/two/001.png"]
    tree(tmp_path / "train", "images")
    tree(tmp_path / "valid", "images")
    refused(tmp_path / "gone", "does not exist")
    refused(tmp_path, "unknown folder 'image/one'", splits=("image/one", "images/two"))
    refused(tmp_path, "one lies in the other", splits=("images", "images/two"))
    refused(tmp_path, "one folder", splits=("images", "images"))


@pytest.mark.parametrize("splits", ["train", "a,b,c", "/x,y", "../x,y"])
def test_splits_that_are_no_two_folders_below_the_path_are_refused(tmp_path, splits):
    with pytest.raises(ConfigError, match=r"splits.* given"):
        RunConfig(dataset={"name": f"folder:{tmp_path}", "splits": splits})


def test_splits_are_an_option_on_the_command_line_that_changes_no_identity(tmp_path):
    for name in ("a", "b"):
        for i in range(2):
            Image.new("L", (8, 8)).save(touch(tmp_path / name, 0) / f"{i}.png")
    config = RunConfig(dataset={"name": f"folder:{tmp_path}", "splits": "a,b"})
    assert config.dataset.splits == ("a", "b")
    assert config.dataset.identity() == Folder(path=tmp_path).identity()
    config = RunConfig(dataset={"name": f"folder:{tmp_path}", "splits": "classes"})
    assert config.dataset == Folder(path=tmp_path, splits=("classes",))


def test_one_folder_in_each_split_is_no_class_and_can_be_named(tmp_path):
    tree(tmp_path, "train/images", "valid/images")
    refused(tmp_path, "one class folder, 'images'", "-o dataset.splits=TRAIN,TEST")
    layout = read_layout(tmp_path, splits=("train/images", "valid/images"))
    assert layout.class_names == () and len(layout.test.paths) == 2


# Links.


@pytest.mark.parametrize("given", [True, False])
def test_a_link_to_its_own_parent_multiplies_nothing(tmp_path, given):
    root = tree(tmp_path, *(f"{s}/{c}" for s in ("train", "test") for c in "ab"), count=3)
    root = root if given else root / "train"
    before = read_layout(root)
    (root / ("train/a" if given else "a") / "loop").symlink_to("..")
    after = read_layout(root)
    assert (after.train, after.test) == (before.train, before.test)
    (remark,) = after.remarks
    assert (remark.what, remark.count) == ("links in a circle", 1)
    loop = "train/a/loop -> train" if given else "a/loop -> ."
    assert str(remark) == (
        f"1 link leads back to a folder that it lies in and was not followed: {loop}"
    )


@pytest.mark.parametrize(
    ("link", "target", "words"),
    [
        ("test/b/x", "train/b", "would be trained on"),
        ("test/b/x.png", "train/b/000.png", "would be trained on"),
        ("test/c", "train", "would be trained on"),
        ("train/c", "train/b", "of class 'c' and of 'b'"),
        ("train/a/x", "train/b", "of class 'a' and of 'b'"),
    ],
)
def test_links_that_give_an_image_two_places_are_refused(tmp_path, link, target, words):
    tree(tmp_path, *(f"{s}/{c}" for s in ("train", "test") for c in "ab"))
    (tmp_path / link).symlink_to(tmp_path / target)
    refused(tmp_path, f"link {tmp_path / link} leads to {tmp_path / target}", words)


def test_an_image_that_a_link_puts_into_a_second_class_stays_in_its_first(tmp_path):
    """Data sets that sort by several topics are made so, such as Debian's Open Clip Art."""
    root = tree(tmp_path, "a", "b", count=3)
    before = read_layout(root)
    (root / "a/x.png").symlink_to(root / "b/000.png")
    after = read_layout(root)
    assert (after.train, after.test) == (before.train, before.test)
    said = {remark.what: remark for remark in after.remarks}
    assert str(said["in two classes"]) == (
        "1 link puts an image into a second class and was left out: a/x.png is in 'b' already"
    )


def test_two_class_folders_that_link_to_one_are_refused(tmp_path):
    store = touch(tmp_path / "store")
    tree(tmp_path / "root", "a", "b")
    for name in "cd":
        (tmp_path / "root" / name).symlink_to(store)
    refused(tmp_path / "root", "of class 'd' and of 'c'")


def test_a_validation_folder_that_links_to_test_is_not_used(tmp_path):
    tree(tmp_path, "train/a", "train/b", "test/a", "test/b")
    (tmp_path / "val").symlink_to("test")
    assert remarks(tmp_path)["unused split"].count == 4


def test_an_image_linked_twice_into_a_class_counts_once(tmp_path):
    tree(tmp_path, "a", "b")
    (tmp_path / "a" / "again.png").symlink_to("000.png")
    assert len(read_layout(tmp_path).train.paths) == 2
    assert str(remarks(tmp_path)["repeated images"]).endswith("a/again.png -> a/000.png")


def test_a_class_that_is_a_broken_link_is_refused_and_a_folder_below_is_remarked(tmp_path):
    tree(tmp_path, "a", "b")
    (tmp_path / "a" / "patient").symlink_to("gone")
    assert str(remarks(tmp_path)["broken links"]).endswith("left out: a/patient")
    (tmp_path / "c").symlink_to("gone")
    refused(tmp_path, f"the link {tmp_path / 'c'} cannot be followed")


def test_a_broken_link_to_an_image_is_an_image_that_cannot_be_read(tmp_path):
    for i in range(12):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(touch(tmp_path, 0) / f"{i:02}.png")
    (tmp_path / "13.png").symlink_to("gone.png")
    data = Folder(path=tmp_path)
    found = [data.load(Request(s, on_bad_image="skip")).info.skipped for s in ("train", "test")]
    assert found[0] + found[1] == ("13.png",)
    with pytest.raises(DataError, match=r"13\.png"):
        for split in ("train", "test"):
            data.load(Request(split))


# Files that are no images, and images of other suffixes.


def test_other_files_hidden_ones_and_other_suffixes_are_counted_and_said(tmp_path):
    tree(tmp_path, "a", "b")
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "x.jfif", "JPEG")
    Image.new("RGB", (4, 4)).save(tmp_path / "b" / "y", "PNG")
    for name in ("README.txt", "labels.csv", "a/x.json", "a/._0.jpg", "b/Thumbs.db"):
        (tmp_path / name).write_text("text")
    for name in ("__MACOSX", "a/@eaDir", "b/.ipynb_checkpoints", "lost+found"):
        touch(tmp_path / name)
    layout = read_layout(tmp_path)
    assert len(layout.train.paths + layout.test.paths) == 6
    assert layout.class_names == ("a", "b")
    assert {remark.what: str(remark) for remark in layout.remarks} == {
        "other files": "3 files are no images and were left out: README.txt, a/x.json, labels.csv",
        "ignored files": "2 hidden or system files were left out: a/._0.jpg, b/Thumbs.db",
        "ignored folders": "4 hidden or system folders were left out: __MACOSX, a/@eaDir, "
        "b/.ipynb_checkpoints and 1 more",
        "suffix": "2 images have no image's suffix and are known by their content: a/x.jfif, b/y",
    }
    assert all(
        remark.count == int(remark.text.split()[0].replace(",", "")) for remark in layout.remarks
    )


# Classes.


def test_an_empty_class_folder_in_test_is_a_class_without_test(tmp_path):
    tree(tmp_path, "train/a", "train/b", "train/c", "test/a")
    (tmp_path / "test" / "b").mkdir()
    (tmp_path / "test" / "zebra").mkdir()
    layout = read_layout(tmp_path)
    assert layout.class_names == ("a", "b", "c") and layout.test.labels == (0, 0)
    assert [(r.what, str(r)) for r in layout.remarks] == [
        ("classes not in test", "2 classes have no image in test: b, c"),
        (
            "empty folders",
            "1 folder of test holds no image and is no class of train: zebra",
        ),
    ]
    (tmp_path / "train" / "d").mkdir()
    refused(tmp_path, f"class folder {tmp_path / 'train' / 'd'} holds no image")


CLASS_NAMES = ("0", "1", "10", "100", "2", "90", "cat", "Dog", "n01440764")


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_labels_are_those_of_trains_classes_whichever_of_them_test_has(data):
    """Loaders that number the folders of each split score one class as the next one."""
    train = data.draw(st.lists(st.sampled_from(CLASS_NAMES), min_size=2, unique=True))
    test = data.draw(st.lists(st.sampled_from(train), min_size=1, unique=True))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tree(root, *(f"train/{name}" for name in train), *(f"test/{name}" for name in test))
        layout = read_layout(root)
        for split in (layout.train, layout.test):
            labelled = [layout.class_names[label] for label in split.labels]
            assert labelled == [path.parent.name for path in split.paths]


def test_as_many_classes_in_test_that_are_others_are_refused(tmp_path):
    tree(tmp_path, "train/a", "train/b", "train/c", "test/b", "test/c", "test/d")
    refused(tmp_path, f"class folder {tmp_path / 'test' / 'd'}: train has no such class")


def test_a_files_name_says_nothing_of_its_split_or_class(tmp_path):
    for name in ("a cat", "a train", "test tubes", "val", "dev-1", "b"):
        (tmp_path / f"photo of {name}.png").write_bytes(b"")
    layout = read_layout(tmp_path)
    assert len(layout.train.paths) + len(layout.test.paths) == 6
    assert layout.class_names == () and layout.remarks == ()


def test_a_class_of_one_image_is_not_in_the_test_split_and_this_is_remarked(tmp_path):
    touch(tree(tmp_path, "a", "b") / "c", 1)
    assert str(remarks(tmp_path)["classes not in test"]) == "1 class has no image in test: c"


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    tree(tmp_path, f"train/{COMPOSED}", f"test/{DECOMPOSED}", "train/z", "test/z")
    layout = read_layout(tmp_path)
    assert layout.class_names == (COMPOSED, "z") and layout.remarks == ()
    assert layout.train.labels == layout.test.labels == (0, 0, 1, 1)
    tree(tmp_path, f"train/{DECOMPOSED}", count=5)
    layout = read_layout(tmp_path)
    assert layout.train.labels == (0,) * 7 + (1,) * 2
    assert [remark.what for remark in layout.remarks] == ["class names"]


def test_names_that_differ_in_case_only_are_refused_with_the_nearest(tmp_path):
    tree(tmp_path, "train/Cat", "train/DOG", "test/Cat", "test/dog")
    refused(tmp_path, f"class folder {tmp_path / 'test' / 'dog'}", "Did you mean 'DOG'?")


def test_names_that_are_not_utf_8_work_and_are_escaped_where_shown(tmp_path):
    latin = os.fsdecode(b"caf\xe9")
    for name in (latin, "b"):
        for i in range(6):
            folder = touch(tmp_path / name, 0)
            pixels = np.full((8, 8), 40 * i, np.uint8)
            Image.fromarray(pixels).save(folder / os.fsdecode(b"\xff%d.png" % i))
    info = Folder(path=tmp_path).load(Request("train")).info
    assert info.class_names == ("b", r"caf\xe9") and len(info.ids) == 10
    (tmp_path / latin / "notes.txt").write_text("")
    assert str(remarks(tmp_path)["other files"]).endswith(r": caf\xe9/notes.txt")
    (tmp_path / latin / "x").mkdir()
    (tmp_path / "000.png").write_bytes(b"")
    refused(tmp_path, "images (000.png) and class folders (b)")


def test_a_path_that_is_not_utf_8_is_refused_and_a_link_to_it_works(tmp_path):
    root = tmp_path / os.fsdecode(b"\xe9")
    for i in range(6):
        Image.new("L", (8, 8), i).save(touch(root, 0) / f"{i}.png")
    with pytest.raises(ConfigError, match=r"xe9 is not UTF-8: rename it, or give a link to it"):
        RunConfig(dataset={"name": "folder", "path": str(root)})
    (tmp_path / "link").symlink_to(root)
    assert len(Folder(path=tmp_path / "link").load(Request("test")).info.ids) == 1


# Images that belong together.


def test_folders_below_a_class_stay_together_by_default_and_this_is_remarked(tmp_path):
    tree(tmp_path, *(f"{c}/patient{i}" for c in "ab" for i in range(5)), count=3)
    touch(tmp_path / "a", 5)  # each of these stands for itself
    layout = read_layout(tmp_path)
    parts = [
        {p.parent for p in s.paths if "patient" in str(p)} for s in (layout.train, layout.test)
    ]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 10
    assert len(set(layout.train.groups) | set(layout.test.groups)) == 15
    (remark,) = layout.remarks
    assert (remark.what, remark.count) == ("groups", 10)
    assert remark.text.startswith("10 folders below their class: the images of each stay together")
    each = read_layout(tmp_path, "image")
    assert each.train.groups is None and each.remarks == ()
    assert len(each.test.paths) == 7


def test_one_folder_in_each_class_is_divided_by_images_and_this_is_remarked(tmp_path):
    tree(tmp_path, "a/images", "b/images", count=5)
    layout = read_layout(tmp_path)
    assert layout.test.groups is None and layout.test.labels == (0, 1)
    assert str(layout.remarks[0]) == (
        "2 folders below their class, one in each class: their images are divided one by one"
    )


def test_folders_below_the_classes_of_a_given_split_are_no_groups(tmp_path):
    tree(tmp_path, *(f"{s}/{c}/x" for s in ("train", "test") for c in "ab"))
    layout = read_layout(tmp_path)
    assert layout.train.groups is None and layout.remarks == ()


def test_a_csv_names_images_in_either_form_of_unicode_and_in_bytes(tmp_path):
    root, latin = tmp_path / "root", os.fsdecode(b"\xe9")
    tree(root, f"{DECOMPOSED}/{latin}", "b", count=4)
    lines = [(f"{COMPOSED}/{latin}/00{i}.png", i // 2) for i in range(4)]
    lines += [(f"b/00{i}.png", 2 + i // 2) for i in range(4)]
    with (tmp_path / "g.csv").open("w", errors="surrogateescape") as opened:
        csv.writer(opened).writerows(lines)
    layout = read_layout(root, str(tmp_path / "g.csv"))
    assert len(set(layout.train.groups) | set(layout.test.groups)) == 4
    with (tmp_path / "g.csv").open("a", errors="surrogateescape") as opened:
        opened.write(f"{latin},1\n")
    refused(root, "unknown image", "xe9", groups=str(tmp_path / "g.csv"))
