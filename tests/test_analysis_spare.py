"""What can go of a results folder, and what cannot."""

from __future__ import annotations

import os
import time

import pytest

from maebench import files
from maebench.analysis.spare import spare_below
from maebench.files import leftovers


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A run's folder with a file of each kind."""
    monkeypatch.setenv("MAEBENCH_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "results" / "runs" / "one"
    for name in ("config.json", "records/knn.json", "features/a.safetensors", "pictures/a.png"):
        files.write_text(home / name, name)
    dead = f"{files.BESIDE}{leftovers.here()}-{2**22 + 1}-01234567-x.json"
    alive = f"{files.BESIDE}{leftovers.here()}-{os.getpid()}-01234567-x.json"
    for name in (dead, alive):
        files.write_text(home / "records" / name, "half")
    files.write_text(home / "checkpoint" / "damaged-step-000000003" / "state.safetensors", "bad")
    files.write_text(home / "partial" / "old.safetensors", "1")
    files.write_text(home / "partial" / "new.safetensors", "1")
    past = time.time() - 7200
    os.utime(home / "partial" / "old.safetensors", (past, past))
    files.write_text(tmp_path / "cache" / "attention.json", "{}")
    return tmp_path / "results"


def test_each_kind_is_listed_and_nothing_that_is_needed(results):
    found = {spare.what: spare.path.name for spare in spare_below(results)}
    assert found.keys() == {"temporary", "damaged", "partial", "features", "cache"}
    assert found["damaged"] == "damaged-step-000000003" and found["partial"] == "old.safetensors"
    assert str(os.getpid()) not in found["temporary"], "whose process is at work"
    kept = {path.name for path in results.rglob("*") if path.is_file()}
    for spare in spare_below(results):
        spare.remove()
    left = {path.name for path in results.rglob("*") if path.is_file()}
    assert {"config.json", "knn.json", "a.png", "new.safetensors"} < left < kept
    assert list(spare_below(results)) == []


def test_what_is_gone_meanwhile_is_removed_all_the_same(results):
    (spare,) = (s for s in spare_below(results) if s.what == "features")
    spare.path.unlink()
    spare.remove()
