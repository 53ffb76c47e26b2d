"""Three layouts of a folder give splits, labels and settings; what does not fit is refused."""

import zlib

import numpy as np
import pytest
from PIL import Image

from maebench.config.run import RunConfig
from maebench.data import Folder, Request
from maebench.data.folder import Header
from maebench.data.tree import SUFFIXES
from maebench.encoders.vit import default_patch
from maebench.errors import ConfigError, DataError

BAD = b"damaged"


def draw(path, size=(12, 10), mode="RGB", seed=0):
    """One picture of rows x columns, another for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def fill(folder, count, **how):
    first = zlib.crc32(f"{folder.parent.name}/{folder.name}".encode())
    for i in range(count):
        draw(folder / f"{i:03}.png", seed=first + i, **how)


def tree(root, **counts):
    for name, count in counts.items():
        fill(root / name, count)
    return root


def load(root, split="train", size=None, **how):
    return Folder(path=root).load(Request(split, image_size=size, **how))


def files(root, split, **how):
    """Names of the files of a split, found by their pixels."""
    images = load(root, split, size=(12, 10), **how)
    names = {}
    for path in root.rglob("*"):
        if path.suffix.lower() in SUFFIXES and path.read_bytes() != BAD:
            pixels = np.array(Image.open(path).convert("RGB"))
            names[pixels.transpose(2, 0, 1).tobytes()] = path.relative_to(root).as_posix()
    return [names[image.numpy().tobytes()] for image in images.pixels]


def refused(root, *words):
    with pytest.raises(DataError) as caught:
        load(root)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


# The layouts.


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_train_and_test_folders_are_the_splits(tmp_path, held_out):
    tree(tmp_path / "train", cat=3, dog=2, bird=1)
    tree(tmp_path / held_out, dog=2, cat=1)
    assert files(tmp_path, "train") == [
        "train/bird/000.png",
        *(f"train/cat/00{i}.png" for i in range(3)),
        *(f"train/dog/00{i}.png" for i in range(2)),
    ]
    assert files(tmp_path, "test") == [
        f"{held_out}/{n}.png" for n in ("cat/000", "dog/000", "dog/001")
    ]
    train, test = load(tmp_path), load(tmp_path, "test")
    assert train.info.class_names == test.info.class_names == ("bird", "cat", "dog")
    assert train.info.labels.tolist() == [0, 1, 1, 1, 2, 2]
    assert test.info.labels.tolist() == [1, 2, 2]
    assert train.info.ids.tolist() == list(range(6))


def test_where_there_are_val_and_test_test_is_the_test_split(tmp_path):
    for split in ("train", "val", "test"):
        tree(tmp_path / split, a=2, b=2)
    fill(tmp_path / "val" / "a", 4)
    assert len(load(tmp_path, "test")) == 4


def test_flat_train_and_test_have_no_labels(tmp_path):
    fill(tmp_path / "train", 4)
    fill(tmp_path / "test", 2)
    for split, count in (("train", 4), ("test", 2)):
        images = load(tmp_path, split)
        assert len(images) == count
        assert images.info.labels is None and images.info.class_names == ()


def test_class_folders_are_split_four_to_one_in_each_class(tmp_path):
    tree(tmp_path, a=20, b=10, c=5, d=2, e=1)
    train, test = load(tmp_path), load(tmp_path, "test")
    assert train.info.labels.bincount().tolist() == [16, 8, 4, 1, 1]
    assert test.info.labels.bincount().tolist() == [4, 2, 1, 1]
    names = files(tmp_path, "train") + files(tmp_path, "test")
    assert len(set(names)) == 38
    assert files(tmp_path, "train") == sorted(files(tmp_path, "train"))


def test_images_alone_are_split_four_to_one_without_labels(tmp_path):
    fill(tmp_path, 20)
    train, test = load(tmp_path), load(tmp_path, "test")
    assert (len(train), len(test)) == (16, 4)
    assert train.info.labels is None
    assert not set(files(tmp_path, "train")) & set(files(tmp_path, "test"))


def test_the_split_is_the_same_each_time_and_does_not_depend_on_other_classes(tmp_path):
    tree(tmp_path, a=10, b=10)
    before = files(tmp_path, "test")
    assert files(tmp_path, "test") == before
    tree(tmp_path, c=10)
    assert [name for name in files(tmp_path, "test") if name[0] in "ab"] == before
    # classes do not all give the images of the same numbers
    assert [n[2:] for n in before if n[0] == "a"] != [n[2:] for n in before if n[0] == "b"]


def test_one_folder_may_hold_classes_named_train_and_others(tmp_path):
    tree(tmp_path, train=5, car=5)  # of vehicles
    assert load(tmp_path).info.class_names == ("car", "train")


def test_hidden_and_other_files_are_ignored_and_folders_below_a_class_belong_to_it(tmp_path):
    tree(tmp_path, a=4, b=4)
    draw(tmp_path / "a" / "deep" / "er" / "x.PNG", seed=99)
    draw(tmp_path / "a" / ".hidden" / "x.png")
    draw(tmp_path / "a" / ".x.png")
    draw(tmp_path / ".git" / "x.png")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"?")
    (tmp_path / "labels.csv").write_text("?")
    names = files(tmp_path, "train") + files(tmp_path, "test")
    assert len(names) == 9
    assert "a/deep/er/x.PNG" in names


def test_every_suffix_is_read_in_capitals_too(tmp_path):
    for i, suffix in enumerate(SUFFIXES):
        kind = {".pgm": "L"}.get(suffix, "RGB")
        draw(tmp_path / f"{i}{suffix.upper()}", mode=kind, seed=i)
    assert len(load(tmp_path)) + len(load(tmp_path, "test")) == len(SUFFIXES)


# What is refused.


def test_a_path_that_is_no_folder_of_images_is_refused_in_one_line(tmp_path):
    refused(tmp_path / "gone", str(tmp_path / "gone"), "does not exist")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file, no folder")
    refused(tmp_path, str(tmp_path), "holds no image", ".png")
    tree(tmp_path, a=2, b=2)
    (tmp_path / "c").mkdir()
    refused(tmp_path, f"class folder {tmp_path / 'c'} holds no image")


def test_images_beside_class_folders_are_refused(tmp_path):
    draw(tree(tmp_path, a=2, b=2) / "stray.png")
    refused(tmp_path, "stray.png", "class folders (a)")


def test_one_class_is_no_label(tmp_path):
    tree(tmp_path, everything=5)
    refused(tmp_path, "one class folder, 'everything'", "give the path of that folder")


def test_one_image_cannot_be_split(tmp_path):
    draw(tmp_path / "a.png")
    refused(tmp_path, "two are needed")


def test_a_class_that_train_has_not_is_refused(tmp_path):
    tree(tmp_path / "train", a=2, b=2)
    tree(tmp_path / "test", a=2, c=2)
    refused(tmp_path, str(tmp_path / "test" / "c"), "train has no such class", "a, b")


@pytest.mark.parametrize("labelled", ["train", "test"])
def test_labels_in_one_split_only_are_refused(tmp_path, labelled):
    bare = {"train": "test", "test": "train"}[labelled]
    tree(tmp_path / labelled, a=2, b=2)
    fill(tmp_path / bare, 2)
    refused(tmp_path, f"{tmp_path / labelled} has class folders", f"{tmp_path / bare} has none")


def test_the_path_is_asked_for(tmp_path):
    for spec in ("folder", "folder:", {"name": "folder"}):
        with pytest.raises(ConfigError, match="folder:PATH"):
            RunConfig(dataset=spec)


@pytest.mark.parametrize(
    "spec",
    [
        "folder:~nobody-here/x",
        {"name": "folder", "path": "/tmp", "groups": "~nobody-here/x"},
    ],
)
def test_the_home_folder_of_nobody_is_one_line(spec):
    with pytest.raises(ConfigError, match="cannot read ~nobody-here/x: there is no home folder"):
        RunConfig(dataset=spec)


# Bad images, channels, fingerprints.


def test_bad_images_are_named_or_left_out_without_changing_the_split(tmp_path):
    tree(tmp_path, a=10, b=10)
    whole = files(tmp_path, "train")
    bad = tmp_path / whole[3]
    bad.write_bytes(BAD)
    with pytest.raises(DataError, match="--on-bad-image skip"):
        load(tmp_path)
    kept = load(tmp_path, on_bad_image="skip")
    assert kept.info.skipped == (whole[3],)
    assert kept.info.ids.tolist() == [i for i in range(16) if i != 3]
    assert files(tmp_path, "train", on_bad_image="skip") == [n for n in whole if n != whole[3]]
    assert len(load(tmp_path, "test")) == 4


@pytest.mark.parametrize(
    ("modes", "channels"),
    [(("L", "L"), 1), (("1", "L"), 1), (("I;16", "LA"), 1), (("L", "RGB"), 3), (("P", "L"), 3)],
)
def test_channels_are_one_where_all_of_train_and_test_is_gray(tmp_path, modes, channels):
    for split in ("train", "test"):
        for i, mode in enumerate(modes):
            draw(tmp_path / split / f"{i}.png", mode="L" if mode == "I;16" else mode, seed=i)
            if mode == "I;16":
                Image.fromarray(np.full((12, 10), 40_000, np.uint16)).save(
                    tmp_path / split / f"{i}.png"
                )
    for split in ("train", "test"):
        assert load(tmp_path, split).info.channels == channels
    draw(tmp_path / "test" / "colour.png")
    assert load(tmp_path).info.channels == 3


def test_the_fingerprint_tells_splits_and_contents_apart_and_not_places(tmp_path):
    root = tree(tmp_path / "here", a=10, b=10)
    mark = load(root).info.fingerprint
    assert mark != load(root, "test").info.fingerprint
    root = root.rename(tmp_path / "there")
    assert load(root).info.fingerprint == mark
    (root / "a").rename(root / "z")  # other labels, another split
    assert load(root).info.fingerprint != mark


# Settings.


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [
        *((60, 80, 64), (80, 60, 64), (8, 8, 8), (1, 9, 4), (28, 28, 28), (33, 50, 32)),
        *((100, 98, 96), (160, 400, 160), (500, 375, 224), (170, 170, 176)),
    ],
)
def test_the_preset_fits_the_shorter_side_in_whole_patches(tmp_path, height, width, side):
    fill(tmp_path, 5, size=(height, width))
    preset = Folder(path=tmp_path).preset()
    assert preset["image_size"] == (side, side)
    config = RunConfig(dataset=f"folder:{tmp_path}")
    assert config.size == (side, side)
    patch = config.encoder.patch_size(config.size)
    assert patch == (default_patch((side, side)),) * 2
    assert side // patch[0] >= 2


def test_every_size_of_image_gets_a_size_that_its_default_patch_divides():
    for shorter in range(1, 400):
        side = Header(shorter, 500, 3).side
        patch = default_patch((side, side))
        assert side % patch == 0 and 2 <= side // patch <= 14
        assert abs(side - min(224, shorter)) <= (4 if shorter <= 96 else 8)


def test_the_median_is_over_images_that_can_be_read(tmp_path):
    for i, side in enumerate((20, 40, 44, 48, 400)):
        draw(tmp_path / f"{i}.png", size=(side, side), seed=i)
    fill(tmp_path / "more", 1)
    (tmp_path / "more" / "000.png").rename(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(b"damaged")
    assert 32 <= Folder(path=tmp_path).preset()["image_size"][0] <= 48


def test_where_no_header_can_be_read_it_says_so(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match="none of 4 images looked at can be read"):
        Folder(path=tmp_path).preset()


def test_the_note_says_what_was_chosen(tmp_path):
    for name, count in {"a": 66, "b": 66}.items():
        fill(tmp_path / name, count, size=(60, 80))
    assert Folder(path=tmp_path).notes() == [
        "folder: 132 images of about 60x80: image size 64, vit-tiny, patch 8, epochs=200, batch 64 "
        "where no flag says otherwise"
    ]


def test_a_run_can_be_repeated_from_another_working_directory(tmp_path, monkeypatch):
    fill(tmp_path / "pictures", 5)
    monkeypatch.chdir(tmp_path)
    config = RunConfig(dataset="folder:pictures")
    assert config.dataset == Folder(path=tmp_path / "pictures")
    assert hash(config.dataset) == hash(Folder(path=tmp_path / "pictures"))
    monkeypatch.chdir("/")
    assert RunConfig(**config.dump()).dataset.load(Request("test")).info.size == (12, 12)
