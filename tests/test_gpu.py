"""What only a GPU can show; benchmarks/gpu_smoke.py shows the rest, and how fast it is."""

from __future__ import annotations

import pytest
import tiny
import torch

from maebench.analysis.run import evaluate_run
from maebench.pretraining import checkpoints
from maebench.pretraining.log import Log
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

pytestmark = pytest.mark.gpu
RARELY = {"checkpoint_seconds": 1e9, "compile": False}
OFTEN = {"checkpoint_seconds": 1e-9, "compile": False, "deterministic": True}


@pytest.mark.parametrize("objective", ["mae", "simmim", "variational", "supervised"])
@pytest.mark.parametrize("masking", ["random", "block", "green-noise", "attention", "hard"])
def test_a_step_waits_for_nothing(objective, masking, tmp_path, monkeypatch):
    monkeypatch.setattr(Log, "due", property(lambda self: False))
    settings = {"objective": objective, "device": "cuda", "budget": "steps=40", "machine": RARELY}
    settings |= {"masking": masking} if objective != "supervised" else {}
    steps = pretrain(prepare(tiny.config(**settings), tmp_path))
    for _ in range(5):  # the first load and measure
        next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    steps.close()


def test_a_deterministic_run_goes_on_bit_for_bit(tmp_path):
    ends = []
    for name, stop in (("once", 99), ("twice", 7)):
        config = tiny.config(device="cuda", budget="steps=20", machine=OFTEN)
        plan = prepare(config, tmp_path / name)
        steps = pretrain(plan)
        for _ in zip(range(stop), steps, strict=False):
            pass
        steps.close()
        list(pretrain(prepare(config, tmp_path / name)))
        ends.append(checkpoints.newest(plan.checkpoints)["sha256"])
    assert ends[0] == ends[1]


def test_the_first_loss_is_the_cpus(tmp_path):
    losses = []
    for device in ("cpu", "cuda"):
        config = tiny.config(device=device, machine={"precision": "fp32", "compile": False})
        losses.append(next(pretrain(prepare(config, tmp_path / device))).loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_every_evaluation_gives_its_numbers(tmp_path):
    plan = tiny.plan(tmp_path, device="cuda", evals=tuple(tiny.names().table["evaluation"]))
    rows = evaluate_run(plan)
    assert set(rows["status"]) <= {"ok", "not applicable"}
    assert set(rows["device"]) == {"cuda"}
