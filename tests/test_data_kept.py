"""What is kept between commands has a limit, makes room for what is used, and can be removed."""

import os
import time

import pytest

from maebench import files
from maebench.data import kept
from maebench.data.kept import DAY, Keeping, make_room, parts
from maebench.errors import RunError

GIB = 2**30


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def decoded(cache, name, size, days=0.0):
    """A split's decoded images, last used so many days ago."""
    folder = cache / "decoded" / name
    files.make_folder(folder)
    (folder / "pixels").write_bytes(bytes(size))
    files.write_json(folder / "about.json", {"title": f"/data/{name}"})
    used = time.time() - days * DAY
    os.utime(folder / "about.json", (used, used))
    return folder


def test_parts_are_told_with_size_age_and_whose_they_are(cache):
    decoded(cache, "a", 1000, days=3)
    files.write_json(cache / "files" / "x.json", {})
    files.write_json(cache / "attention.json", {})
    files.write_text(cache / "mine.txt", "not of maebench")
    files.write_text(cache / "decoded" / f"{files.BESIDE}x", "")
    found = {part.kind: part for part in parts()}
    assert found.keys() == {"decoded", "files", "attention.json"} and len(parts()) == 3
    assert found["decoded"].title == "/data/a" and 1000 < found["decoded"].size < 1100
    assert found["decoded"].age() == pytest.approx(3, abs=0.01)


def test_a_split_that_would_not_fit_is_not_begun(cache):
    assert Keeping("a", "x", 3, each=1000.0, most_gb=1.0).begin(GIB // 1000) is not None
    assert Keeping("b", "x", 3, each=1000.0, most_gb=1.0).begin(GIB // 1000 + 1) is None
    assert [part.path.name for part in parts()] == ["a"]
    # of a part of it, as by --limit, all fits
    assert Keeping("b", "x", 3, each=1000.0, most_gb=1.0).begin(GIB // 2000) is not None


def test_what_was_long_not_used_makes_room_the_oldest_first(cache):
    for name, days in (("old", 9), ("older", 10), ("oldest", 11), ("new", 0.5)):
        decoded(cache, name, 1000, days)
    about = parts()[0].size - 1000  # of about.json
    limit = (4 * (1000 + about) + 8) / GIB
    room = make_room(cache / "decoded" / "mine", 1500 + about, limit)
    assert room >= 1500 + about
    assert {part.path.name for part in parts()} == {"old", "new"}
    # what is used may be another command's at this moment
    make_room(cache / "decoded" / "mine", GIB, limit)
    assert {part.path.name for part in parts()} == {"new"}


def test_the_limit_is_a_tenth_of_what_is_free_where_none_is_given(cache, monkeypatch):
    folder = cache / "decoded" / "mine"
    files.make_folder(folder)
    usage = kept.shutil.disk_usage(folder)
    for free, most in ((50 * GIB, 5 * GIB), (900 * GIB, 20 * GIB)):
        monkeypatch.setattr(kept.shutil, "disk_usage", lambda _, n=free: usage._replace(free=n))
        assert make_room(folder, 0, None) == pytest.approx(most)


def test_a_cache_that_cannot_be_written_is_none(cache):
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("no folder")
    assert Keeping("a", "x", 3, 10.0).begin(5) is None


def test_what_cannot_be_removed_is_named(cache, monkeypatch):
    decoded(cache, "a", 10)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (part,) = parts()
    monkeypatch.setattr(files, "remove", refuse)
    with pytest.raises(RunError, match=r"cannot remove .*decoded/a: Permission denied"):
        kept.remove(part)


def test_the_decoder_is_named_with_its_versions():
    assert "pillow" in kept.decoder() and "libjpeg" in kept.decoder()
