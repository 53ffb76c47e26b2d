"""What pretraining costs: FLOPs by hand, budgets that are kept to, and seconds by the clock."""

from __future__ import annotations

import json

import fakes
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from maebench import MAE, ConfigError, Inputs, RunConfig, files
from maebench.encoders import ViTNano, attention
from maebench.objectives import Autoencoder, Contractive, SimMIM
from maebench.pretraining import checkpoints
from maebench.pretraining import loop as pretrain
from maebench.pretraining.budget import stage_steps
from maebench.pretraining.cost import (
    COUNTED,
    Spent,
    count,
    made_up,
)
from maebench.pretraining.plan import prepare
from maebench.rng import isolated

WIDTH, DEPTH, INNER, D = 16, 2, 4 * 16, 8  # of the encoder, and the decoder's width
ENCODER = ViTNano(width=WIDTH, depth=DEPTH, heads=2, patch=4)


def build(objective=None, encoder=ENCODER, size=(16, 16), channels=3, classes=0):
    inputs = Inputs.of_images(channels, size, classes)
    with isolated(0, "test"):
        module = (objective or MAE()).build(encoder.build(Inputs.of_images(channels, size)), inputs)
    return module, inputs


def block(tokens, width, some=None):
    """Products of one transformer block: keys and values; q, projection, MLP; scores, their use."""
    some = tokens if some is None else some
    linear = tokens * 2 * width**2 + some * (2 * width**2 + 2 * width * 4 * width)
    return 2 * (linear + 2 * some * tokens * width)


@pytest.mark.parametrize("objective", [MAE(), SimMIM(), Autoencoder()], ids=lambda o: o.name)
def test_all_flops_are_those_of_torchs_own_counter(objective):
    module, inputs = build(objective)
    hidden = 12 if objective.hides else None
    (found,) = count(module, inputs, [hidden])
    with (
        attention.using(False),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as theirs,
    ):
        module(made_up(module.encoder, inputs, hidden))["loss"].backward()
    assert found.flops == theirs.get_total_flops() / COUNTED


def test_a_gradient_of_a_gradient_costs_more_than_none():
    (one,) = count(*build(Contractive()), [None])
    (two,) = count(*build(Contractive(probes=2)), [None])
    (plain,) = count(*build(Autoencoder(bottleneck=48)), [None])
    # the encoder's own forward and backward are the same; a probe adds a backward and its backward
    assert one.encoder == two.encoder
    assert two.decoder - one.decoder == one.decoder - plain.decoder > one.encoder


@pytest.mark.parametrize("num_hidden", [4, 12])
def test_flops_of_encoder_and_decoder_are_those_counted_by_hand(num_hidden):
    (found,) = count(*build(), [num_hidden])
    seen = 16 - num_hidden
    embed = 2 * seen * 48 * WIDTH
    # backward: twice forward, but pixels need no gradient
    assert found.encoder == 3 * DEPTH * block(1 + seen, WIDTH) + 2 * embed
    # the decoder's last block and its head only where the loss is
    head = 2 * num_hidden * D * 48
    into = 2 * (1 + seen) * WIDTH * D
    assert found.decoder == 3 * (into + block(17, D, num_hidden) + head)
    assert found.tokens == seen
    assert found.flops == found.encoder + found.decoder


def test_flops_do_not_depend_on_the_kernel_that_is_used():
    module, inputs = build(size=(64, 64))
    with attention.using(True):
        (fused,) = count(module, inputs, [64])
    with attention.using(False):
        assert count(module, inputs, [64]) == [fused]
    assert fused.encoder > 3 * DEPTH * block(193, WIDTH)


def test_each_stage_has_its_own_cost_and_equal_ones_are_counted_once(monkeypatch):
    module, inputs = build()
    asked = []
    original = type(module).forward
    monkeypatch.setattr(type(module), "forward", lambda s, b: (asked.append(b), original(s, b))[1])
    costs = count(module, inputs, [4, 12, 4])
    assert (len(asked), costs[0]) == (2, costs[2])
    assert [cost.tokens for cost in costs] == [12, 4, 12]
    assert costs[0].flops > costs[1].flops
    assert all(parameter.grad is None for parameter in module.parameters())


def test_an_objective_that_hides_nothing_sees_every_patch():
    (found,) = count(*build(fakes.Labelled(), classes=10), [None])
    assert found.tokens == 16
    assert found.decoder == 3 * 2 * WIDTH * 10


def test_an_encoder_that_keeps_all_positions_is_given_the_seen_patches():
    (found,) = count(*build(encoder=fakes.Dense(), size=(16, 16)), [48])
    assert found.tokens == 64 - 48  # a mask token tells nothing, though it costs as much
    (less,) = count(*build(encoder=fakes.Dense(), size=(16, 16)), [16])
    assert found.encoder == less.encoder


class OfTwoViews(torch.nn.Module):
    """Asks its encoder twice, of images that something trained made, and trains one answer."""

    def __init__(self, encoder, trained):
        super().__init__()
        self.encoder, self.trained = encoder, trained
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, batch):
        one = self.encoder(batch.images * self.scale).patches
        two = self.encoder(batch.images.flip(3)).patches
        return {"loss": (one - (two if self.trained == 2 else two.detach())).square().mean()}


