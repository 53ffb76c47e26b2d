"""The official linear probe: its optimiser, rates, batches and norm, and the whole of it."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from pydantic import ValidationError
from torch import nn

from maebench import Augment, ClampedAugment
from maebench.errors import MaebenchError
from maebench.evaluating import records, suite
from maebench.evaluating.model import EvaluatedModel
from maebench.rng import Draws, isolated
from maebench_evals import official_probe as official
from maebench_evals.linear_probe import LinearProbe

QUICK = {"protocol": "mae", "epochs": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results)
    return tiny.load(results)


def rows_of(model, seed=0, **options):
    rows = records.read(suite.evaluate(model, LinearProbe(**options), seed, again=True))
    return {row["metric"]: row for row in rows}


def draws(purpose="order"):
    return Draws(0, purpose, torch.zeros(1, dtype=torch.int64))


# ---- the optimiser and its rates


def lars_step(weight, grad, velocity, lr, scaled):
    """LARS as in the paper: the step is lr * trust * |w| / |g| along the gradient, with momentum."""
    norms = weight.norm(), grad.norm()
    if scaled and all(norms):
        grad = grad * 0.001 * norms[0] / norms[1]
    velocity = 0.9 * velocity + grad
    return weight - lr * velocity, velocity


def test_lars_is_the_official_one_step_by_step():
    with isolated(0, "test"):
        head = official.Head(5, 3).double()
        lars = official.make_lars(head)
        linear = head.linear
        linear.bias.data.normal_()
        states = [(p.detach().clone(), torch.zeros_like(p)) for p in (linear.weight, linear.bias)]
        for step, rate in enumerate((0.0, 6.4, 3.0, 3.0, 0.1)):
            for group in lars.param_groups:
                group["lr"] = rate
            for p in (linear.weight, linear.bias):
                p.grad = torch.randn_like(p) * (0 if step == 3 else 10**step)
            lars.step()
            for i, p in enumerate((linear.weight, linear.bias)):
                states[i] = lars_step(states[i][0], p.grad, states[i][1], rate, i == 0)
                torch.testing.assert_close(p.detach(), states[i][0], rtol=1e-12, atol=0)


def test_the_rate_starts_at_0_peaks_after_ten_of_ninety_epochs_and_falls_to_0():
    rate = [official.learning_rate(step, 900, 6.4) for step in range(901)]
    assert rate[0] == 0
    assert rate[50] == pytest.approx(3.2)
    assert rate[100] == pytest.approx(6.4)
    assert rate[500] == pytest.approx(3.2)  # half of the eighty epochs that are left
    assert 0 < rate[899] < 1e-4
    assert rate[900] == pytest.approx(0, abs=1e-12)
    assert rate[:101] == sorted(rate[:101])
    assert rate[100:] == sorted(rate[100:], reverse=True)


def test_the_peak_is_a_tenth_per_256_images(monkeypatch):
    rates = []
    monkeypatch.setattr(official, "learning_rate", lambda *args: rates.append(args) or 0.0)
    head, batch = official.Head(4, 2), (torch.randn(8, 4), torch.arange(8) % 2)
    official.train(head, [batch] * 3, 3, 16384)
    assert rates == [(step, 3, pytest.approx(6.4)) for step in range(3)]


def test_the_head_is_a_norm_without_weights_and_a_small_linear_layer():
    head = official.Head(1000, 10)
    norm, linear = head.norm, head.linear
    assert (norm.eps, norm.affine, norm.momentum) == (1e-6, False, 0.1)
    assert list(norm.parameters()) == []
    assert linear.weight.detach().std() == pytest.approx(0.01, rel=0.05)
    assert (linear.bias == 0).all()


# ---- its batches


@pytest.mark.parametrize(
    ("batch", "multiple", "parts"),
    [
        (16384, 1, (64, 256)),
        (1437, 1, (6, 239)),
        (60, 1, (1, 60)),
        (257, 1, (2, 128)),
        (1437, 2, (6, 238)),
        (1, 2, (1, 2)),
    ],
)
def test_a_batch_is_cut_into_equal_parts(batch, multiple, parts):
    assert official.split_batch(batch, multiple) == parts


def test_ninety_epochs_are_official_whatever_the_size_of_train():
    assert official.length(1_281_167, None, 16384) == math.ceil(90 * 1_281_167 / 16384)
    assert official.length(1000, None, 1000) == 90
    assert official.length(1000, 3, 700) == 5


def test_every_image_comes_once_an_epoch_and_none_is_dropped_at_its_end():
    y = torch.arange(10)
    found = torch.cat([b for _, b in official.cached_batches(torch.zeros(10, 2), y, 4, 5, draws())])
    assert len(found) == 20
    first, second = found.split(10)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()


def test_features_of_crops_come_with_their_labels_in_whole_batches(model):
    subject = EvaluatedModel(model, LinearProbe(), model.splits, 0)
    whole = Augment(scale=(1, 1), aspect=(1, 1), flip=False)
    labels = subject.labels("train")
    parts = subject.crops("train", 5, 8, whole)
    found = list(official.encoded_batches(parts, subject.encode, labels, 4, "cpu"))
    assert [x.shape for x, _ in found] == [(20, 16)] * 2
    order = torch.cat([crop.index for crop in subject.crops("train", 20, 2, whole)])
    torch.testing.assert_close(
        torch.cat([x for x, _ in found]), subject.features("train")[order], atol=1e-4, rtol=1e-4
    )
    assert torch.equal(torch.cat([y for _, y in found]), labels[order])


# ---- the norm's mode: wrong, it trains and predicts without a word


class Stuck(nn.BatchNorm1d):
    """A norm that stays in the mode it is in."""

    def train(self, mode=True):
        return self


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (False, "took statistics of 0 batches, .* it was not in training mode"),
        (True, "in training mode where test images are judged"),
    ],
)
def test_a_norm_in_the_wrong_mode_is_an_error(model, monkeypatch, training, message):
    class StuckHead(official.Head):
        def __init__(self, width, num_classes):
            super().__init__(width, num_classes)
            self.norm = Stuck(width, eps=1e-6, affine=False)
            self.norm.training = training

    monkeypatch.setattr(official, "Head", StuckHead)
    for crops in (True, False):
        (row,) = rows_of(model, crops=crops, **QUICK).values()
        assert row["status"] == "failed"
        with pytest.raises(MaebenchError, match=message):
            raise MaebenchError(row["reason"])


# ---- the whole


def test_one_row_says_what_was_done(model):
    rows = rows_of(model, **QUICK)
    assert rows["top1"]["main"] and rows["top1"]["protocol"] == "linear-probe/mae@v5"
    assert rows["top1"]["where"] == {
        **{"batch": 60, "steps": 3, "lr": pytest.approx(0.1 * 60 / 256)},
        **{"pool": "cls", "crops": True, "chosen": True},
        "train_loss": pytest.approx(math.log(10), abs=0.05),  # three updates: hardly trained
    }
    chosen = rows["validation_top1"]
    assert chosen["status"] == "not applicable"
    assert chosen["reason"] == "one rate: nothing is chosen on train"


def test_crops_are_the_official_ones_and_can_be_left_out(model, monkeypatch):
    asked, found = [], EvaluatedModel.crops

    def watch(self, split, batch, steps, augment=None, done=0):
        asked.append((split, batch, steps, augment))
        return found(self, split, batch, steps, augment, done=done)

    monkeypatch.setattr(EvaluatedModel, "crops", watch)
    rows_of(model, **QUICK, batch=40)
    assert asked == [("train", 40, 5, ClampedAugment(scale=(0.08, 1.0)))]
    rows = rows_of(model, **QUICK, crops=False)
    assert len(asked) == 1
    assert rows["top1"]["where"]["crops"] is False


@pytest.mark.parametrize("crops", [True, False])
def test_the_same_seed_gives_the_same_numbers(model, crops):
    path = [
        suite.evaluate(model, LinearProbe(**QUICK, crops=crops), seed, again=True)
        for seed in (0, 0, 1)
    ]
    first, again, other = (
        records.values(p, next(r for r in records.read(p) if r["main"]))[1].tolist() for p in path
    )
    assert first == again != other


def test_raw_pixels_are_cropped_too(model):
    pixels = tiny.load(model.run.folder.parent.parent, "pixels:")
    row = rows_of(pixels, **QUICK)["top1"]
    assert (row["status"], row["where"]["pool"], row["where"]["crops"]) == ("ok", "flat", True)


@pytest.mark.slow
def test_features_that_hold_the_label_reach_100_percent_though_train_is_small():
    labels = torch.arange(10_500) % 10
    noise = torch.randn(10_500, 10, generator=torch.Generator().manual_seed(0))
    x = 50 * (torch.nn.functional.one_hot(labels) + 0.1 * noise)
    stub = tiny.Stub(x[500:], labels[500:], x[:500], labels[:500])
    with isolated(0, "test"):
        found = {
            r.metric: r for r in LinearProbe(protocol="mae", crops=False, epochs=430).run(stub)
        }
    assert found["top1"].value.mean() == 1
    assert found["top1"].where["steps"] == 430


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "mae", "l2": (1.0,)}, "l2 is read by protocol=fast alone"),
        ({"crops": True}, "crops is read by protocol=mae alone"),
    ],
)
def test_an_option_that_the_protocol_does_not_read_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        LinearProbe(**options)
