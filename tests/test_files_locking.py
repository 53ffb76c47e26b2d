"""Locks: who holds a folder is known from the first moment, and whether it is still there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from maebench import files
from maebench.errors import RunError
from maebench.files import leftovers, locking

TAKES = """
    import contextlib, sys
    from pathlib import Path
    from maebench import errors, files
    print("ready", flush=True)
    while True:
        with contextlib.suppress(errors.RunError), files.lock(Path(sys.argv[1])):
            pass
"""


def child(code, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_whoever_takes_and_frees_a_lock_all_the_time_is_never_unknown(tmp_path):
    refused = taken = 0
    with child(TAKES, tmp_path) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            until = time.monotonic() + 60  # a busy machine lets one of the two wait for long
            while min(refused, taken) <= 10 and time.monotonic() < until:
                try:
                    with files.lock(tmp_path):
                        taken += 1
                except RunError as error:
                    refused += 1
                    assert f"in use by process {process.pid} on " in str(error)
        finally:
            process.kill()
    assert refused > 10 and taken > 10


def gone():
    """The number of a process that has ended."""
    with child("") as process:
        pass
    return process.pid


def owner(folder, pid, place=None):
    who = {"host": socket.gethostname(), "pid": pid, "place": place or leftovers.here()}
    files.write_json(folder / files.OWNER, who)


def test_the_name_of_a_dead_process_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "NAMELESS_SECONDS", 0.1)
    with files.lock(tmp_path):
        owner(tmp_path, gone())
        with pytest.raises(RunError, match="in use by process unknown on unknown"):
            with files.lock(tmp_path):
                pass


def test_a_name_that_comes_a_moment_later_is_waited_for(tmp_path):
    with files.lock(tmp_path):
        (tmp_path / files.OWNER).unlink()
        later = threading.Timer(0.2, owner, (tmp_path, os.getpid()))
        later.start()
        with pytest.raises(RunError, match=f"in use by process {os.getpid()} on "):
            with files.lock(tmp_path):
                pass
        later.join()


def test_a_process_of_another_host_cannot_be_asked_and_is_named(tmp_path):
    with files.lock(tmp_path):
        owner(tmp_path, gone(), place="elsewhere.0000")
        with pytest.raises(RunError, match=r"in use by process \d+ on "), files.lock(tmp_path):
            pass


def test_what_a_dead_process_left_does_not_keep_anybody_out(tmp_path):
    owner(tmp_path, gone())
    with files.lock(tmp_path):
        assert files.read_json(tmp_path / files.OWNER)["pid"] == os.getpid()


def test_the_name_of_the_host_is_the_systems(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
    with files.lock(tmp_path):
        found = files.read_json(tmp_path / files.OWNER)
        assert found["host"] == "node-7" and found["place"].startswith("node7.")
        with pytest.raises(RunError, match=f"by process {os.getpid()} on node-7;"):
            with files.lock(tmp_path):
                pass


@pytest.mark.parametrize("what", ["removed", "moved", "replaced"])
def test_a_folder_that_is_not_the_one_any_more_is_noticed(tmp_path, what):
    folder = tmp_path / "run"
    with files.lock(folder) as held:
        held.check()
        assert held.is_there()
        if what == "removed":
            shutil.rmtree(folder)
        else:
            folder.rename(tmp_path / "elsewhere")
        if what == "replaced":
            folder.mkdir()
            (folder / files.LOCK).touch()
        assert not held.is_there()
        with pytest.raises(RunError, match="run was removed or replaced while this process"):
            held.check()


def test_writers_of_one_folder_wait_for_each_other(tmp_path):
    path, times = tmp_path / "sum", 25
    path.write_text("0")

    def add():
        for _ in range(times):
            with files.alone(tmp_path):
                number = int(path.read_text())
                time.sleep(0.0005)
                path.write_text(str(number + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == str(4 * times)


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path):
    (tmp_path / f".{files.LOCK}").mkdir()
    with pytest.raises(RunError, match="cannot lock"), files.alone(tmp_path):
        pass
