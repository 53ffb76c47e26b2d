"""Images that are in train and in test are found by their content, in memory and on disk."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maebench import Folder, RunConfig, from_arrays
from maebench.data.copies import find_copies
from maebench.errors import DataError

GB = 2**30


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def arrays(pixels, labels=None):
    labels = np.zeros(len(pixels), "int64") if labels is None else np.array(labels)
    return from_arrays(pixels, labels, ["a", "b"], None)


def positions(copies):
    return copies.train.tolist(), copies.test.tolist()


def test_equal_images_are_found_on_both_sides():
    train, test = noise(6, 1, 4, 5), noise(4, 1, 4, 5, seed=1)
    test[1], test[3] = train[4], train[4]
    found = find_copies(arrays(train), arrays(test), mirrored=False)
    assert positions(found) == ([4], [1, 3])
    assert found.remark().text == "2 of 4 test images, 50.0%, are in train too"


def test_a_mirrored_image_is_a_copy_only_where_crops_are_flipped():
    train, test = noise(6, 3, 4, 5), noise(4, 3, 4, 5, seed=1)
    test[2] = train[1, :, :, ::-1]
    assert not len(find_copies(arrays(train), arrays(test), mirrored=False).test)
    found = find_copies(arrays(train), arrays(test), mirrored=True)
    assert positions(found) == ([1], [2]) and found.mirrored == 1
    assert "(1 of them mirrored)" in found.remark().text


def test_an_image_upside_down_or_of_equal_sums_is_no_copy():
    image = noise(1, 1, 4, 4)
    turned = image[:, :, ::-1].copy()
    shuffled = image[..., [1, 0, 2, 3]].copy()  # the same sum in each row
    for other in (turned, shuffled):
        assert not len(find_copies(arrays(image), arrays(other), mirrored=True).test)


def test_a_copy_with_another_label_is_told():
    images = noise(2, 1, 4, 4)
    found = find_copies(arrays(images, [0, 1]), arrays(images, [0, 0]), mirrored=False)
    assert found.relabelled == 1 and "(1 with another label)" in found.remark().text


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=9),
    st.lists(st.integers(0, 7), min_size=1, max_size=9),
)
def test_copies_are_exactly_the_images_that_both_sides_have(ours, theirs):
    """Images of one pixel row, so that many are alike or mirror each other."""
    kinds = [np.array([[k & 1, k >> 1 & 1, k >> 2]], "uint8")[None] for k in range(8)]
    train, test = (np.stack([kinds[k] for k in some]) for some in (ours, theirs))
    mirror = {k: int(f"{k:03b}"[::-1], 2) for k in range(8)}
    for mirrored in (False, True):
        found = find_copies(arrays(train), arrays(test), mirrored)
        same = [{k, mirror[k]} if mirrored else {k} for k in theirs]
        assert found.test.tolist() == [i for i, kinds_ in enumerate(same) if kinds_ & set(ours)]
        wanted = [j for j, k in enumerate(ours) if any(k in kinds_ for kinds_ in same)]
        assert found.train.tolist() == wanted


# Folders.


@pytest.fixture
def folder(tmp_path):
    """Train of six images and test of three, of which two are in train, one of them mirrored."""
    for i in range(6):
        save(tmp_path / f"train/{'ab'[i % 2]}/{i}.png", noise(6, 6, 3, seed=i))
    save(tmp_path / "test/a/x.png", noise(6, 6, 3, seed=9))
    save(tmp_path / "test/a/y.png", noise(6, 6, 3, seed=2))
    save(tmp_path / "test/b/z.png", noise(6, 6, 3, seed=3)[:, ::-1])
    return tmp_path


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def splits(folder, **settings):
    memory = settings.pop("memory_gb", 1.0)
    return RunConfig(
        dataset=Folder(path=folder), image_size=6, data=settings, machine={"memory_gb": memory}
    ).splits()


@pytest.mark.parametrize(("memory", "count"), [(1.0, 2), (0.0, 1)])
def test_a_folder_says_its_copies(folder, memory, count):
    """On disk they are found by the files' bytes, which tell nothing of mirrored ones."""
    found = splits(folder, memory_gb=memory)
    assert found.remarks() == []
    for split in ("train", "test"):
        found.load(split)
    said = {remark.what: remark for _, remark in found.remarks()}
    assert said["in train and test"].count == count
    assert f"{count} of 3 test images, {count / 3:.1%}," in said["in train and test"].text
    assert said["in train and test"].text.endswith("by the bytes of files") == (not memory)


@pytest.mark.parametrize(("memory", "left"), [(1.0, 4), (0.0, 5)])
def test_copies_are_left_out_of_train_where_asked_and_counted(folder, memory, left):
    found = splits(folder, memory_gb=memory, on_duplicates="drop")
    before = splits(folder, memory_gb=memory)
    assert len(found.load("train")) == left and len(found.load("test")) == 3
    assert found.load("test").info.fingerprint == before.load("test").info.fingerprint
    assert found.load("train").info.fingerprint != before.load("train").info.fingerprint
    said = {remark.what: remark.text for _, remark in found.remarks()}
    assert "in train and test" not in said
    assert said["copies left out"].startswith(f"{6 - left} of 6 train images are in test too")


@pytest.mark.parametrize("memory", [1.0, 0.0])
def test_a_class_that_would_lose_all_its_images_is_refused(folder, memory):
    """Else its test images would all count as wrong."""
    for path in (folder / "train/b").iterdir():
        (folder / "test/b" / path.name).write_bytes(path.read_bytes())
    assert len(splits(folder, memory_gb=memory).load("train")) == 6
    with pytest.raises(DataError, match="every train image of class 'b' is in test too"):
        splits(folder, memory_gb=memory, on_duplicates="drop").load("train")
    for path in (folder / "train/a").iterdir():
        (folder / "test/a" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="every train image is in test too"):
        splits(folder, memory_gb=memory, on_duplicates="drop").load("train")


def test_copies_stop_the_run_where_they_are_to_fail(folder):
    with pytest.raises(
        DataError, match=r"2 of 3 test images, 66\.7%, are in train too.*on_duplicates=fail"
    ):
        splits(folder, on_duplicates="fail").load("train")


def test_one_split_in_memory_and_one_on_disk_are_compared_by_their_files(folder):
    both = splits(folder), splits(folder, memory_gb=0.0)
    found = find_copies(both[1].load("train"), both[0].load("test"), mirrored=True)
    assert len(found.test) == 1
    assert torch.equal(found.test, torch.tensor([1]))
