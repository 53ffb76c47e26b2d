"""What a careful person would look at is found, and what is wrong comes first."""

import pytest
from messy import clean, noise, save

from maebench import Folder, RunConfig
from maebench.data.check import SEVERITIES, check


def found(root, memory_gb=1.0, **settings):
    config = RunConfig(
        dataset=Folder(path=root),
        image_size=8,
        on_bad_image="skip",
        machine={"memory_gb": memory_gb},
        **settings,
    )
    return check(config.splits())


def texts(root, severity=None, **settings):
    findings = found(root, **settings).findings
    return [str(f) for f in findings if severity in (None, f.severity)]


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_nothing_is_found_in_a_clean_folder(tmp_path, memory):
    result = found(clean(tmp_path), memory)
    assert result.findings == [] and result.worst == "note"
    assert {split: len(one.headers) for split, one in result.looked.items()} == {
        "train": 8,
        "test": 4,
    }


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_images_in_both_splits_are_an_error_and_named(tmp_path, memory):
    root = clean(tmp_path)
    save(root / "test/a/again.png", noise(8, 8, 3, seed=5000))
    save(root / "test/b/turned.png", noise(8, 8, 3, seed=5001)[:, ::-1])
    errors = texts(root, "error", memory_gb=memory)
    assert errors == [
        "2 of 6 test images, 33.3%, are in train too: train/a/0.png = test/a/again.png, "
        "train/b/1.png = test/b/turned.png"
    ]
    plain = texts(root, "error", memory_gb=memory, augment={"flip": False})
    assert plain == [
        "1 of 6 test images, 16.7%, are in train too: train/a/0.png = test/a/again.png"
    ]


def test_images_twice_in_a_split_are_a_warning_and_an_error_in_two_classes(tmp_path):
    root = clean(tmp_path)
    for name in ("x", "y"):
        save(root / f"train/a/{name}.png", noise(8, 8, 3, seed=5000))
    save(root / "train/a/z.png", noise(8, 8, 3, seed=5001))
    assert texts(root, "warning") == [
        "train: 1 image more than once, 2 too many: train/a/0.png = train/a/x.png = train/a/y.png"
    ]
    assert texts(root, "error") == [
        "train: 1 image in several classes: train/a/z.png = train/b/1.png"
    ]


def test_an_image_saved_again_looks_like_one_of_train(tmp_path):
    root = clean(tmp_path)
    level = noise(8, 8, 3, seed=5002).astype(float)
    save(root / "test/a/again.png", (level * 0.97).astype("uint8"))
    (warning,) = texts(root, "warning")
    assert warning == (
        "1 of 5 test images look like one of train: train/a/2.png ~ test/a/again.png"
    )


def test_files_that_cannot_be_read_are_an_error(tmp_path):
    root = clean(tmp_path)
    (root / "train/a/bad.png").write_bytes(b"nothing")
    assert texts(root, "error") == ["train: 1 file cannot be read: train/a/bad.png"]


def test_images_of_one_colour_and_small_classes_are_warnings(tmp_path):
    root = clean(tmp_path, test=2)
    save(root / "train/a/plain.png", noise(1, 1, 3).repeat(8, 0).repeat(8, 1))
    assert texts(root, "warning") == [
        "train: 1 image of one colour: train/a/plain.png",
        "test: 2 classes with one image: a, b",
    ]


def test_what_was_said_of_the_files_is_found_too(tmp_path):
    root = clean(tmp_path)
    (root / "train/a/notes.txt").write_text("x")
    save(root / "test/a/drawn.png", noise(8, 8, 4))
    assert [text.partition(" were ")[0] for text in texts(root, "warning")] == [
        "1 file is no image and was left out: train/a/notes.txt"
    ]
    assert texts(root, "note") == [
        "test: transparent pixels of 1 of 5 images laid over white; "
        "-o data.background=COLOUR takes another colour"
    ]


def test_a_class_that_test_has_not_is_a_warning(tmp_path):
    root = clean(tmp_path)
    for i in range(3):
        save(root / f"train/c/{i}.png", noise(8, 8, 3, seed=90 + i))
    assert "test: 1 class without an image: c" in texts(root, "warning")


def test_images_without_labels_are_looked_at_too(tmp_path):
    for i in range(10):
        save(tmp_path / f"{i}.png", noise(8, 8, 3, seed=i))
    assert texts(tmp_path) == ["there are no labels: only evaluations without labels apply"]


def test_data_that_is_in_no_files_is_looked_at_too():
    result = check(RunConfig(dataset="digits").splits())
    assert [f.severity for f in result.findings] == ["warning"]
    (text,) = map(str, result.findings)
    assert text.startswith("2 of 360 test images look like one of train: train ")


def test_the_worst_comes_first(tmp_path):
    root = clean(tmp_path, test=2)
    (root / "train/a/bad.png").write_bytes(b"nothing")
    save(root / "train/a/drawn.png", noise(8, 8, 4))
    result = found(root)
    ranks = [SEVERITIES.index(f.severity) for f in result.findings]
    assert ranks == sorted(ranks, reverse=True) and set(ranks) == {0, 1, 2}
    assert result.worst == "error"
