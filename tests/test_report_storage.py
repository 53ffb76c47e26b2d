"""What a results folder can do, on storage with the faults that a test plants."""

import errno
import os
import shutil
import time
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import pytest

from maebench import files
from maebench.config.run import RunConfig
from maebench.report import storage
from maebench.report.storage import Mount

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Fewer bytes are tried, and the storage has room."""
    monkeypatch.setattr(storage, "TRIED", 2**20)
    monkeypatch.setattr(storage, "SLOW", 0)
    monkeypatch.setattr(storage, "IN_MEMORY", set())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**12))


def looked(folder):
    return {each.what: each for each in storage.storage(folder)}


def wrong(folder):
    return {what: each for what, each in looked(folder).items() if each.verdict != "ok"}


@pytest.mark.parametrize("name", [".", "results", "a/b c"])
def test_all_is_tried_and_nothing_is_left(tmp_path, name):
    found = looked(tmp_path / name)
    assert [*found] == "results,space,write speed,locks,renames,time stamps".split(",")
    assert {each.verdict for each in found.values()} == {"ok"}
    assert list(tmp_path.rglob("*")) == []
    assert ("not made yet" in found["results"].text) == (name != ".")


def test_a_folder_that_nobody_may_write_to_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (found,) = storage.storage(tmp_path)
    assert (
        found.verdict == "error" and "permission denied, or the storage is read-only" in found.text
    )
    assert found.advice == "Choose another folder with --results or MAEBENCH_RESULTS"
    assert ".writing-" not in found.line() and list(tmp_path.iterdir()) == []


def test_read_only_storage_is_an_error(tmp_path, monkeypatch):
    def mkdir(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    (found,) = storage.storage(tmp_path)
    assert found.verdict == "error" and "Read-only file system" in found.text


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "results").write_text("mine")
    (found,) = storage.storage(tmp_path / "results")
    assert found.verdict == "error" and (tmp_path / "results").read_text() == "mine"


@pytest.mark.parametrize(("free", "verdict"), [(1000, "error"), (10**9, "warning")])
def test_a_full_disk_is_named_with_what_a_run_needs(tmp_path, monkeypatch, free, verdict):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12 - free, free))
    found = wrong(tmp_path)
    assert [*found] == ["space"] and found["space"].verdict == verdict
    assert "free; a run of the default settings keeps " in found["space"].text


def test_a_disk_that_is_full_when_it_is_written_to_is_an_error(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = wrong(tmp_path)["write speed"]
    assert found.verdict == "error" and "No space left on device" in found.text
    assert list(tmp_path.iterdir()) == []


def test_slow_storage_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "SLOW", 1e15)
    assert wrong(tmp_path)["write speed"].verdict == "warning"


def test_locks_that_keep_nobody_out_are_an_error(tmp_path, monkeypatch):
    class Open:
        def __init__(self, path):
            pass

        @contextmanager
        def acquire(self, timeout):
            yield

        def release(self):
            pass

        __enter__ = __exit__ = lambda self, *_: None

    monkeypatch.setattr(storage, "FileLock", Open)
    found = wrong(tmp_path)["locks"]
    assert found.verdict == "error" and "two hold one file at once" in found.text


def test_storage_without_locks_is_an_error(tmp_path, monkeypatch):
    def acquire(self, timeout=None):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(storage.FileLock, "acquire", acquire)
    assert "No locks available" in wrong(tmp_path)["locks"].text


def test_a_rename_that_takes_the_old_file_away_first_is_an_error(tmp_path, monkeypatch):
    def write_text(path, text):
        path.unlink(missing_ok=True)
        time.sleep(0.005)
        path.write_text(text)

    monkeypatch.setattr(files, "write_text", write_text)
    found = wrong(tmp_path)["renames"]
    assert found.verdict == "error" and "a reader may find none" in found.text


@pytest.mark.parametrize("skew", [-90, 3600])
def test_a_share_with_another_clock_is_a_warning(tmp_path, monkeypatch, skew):
    written = files.write_text

    def write_text(path, text):
        written(path, text)
        os.utime(path, (time.time() + skew,) * 2)

    monkeypatch.setattr(files, "write_text", write_text)
    found = wrong(tmp_path)["time stamps"]
    assert found.verdict == "warning" and f"{skew:+d}" in found.text.replace(".0", "")


def test_the_kind_of_storage_is_that_of_the_nearest_mount(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/a rw",
        "2 1 8:2 / /mnt rw - xfs /dev/b rw",
        r"3 2 8:3 / /mnt/a\040share rw shared:1 master:2 - nfs4 host:/x rw",
        "4 2 8:4 / /mnt rw - tmpfs none rw",
    ]
    mounts.write_text("\n".join(lines))
    monkeypatch.setattr(storage, "MOUNTS", mounts)
    assert storage.mount_of(Path("/home/me")) == Mount(Path("/"), "ext4")
    assert storage.mount_of(Path("/mnt/a share/results")) == Mount(Path("/mnt/a share"), "nfs4")
    assert storage.mount_of(Path("/mnt/a")) == Mount(Path("/mnt"), "tmpfs")
    monkeypatch.setattr(storage, "IN_MEMORY", {"tmpfs"})
    assert storage.kind_of_storage("r", Path("/mnt/a")).verdict == "warning"
    share = storage.kind_of_storage("r", Path("/mnt/a share"))
    assert share.verdict == "ok" and "nfs4 (/mnt/a share), a network share" in share.text
    mounts.unlink()
    assert storage.kind_of_storage("r", Path("/mnt/a")) == storage.Checked("results", "r")


def test_what_a_run_keeps_is_about_what_its_parameters_and_features_take():
    # vit-nano: 0.2M parameters, and 1,797 images of five layers and two poolings
    assert 5e6 < storage.bytes_of_a_run(RunConfig()) < 20e6
    assert storage.bytes_of_a_run(RunConfig(encoder="vit-tiny")) > 60e6
