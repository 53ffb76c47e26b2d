"""Fine-tuning: every batch is one update, nothing asked for is without effect, and it learns."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from maebench import Augment, MaebenchError, learning_rate
from maebench.evaluating import records, suite
from maebench.evaluating.model import EvaluatedModel
from maebench.testing.evaluated import PLAIN, Case, run
from maebench_evals import finetune, official_probe
from maebench_evals.classifier import make_classifier, predict
from maebench_evals.finetune import Finetune


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results)
    return tiny.load(results)


def rows_of(model, **options):
    path = suite.evaluate(model, Finetune(**options), again=True)
    return {r["metric"]: r for r in records.read(path)}


# ---- rates


def test_the_rate_is_per_256_images_and_warms_up_and_ends_as_asked(model, monkeypatch):
    asked = []
    monkeypatch.setattr(
        finetune, "learning_rate", lambda *args: asked.append(args) or learning_rate(*args)
    )
    rows_of(model, epochs=5, batch=30, lr=0.4, warmup=0.2, min_lr=1e-3)
    peak = pytest.approx(0.4 * 30 / 256)
    assert asked == [(step, 10, peak, 0.2, 1e-3) for step in range(10)]


def test_every_layer_steps_with_its_own_share_of_the_rate(model, monkeypatch):
    seen, step = [], torch.optim.AdamW.step

    def watch(self):
        seen.append(sorted({group["lr"] for group in self.param_groups}))
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    rows_of(model, epochs=1, batch=20, lr=0.1, warmup=0.0, layer_decay=0.5)
    for number, rates in enumerate(seen):
        rate = learning_rate(number, 3, 0.1 * 20 / 256)
        assert rates == pytest.approx([rate / 8, rate / 4, rate / 2, rate])


# ---- large batches


def test_a_large_batch_in_parts_gives_the_update_of_the_whole(model, monkeypatch):
    plain = {"protocol": "mae", "epochs": 2, "randaugment": "off", "erase": 0.0, "batch": 40}
    plain |= {"mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0}
    whole = rows_of(model, **plain)
    monkeypatch.setattr(official_probe, "PART", 10)
    cut = rows_of(model, **plain)
    assert cut["train_loss"]["value"] == pytest.approx(whole["train_loss"]["value"], abs=1e-5)
    assert cut["top1"]["value"] == whole["top1"]["value"]


def test_every_image_is_seen_each_epoch_and_a_batch_larger_than_train_is_cut(model, monkeypatch):
    seen, found = [], EvaluatedModel.crops

    def watch(self, split, batch, steps, augment=None, done=0):
        assert augment == Augment(scale=(0.08, 1.0)) and not done
        for crop in found(self, split, batch, steps, augment):
            seen.append(crop)
            yield crop

    monkeypatch.setattr(EvaluatedModel, "crops", watch)
    monkeypatch.setattr(official_probe, "PART", 16)
    row = rows_of(model, protocol="mae", epochs=3)["top1"]
    # sixty images in four parts of fourteen: 56 an update, and the four left come in the next
    assert row["where"] == {"epochs": 3, "batch": 56, "chosen": True}
    assert (row["main"], row["protocol"]) == (True, "finetune/mae@v1")
    assert [len(crop.index) for crop in seen] == [14] * 16
    index = torch.cat([crop.index for crop in seen])[:180]
    assert all(sorted(part.tolist()) == list(range(60)) for part in index.split(60))


def test_a_batch_of_parts_is_one_update(model, monkeypatch):
    steps = []
    monkeypatch.setattr(official_probe, "PART", 16)
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: (steps.append(1), step(self))[1], raising=True
    )
    rows_of(model, protocol="mae", epochs=3, batch=32)
    assert len(steps) == math.ceil(3 * 60 / 32)


# ---- the whole


@pytest.mark.slow
def test_the_loss_falls_and_the_run_keeps_its_weights(model):
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    quick = {"lr": 0.1, "batch": 20, "drop_path": 0.0, "smoothing": 0.0}
    short, long = (
        rows_of(model, epochs=1, lr=1e-4),
        rows_of(model, epochs=100, mixup=0.0, cutmix=0.0, **quick),
    )
    assert short["train_loss"]["value"] == pytest.approx(math.log(10), abs=0.1)
    assert long["train_loss"]["value"] < 0.6 * short["train_loss"]["value"]
    assert long["top1"]["value"] > 0.4 > short["top1"]["value"]
    assert long["top1"]["low"] < long["top1"]["value"] < long["top1"]["high"]
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())


def test_the_same_seed_gives_the_same_numbers(model):
    values = []
    for seed in (0, 0, 1):
        path = suite.evaluate(model, Finetune(epochs=2), seed, again=True)
        values.append([row["value"] for row in records.read(path)])
    assert values[0] == values[1] != values[2]


def test_pixels_have_no_encoder_to_train(model):
    pixels = tiny.load(model.run.folder.parent.parent, "pixels:")
    (row,) = records.read(suite.evaluate(pixels, Finetune()))
    assert (row["status"], row["reason"]) == ("not applicable", "raw pixels have no encoder")


def test_a_loss_that_is_not_finite_fails_with_what_to_try(model):
    (row,) = rows_of(model, epochs=8, lr=1e30, smoothing=0.0).values()
    assert row["status"] == "failed"
    assert "finetune: the loss is nan; try a smaller -o finetune.lr" in row["reason"]


@pytest.mark.slow
def test_the_official_protocol_learns():
    short = Finetune(protocol="mae", epochs=10, batch=20, lr=0.1)
    outcome = run(short, Case(PLAIN, "encoder"))
    assert outcome.error is None
    (top1,) = (r.value for r in outcome.results if r.metric == "top1")
    assert top1.mean() > 0.6  # of four classes


def test_layer_decay_that_reaches_no_layer_fails_the_evaluation(model, monkeypatch):
    groups = finetune.layer_groups
    monkeypatch.setattr(
        finetune, "layer_groups", lambda *a: groups(flat(a[0]), *a[1:]), raising=True
    )
    (row,) = rows_of(model).values()
    assert row["status"] == "failed"
    assert "layer decay gave 2 learning rates, 4 were wanted" in row["reason"]


def flat(classifier):
    names = dict.fromkeys(classifier.encoder.layer_ids(), 0)
    classifier.encoder.layer_ids = lambda: names
    return classifier


# ---- what would be without effect, and who notices


def broken(model, monkeypatch, **patches):
    for name, value in patches.items():
        monkeypatch.setattr(finetune, name, value)
    row = rows_of(model, epochs=1)["top1"]
    return row["status"], row["reason"]


def test_rates_that_lose_their_scale_fail(model, monkeypatch):
    real = finetune.layer_groups

    def unscaled(*args):
        return [{**group, "scale": 1.0} for group in real(*args)]

    status, reason = broken(model, monkeypatch, layer_groups=unscaled)
    assert status == "failed"
    assert "1 learning rates are in use, layer decay wants 4" in reason


def test_a_weight_decay_that_is_lost_fails(model, monkeypatch):
    real = finetune.layer_groups

    def undecayed(*args):
        return [{**group, "weight_decay": 0.0} for group in real(*args)]

    assert (
        "no group of parameters is decayed" in broken(model, monkeypatch, layer_groups=undecayed)[1]
    )


def test_training_in_evaluation_mode_fails(model, monkeypatch):
    real = finetune.make_classifier

    def sleeping(*args):
        made = real(*args)
        monkeypatch.setattr(made, "train", lambda mode=True: torch.nn.Module.train(made, False))
        return made

    assert "evaluation mode" in broken(model, monkeypatch, make_classifier=sleeping)[1]


def test_drop_path_that_is_not_built_in_fails(model, monkeypatch):
    real = finetune.make_classifier
    reason = broken(
        model, monkeypatch, make_classifier=lambda encoder, classes, _: real(encoder, classes, 0.0)
    )[1]
    assert "drop path does not act" in reason


def test_test_images_in_training_mode_fail(model):
    classifier = make_classifier(
        EvaluatedModel(model, Finetune(), model.splits, 0).encoder(), 10, 0.1
    )
    with pytest.raises(MaebenchError, match="judged in training mode"):
        predict(classifier.train(), EvaluatedModel(model, Finetune(), model.splits, 0))


@pytest.mark.slow
def test_crops_are_the_data_sets_whatever_the_run_was_pretrained_with(tmp_path):
    found = []
    for number, augment in enumerate(({}, {"augment": {"scale": (0.2, 0.3), "flip": True}})):
        tiny.plan(tmp_path / str(number), **augment)
        one = tiny.load(tmp_path / str(number))
        (crop,) = EvaluatedModel(one, Finetune(), one.splits, 0).crops("train", 8, 1)
        found.append(crop.boxes)
    assert torch.equal(*found)
