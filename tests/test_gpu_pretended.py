"""Whole runs and evaluations on a GPU that is pretended: every tensor where it has to be, no waits.

What gradients do is not seen here, for there are none: tests/test_gpu_step.py counts their
operations on a CPU, and tests/test_gpu.py needs a GPU.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from pretended_gpu import pretended_gpu

import maebench
from maebench.analysis.run import evaluate_run
from maebench.masking import Random
from maebench.models.load import trained_model
from maebench.pretraining import checkpoints, loop
from maebench.pretraining.log import Log
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

RARELY = {"compile": False, "checkpoint_seconds": 1e9}
OFTEN = {"compile": False, "checkpoint_seconds": 1e-9}
WAYS = {
    **{f"{cls.name} objective": tiny.suited(cls.name) for cls in maebench.objectives.BUILT_IN},
    **{
        cls.name: {"masking": cls.name}
        for cls in maebench.masking.BUILT_IN
        if cls.name != "label-map"
    },
    "label-map": {"masking": "label-map"},  # its file is made by the test
    **{p: {"machine": {**RARELY, "precision": p}} for p in ("fp32", "fp16")},
    "clipped": {"optimiser": {"clip": 0.5}},
    "in parts": {"optimiser": {"accumulate": 2}},
    "deterministic": {"machine": {**RARELY, "deterministic": True}},
    "stages": {"schedule": {"ratio": 0.5, "stages": 2}},
    "swin": {"encoder": "swin-nano", "objective": "simmim", "image_size": 32},
    "shifted": {"augment": {"shift": 2}},
}


def settings(**changes):
    return tiny.config(**{"device": "cuda", "machine": RARELY, "budget": "steps=6", **changes})


QUICK = {"mae objective", "block", "hard", "label-map", "fp16", "in parts"}  # one of each kind


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [way if way in QUICK else pytest.param(way, marks=pytest.mark.slow) for way in WAYS]
)
def test_no_step_of_a_run_waits_for_a_gpu(way, tmp_path, monkeypatch):
    monkeypatch.setattr(Log, "due", property(lambda self: False))  # reading the log waits, rarely
    chosen = WAYS[way]
    if way == "label-map":
        np.save(tmp_path / "maps.npy", np.arange(1797 * 64).reshape(-1, 8, 8).astype("uint8") % 5)
        chosen = {"masking": {"name": "label-map", "file": tmp_path / "maps.npy"}}
    with pretended_gpu() as gpu:
        waits = []
        for _ in pretrain(prepare(settings(**chosen), tmp_path)):
            waits.append(dict(gpu.waits))
            gpu.waits.clear()
    assert waits[0] and waits[-1]  # the images go there, and a checkpoint comes back
    assert waits[1:-1] == [{}] * 4


class Asking(Random):
    """Asks for a number in every step."""

    name: ClassVar[str] = "asking"
    ahead: ClassVar[bool] = False

    def scores(self, view):
        scores = view.draws.uniform(view.length)
        return scores if float(scores.sum()) > 0 else -scores


class Elsewhere(Random):
    """Makes a tensor on the CPU."""

    name: ClassVar[str] = "elsewhere"
    ahead: ClassVar[bool] = False

    def scores(self, view):
        return view.draws.uniform(view.length) + torch.arange(view.length)


def with_masking(masking):
    return tiny.config(device="cuda", machine=RARELY, masking=masking)


def test_a_step_that_waits_is_noticed(tmp_path):
    with pretended_gpu() as gpu:
        steps = pretrain(prepare(with_masking(Asking()), tmp_path))
        next(steps)
        gpu.waits.clear()
        next(steps)
        assert gpu.waits == {"_local_scalar_dense": 1}
        steps.close()


def test_a_tensor_on_the_cpu_is_noticed(tmp_path):
    with pretended_gpu(), pytest.raises(Exception, match="same device"):
        list(pretrain(prepare(with_masking(Elsewhere()), tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        *(tiny.suited(cls.name) for cls in maebench.objectives.BUILT_IN),
        *({"masking": name} for name in ("hard", "block", "red-noise")),
        {"objective": "simmim", "masking": "units"},
    ],
    ids=lambda chosen: ", ".join(v for v in chosen.values() if isinstance(v, str)),
)
def test_the_first_step_on_a_gpu_has_the_weights_and_the_loss_of_a_cpu(chosen, tmp_path):
    changes = {**chosen, "machine": {**RARELY, "precision": "fp32"}}
    found = {}
    for device in ("cpu", "cuda"):
        with pretended_gpu():
            plan = prepare(settings(**changes, device=device), tmp_path / device)
            steps = pretrain(plan)
            loss = next(steps).loss
            steps.close()
            hashes = maebench.pretraining.runs.read_hashes(plan.run)
        found[device] = (loss, hashes["encoder"], hashes["module"])
    assert found["cuda"][0] == pytest.approx(found["cpu"][0], rel=1e-5)
    assert found["cuda"][1:] == found["cpu"][1:]


@pytest.mark.slow
def test_a_checkpoint_of_a_gpu_is_gone_on_from_there_and_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 0)  # one in every step
    ends = {}
    for device in ("cuda", "cpu"):
        with pretended_gpu():
            config = settings(machine={**OFTEN, "precision": "fp16"})
            steps = pretrain(plan := prepare(config, tmp_path / device))
            for _ in range(3):
                next(steps)
            steps.close()
            assert checkpoints.newest(plan.checkpoints)["step"] == 3
            rest = settings(machine={**OFTEN, "precision": "fp16"}, device=device)
            said = pytest.warns(UserWarning, match="goes on from step 3 with device cpu")
            with said if device == "cpu" else contextlib.nullcontext():
                left = [step.number for step in pretrain(prepare(rest, tmp_path / device))]
        assert left == [4, 5, 6]
        ends[device], _ = checkpoints.load_newest(plan.checkpoints)
    assert ends["cuda"].keys() == ends["cpu"].keys()
    assert all(tensor.device.type == "cpu" for tensor in ends["cuda"].values())


TRAINED = {"finetune", "attentive-probe"}  # by gradients, which are not pretended
SEARCHES = {"knn", "retrieval", "reconstruction"}
FIRST = "untrained"  # of the models of a run, the one that has the same weights on every device


@pytest.mark.slow
def test_every_evaluation_on_a_gpu_gives_the_numbers_of_a_cpu(tmp_path):
    classes = tiny.names().table["evaluation"].values()
    evals = tuple(cls(**cls.example) for cls in classes)  # a short one of each
    tables = {}
    for device in ("cpu", "cuda"):
        machine = {**RARELY, "precision": "fp32", "evaluation": "fp32"}
        with pretended_gpu(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # edges of grids: forty images are few
            plan = tiny.plan(tmp_path / device, device=device, evals=evals, machine=machine)
            tables[device] = evaluate_run(plan)
    assert set(tables["cuda"]["status"]) == {"ok", "not applicable"}
    keys = ["model_kind", "evaluation", "metric", "where"]
    both = [
        table[table["model_kind"].isin({FIRST, "pixels"}) & ~table["evaluation"].isin(TRAINED)]
        .assign(where=lambda t: t["where"].map(str))
        .set_index(keys)["value"]
        .astype(float)
        for table in tables.values()
    ]
    # a class that a probe is in doubt of is another one after other sums
    pd.testing.assert_series_equal(*both, atol=0.05, rtol=0)
    close = (both[0] - both[1]).abs().fillna(0) < 1e-4  # both are none where one is
    assert close.mean() > 0.9 and close[close.index.get_level_values(1).isin(SEARCHES)].all()
    assert len(both[0]) > 80


@pytest.mark.slow
def test_features_are_waited_for_once_a_batch(tmp_path):
    with pretended_gpu() as gpu:
        plan = tiny.plan(tmp_path, device="cuda", machine=RARELY)
        model = trained_model(plan.run, plan.device, tiny.names())
        images = plan.images.pick(range(40))
        gpu.waits.clear()
        model.encode(images)
    assert gpu.waits.total() <= 4, gpu.waits  # images, their mean and deviation; and back


@pytest.mark.slow
def test_what_features_are_computed_in_is_in_the_row(tmp_path):
    rows = {}
    for asked, capability in (("auto", (9, 0)), ("auto", (7, 5)), ("bf16", (9, 0))):
        with pretended_gpu(capability):
            machine = {**RARELY, "precision": "fp32", "evaluation": asked}
            folder = tmp_path / f"{asked}{capability[0]}"
            plan = tiny.plan(folder, device="cuda", evals=("retrieval",), machine=machine)
            table = evaluate_run(plan)
        rows[asked, capability[0]] = table.groupby("model_kind")["precision"].first().to_dict()
    assert rows["auto", 9] == {"pixels": "fp32", "run": "tf32", "untrained": "tf32"}
    assert set(rows["auto", 7].values()) == {"fp32"}
    assert rows["bf16", 9] == {"pixels": "fp32", "run": "bf16", "untrained": "bf16"}
