"""maebench doctor RESULTS: each damage is found, said to be lost or not, and repaired where asked."""

from __future__ import annotations

import shutil

import pytest
import tiny

from maebench import files
from maebench.analysis.again import evaluated_again
from maebench.analysis.health import damage_below
from maebench.evaluating import records, suite
from maebench.plugins import installed
from maebench.pretraining import checkpoints, runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run and its floors, evaluated, with features, a log and pictures."""
    folder = tmp_path_factory.mktemp("whole")
    plan = tiny.plan(folder, evals=["knn"])
    for spec in ("", "untrained:", "pixels:"):
        suite.evaluate(tiny.load(folder, spec), plan.config.evals[0])
    return folder


@pytest.fixture
def results(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "results")
    return tmp_path / "results"


def run_of(results):
    return next((results / "runs").iterdir())


def flip(path, at=0.5):
    """One bit of a file is another one."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 4
    path.write_bytes(content)


def test_a_whole_folder_has_no_damage_and_every_file_that_has_a_hash_is_looked_at(results):
    seen = []
    assert list(damage_below(results, seen.append)) == []
    kinds = {path.name if path.suffix == ".json" else path.suffix for path in seen}
    assert {"config.json", "environment.json", "spent.json", "hashes.json", "masks.json"} <= kinds
    assert {".jsonl", ".safetensors"} <= kinds
    assert sum(path.parent.name == "records" for path in seen) == 3
    assert sum(path.name.startswith("step-") for path in seen) == len(
        checkpoints.steps(run_of(results) / "checkpoint")
    )


PLACES = {
    "config.json": (lambda run: run / "config.json", False, True),
    "environment.json": (lambda run: run / "environment.json", True, True),
    "hashes.json": (lambda run: run / "hashes.json", True, True),
    "masks.json": (lambda run: run / "masks.json", False, True),
    "spent.json": (lambda run: run / "spent.json", False, False),
    "log.jsonl": (lambda run: run / "log.jsonl", True, False),
    "weights": (lambda run: next(run.glob("checkpoint/*/state.safetensors")), False, True),
    "manifest": (lambda run: next(run.glob("checkpoint/*/manifest.json")), False, True),
    "record": (lambda run: next(run.glob("records/*.json")), False, True),
    "values": (lambda run: next(run.glob("records/*.npz")), False, True),
    "features": (lambda run: next(run.glob("features/*")), False, False),
}


@pytest.mark.parametrize("place", PLACES)
def test_damage_is_named_and_after_its_repair_there_is_none(results, place):
    where, lost, kept = PLACES[place]
    path = where(run_of(results))
    before = path.read_bytes()
    flip(path)
    (damage,) = damage_below(results)
    assert damage.lost == lost and damage.home == run_of(results)
    assert (
        path.name in damage.line()
        or path.parent.name in damage.line()
        or path.stem in str(damage.path)
    )
    assert "\n" not in damage.line()
    flip(path)
    assert path.read_bytes() == before and list(damage_below(results)) == [], "nothing was changed"
    flip(path)
    if damage.repair is None:
        assert place == "config.json", "whose settings only the command knows"
        return
    damage.repair()
    assert list(damage_below(results)) == []
    aside = [p.name for p in results.rglob(f"{files.ASIDE}*")]
    assert bool(aside) == kept, aside


def test_what_a_run_has_cost_is_read_off_its_last_checkpoint(results):
    path = run_of(results) / runs.SPENT
    before = files.read_sealed(path, run_of(results).name)
    flip(path)
    (damage,) = damage_below(run_of(results))
    damage.repair()
    assert files.read_sealed(path, run_of(results).name) == before


def test_records_are_made_again_with_the_same_numbers(results):
    names = installed()
    there = sorted(results.rglob("records/*.json"))
    before = {path: [row["value"] for row in records.read(path)] for path in there}
    for path in there:
        flip(path, 0.6)
    found = list(damage_below(results))
    assert len(found) == 3
    for damage in found:
        damage.repair()
    assert not any(path.exists() for path in there)
    assert evaluated_again(results, there, names) == {}
    assert {path: [row["value"] for row in records.read(path)] for path in there} == before


def test_records_that_no_run_is_set_to_are_named(results):
    strange = run_of(results) / "records" / "lost-v1-0123456789-s0.json"
    (left,) = evaluated_again(results, [strange], installed()).items()
    assert left[0] == strange and "maebench eval" in left[1]


def test_a_whole_file_of_another_run_is_damage(results, tmp_path):
    other = tiny.plan(tmp_path / "other", seed=3, evals=["knn"]).run.folder
    for name in ("config.json", "spent.json", "masks.json"):
        shutil.copy(other / name, run_of(results) / name)
    found = list(damage_below(results))
    assert {damage.path.name for damage in found} == {"config.json", "spent.json", "masks.json"}
    assert all("belongs to" in damage.line() for damage in found)
