"""A run that goes on under other threads says so, keeps it, and its records say so."""

from __future__ import annotations

import pytest
import tiny
import torch

from maebench.errors import RunError
from maebench.evaluating import records, suite
from maebench.pretraining import checkpoints, loop, mixture
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare


@pytest.fixture(autouse=True)
def every_step(monkeypatch):
    """A checkpoint after every step, and the number of threads as it was."""
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 0)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def plan_of(results, **machine):
    machine = {"checkpoint_seconds": 1e-9, **machine}
    return prepare(tiny.config(machine=machine, budget="steps=4"), results)


def begun(results, steps=2):
    """A run with some steps left."""
    plan = plan_of(results)
    made = pretrain(plan)
    for _ in range(steps):
        next(made)
    made.close()
    return plan


@pytest.mark.slow
def test_other_threads_are_warned_of_kept_and_in_the_remarks(tmp_path):
    before = torch.get_num_threads()
    plan = begun(tmp_path)
    torch.set_num_threads(before + 1)
    said = rf"goes on from step 2 with threads {before + 1} \(before {before}\): its weights will"
    with pytest.warns(UserWarning, match=said):
        list(pretrain(plan_of(tmp_path)))
    found = checkpoints.newest(plan.checkpoints)[mixture.MACHINES]
    assert [each["from_step"] for each in found] == [0, 2]
    assert [each["threads"] for each in found] == [before, before + 1]
    text = f"pretraining was a mixture: from step 2 on threads {before + 1} (before {before})"
    assert mixture.remark(plan.run) == text
    model = tiny.load(tmp_path)
    rows = records.read(suite.evaluate(model, plan.config.evals[2]))
    assert all(text in row["remarks"] for row in rows)
    floor = tiny.load(tmp_path, "untrained:")
    rows = records.read(suite.evaluate(floor, plan.config.evals[2]))
    assert not any("mixture" in (row["remarks"] or "") for row in rows)


def test_other_threads_are_refused_where_that_is_asked_for(tmp_path):
    before = torch.get_num_threads()
    plan = begun(tmp_path)
    torch.set_num_threads(before + 1)
    with pytest.raises(RunError, match=r"with threads .*: machine\.strict refuses that"):
        list(pretrain(plan_of(tmp_path, strict=True)))
    assert checkpoints.newest(plan.checkpoints)["step"] == 2
    torch.set_num_threads(before)
    list(pretrain(plan_of(tmp_path, strict=True)))
    assert mixture.remark(plan.run) == ""


def test_the_same_machine_is_one_entry_however_often_it_goes_on(tmp_path):
    begun(tmp_path, 1), begun(tmp_path, 1)
    plan = plan_of(tmp_path)
    list(pretrain(plan))
    assert len(checkpoints.newest(plan.checkpoints)[mixture.MACHINES]) == 1


def test_a_run_of_an_earlier_version_says_nothing_of_its_machines(tmp_path):
    plan = begun(tmp_path)
    assert mixture.machines(plan, {"step": 2}, 2) == []
    assert mixture.machines(plan, {}, 0)[0]["from_step"] == 0
    for damaged in (3, "x", [3, None], {}):
        assert mixture.machines(plan, {mixture.MACHINES: damaged}, 2) == []
