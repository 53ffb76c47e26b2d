"""What a loaded split is: the same images whatever holds them, and errors that name the file."""

import os
import pickle
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from maebench.data import images as images_module
from maebench.data import on_disk
from maebench.data.augment import Augment
from maebench.data.from_files import from_files
from maebench.data.images import (
    InMemory,
    OnDisk,
    channel_statistics,
    from_arrays,
    limited,
)
from maebench.errors import DataError, PluginError

# Python 3.12 warns of any fork in a process with threads, which torch always has; torch warns of
# more workers than cores.
forks = pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning", "ignore:This DataLoader will create:UserWarning"
)
GB = 2**30


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def pictures(tmp_path):
    """Twelve colour images of 16x20 and one that is cut off, as the fifth."""
    for i in range(13):
        Image.fromarray(noise(16, 20, 3, seed=i)).save(tmp_path / f"{i:02}.png")
    bad = tmp_path / "04.png"
    bad.write_bytes(bad.read_bytes()[:200])
    return tmp_path


def load(folder, size=(16, 20), labels=True, bad="fail", limit=GB, leave=("04.png",), channels=3):
    paths = [path for path in sorted(folder.iterdir()) if path.name not in leave]
    classes = [int(path.stem) % 3 for path in paths] if labels else None
    return from_files(paths, classes, ["a", "b", "c"], folder, size, channels, bad, limit)


# A split of files.


def test_the_fit_into_memory_decides_what_holds_a_split(pictures):
    small, large = load(pictures), load(pictures, limit=1000)
    assert isinstance(small, InMemory) and isinstance(large, OnDisk)
    assert len(small) == len(large) == 12
    assert small.info.labels.tolist() == large.info.labels.tolist()
    for batch in (5, 12, 100):
        assert torch.equal(torch.cat(list(small.whole(batch))), small.pixels)
    assert torch.equal(small.pick([3, 1]), large.pick([3, 1]))


