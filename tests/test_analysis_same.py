"""Arms that differ in what was not asked for are refused or named."""

from types import SimpleNamespace

import pytest

from maebench import files
from maebench.analysis import same
from maebench.analysis.cells import Cell
from maebench.errors import RunError
from maebench.pretraining.runs import HASHES

HASH = {"encoder": "e" * 20, "module": "m" * 20, "first_batch": "f" * 20, "last_batch": "l" * 20}
SPENT = {"steps": 10, "tokens": 100, "images": 640, "flops_encoder": 5.0, "flops_decoder": 5.0}


def cell(folder, arm, seed=0, hashes=HASH, steps=10, spent=SPENT, processor="one"):
    home = folder / f"{arm}-{seed}"
    files.write_json(home / HASHES, hashes)
    files.write_json(home / "spent.json", spent)
    packages = {"torch": "2.0"}
    files.write_json(home / "environment.json", {"processor": processor, "packages": packages})
    run = SimpleNamespace(folder=home, facts={"steps": steps}, name=home.name)
    plan = SimpleNamespace(run=run, steps=steps, finished=True, spent=home / "spent.json")
    return Cell(arm, seed, plan)


def notes(cells, compared=(("masking",),)):
    design = SimpleNamespace(compared=compared)
    return same.check(SimpleNamespace(cells=cells, design=design))


def test_arms_that_began_alike_have_no_note(tmp_path):
    assert notes([cell(tmp_path, "a"), cell(tmp_path, "b")]) == ()


@pytest.mark.parametrize("what", HASH)
def test_another_beginning_or_other_batches_are_refused(tmp_path, what):
    other = cell(tmp_path, "b", hashes=HASH | {what: "x" * 20})
    with pytest.raises(
        RunError, match=f"seed 0: the {same.WORDS[what]} differ between arms"
    ) as caught:
        notes([cell(tmp_path, "a"), other])
    assert "\n" not in str(caught.value)
    assert "xxxxxxxx" in str(caught.value)


@pytest.mark.parametrize(
    "what, compared",
    [
        ("encoder", "encoder"),
        ("encoder", "objective"),
        ("module", "objective"),
        ("first_batch", "batch"),
    ],
)
def test_what_the_compared_setting_explains_is_no_difference(tmp_path, what, compared):
    hashes = HASH | {what: "x" * 20}
    if what == "first_batch":
        hashes |= {"last_batch": "y" * 20}
    cells = [cell(tmp_path, "a"), cell(tmp_path, "b", hashes=hashes)]
    assert notes(cells, ((compared,),)) == ()
    with pytest.raises(RunError):
        notes(cells)


def test_seeds_need_not_be_alike(tmp_path):
    other = HASH | dict.fromkeys(HASH, "z" * 20)
    cells = [cell(tmp_path, arm, s, h) for s, h in ((0, HASH), (1, other)) for arm in "ab"]
    assert notes(cells) == ()


def test_another_length_has_another_last_batch_and_is_named(tmp_path):
    longer = HASH | {"last_batch": "x" * 20}
    spent = SPENT | {"steps": 40, "images": 2560, "flops_encoder": 20.0}
    cells = [cell(tmp_path, "a"), cell(tmp_path, "b", hashes=longer, steps=40, spent=spent)]
    found = notes(cells)
    assert "arms differ in updates: a 10, b 40" in found
    assert "arms differ in images: a 640, b 2,560" in found
    assert "arms differ in FLOPs: a 10, b 25" in found
    assert not any("seen tokens" in note for note in found), "they are the same"


def test_runs_of_other_machines_and_earlier_versions_are_named(tmp_path):
    cells = [
        cell(tmp_path, "a"),
        cell(tmp_path, "b", hashes={"encoder": "e" * 20}, processor="two"),
    ]
    found = "; ".join(notes(cells))
    assert "runs of b are of an earlier version" in found
    assert "runs differ in processor: one (1), two (1)" in found


def test_by_the_clock_a_run_knows_its_length_when_it_is_done(tmp_path):
    longer = HASH | {"last_batch": "x" * 20}
    spent = SPENT | {"steps": 40}
    cells = [
        cell(tmp_path, "a", steps=None),
        cell(tmp_path, "b", hashes=longer, steps=None, spent=spent),
    ]
    assert "arms differ in updates: a 10, b 40" in notes(cells)
