"""Pretraining: the same from any point it stopped at, and nothing but the masking differs."""

from __future__ import annotations

import functools
import math
import os
import random
import signal
import subprocess
import sys
import time
from typing import ClassVar, Literal

import fakes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from maebench import MAE, Block, ConfigError, Grid, Inputs, Random, RunConfig, Tracker, files
from maebench.config.run import Machine
from maebench.encoders import ViTNano
from maebench.errors import RunError
from maebench.masking import Attention, Hard, Parts
from maebench.objectives.decoders import TransformerDecoder
from maebench.objectives.mae import MaskedAutoencoder
from maebench.pretraining import checkpoints, runs
from maebench.pretraining import loop as story
from maebench.pretraining.batches import batches
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import build, config_of, inputs_of, prepare
from maebench.pretraining.runs import read_run

STEPS = 6
ENCODER = ViTNano(width=16, depth=1, heads=2)
OFTEN = {"checkpoint_seconds": 1e-9}


def config(**changes):
    """Six steps of a tiny encoder on forty digits."""
    tiny = {"encoder": ENCODER, "limit": 40, "batch": 8, "budget": f"steps={STEPS}", "lr": 1e-2}
    return RunConfig(fakes.names(), device="cpu", **{**tiny, **changes})


def end_of(plan):
    """The hash of all that the last checkpoint holds: weights, optimiser, teacher."""
    return checkpoints.newest(plan.run.folder / "checkpoint")["sha256"]


