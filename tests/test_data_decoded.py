"""Decoded images on disk are those that decoding gives, whatever happens to the files or who adds."""

import errno
import os
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maebench import files
from maebench.data import decoded, on_disk
from maebench.data.augment import Augment
from maebench.data.decoded import RECORD, Decoded, nothing_said
from maebench.data.from_files import from_files
from maebench.data.reading import Reading
from maebench.errors import DataError

forks = pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning", "ignore:This DataLoader will create:UserWarning"
)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAEBENCH_CACHE", str(tmp_path / "cache"))


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def store(folder, channels=3, most=2**20):
    folder.mkdir(exist_ok=True)
    return Decoded(folder, channels, most, nothing_said())


@pytest.fixture
def pictures(tmp_path):
    """Nine colour images of several sizes, as PNG and JPEG."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(9):
        image = Image.fromarray(noise(20 + i, 30 - i, 3, seed=i).numpy())
        image.save(folder / f"{i}.{'png' if i % 2 else 'jpg'}")
    return folder


def load(folder, workers=0, **reading):
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    settings = {"cache_gb": 1.0, **reading}
    split = from_files(
        *(paths, None, [], folder, (16, 16), 3, "fail", 0), reading=Reading(**settings)
    )
    return replace(split, workers=workers)


def crops(images):
    plan = [(torch.tensor([8, 0, 3]), torch.tensor([0, 1, 1])), (torch.arange(9), torch.arange(9))]
    return torch.cat([batch.images for batch in images.crops(plan, Augment(shift=2), 0, "cpu")])


@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99)),
        max_size=6,
    ),
    st.sampled_from([1, 3]),
)
def test_what_was_added_first_at_a_place_is_what_is_there(tmp_path_factory, images, channels):
    kept = store(tmp_path_factory.mktemp("kept"), channels)
    first = {}
    for place, rows, columns, seed in images:
        pixels = noise(channels, rows, columns, seed=seed)
        kept.add(place, pixels)
        first.setdefault(place, pixels)
    for reader in (kept, replace(kept, _checked=set())):
        assert all(torch.equal(reader.get(place), pixels) for place, pixels in first.items())
        assert reader.get(10**7 + 1) is None


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_crops_and_images_are_the_same_without_a_cache_a_cold_and_a_warm_one(pictures, workers):
    without = load(pictures, workers, cache_gb=0)
    assert without.keeping is None
    cold = load(pictures, workers)
    assert torch.equal(crops(cold), crops(without))
    warm = load(pictures, workers)
    assert torch.equal(crops(warm), crops(without))
    assert torch.equal(torch.cat([*warm.whole(4)]), torch.cat([*without.whole(4)]))
    assert torch.equal(warm.pick([5, 2]), without.pick([5, 2]))


def test_a_second_command_decodes_nothing(pictures, monkeypatch):
    wanted = crops(load(pictures))

    def decodes(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(on_disk, "read_pixels", decodes)
    assert torch.equal(crops(load(pictures)), wanted)
    part = load(pictures).subset(torch.tensor([7, 2]))  # its images have their places
    assert torch.equal(part.pick([0]), load(pictures).pick([7]))


@pytest.mark.parametrize(
    "reading", [{"exif": "ignore"}, {"background": "black"}, {"reduced_jpeg": True}]
)
def test_images_that_are_read_otherwise_are_kept_apart(pictures, reading):
    assert load(pictures).keeping.key != load(pictures, **reading).keeping.key


def test_images_of_another_content_are_decoded_anew(pictures):
    before = load(pictures)
    crops(before)
    Image.fromarray(noise(20, 30, 3, seed=77).numpy()).save(pictures / "0.jpg")
    after = load(pictures)
    assert after.keeping.key != before.keeping.key
    with pytest.raises(DataError, match=r"0\.jpg was changed while the run went on"):
        before.pick([0])
    assert torch.equal(after.pick([0]), load(pictures, cache_gb=0).pick([0]))


def damaged_pixels(folder):
    path = folder / "pixels"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


def cut_off(folder):
    os.truncate(folder / "pixels", 100)


def damaged_index(folder):
    path = folder / "index"
    data = bytearray(path.read_bytes())
    data[1] ^= 1
    path.write_bytes(data)


def garbage(folder):
    (folder / "index").write_bytes(noise(RECORD.size * 9).numpy().tobytes())


@pytest.mark.parametrize("damage", [damaged_pixels, cut_off, damaged_index, garbage])
def test_damage_is_said_once_and_decoded_anew(pictures, damage, recwarn):
    wanted = crops(load(pictures))
    (folder,) = (files.cache_folder() / "decoded").iterdir()
    damage(folder)
    split = load(pictures)
    assert torch.equal(crops(split), wanted) and torch.equal(crops(split), wanted)
    assert [str(w.message).endswith("its images are decoded anew") for w in recwarn] == [True]
    again = load(pictures)  # it was made good
    assert torch.equal(crops(again), wanted) and len(recwarn) == 1


def test_an_index_that_is_cut_off_lacks_only_what_was_cut(pictures, recwarn):
    wanted = crops(load(pictures))
    (folder,) = (files.cache_folder() / "decoded").iterdir()
    os.truncate(folder / "index", 3 * RECORD.size)
    assert torch.equal(crops(load(pictures)), wanted) and not recwarn


def test_a_full_cache_is_said_once_and_the_run_goes_on(tmp_path, recwarn):
    kept = store(tmp_path / "kept", most=100)
    for place in range(4):
        kept.add(place, noise(3, 4, 5, seed=place))  # 60 bytes
    assert kept.get(0) is not None and kept.get(1) is None
    assert len(recwarn) == 1 and "is full" in str(recwarn[0].message)
    assert "data.cache_gb" in str(recwarn[0].message)


def no_room(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_at", full)


def little_room(monkeypatch):
    usage = namedtuple("usage", "free")(decoded.RESERVE)
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: usage)


@pytest.mark.parametrize("full", [no_room, little_room])
def test_a_full_disk_ends_the_caching_with_one_line(pictures, full, monkeypatch, recwarn):
    wanted = crops(load(pictures, cache_gb=0))
    split = load(pictures)
    full(monkeypatch)
    assert torch.equal(crops(split), wanted) and torch.equal(crops(split), wanted)
    (warning,) = recwarn
    assert "is not written any more" in str(warning.message)
    assert "\n" not in str(warning.message)


def test_a_cache_that_is_cleaned_away_meanwhile_costs_nothing_but_time(pictures, recwarn):
    split = load(pictures)
    source = split._source()
    source.pixels(0)
    files.remove(source.kept.folder)
    assert torch.equal(source.pixels(0), load(pictures, cache_gb=0)._source().pixels(0))


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from maebench import files
from maebench.data.decoded import Decoded, nothing_said
kept = Decoded(Path(sys.argv[1]), 3, 2**20, nothing_said())
plain, calls = files.write_at, []
def write_at(path, start, data):
    calls.append(path.name)
    if len(calls) == int(sys.argv[2]):
        plain(path, start, memoryview(data)[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    plain(path, start, data)
files.write_at = write_at
for place in range(3):
    kept.add(place, torch.full((3, 4, 5), place, dtype=torch.uint8))
"""


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_process_killed_while_it_adds_leaves_what_it_added_before(tmp_path, call, recwarn):
    kept = store(tmp_path / "kept")
    ran = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "kept", str(call)], check=False)
    assert ran.returncode == -signal.SIGKILL
    for place in range(3):
        found = kept.get(place)
        assert found is None or torch.equal(found, torch.full_like(found, place))
        assert found is not None or place >= (call - 1) // 2
        kept.add(place, torch.full((3, 4, 5), place, dtype=torch.uint8))
        assert torch.equal(kept.get(place), torch.full_like(kept.get(place), place))


@pytest.mark.slow
def test_processes_that_add_at_once_keep_every_image(tmp_path):
    (tmp_path / "kept").mkdir()
    add = """
import sys, torch
from pathlib import Path
from maebench.data.decoded import Decoded, nothing_said
kept = Decoded(Path(sys.argv[1]), 1, 2**20, nothing_said())
for place in range(int(sys.argv[2]), 40, 2 - (int(sys.argv[2]) > 1)):
    kept.add(place, torch.full((1, 6, 7), place, dtype=torch.uint8))
"""
    command = [sys.executable, "-c", add, tmp_path / "kept"]
    running = [subprocess.Popen([*command, str(first)]) for first in (0, 1, 2)]
    assert [process.wait() for process in running] == [0, 0, 0]
    kept = store(tmp_path / "kept", channels=1)
    assert [int(kept.get(place)[0, 5, 6]) for place in range(40)] == list(range(40))
    assert (tmp_path / "kept/pixels").stat().st_size == 40 * 42  # each once