@forks
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shift", [0, 2])
def test_crops_from_disk_are_the_crops_from_memory(pictures, workers, shift):
    memory, disk = load(pictures), load(pictures, limit=0)
    disk = replace(disk, workers=workers)
    assert torch.equal(torch.cat(list(disk.whole(5))), memory.pixels)
    plan = [
        (torch.tensor([3, 0, 11, 3]), torch.tensor([0, 0, 1, 1])),
        (torch.arange(5), torch.ones(5).long()),
    ]
    augment = Augment(shift=shift)
    pairs = zip(
        memory.crops(plan, augment, 1, "cpu"), disk.crops(plan, augment, 1, "cpu"), strict=True
    )
    for a, b in pairs:
        for name in ("index", "ids", "epoch", "boxes", "flips"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert (a.images - b.images).abs().max() < 0.01


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("held", [1, on_disk.HELD])
def test_what_a_gpu_cuts_is_what_a_worker_cuts(pictures, shift, held, monkeypatch):
    monkeypatch.setattr(on_disk, "HELD", held)  # images whose boxes are drawn at once
    source = load(pictures, limit=0)._source()
    batch = [(3, 0), (0, 0), (11, 1), (3, 1)]
    here, there = (
        on_disk._Cropped(source, Augment(shift=shift), 1, cuts).__getitems__(batch)
        for cuts in (True, False)
    )
    made = there.cut("cpu", (16, 20))
    for name in ("index", "ids", "epoch", "boxes", "flips", "sizes"):
        assert torch.equal(getattr(made, name), getattr(here, name)), name
    assert (made.images - here.images).abs().max() < 0.01  # of 255: other sums


def test_images_that_a_gpu_does_not_hold_are_sent_batch_by_batch(pictures, monkeypatch):
    memory = load(pictures)
    plan = [(torch.tensor([3, 0, 11, 3]), torch.tensor([0, 0, 1, 1]))]
    (kept,) = memory.crops(plan, Augment(), 1, "cpu")
    monkeypatch.setattr(images_module, "fits", lambda pixels, device: False)
    (sent,) = memory.crops(plan, Augment(), 1, "cpu")
    assert torch.equal(kept.images, sent.images)


@forks
def test_reading_by_workers_leaves_the_global_random_state_as_found(pictures):
    disk = load(pictures, limit=0)
    before = torch.get_rng_state()
    for _ in replace(disk, workers=1).whole(6):
        pass
    assert torch.equal(torch.get_rng_state(), before)


@forks
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("what", ["whole", "crops", "pick"])
def test_a_bad_image_read_by_a_worker_is_named_in_one_line(pictures, workers, what):
    disk = load(pictures, limit=0, leave=())
    disk = replace(disk, workers=workers)
    plan = [(torch.arange(13), torch.zeros(13, dtype=torch.int64))]
    read = {
        "whole": lambda: list(disk.whole(4)),
        "crops": lambda: list(disk.crops(plan, Augment(), 0, "cpu")),
        "pick": lambda: disk.pick(range(13)),
    }[what]
    with pytest.raises(DataError) as caught:
        read()
    message = str(caught.value)
    assert str(pictures / "04.png") in message
    assert "\n" not in message and "Traceback" not in message


@forks
def test_a_worker_that_is_killed_is_explained(pictures, monkeypatch):
    disk = replace(load(pictures, limit=0), keeping=None)
    monkeypatch.setattr(on_disk, "read_pixels", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match=r"killed.*--batch"):
        list(replace(disk, workers=1).whole(4))


def test_other_errors_of_a_worker_are_not_hidden(pictures, monkeypatch):
    def broken(*_):
        raise RuntimeError("ours")

    disk = replace(load(pictures, limit=0), keeping=None)
    monkeypatch.setattr(on_disk, "read_pixels", broken)
    with pytest.raises(RuntimeError, match="ours"):
        list(replace(disk, workers=0).whole(4))


def test_what_workers_get_can_be_sent_to_another_process(pictures):
    disk = load(pictures, limit=0)
    items = on_disk._Cropped(disk._source(), Augment(), 0)
    (a, b) = (x.__getitems__([(2, 0)]) for x in (items, pickle.loads(pickle.dumps(items))))
    assert torch.equal(a.images, b.images)


@pytest.mark.parametrize("limit", [0, GB])
def test_skipping_leaves_bad_images_out_and_keeps_the_ids_of_the_others(pictures, limit):
    kept = load(pictures, bad="skip", leave=(), limit=limit)
    assert len(kept) == 12
    assert kept.info.skipped == ("04.png",)
    assert kept.info.ids.tolist() == [0, 1, 2, 3, *range(5, 13)]
    assert kept.info.labels.tolist() == [i % 3 for i in range(13) if i != 4]
    without = load(pictures, limit=limit)
    assert torch.equal(kept.pick(range(12)), without.pick(range(12)))
    # other ids give other crops: it is another split
    assert kept.info.fingerprint != without.info.fingerprint


def test_skipped_or_not_an_image_has_the_same_crops(pictures):
    plan = [(torch.tensor([7]), torch.tensor([0]))]
    (before,) = load(pictures, bad="skip", leave=()).crops(plan, Augment(), 0, "cpu")
    Image.fromarray(noise(16, 20, 3)).save(pictures / "04.png")
    plan = [(torch.tensor([8]), torch.tensor([0]))]
    (after,) = load(pictures, leave=()).crops(plan, Augment(), 0, "cpu")
    assert torch.equal(before.images, after.images)


def test_a_bad_image_stops_loading_where_it_is_not_to_be_skipped(pictures):
    with pytest.raises(DataError, match=r"04\.png"):
        load(pictures, leave=())


@pytest.mark.parametrize("limit", [0, GB])
def test_where_no_image_can_be_read_it_says_so(tmp_path, limit):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"can be read \(3 files were tried, .*0\.png: "):
        load(tmp_path, bad="skip", limit=limit)


def test_a_listed_file_that_is_missing_is_named(pictures):
    paths = [pictures / "00.png", pictures / "gone.png"]
    for limit in (0, GB):
        with pytest.raises(DataError, match=r"gone\.png: No such file"):
            from_files(paths, None, [], pictures, (8, 8), 3, "fail", limit)