@pytest.fixture
def every_step(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(story, "CHECKPOINT_SHARE", 0)


class Noisy(MAE):
    """A masked autoencoder whose module uses the global random state."""

    name: ClassVar[str] = "noisy"

    def build(self, encoder, inputs):
        module = super().build(encoder, inputs)
        module.__class__ = NoisyModule
        return module


class NoisyModule(MaskedAutoencoder):
    def forward(self, batch):
        loss = super().forward(batch)["loss"]
        return {"loss": loss * (1 + torch.rand(()) + np.random.rand() + random.random())}


class Breaks(MAE):
    """A masked autoencoder whose loss is not finite from a step on."""

    name: ClassVar[str] = "breaks"
    step: int = Field(4, description="the first bad one")
    loss: Literal["nan", "inf"] = Field("nan", description="what it is then")

    def build(self, encoder, inputs):
        module = super().build(encoder, inputs)
        module.__class__ = BreaksModule
        module.step, module.bad = self.step, float(self.loss)
        return module


class BreaksModule(MaskedAutoencoder):
    def forward(self, batch):
        loss = super().forward(batch)["loss"]
        return {"loss": loss * self.bad if round(batch.progress * STEPS) + 1 >= self.step else loss}


class Spoils(MAE):
    """A masked autoencoder whose weights are infinite after the second update, its loss finite."""

    name: ClassVar[str] = "spoils"

    def build(self, encoder, inputs):
        module = super().build(encoder, inputs)
        module.__class__ = SpoilsModule
        return module


class SpoilsModule(MaskedAutoencoder):
    def after_step(self, progress):
        if round(progress * STEPS) == 2:
            next(iter(self.parameters())).data.fill_(float("inf"))


class Notes(Tracker):
    """Notes what it is told, and fails where it is told to."""

    name: ClassVar[str] = "notes"
    fails: Literal["never", "open", "log", "close"] = Field("never", description="where")
    told: ClassVar[list] = []

    def open(self, folder, config):
        if self.fails == "open":
            raise OSError("no way to open")
        self.told.append(("open", config["config"]["seed"]))
        return self

    def log(self, step, values):
        self.told.append((step, values))
        if self.fails == "log" and step == 2:
            raise OSError("no way to log")

    def close(self):
        self.told.append("close")
        if self.fails == "close":
            raise OSError("no way to close")


@pytest.fixture
def told():
    Notes.told.clear()
    yield Notes.told
    Notes.told.clear()


# ---- the plan of a run


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 12), st.data())
def test_every_epoch_is_a_permutation_and_no_image_is_left_out(images, batch, steps, data):
    plan = list(batches(images, batch, 3, 0, steps))
    assert [len(index) for index, _ in plan] == [batch] * steps
    index, epoch = (torch.cat(parts) for parts in zip(*plan, strict=True))
    assert epoch.tolist() == [place // images for place in range(steps * batch)]
    for number in range(steps * batch // images):
        assert sorted(index[epoch == number].tolist()) == list(range(images))
    done = data.draw(st.integers(0, steps))
    rest = list(batches(images, batch, 3, done, steps))
    assert all(
        torch.equal(a, b)
        for x, y in zip(rest, plan[done:], strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_epochs_and_seeds_have_different_orders():
    (first, second), (other, _) = (
        [index.tolist() for index, _ in batches(40, 40, seed, 0, 2)] for seed in (0, 1)
    )
    assert first != second
    assert first != other


# ---- steps


def test_steps_tell_what_happened_and_the_loss_falls(tmp_path):
    plan = prepare(config(budget="steps=60"), tmp_path)
    steps = list(pretrain(plan))
    assert [(s.number, s.total, s.images) for s in steps] == [(n, 60, 8) for n in range(1, 61)]
    assert np.mean([s.loss for s in steps[-10:]]) < 0.9 * np.mean([s.loss for s in steps[:3]])
    peak = 1e-2 * 8 / 256
    assert steps[3].lr == peak  # after three of sixty
    assert steps[0].lr == pytest.approx(peak / 4)
    log = runs.read_log(plan.run.folder / "log.jsonl", None)
    assert log == [{"step": s.number, "loss": s.loss, "lr": s.lr} for s in steps]


class Recording(torch.optim.AdamW):
    """Keeps the gradients and rates of every update."""

    updates: ClassVar[list] = []

    def step(self, closure=None):
        groups = self.param_groups
        grads = [p.grad.clone() for g in groups for p in g["params"] if p.grad is not None]
        self.updates.append((grads, [(g["lr"], g["weight_decay"], g["betas"]) for g in groups]))
        return super().step(closure)


@pytest.fixture
def updates(monkeypatch):
    Recording.updates.clear()
    monkeypatch.setattr("maebench.pretraining.state.AdamW", Recording)
    yield Recording.updates
    Recording.updates.clear()


@pytest.mark.parametrize("objective", ["mae", "labelled"])
@pytest.mark.slow
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(objective, tmp_path, updates):
    losses = {}
    for parts in (1, 4, 10):  # 4 parts of a batch of 10 are 3, 3, 3 and 1
        changes = {"batch": 10, "budget": "steps=2", "objective": objective}
        losses[parts] = [
            step.loss
            for step in pretrain(config(**changes, optimiser={"accumulate": parts}), tmp_path)
        ]
    assert losses[4] == pytest.approx(losses[1], rel=1e-5)
    assert losses[10] == pytest.approx(losses[1], rel=1e-5)
    whole, second = updates[0][0], updates[1][0]
    for other in (2, 4):
        for mine, theirs in zip(updates[other][0], whole, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)
    assert not torch.equal(second[0], whole[0])  # gradients start from zero at every step


def test_the_optimiser_gets_the_options_that_were_given(tmp_path, updates):
    optimiser = {"weight_decay": 0.2, "beta1": 0.8, "beta2": 0.7, "clip": 1e-4, "warmup": 0.5}
    steps = list(pretrain(config(optimiser=optimiser), tmp_path))
    for (grads, groups), step in zip(updates, steps, strict=True):
        assert torch.stack([g.norm() for g in grads]).norm() == pytest.approx(1e-4, rel=1e-2)
        assert groups == [(step.lr, 0.2, (0.8, 0.7)), (step.lr, 0.0, (0.8, 0.7))]


@pytest.mark.slow
def test_two_maskings_start_from_the_same_weights_and_see_the_same_crops(tmp_path, monkeypatch):
    seen = []
    original = story.make_batch

    def recorded(config, model, *rest):
        batch = original(config, model, *rest)
        weights = checkpoints.weights_hash(model.state_dict()) if len(rest) and not seen[-1] else ""
        seen[-1].append((weights, batch.images.clone(), batch.ids, batch.mask.hidden))
        return batch

    monkeypatch.setattr(story, "make_batch", recorded)
    augment = {"scale": (0.5, 1.0), "flip": True}
    for changes in (
        {"masking": Random()},
        {"masking": Random(), "ratio": 0.5},
        {"masking": Block()},
        {"masking": Grid()},
        {"masking": fakes.Worst()},
    ):
        seen.append([])
        list(pretrain(config(augment=augment, **changes), tmp_path))
    for other in seen[1:]:
        assert other[0][0] == seen[0][0][0]
        for mine, theirs in zip(other, seen[0], strict=True):
            assert torch.equal(mine[1], theirs[1])
            assert torch.equal(mine[2], theirs[2])
            assert not torch.equal(mine[3], theirs[3])


def test_an_image_has_another_mask_and_another_crop_in_every_epoch(tmp_path, monkeypatch):
    seen, original = [], story.make_batch
    monkeypatch.setattr(story, "make_batch", lambda *a: seen.append(original(*a)) or seen[-1])
    list(pretrain(config(limit=40, batch=40, budget="steps=3", augment={"shift": 2}), tmp_path))
    orders = [batch.ids.argsort() for batch in seen]
    for what in (lambda batch: batch.mask.hidden.float(), lambda batch: batch.images):
        first, *others = (what(b)[order].flatten(1) for b, order in zip(seen, orders, strict=True))
        for other in others:
            assert (first != other).any(1).float().mean() > 0.9


def test_seeds_differ_in_weights_and_order(tmp_path):
    plans = [prepare(config(seed=seed), tmp_path) for seed in (0, 1)]
    losses = [[step.loss for step in pretrain(plan)] for plan in plans]
    assert plans[0].run.folder != plans[1].run.folder
    assert losses[0] != losses[1]


def test_a_batch_may_be_larger_than_the_data_set(tmp_path):
    plan = prepare(config(limit=10, batch=32, budget="epochs=5"), tmp_path)
    steps = list(pretrain(plan))
    assert [step.images for step in steps] == [32, 32]  # 64 images: at least five epochs of ten


def test_progress_runs_from_zero_and_the_objective_is_told_after_each_step(tmp_path, monkeypatch):
    calls, plan = [], prepare(config(budget="steps=4"), tmp_path)
    monkeypatch.setattr(
        MaskedAutoencoder, "after_step", lambda self, p: calls.append(p), raising=False
    )
    original = MaskedAutoencoder.forward
    monkeypatch.setattr(
        MaskedAutoencoder,
        "forward",
        lambda self, b: (calls.append(b.progress), original(self, b))[1],
    )
    list(pretrain(plan))
    assert calls == [0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1]


def test_bf16_computes_in_bf16_and_has_a_loss_in_float32(tmp_path, monkeypatch):
    dtypes = set()
    whole = prepare(config(machine={"precision": "fp32"}), tmp_path)
    plan = prepare(config(machine={"precision": "bf16"}), tmp_path)
    decode, forward = TransformerDecoder.forward, MaskedAutoencoder.forward

    def noted(method, get):
        def call(self, *args):
            out = method(self, *args)
            dtypes.add((type(self).__name__, get(out).dtype))
            return out

        return call

    monkeypatch.setattr(TransformerDecoder, "forward", noted(decode, lambda out: out))
    monkeypatch.setattr(MaskedAutoencoder, "forward", noted(forward, lambda out: out["loss"]))
    full = [s.loss for s in pretrain(whole)]
    assert dtypes == {("TransformerDecoder", torch.float32), ("MaskedAutoencoder", torch.float32)}
    dtypes.clear()
    half = [s.loss for s in pretrain(plan)]
    assert dtypes == {("TransformerDecoder", torch.bfloat16), ("MaskedAutoencoder", torch.float32)}
    assert half == pytest.approx(full, rel=0.05)
    assert half != full
    tensors, _ = checkpoints.load_newest(plan.run.folder / "checkpoint")
    assert {t.dtype for t in tensors.values()} == {torch.float32}


def test_the_global_random_state_is_left_alone(tmp_path):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    list(pretrain(config(objective=Noisy(), masking=fakes.Worst()), tmp_path))
    assert random.getstate() == before[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2])


# ---- going on


CHANGES = {
    "random": {},
    "teacher's loss": {"masking": fakes.Worst(), "optimiser": {"accumulate": 2, "clip": 0.1}},
    "teacher's attention": {"masking": fakes.Attended()},
    "the model's own attention": {"masking": Attention(of="encoder", hide="hint")},
    "hard": {"masking": Hard(start=0.5)},
    "parts": {"masking": Parts(start=0.5)},
    "parts by a teacher that ends coarser": {
        "masking": Parts(of="teacher"),
        "encoder": fakes.Dense(),
    },
    "a schedule of the ratio": {"ratio": 0.25, "schedule": {"ratio": 0.75, "stages": 3}},
    "global randomness": {"objective": Noisy()},
    "dense": {"encoder": fakes.Dense(), "limit": 10, "batch": 16},
    "an EMA teacher and a share of patches": {
        "objective": MAE(target="features", decoder="cross-attention")
    },
}
QUICK = ("random", "hard")  # the fast suite's; each takes seconds


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(change, id=name, marks=[pytest.mark.slow] * (name not in QUICK))
        for name, change in CHANGES.items()
    ],
)
@pytest.mark.slow
def test_a_run_that_stopped_anywhere_ends_the_same_to_the_last_bit(changes, tmp_path, every_step):
    once = prepare(config(**changes, machine=OFTEN), tmp_path / "once")
    losses = [step.loss for step in pretrain(once)]
    assert len(losses) == STEPS
    for stop in range(1, STEPS):
        plan = prepare(config(**changes, machine=OFTEN), tmp_path / str(stop))
        steps = pretrain(plan)
        for _ in range(stop):
            next(steps)
        steps.close()  # as Ctrl-C does
        assert not plan.finished
        rest = list(pretrain(prepare(config(**changes, machine=OFTEN), tmp_path / str(stop))))
        assert [step.number for step in rest] == [*range(stop + 1, STEPS + 1)]
        assert end_of(plan) == end_of(once), f"stopped after step {stop}"
        log = runs.read_log(plan.run.folder / "log.jsonl", None)
        assert [row["loss"] for row in log] == losses


@pytest.mark.slow
def test_a_run_in_fp16_goes_on_with_its_scale_to_the_last_bit(tmp_path, every_step):
    machine = {**OFTEN, "precision": "fp16"}
    changes = {"machine": machine, "optimiser": {"clip": 0.1}}
    once = prepare(config(**changes), tmp_path / "once")
    list(pretrain(once))
    tensors, _ = checkpoints.load_newest(once.checkpoints)
    assert tensors["scaler.scale"] <= 2**16  # torch begins there, and halves it where it overflows
    assert 0 < tensors["scaler._growth_tracker"] <= STEPS
    steps = pretrain(plan := prepare(config(**changes), tmp_path / "twice"))
    for _ in range(3):
        next(steps)
    steps.close()
    list(pretrain(prepare(config(**changes), tmp_path / "twice")))
    assert end_of(plan) == end_of(once)


def test_an_update_that_overflows_in_fp16_is_left_out_and_the_scale_halved(tmp_path, monkeypatch):
    original = torch.amp.GradScaler
    too_large = functools.partial(original, init_scale=2.0**120)
    monkeypatch.setattr("maebench.pretraining.state.torch.amp.GradScaler", too_large)
    plan = prepare(config(machine={"precision": "fp16"}, budget="steps=1"), tmp_path)
    first = checkpoints.weights_hash(
        build(plan.config, inputs_of(plan.config, plan.run.facts)).state_dict()
    )
    (step,) = pretrain(plan)
    assert math.isfinite(step.loss)
    tensors, _ = checkpoints.load_newest(plan.checkpoints)
    assert tensors["scaler.scale"] == 2.0**119
    assert checkpoints.weights_hash(checkpoints.part(tensors, "model.")) == first


@pytest.mark.slow
@pytest.mark.parametrize("by_clock", [False, True])
def test_the_batches_that_are_noted_do_not_depend_on_parts(tmp_path, by_clock):
    """By the clock any step may be the last: in parts its images are not kept."""
    budget = "seconds=0.5" if by_clock else f"steps={STEPS}"
    found = []
    for parts in (1, 3):
        chosen = config(budget=budget, optimiser={"accumulate": parts})
        plan = prepare(chosen, tmp_path / str(parts))
        list(pretrain(plan))
        found.append(runs.read_hashes(plan.run))
    assert found[0]["first_batch"] == found[1]["first_batch"]
    assert "last_batch" in found[0]
    assert found[1].get("last_batch") == (None if by_clock else found[0]["last_batch"])


def test_a_precision_of_evaluations_that_is_not_here_is_refused_before_the_run(tmp_path):
    with pytest.raises(ConfigError, match=r"machine\.evaluation=tf32: cpu has none"):
        prepare(config(machine={"evaluation": "tf32"}), tmp_path)
    assert not list(tmp_path.glob("runs/*"))


def test_deterministic_kernels_are_a_cpus_own(tmp_path):
    ends = []
    for wanted in (False, True):
        plan = prepare(config(machine={"deterministic": wanted}), tmp_path / str(wanted))
        list(pretrain(plan))
        ends.append(end_of(plan))
    assert ends[0] == ends[1]


def test_steps_after_the_last_checkpoint_are_done_again(tmp_path):
    once = prepare(config(), tmp_path / "once")
    losses = [step.loss for step in pretrain(once)]
    plan = prepare(config(), tmp_path / "twice")  # ten seconds between checkpoints: there is none
    steps = pretrain(plan)
    next(steps), next(steps)
    steps.close()
    assert [step.loss for step in pretrain(plan)] == losses
    assert end_of(plan) == end_of(once)
    assert len((plan.run.folder / "log.jsonl").read_text().splitlines()) == STEPS


def test_a_finished_run_has_no_more_steps(tmp_path):
    plan = prepare(config(), tmp_path)
    list(pretrain(plan))
    before = end_of(plan)
    assert prepare(config(), tmp_path).finished
    assert list(pretrain(config(), tmp_path)) == []
    assert end_of(plan) == before


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, every_step):
    once = prepare(config(), tmp_path / "once")
    list(pretrain(once))
    plan = prepare(config(machine=OFTEN), tmp_path / "damaged")
    steps = pretrain(plan)
    for _ in range(4):
        next(steps)
    steps.close()
    state = checkpoints.steps(plan.run.folder / "checkpoint")[-1] / checkpoints.STATE
    content = bytearray(state.read_bytes())
    content[-1] ^= 1  # one bit
    state.write_bytes(content)
    with pytest.warns(
        UserWarning, match="step-000000004 is damaged.*moved to damaged-step-000000004"
    ):
        rest = list(pretrain(plan))
    assert [step.number for step in rest] == [4, 5, 6]
    assert end_of(plan) == end_of(once)


