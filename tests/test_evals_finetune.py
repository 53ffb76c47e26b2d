"""Fine-tuning: the classifier is the paper's, and every layer gets the rate it should."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from fakes import Dense

from maebench import MaebenchError, records, suite
from maebench.encoders import ViTNano
from maebench.rng import isolated
from maebench_evals.finetune import Finetune, make_classifier

DEPTH, WIDTH = 3, 16


def encoder():
    with isolated(0, "test"):
        module = ViTNano(width=WIDTH, depth=DEPTH, heads=2, registers=1).build((8, 8), 1)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return module


def classifier(drop_path=0.0):
    with isolated(1, "test"):
        return make_classifier(encoder(), 10, drop_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results)
    return tiny.load(results)


def rows_of(model, **options):
    return {r["metric"]: r for r in records.read(suite.evaluate(model, Finetune(**options)))}


# ---- the classifier


@torch.no_grad()
def test_logits_come_from_the_mean_of_the_patches_before_the_encoders_norm():
    mine, images = classifier().eval(), torch.randn(5, 1, 8, 8)
    mine.head.weight.normal_()
    mine.fc_norm.weight.normal_()
    mine.fc_norm.bias.normal_()
    # the official vit: blocks without the last norm, mean without prefix tokens, norm, head
    module = mine.encoder
    x = module.patch_embed.proj(images).flatten(2).transpose(1, 2) + module.pos_embed[:, 1:]
    prefix = torch.cat([module.cls_token + module.pos_embed[:, :1], module.reg_token], 1)
    x = torch.cat([prefix.expand(5, -1, -1), x], 1)
    for block in module.blocks:
        x = block(x)
    x = torch.nn.functional.layer_norm(
        x[:, 2:].mean(1), (WIDTH,), mine.fc_norm.weight, mine.fc_norm.bias, 1e-6
    )
    expected = x @ mine.head.weight.T + mine.head.bias
    torch.testing.assert_close(mine(images), expected, atol=1e-5, rtol=1e-5)


def test_the_head_starts_near_zero():
    mine = classifier()
    assert 1e-5 < mine.head.weight.std() < 3e-5
    assert (mine.head.bias == 0).all()


def test_an_encoder_without_drop_path_is_refused_where_it_is_asked_for():
    dense = Dense().build((8, 8), 1)
    with pytest.raises(MaebenchError, match="no drop path; use -o drop_path=0"):
        make_classifier(dense, 10, 0.1)
    assert make_classifier(dense, 10, 0.0)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_drop_path_that_does_not_act_is_refused(monkeypatch):
    module = encoder()
    monkeypatch.setattr(module, "set_drop_path", lambda rate: None)
    with pytest.raises(MaebenchError, match="no drop path"):
        make_classifier(module, 10, 0.1)


def test_drop_path_acts_while_training_alone():
    mine, images = classifier(drop_path=0.5), torch.randn(64, 1, 8, 8)
    torch.nn.init.normal_(mine.head.weight)
    with isolated(2, "test"), torch.no_grad():
        assert not torch.equal(mine.train()(images), mine(images))
        assert torch.equal(mine.eval()(images), mine(images))


# ---- rates


def test_every_layer_has_its_own_rate_and_only_matrices_are_decayed():
    mine = classifier()
    groups = Finetune(layer_decay=0.5).groups(mine)
    where = {id(p): g for g in groups for p in g["params"]}
    assert sorted({g["scale"] for g in groups}) == [0.5**n for n in range(DEPTH + 1, -1, -1)]
    for name, parameter in mine.named_parameters():
        group = where[id(parameter)]
        if name.startswith("encoder.blocks."):
            layer = int(name.split(".")[2]) + 1
        else:
            layer = DEPTH + 1 if "norm" in name or name.startswith("head") else 0
        assert group["scale"] == 0.5 ** (DEPTH + 1 - layer), name
        spared = name.endswith("bias") or "norm" in name or name == "encoder.pos_embed"
        assert group.get("weight_decay") == (0.0 if spared else None), name
    assert {g["scale"] for g in Finetune(layer_decay=1).groups(mine)} == {1}


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_an_encoder_whose_layer_ids_leave_layers_out_is_refused(decay, monkeypatch):
    mine = classifier()
    layers = {name: min(layer, 1) for name, layer in mine.encoder.layer_ids().items()}
    monkeypatch.setattr(mine.encoder, "layer_ids", lambda: layers)
    evaluation = Finetune(layer_decay=decay)
    if decay == 1:  # all alike anyway
        assert evaluation.groups(mine)
        return
    with pytest.raises(MaebenchError, match="gave 3 learning rates, 5 were wanted"):
        evaluation.groups(mine)


def test_the_rate_warms_up_and_falls_to_zero():
    one = Finetune(batch=128, warmup=0.1)
    rate = [one.rate(step, 100, 0.4) for step in range(101)]
    assert rate[0] == pytest.approx(0.2 / 11)
    assert rate[10] == 0.2  # 0.4 per 256 images
    assert rate[100] == pytest.approx(0, abs=1e-12)
    assert rate[:11] == sorted(rate[:11])
    assert rate[10:] == sorted(rate[10:], reverse=True)


@pytest.mark.parametrize("epochs", [1, 50])
def test_labels_are_smoothed_always_and_mixed_in_long_schedules(epochs):
    mix = Finetune(smoothing=0.1)._mix(10, epochs)
    images, labels = torch.arange(32.0).view(8, 1, 2, 2), torch.arange(8)
    with isolated(0, "test"):
        mixed, targets = mix(images.clone(), labels)
    torch.testing.assert_close(targets.sum(1), torch.ones(8))
    assert targets.min() >= 0.01 - 1e-6
    assert torch.equal(mixed, images) == (epochs == 1)
    if epochs == 1:
        assert targets.max() == pytest.approx(0.91)
        assert torch.equal(targets.argmax(1), labels)


# ---- the whole


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
    assert "finetune: the loss is nan; try a smaller -o lr" in row["reason"]