def test_an_encoder_counts_as_often_as_it_is_trained():
    encoder = ENCODER.build(Inputs.of_images(3, (16, 16)))
    both = count(OfTwoViews(encoder, 2), Inputs.of_images(3, (16, 16)), [None])[0]
    one = count(OfTwoViews(encoder, 1), Inputs.of_images(3, (16, 16)), [None])[0]
    forward = DEPTH * block(17, WIDTH) + 2 * 16 * 48 * WIDTH
    # one answer has a gradient of the images too; the other is only made
    assert one.encoder == 3 * forward
    assert one.decoder == forward
    assert both.encoder == 3 * forward + 3 * DEPTH * block(17, WIDTH) + 2 * (2 * 16 * 48 * WIDTH)
    assert both.decoder == 0


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    count(*build(), [4])
    assert torch.equal(torch.get_rng_state(), before)


# ---- what runs have cost


def config(**changes):
    """A tiny encoder on forty digits."""
    tiny = {"encoder": ViTNano(width=16, depth=1, heads=2), "limit": 40, "batch": 8, "lr": 1e-2}
    return RunConfig(fakes.names(), device="cpu", **{**tiny, **changes})


def spent_by(plan):
    return json.loads(plan.spent.read_text())


def test_equal_flops_are_fewer_steps_where_every_patch_is_seen(tmp_path):
    masked = prepare(config(budget="flops=2e7"), tmp_path)
    whole = prepare(config(budget="flops=2e7", objective=fakes.Labelled()), tmp_path)
    assert 1 < whole.steps < masked.steps
    for plan in (masked, whole):
        list(pretrain.pretrain(plan))
        spent = spent_by(plan)
        flops = spent["flops_encoder"] + spent["flops_decoder"]
        assert flops <= 2e7 < flops * (1 + 1 / plan.steps)
        assert (spent["steps"], spent["images"]) == (plan.steps, 8 * plan.steps)
    assert spent_by(masked)["tokens"] == 4 * 8 * masked.steps
    assert spent_by(whole)["tokens"] == 16 * 8 * whole.steps


@pytest.mark.slow
def test_tokens_follow_the_ratio_of_each_stage(tmp_path):
    moved = {"ratio": 0.5, "schedule": {"ratio": 0.75, "stages": 2}}
    plan = prepare(config(budget="tokens=5000", **moved), tmp_path)
    list(pretrain.pretrain(plan))
    # 8 tokens of an image in the first half, 4 in the second
    first, second = stage_steps(2, plan.steps)
    assert spent_by(plan)["tokens"] == 8 * (8 * first + 4 * second) <= 5000


def test_what_was_spent_survives_a_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "CHECKPOINT_SHARE", 0)
    often = {"machine": {"checkpoint_seconds": 1e-9}}
    plan = prepare(config(budget="steps=5", **often), tmp_path)
    steps = pretrain.pretrain(plan)
    next(steps), next(steps), steps.close()
    manifest = checkpoints.newest(plan.run.folder / "checkpoint")
    assert (manifest["step"], manifest["total"]) == (2, 5)
    assert Spent.read(manifest["spent"]).images == 16
    assert not plan.spent.exists()
    list(pretrain.pretrain(plan))
    assert spent_by(plan)["images"] == 40
    assert spent_by(plan)["pretraining_seconds"] > manifest["spent"]["pretraining_seconds"]


def test_a_run_by_the_clock_ends_in_time_and_knows_how_many_steps_it_made(tmp_path):
    plan = prepare(config(budget="seconds=0.5"), tmp_path)
    assert plan.steps is None and not plan.finished
    steps = list(pretrain.pretrain(plan))
    assert plan.finished and list(pretrain.pretrain(plan)) == []
    spent = spent_by(plan)
    assert spent["steps"] == len(steps) == steps[-1].number > 1
    assert [step.total for step in steps] == [None] * len(steps)
    done = [step.done for step in steps]
    assert done == sorted(done) and done[-1] == 1 and done[-2] < 1
    assert 0.5 <= spent["pretraining_seconds"] < 0.5 + 10 * 0.5  # one step more at most
    rates = [step.lr for step in steps]
    assert max(rates) <= 1e-2 * 8 / 256 and rates[-1] < max(rates)  # the half cosine was gone


@pytest.mark.slow
def test_a_run_by_the_clock_goes_on_with_the_time_that_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "CHECKPOINT_SHARE", 0)
    often = {"machine": {"checkpoint_seconds": 1e-9}}
    plan = prepare(config(budget="seconds=1", **often), tmp_path)
    steps = pretrain.pretrain(plan)
    first = [next(steps) for _ in range(3)]
    steps.close()
    rest = list(pretrain.pretrain(plan))
    assert rest[0].number == 4 and rest[0].done > first[-1].done
    assert spent_by(plan)["steps"] == rest[-1].number


def test_a_run_by_the_clock_that_stopped_before_its_masks_were_described_makes_no_step(tmp_path):
    plan = prepare(config(budget="seconds=0.3"), tmp_path)
    made = len(list(pretrain.pretrain(plan)))
    plan.masks.unlink()
    assert list(pretrain.pretrain(plan)) == []
    assert plan.masks.exists() and spent_by(plan)["steps"] == made


def test_a_run_of_before_costs_were_counted_goes_on_and_has_none(tmp_path):
    plan = prepare(config(budget="steps=3"), tmp_path)
    content = dict(plan.run.content)
    content["facts"] = {k: v for k, v in content["facts"].items() if k != "cost"}
    files.write_sealed(plan.run.folder / "config.json", content, plan.run.name)
    again = prepare(config(budget="steps=3"), tmp_path)
    assert len(list(pretrain.pretrain(again))) == 3
    assert again.finished and not again.spent.exists()


def test_a_budget_that_buys_no_step_is_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(ConfigError, match=r"budget tokens=3: one step of 8 images costs tokens=32"):
        prepare(config(budget="tokens=3"), tmp_path)
    assert not list(tmp_path.glob("runs/*"))