def test_progress_counts_every_file(pictures):
    seen = []
    paths = sorted(pictures.iterdir())
    from_files(paths, None, [], pictures, (8, 8), 3, "skip", GB, lambda *at: seen.append(at))
    assert seen == [(i, 13) for i in range(1, 14)]


@pytest.mark.parametrize("limit", [0, GB])
def test_the_fingerprint_changes_with_the_content_and_only_with_it(pictures, tmp_path, limit):
    def mark(folder=pictures, **how):
        return load(folder, limit=limit, **how).info.fingerprint

    first = mark()
    assert mark() == first
    moved = pictures.parent / f"{pictures.name}-moved"
    pictures.rename(moved)
    assert mark(moved) == first
    assert (
        len(
            {
                first,
                mark(moved, labels=False),
                mark(moved, size=(8, 8)),
                mark(moved, leave=("04.png", "03.png")),
            }
        )
        == 4
    )
    Image.fromarray(noise(17, 20, 3)).save(moved / "07.png")
    assert mark(moved) != first


def test_a_part_has_its_own_fingerprint_ids_and_labels(pictures):
    images = load(pictures)
    part = images.subset(torch.tensor([5, 2]))
    assert part.info.ids.tolist() == [5, 2]
    assert part.info.labels.tolist() == images.info.labels[[5, 2]].tolist()
    assert torch.equal(part.pixels, images.pixels[[5, 2]])
    assert part.info.fingerprint != images.info.fingerprint
    assert part.info.fingerprint != images.subset(torch.tensor([5, 3])).info.fingerprint
    disk = load(pictures, limit=0).subset(torch.tensor([5, 2]))
    assert torch.equal(disk.pick([0, 1]), part.pixels)


# A split of an array, and what is made of splits.


def test_arrays_keep_their_pixels_and_are_resized_where_asked():
    pixels = noise(300, 3, 8, 8)
    images = from_arrays(pixels, np.arange(300) % 4, list("abcd"), None)
    assert np.array_equal(images.pixels.numpy(), pixels)
    assert images.info.size == (8, 8) and images.info.channels == 3
    assert from_arrays(pixels[:, 0], None, [], (8, 8)).pixels.shape == (300, 1, 8, 8)
    large = from_arrays(pixels, None, [], (16, 12))
    assert large.pixels.shape == (300, 3, 16, 12) and large.pixels.dtype == torch.uint8
    assert large.info.fingerprint != images.info.fingerprint


def test_a_limit_takes_classes_in_turn():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 3)
    images = from_arrays(noise(83, 4, 4), labels, list("abc"), None)
    for limit, counts in ((3, [1, 1, 1]), (9, [3, 3, 3]), (23, [10, 10, 3]), (83, [50, 30, 3])):
        assert limited(images, limit).info.labels.bincount().tolist() == counts


def test_a_limit_is_the_same_for_every_run_and_another_for_another_seed():
    images = from_arrays(noise(90, 4, 4), np.arange(90) % 3, list("abc"), None)
    first = limited(images, 12)
    assert first.info.ids.tolist() == limited(images, 12).info.ids.tolist()
    assert first.info.ids.tolist() == sorted(first.info.ids.tolist())
    assert first.info.ids.tolist() != limited(images, 12, seed=1).info.ids.tolist()
    assert set(first.info.ids.tolist()) < set(limited(images, 13).info.ids.tolist())
    without = from_arrays(noise(90, 4, 4), None, [], None)
    assert len(limited(without, 12)) == 12


def test_a_limit_beyond_what_there_is_is_refused():
    images = from_arrays(noise(5, 4, 4), None, [], None)
    with pytest.raises(DataError, match="--limit 6: train has only 5 images"):
        limited(images, 6)


