"""What killed processes left half-written goes; what a living one writes stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from maebench import files
from maebench.files import leftovers


def made(folder, pid, place=None, age=0.0):
    path = folder / f"{files.BESIDE}{place or leftovers.here()}-{pid}-0123abcd-a.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture(scope="module")
def gone():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_name_tells_host_and_process(tmp_path):
    name = leftovers.beside(tmp_path / "a.json").name
    found = leftovers.NAMED.match(name)
    assert found and found[1] == leftovers.here() and int(found[2]) == os.getpid()


def test_a_dead_processs_files_are_swept_and_a_living_ones_are_not(tmp_path, gone):
    dead = [made(tmp_path, gone), made(tmp_path / "records", gone)]
    old = leftovers.DAY * 10
    alive = [made(tmp_path, os.getpid(), age=old), made(tmp_path / "records", os.getppid())]
    assert sorted(leftovers.abandoned(tmp_path)) == sorted(dead)
    with files.lock(tmp_path):
        assert not any(path.exists() for path in dead)
        assert alive[1].exists()  # an evaluation's, which takes no lock


def test_another_hosts_files_are_abandoned_after_a_day(tmp_path, gone):
    new = made(tmp_path, gone, place="elsewhere.0000", age=leftovers.DAY - 100)
    assert not files.is_abandoned(new)
    assert files.is_abandoned(made(tmp_path, os.getpid(), "elsewhere.0000", leftovers.DAY + 100))


def test_a_name_of_an_earlier_version_is_abandoned_after_a_day(tmp_path):
    path = tmp_path / f"{files.BESIDE}123-a.json"
    path.write_text("half")
    assert not files.is_abandoned(path)
    os.utime(path, (time.time() - leftovers.DAY - 100,) * 2)
    assert files.is_abandoned(path)


def test_what_is_gone_meanwhile_and_a_folder_that_is_not_there_are_nothing(tmp_path):
    assert not files.is_abandoned(tmp_path / f"{files.BESIDE}x")
    assert list(files.abandoned(tmp_path / "none")) == []


def test_another_table_of_processes_is_another_place(monkeypatch):
    before = leftovers.here()
    monkeypatch.setattr(leftovers.Path, "readlink", lambda path: leftovers.Path("pid:[1]"))
    assert leftovers.here() != before
    assert leftovers.is_alive(before, os.getpid()) is None  # nobody can ask there


# ---- files that belong together


def test_files_that_belong_together_are_all_made_before_one_is_renamed(tmp_path):
    first, second = tmp_path / "a.npz", tmp_path / "a.json"
    files.write_text(first, "old")
    files.write_text(second, "old")

    def broken(beside):
        assert first.read_text() == "old"
        raise OSError(28, "full")

    with pytest.raises(files.writing.RunError, match=r"cannot write .*a\.json: full"):
        files.write_together({first: lambda beside: beside.write_text("new"), second: broken})
    assert first.read_text() == second.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.npz"]
    files.write_together({p: lambda beside: beside.write_text("new") for p in (first, second)})
    assert first.read_text() == second.read_text() == "new"