def test_only_one_process_at_a_time_works_on_a_run(tmp_path):
    plan = prepare(config(), tmp_path)
    steps = pretrain(plan)
    next(steps)
    with pytest.raises(RunError, match=f"in use by process {os.getpid()}"):
        next(pretrain(plan))
    steps.close()
    assert len(list(pretrain(plan))) == STEPS


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_weights_of_one_that_was_not(tmp_path):
    options = [
        *("--limit", "200", "--batch", "32", "--budget", "steps=150", "--device", "cpu"),
        *("-o", "machine.checkpoint_seconds=0.1", "--results", str(tmp_path)),
    ]
    command = [sys.executable, "-m", "maebench", "pretrain", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (found := list(tmp_path.glob("runs/*/checkpoint/step-*"))):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    killed = checkpoints.newest(found[0].parent)
    assert 0 < killed["step"] < 150, "it was not killed in the middle"
    subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=True, timeout=120)

    settings = {"limit": 200, "batch": 32, "budget": "steps=150", "device": "cpu"}
    once = prepare(RunConfig(**settings), tmp_path / "once")
    list(pretrain(once))
    assert checkpoints.newest(found[0].parent)["step"] == 150
    assert checkpoints.newest(found[0].parent)["sha256"] == end_of(once)


# ---- what goes wrong


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_checkpoint(
    loss, tmp_path, every_step
):
    plan = prepare(config(objective=Breaks(loss=loss), machine=OFTEN), tmp_path)
    with pytest.raises(RunError, match=rf"the loss is {loss} at step 4; .*step-000000003\. Try"):
        list(pretrain(plan))
    assert [p.name for p in checkpoints.steps(plan.run.folder / "checkpoint")][
        -1
    ] == "step-000000003"
    assert len((plan.run.folder / "log.jsonl").read_text().splitlines()) == 3


