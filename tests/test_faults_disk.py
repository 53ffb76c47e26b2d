"""Disks that are full, read-only or taken away: one line, what was there stays, and it goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attempts import Attempt, attempt
from disks import RUN
from soaked import DATA

from maebench import files

NAME_SPACE = ("unshare", "--user", "--map-root-user", "--mount")
TESTS = Path(__file__).parent
LONG = ("pretrain", "--budget", "steps=100000", *DATA)
COMPARE = ("compare", "--masking", "random,block", "--seeds", "3", "--budget", "steps=200")


def on_a_disk(folder: Path, what: str, *options: str) -> dict[str, object]:
    """What tests/disks.py finds in name spaces of its own; skips where the system has none."""
    try:
        probe = [*NAME_SPACE, "mount", "-t", "tmpfs", "maebench", str(folder)]
        subprocess.run(probe, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk of its own here: {error}")
    command = [*NAME_SPACE, sys.executable, TESTS / "disks.py", what, folder / what, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_run_whose_disk_is_full_at_every_write_ends_as_if_it_never_had_been(tmp_path):
    found = on_a_disk(tmp_path, "full", "--step", str(2**15))
    assert found["problems"] == []
    assert found["full"] > 5 and len(found["said"]) > 3, found["said"]


@pytest.mark.slow
def test_results_on_read_only_storage_are_shown_and_stay_as_they_are(tmp_path):
    found = on_a_disk(tmp_path, "read-only")
    assert found["problems"] == [] and found["kept"]
    for shows in ("table", "run", "eval"):
        assert found[shows][0] == 0, found
    for writes in ("other", "compare"):
        code, line = found[writes]
        assert code == 1 and line.startswith("Error: cannot write to folder "), line


def started(folder: Path, *command: str) -> Attempt:
    return attempt([*command, "--results", str(folder / "results")], folder / "said")


def ends_by_a_removed_folder(made: Attempt, line: str) -> None:
    """That a command says it in one line and ends with 1."""
    assert made.wait(60) == 1, made.said
    assert line in made.said.splitlines()[-1] and "Traceback" not in made.said


@pytest.mark.slow
@pytest.mark.parametrize("what", ["results", "results/runs", "results/runs/*"])
def test_a_folder_removed_while_it_pretrains_is_noticed_and_not_made_again(tmp_path, what):
    made = started(tmp_path, *LONG)
    assert made.until(lambda: any(tmp_path.glob("results/runs/*/checkpoint/step-*")))
    (gone,) = tmp_path.glob(what)
    removed(gone)
    ends_by_a_removed_folder(made, "was removed or replaced while this process worked in it")
    assert not any(tmp_path.glob("results/runs/*/checkpoint"))


def removed(folder: Path) -> None:
    """Removes a folder into which another process may write at this moment."""
    until = time.monotonic() + 20
    while folder.exists():
        assert time.monotonic() < until
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["results", "results/runs/*"])
def test_a_folder_removed_while_it_is_evaluated_is_noticed_and_not_made_again(tmp_path, what):
    made = started(tmp_path, *RUN[:4], "knn", *RUN[5:])
    assert made.wait() == 0, made.said
    made = started(tmp_path, "eval", "finetune", "-o", "epochs=10000")
    assert made.until(lambda: any(tmp_path.glob("results/runs/*/partial/*")))
    (gone,) = tmp_path.glob(what)
    removed(gone)
    ends_by_a_removed_folder(made, "was removed while it was evaluated: nothing is kept")
    assert not any(tmp_path.glob("results/runs/*"))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["results", "results/comparisons/*", "results/runs"])
def test_a_folder_removed_while_a_comparison_works_is_one_line(tmp_path, what):
    made = started(tmp_path, *COMPARE, "--evals", "knn", "-o", "workers=1", *DATA)
    assert made.until(lambda: any(tmp_path.glob("results/runs/*block*/checkpoint/step-*")))
    (gone,) = tmp_path.glob(what)
    removed(gone)
    assert made.wait(120) == 1, made.said
    assert "was removed" in made.said and "Traceback" not in made.said
    assert not list(tmp_path.rglob(f"{files.BESIDE}*"))
