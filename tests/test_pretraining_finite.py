"""A loss that is no number is told with what broke it, or its update is skipped and counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import ClassVar

import pytest
import tiny
import torch
from pydantic import Field

from maebench import MAE, files
from maebench.errors import RunError
from maebench.evaluating import records, suite
from maebench.models.load import trained_model
from maebench.objectives.mae import MaskedAutoencoder
from maebench.plugins import installed
from maebench.pretraining import checkpoints, finite, loop, runs
from maebench.pretraining.log import LEAST, Log
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

STEPS = 8


class Breaks(MAE):
    """A masked autoencoder whose loss, or whose gradient alone, is no number at some steps."""

    name: ClassVar[str] = "breaks"
    bad: tuple[int, ...] = Field((), description="these steps")
    gradient: bool = Field(False, description="whether the loss itself is a number")

    def build(self, encoder, inputs):
        module = super().build(encoder, inputs)
        module.__class__ = BreaksModule
        module.bad, module.gradient = self.bad, self.gradient
        return module


class BreaksModule(MaskedAutoencoder):
    def forward(self, batch):
        loss = super().forward(batch)["loss"]
        if round(batch.progress * STEPS) + 1 not in self.bad:
            return {"loss": loss}
        if self.gradient:  # 0 with an infinite slope
            return {"loss": loss + (loss - loss.detach()).sqrt()}
        return {"loss": loss * math.nan}


@pytest.fixture
def every_step(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 0)


def plan_of(results, *bad, on_nan="skip", gradient=False, steps=STEPS):
    machine = {"checkpoint_seconds": 1e-9, "on_nan": on_nan}
    objective = Breaks(bad=bad, gradient=gradient)
    config = tiny.config(objective=objective, machine=machine, budget=f"steps={steps}")
    return prepare(config, results)


def run(plan) -> Iterator:
    return list(pretrain(plan))


def test_the_line_and_the_report_name_step_loss_before_images_and_largest_gradient(
    tmp_path, every_step
):
    plan = plan_of(tmp_path, 3, on_nan="stop")
    with pytest.raises(RunError) as caught:
        run(plan)
    text = str(caught.value)
    report = files.read_sealed(plan.run.folder / finite.REPORT, plan.run.name)
    before = runs.read_log(plan.log, None)[-1]["loss"]
    assert f"run {plan.run.name}: the loss is nan at step 3; before it was {before:.6g};" in text
    assert report["step"] == report["images_of_step"] == 3 and len(report["images"]) == 16
    shown = ", ".join(map(str, report["images"][: finite.SHOWN]))
    assert f"images of step 3: {shown} and 8 more" in text
    assert f"largest gradient: {report['largest_gradient']}" in text
    assert report["largest_gradient"].startswith("nan in ")
    assert f"the last good checkpoint is {plan.checkpoints / 'step-000000002'}." in text
    assert "-o machine.on_nan=skip" in text and "\n" not in text


def test_the_images_of_the_report_are_those_of_the_step(tmp_path, every_step):
    seen = {}

    class Watched(BreaksModule):
        def forward(self, batch):
            seen[round(batch.progress * STEPS) + 1] = batch.ids.tolist()
            return super().forward(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "BreaksModule", Watched)
        plan = plan_of(tmp_path, 3, on_nan="stop")
        with pytest.raises(RunError):
            run(plan)
    assert files.read_sealed(plan.run.folder / finite.REPORT, plan.run.name)["images"] == seen[3]


@pytest.mark.parametrize("gradient", [False, True], ids=["the loss", "the gradient alone"])
def test_skipped_updates_leave_the_weights_alone_and_are_counted(tmp_path, every_step, gradient):
    plan = plan_of(tmp_path, 2, 5, gradient=gradient)
    weights = {}
    for step in pretrain(plan):
        manifest = checkpoints.newest(plan.checkpoints)
        weights[step.number] = manifest["weights"]
        assert manifest["skipped"] == (step.number >= 2) + (step.number >= 5)
    same = [n for n in range(2, STEPS + 1) if weights[n] == weights[n - 1]]
    assert same == [2, 5]
    rows = {row["step"]: row for row in runs.read_log(plan.log, STEPS)}
    assert [n for n, row in rows.items() if "skipped" in row] == [2, 5]
    assert all(math.isfinite(row["loss"]) for row in rows.values() if "loss" in row)


def test_skipped_updates_are_in_the_remarks_of_each_record(tmp_path, every_step):
    plan = plan_of(tmp_path, 2)
    run(plan)
    model = trained_model(plan.run, "cpu", installed(), plan.config)
    (row, *_) = records.read(suite.evaluate(model, plan.config.evals[2]))
    assert "1 updates were skipped, whose loss or gradient was no number" in row["remarks"]


@pytest.mark.slow
def test_the_count_is_kept_where_a_run_goes_on(tmp_path, every_step):
    run(plan_of(tmp_path / "once", 2, 5))
    steps = pretrain(plan_of(tmp_path / "twice", 2, 5))
    for _ in range(3):
        next(steps)
    steps.close()
    plan = plan_of(tmp_path / "twice", 2, 5)
    run(plan)
    whole = checkpoints.newest(plan_of(tmp_path / "once", 2, 5).checkpoints)
    found = checkpoints.newest(plan.checkpoints)
    assert found["skipped"] == 2 and found["weights"] == whole["weights"]


@pytest.mark.slow
def test_too_many_in_a_row_end_the_run(tmp_path, every_step, monkeypatch):
    monkeypatch.setattr(finite, "MOST_IN_A_ROW", 2)
    monkeypatch.setattr(finite, "MOST_SHARE", 0.9)
    run(plan_of(tmp_path / "two", 3, 4, 6, 7))
    with pytest.raises(RunError, match=r"at step 5; .*3 updates were skipped"):
        run(plan_of(tmp_path / "three", 3, 4, 5))


@pytest.mark.slow
def test_too_many_in_all_end_the_run(tmp_path, every_step, monkeypatch):
    monkeypatch.setattr(finite, "MOST_IN_A_ROW", 2)
    monkeypatch.setattr(finite, "MOST_SHARE", 3 / STEPS)
    run(plan_of(tmp_path / "three", 2, 4, 6))
    with pytest.raises(RunError, match=r"at step 8; .*4 updates were skipped"):
        run(plan_of(tmp_path / "four", 2, 4, 6, 8))


# ---- spikes


def test_a_spike_is_noted_once_in_a_hundred_steps(tmp_path):
    log = Log(tmp_path / "log.jsonl", SimpleNamespace(log=lambda step, values: None))
    notes = []
    for number in range(1, 200):
        loss = 1 + 0.01 * (number % 2) + 9.0 * (number in (LEAST // 2, 50, 60, 160))
        log.add(number, {"loss": torch.tensor(loss)}, 0.1)
        log.write()
        notes += [(number, log.note)] if log.note else []
        log.note = ""
    assert [number for number, _ in notes] == [50, 160]
    assert notes[0][1].startswith("the loss of step 50 is 10, that of the 49 steps before 1.")