def test_weights_that_an_update_made_infinite_are_never_kept(tmp_path, every_step):
    plan = prepare(config(objective=Spoils(), machine=OFTEN), tmp_path)
    with pytest.raises(
        RunError,
        match=r"after step 2; its loss was .* the last good checkpoint is .*step-000000001",
    ):
        list(pretrain(plan))
    assert len(checkpoints.steps(plan.run.folder / "checkpoint")) == 1


def test_a_loss_that_is_not_finite_at_once_says_that_no_checkpoint_is_there(tmp_path):
    with pytest.raises(RunError, match=r"at step 1; .*; no checkpoint was written yet"):
        list(pretrain(config(objective=Breaks(step=1)), tmp_path))


def test_a_tracker_is_told_every_step_and_closed_once(tmp_path, told):
    steps = list(pretrain(config(machine=Machine(trackers=(Notes(),))), tmp_path))
    values = [(s.number, {"loss": s.loss, "lr": s.lr}) for s in steps]
    assert told == [("open", 0), *values, "close"]


@pytest.mark.parametrize("fails", ["open", "log", "close"])
@pytest.mark.slow
def test_a_tracker_that_raises_is_dropped_with_a_warning_and_the_run_goes_on(fails, tmp_path, told):
    trackers = (Notes(fails=fails), Notes())
    with pytest.warns(UserWarning, match=f"tracker .*no way to {fails}"):
        steps = list(pretrain(config(machine=Machine(trackers=trackers)), tmp_path))
    assert len(steps) == STEPS
    numbers = [item[0] for item in told if isinstance(item[0], int)]
    lines = {
        "open": [1, 2, 3, 4, 5, 6],
        "log": [1, 1, 2, 2, 3, 4, 5, 6],
        "close": [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6],
    }
    assert numbers == lines[fails]
    assert told.count("close") == (1 if fails == "open" else 2)


