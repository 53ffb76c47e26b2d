"""`maebench cache` as a user calls it: what is kept, and what is removed."""

import os
import time
import warnings

import pytest

from maebench import files
from maebench.cli import main
from maebench.files import size_text


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Decoded images of three days ago, and what a folder's files hold, of today."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MAEBENCH_CACHE", str(folder))
    files.write_json(folder / "decoded/abcdefghijklmn/about.json", {"title": "/data/birds"})
    (folder / "decoded/abcdefghijklmn/pixels").write_bytes(bytes(3 * 2**20))
    used = time.time() - 3 * 86400
    os.utime(folder / "decoded/abcdefghijklmn/about.json", (used, used))
    files.write_json(folder / "files" / "0123456789.json", {})
    return folder


def called(capsys, *arguments):
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:  # main() shows its own
        main(["cache", *arguments])
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_what_is_kept_is_listed_with_size_age_and_whose_it_is(capsys, cache, arguments):
    code, out, _ = called(capsys, *arguments)
    assert code == 0
    images, held, total = (" ".join(line.split()) for line in out.splitlines())
    assert images == "3 MiB 3 days decoded images abcdefghij, /data/birds"
    assert held == "3 B 0 hours what image files hold, by size and time stamp 0123456789"
    assert total == f"3 MiB {cache}"


def test_what_was_long_not_used_is_removed_alone(capsys, cache):
    code, out, _ = called(capsys, "clean", "--older-than", "2")
    assert code == 0 and "/data/birds" in out and "3 MiB  in all" in out
    assert not list((cache / "decoded").iterdir()) and list((cache / "files").iterdir())


def test_all_is_removed_but_what_is_not_of_maebench(capsys, cache):
    files.write_text(cache / "thesis.txt", "mine")
    assert called(capsys, "clean")[0] == 0
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["thesis.txt"]
    _, out, _ = called(capsys)
    assert out.split() == ["0", "B", str(cache)]


def test_an_empty_cache_is_no_error(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MAEBENCH_CACHE", str(tmp_path / "none"))
    assert called(capsys)[0] == called(capsys, "clean")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["lists"], ["'lists' in maebench cache", "'list'"], 1),
        (["clean", "--older-than", "x"], ["--older-than", "'x'"], 1),
        (["clean", "--older-than", "-1"], ["--older-than", "-1"], 1),
        (["clean", "--all"], ["--all"], 2),
    ],
)
def test_mistakes_are_answered_in_one_line(capsys, cache, arguments, words, code):
    ended, _, err = called(capsys, *arguments)
    assert ended == code and err.count("\n") == 1
    assert all(word in err for word in words)
    assert list((cache / "decoded").iterdir())


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (2048, "2 KiB"), (5 * 2**30, "5.0 GiB"), (2**42, "4,096.0 GiB")],
)
def test_sizes_are_told_in_units_that_fit(count, text):
    assert size_text(count) == text
