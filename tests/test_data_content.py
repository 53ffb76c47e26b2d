"""What files hold is read once, and again where size or time stamp tell of a change."""

import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from maebench.data import content
from maebench.data.content import digest_of, known
from maebench.errors import DataError

DAY = 24 * 3600
TICK_NS = content.TICK_NS


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "TICK_NS", 0)  # files are known at once, and not in two seconds
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path, cache):
    """Three BMP files of one size, a day old."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        write(folder / f"{i}.bmp", i)
    return folder


def write(path, level, age=DAY):
    Image.fromarray(np.full((4, 4), level, "uint8")).save(path)
    then = time.time() - age
    os.utime(path, (then, then))


def paths(folder):
    return sorted(folder.iterdir())


def counting(monkeypatch):
    read = []
    whole = content.digest_of

    def noted(path, *how):
        read.append(path.name)
        return whole(path, *how)

    monkeypatch.setattr(content, "digest_of", noted)
    return read


def test_files_are_read_once_and_known_afterwards(pictures, monkeypatch):
    first = known(paths(pictures), pictures, whole=True)
    read = counting(monkeypatch)
    assert known(paths(pictures), pictures, whole=True) == first
    assert read == []


def test_another_time_stamp_makes_a_file_read_again_and_changes_no_digest(pictures, monkeypatch):
    first = known(paths(pictures), pictures, whole=True)
    os.utime(pictures / "1.bmp", (time.time() - 2 * DAY, time.time() - 2 * DAY))
    read = counting(monkeypatch)
    again = known(paths(pictures), pictures, whole=True)
    assert read == ["1.bmp"]
    assert [file.digest for file in again] == [file.digest for file in first]


def test_what_was_written_a_moment_ago_is_not_trusted(pictures, monkeypatch):
    """It may change again within one tick of the file system's clock."""
    monkeypatch.setattr(content, "TICK_NS", TICK_NS)
    known(paths(pictures), pictures, whole=True)
    read = counting(monkeypatch)
    known(paths(pictures), pictures, whole=True)
    assert sorted(read) == ["0.bmp", "1.bmp", "2.bmp"]


def test_other_content_with_the_time_stamp_of_the_old_one_has_another_digest(pictures):
    """As an archive leaves it, or `cp -p`."""
    path = pictures / "1.bmp"
    first, before = known(paths(pictures), pictures, whole=True), path.stat()
    write(path, 77)
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # within one tick nobody could tell
        write(path, 77)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    again = known(paths(pictures), pictures, whole=True)
    assert [a.digest == b.digest for a, b in zip(first, again, strict=True)] == [True, False, True]
    with pytest.raises(DataError, match=r"1\.bmp was changed while the run went on"):
        first[1].check()


def test_other_content_of_the_same_size_and_name_has_another_digest(pictures):
    first = known(paths(pictures), pictures, whole=True)
    size = (pictures / "1.bmp").stat().st_size
    write(pictures / "1.bmp", 77)
    assert (pictures / "1.bmp").stat().st_size == size
    again = known(paths(pictures), pictures, whole=True)
    assert [a.digest == b.digest for a, b in zip(first, again, strict=True)] == [True, False, True]


def test_a_copy_elsewhere_holds_the_same(pictures, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in paths(pictures):
        (copy / path.name).write_bytes(path.read_bytes())
    digests = [
        [file.digest for file in known(paths(folder), folder, whole=True)]
        for folder in (pictures, copy)
    ]
    assert digests[0] == digests[1]


def test_three_parts_tell_of_changes_at_the_start_in_the_middle_and_at_the_end(tmp_path):
    path, size = tmp_path / "large", 10 * content.PART
    data = bytearray(np.random.default_rng(0).bytes(size))
    path.write_bytes(data)
    first = digest_of(path, size, whole=False)
    for place in (0, size // 2, size - 1):
        data[place] ^= 1
        path.write_bytes(data)
        assert digest_of(path, size, whole=False) != first
        data[place] ^= 1
    data[2 * content.PART] ^= 1  # between the parts: only the whole tells
    path.write_bytes(data)
    assert digest_of(path, size, whole=False) == first
    assert digest_of(path, size, whole=True) != digest_of(path, size, whole=False)


def test_small_files_are_covered_by_their_parts(tmp_path):
    path = tmp_path / "small"
    for size in (0, 1, content.PART - 1, content.PART + 1, 2 * content.PART + 1):
        data = bytearray(np.random.default_rng(0).bytes(size))
        path.write_bytes(data)
        first = digest_of(path, size, whole=False)
        for place in {0, size // 3, max(0, size - 1)} if size else ():
            data[place] ^= 1
            path.write_bytes(data)
            assert digest_of(path, size, whole=False) != first, (size, place)
            data[place] ^= 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"0.bmp": 3}', '{"0.bmp": [1, 2]}'])
def test_a_damaged_cache_costs_time_and_nothing_else(pictures, cache, damage):
    first = known(paths(pictures), pictures, whole=True)
    (kept,) = cache.rglob("*.json")
    kept.write_text(damage)
    with pytest.warns(UserWarning, match="the files are read again"):
        assert known(paths(pictures), pictures, whole=True) == first
    assert json.loads(kept.read_text()).keys() == {"hash", "of", "0.bmp", "1.bmp", "2.bmp"}


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(
    pictures, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAEBENCH_CACHE", str(tmp_path / "file"))
    assert len(known(paths(pictures), pictures, whole=True)) == 3


def test_a_name_that_is_no_text_is_known_too(pictures, cache, monkeypatch):
    name = os.fsencode(pictures) + b"/\xff\xfe.bmp"
    (pictures / "0.bmp").rename(os.fsdecode(name))
    known(paths(pictures), pictures, whole=True)
    read = counting(monkeypatch)
    known(paths(pictures), pictures, whole=True)
    assert read == []


def test_a_file_that_changes_is_noticed_and_a_touched_one_is_not(pictures):
    file = known(paths(pictures), pictures, whole=True)[1]
    file.check()
    write(pictures / "1.bmp", 1)  # the same content at another time
    file.check()
    write(pictures / "1.bmp", 2)
    with pytest.raises(DataError, match=r"1\.bmp was changed while the run went on"):
        file.check()
    (pictures / "1.bmp").unlink()
    with pytest.raises(DataError, match=r"1\.bmp: No such file"):
        file.check()


def test_a_file_that_cannot_be_read_is_named(pictures):
    (pictures / "3.bmp").symlink_to(pictures / "nowhere")
    with pytest.raises(DataError, match=r"cannot read image .*3\.bmp"):
        known(paths(pictures), pictures, whole=True)