def test_a_tracker_is_closed_also_where_the_run_fails_or_is_stopped(tmp_path, told):
    machine = Machine(trackers=(Notes(),))
    with pytest.raises(RunError):
        list(pretrain(config(objective=Breaks(), machine=machine), tmp_path))
    assert told.count("close") == 1
    steps = pretrain(config(machine=machine), tmp_path)
    next(steps)
    steps.close()
    assert told.count("close") == 2


@pytest.mark.slow
def test_a_teacher_is_kept_and_checkpointed_only_where_it_is_asked(tmp_path):
    for masking, there in ((Hard(), True), (Hard(of="encoder"), False), (Random(), False)):
        plan = prepare(config(masking=masking), tmp_path)
        list(pretrain(plan))
        tensors, _ = checkpoints.load_newest(plan.run.folder / "checkpoint")
        assert any(name.startswith("teacher.") for name in tensors) == there
    with pytest.raises(ConfigError, match="'attention' needs attention, which encoder 'dense'"):
        prepare(config(masking=Attention(of="encoder"), encoder=fakes.Dense()), tmp_path)


def test_a_masking_that_asks_what_the_encoder_cannot_answer_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'attended' needs attention, which encoder 'dense'"):
        prepare(config(masking=fakes.Attended(), encoder=fakes.Dense()), tmp_path)