def test_a_limit_that_leaves_a_class_without_an_image_is_refused():
    images = from_arrays(np.zeros((9, 8, 8), np.uint8), np.arange(9) % 3, list("abcd"), None)
    with pytest.raises(DataError, match="--limit 2: train has 3 classes: give 3 or more"):
        limited(images, 2)
    assert sorted(limited(images, 3).info.labels.tolist()) == [0, 1, 2]


def test_channel_statistics_are_numpys():
    pixels = noise(300, 3, 6, 5)
    pixels[:, 1] //= 3
    mean, deviation = channel_statistics(from_arrays(pixels, None, [], None))
    assert mean == pytest.approx((pixels / 255).mean((0, 2, 3)), abs=1e-6)
    assert deviation == pytest.approx((pixels / 255).std((0, 2, 3), ddof=1), abs=1e-6)


def test_channel_statistics_of_many_images_come_from_a_fixed_sample():
    pixels = noise(5000, 1, 2, 2)
    images = from_arrays(pixels, None, [], None)
    mean, deviation = channel_statistics(images)
    assert (mean, deviation) == channel_statistics(images)
    assert mean == pytest.approx(((pixels / 255).mean(),), abs=0.02)


def test_one_colour_has_deviation_one():
    images = from_arrays(np.full((4, 1, 3, 3), 77, np.uint8), None, [], None)
    assert channel_statistics(images) == ((round(77 / 255, 6),), (1.0,))


def test_statistics_are_the_same_from_memory_and_from_disk(pictures):
    assert channel_statistics(load(pictures)) == channel_statistics(load(pictures, limit=0))


@pytest.mark.parametrize(
    ("pixels", "labels", "said"),
    [
        (np.zeros((6, 8, 8), "float32"), None, "pixels: uint8 .* given float32 6x8x8"),
        (np.zeros((6, 8), "uint8"), None, "pixels: uint8 .* given uint8 6x8"),
        (np.zeros((6, 16, 16, 3), "uint8"), None, "channels come before rows.* given 6x16x16x3"),
        (np.zeros((6, 8, 8), "uint8"), np.zeros(6), "one integer for each of 6 .* float64 6"),
        (np.zeros((6, 8, 8), "uint8"), np.zeros(5, int), "one integer for each of 6 .* int64 5"),
    ],
)
def test_arrays_of_another_kind_are_refused(pixels, labels, said):
    with pytest.raises(PluginError, match=said):
        from_arrays(pixels, labels, ["a"], None)
    assert from_arrays(np.zeros((6, 3, 8, 3), "uint8"), None, [], None).info.channels == 3


@pytest.mark.parametrize(
    ("labels", "names", "given"),
    [
        ([0, 1, 2, 1], "ab", "2 for image 2 (1 of 4"),
        ([1, 2, 3, 2], "abc", "3 for image 2 (1 of 4"),  # counted from 1
        ([0, -1, 1, -1], "ab", "-1 for image 1 (2 of 4"),  # -1 for images without a label
        ([0, 2**63, 1, 0], "ab", f"{2**63} for image 1"),  # would be negative as int64
        ([0, 0, 0, 0], "", "0 for image 0 (4 of 4"),
    ],
)
def test_labels_without_a_class_name_are_refused(labels, names, given):
    wanted = f"labels: each the place of one of {len(names)} class names, from 0, given {given}"
    kind = "uint64" if max(labels) > 3 else "int64"
    with pytest.raises(PluginError, match=re.escape(wanted)):
        from_arrays(noise(4, 8, 8), np.array(labels, kind), names, None)


@forks
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("workers", [0, 2])
def test_crops_on_a_gpu_are_those_of_the_processor(pictures, workers):
    disk = replace(load(pictures, limit=0), workers=workers)
    plan = [(torch.arange(5), torch.ones(5).long()), (torch.arange(7), torch.zeros(7).long())]
    pairs = zip(
        disk.crops(plan, Augment(), 1, "cpu"), disk.crops(plan, Augment(), 1, "cuda"), strict=True
    )
    for a, b in pairs:
        assert b.images.is_cuda and not b.index.is_cuda
        assert torch.equal(a.images, b.images.cpu()) and torch.equal(a.boxes, b.boxes.cpu())