def test_a_masking_that_asks_what_the_objective_cannot_answer_is_refused(tmp_path, monkeypatch):
    monkeypatch.delattr(MaskedAutoencoder, "reconstruct")
    with pytest.raises(
        ConfigError, match="'worst' needs the loss of each patch, which objective 'mae'"
    ):
        prepare(config(masking=fakes.Worst()), tmp_path)
    assert not list(tmp_path.glob("runs/*"))


def test_an_objective_that_hides_nothing_needs_no_masking(tmp_path):
    plan = prepare(config(objective=fakes.Labelled()), tmp_path)
    assert len(list(pretrain(plan))) == STEPS
    assert plan.run.facts["realised_ratio"] == 0
    assert "random" not in plan.run.name
    assert not {"masking", "ratio", "schedule"} & plan.run.content["config"].keys()
    assert config_of(plan.run, fakes.names()) == plan.config


def test_a_run_that_kept_what_its_objective_does_not_read_is_still_read(tmp_path):
    run = prepare(config(objective=fakes.Labelled()), tmp_path).run
    unread = {"masking": {"name": "random"}, "ratio": 0.75, "schedule": {"ratio": None}}
    old = {**run.content, "config": {**run.content["config"], **unread}}
    files.write_sealed(run.folder / "config.json", old, run.name)
    assert config_of(read_run(run.folder), fakes.names()) == config_of(run, fakes.names())


def test_a_ratio_that_hides_everything_is_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(ConfigError, match="would hide everything of 4x4 patches"):
        prepare(config(ratio=0.99), tmp_path)
    assert not list(tmp_path.glob("runs/*"))


def test_the_realised_ratio_is_a_fact_of_the_run(tmp_path):
    facts = prepare(config(ratio=0.7), tmp_path).run.facts
    assert (facts["num_hidden"], facts["realised_ratio"], facts["grid"]) == ([11], 11 / 16, [4, 4])


def test_only_modules_of_known_packages_are_taken_to_draw_from_torch_alone():
    module = MAE().build(ENCODER.build(Inputs.of_images(1, (8, 8))), Inputs.of_images(1, (8, 8)))
    assert story.draws_from_torch_alone(module)
    module.encoder.blocks[0].__class__ = type("Ours", (type(module.encoder.blocks[0]),), {})
    assert not story.draws_from_torch_alone(module)
