"""The classifier: its mean, its drop path, and the rate and decay of each parameter."""

from __future__ import annotations

import pytest
import torch
from fakes import Dense
from timm.layers import DropPath
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay

from maebench import MaebenchError
from maebench.encoders import ViTNano
from maebench.encoders import blocks as own
from maebench.encoders.inputs import Inputs
from maebench.rng import isolated
from maebench_evals.classifier import drop_paths, layer_groups, make_classifier
from maebench_evals.finetune import MAE_SPARED

DEPTH, WIDTH = 3, 16


def encoder():
    with isolated(0, "test"):
        module = ViTNano(width=WIDTH, depth=DEPTH, heads=2, registers=1).build(
            Inputs.of_images(1, (8, 8))
        )
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return module


def classifier(drop_path=0.0):
    with isolated(1, "test"):
        return make_classifier(encoder(), 10, drop_path)


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
    dense = Dense().build(Inputs.of_images(1, (8, 8)))
    with pytest.raises(MaebenchError, match="no drop path; use -o finetune.drop_path=0"):
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


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_drop_path_rises_from_nothing_to_the_rate_in_the_last_block(rate):
    blocks = classifier(drop_path=rate).encoder.blocks
    rates = [[getattr(b, f"drop_path{i}") for i in (1, 2)] for b in blocks]
    assert not any(isinstance(m, DropPath | own.DropPath) for m in rates[0])
    for block, share in zip(rates[1:], (0.5, 1.0), strict=True):
        assert [m.drop_prob for m in block] == [pytest.approx(share * rate)] * 2


def own_block(rate):
    block = own.Block(WIDTH, 2)
    own.drop_paths([torch.nn.Identity(), block], rate, training=True)
    return block


@pytest.mark.parametrize(
    "make", [own_block, lambda rate: TimmBlock(WIDTH, 2, drop_path=rate)], ids=["own", "timm"]
)
def test_both_drop_paths_of_a_block_are_found_whoever_wrote_it(make):
    block = make(0.25)
    assert drop_paths(block) == [block.drop_path1, block.drop_path2]
    assert [part.drop_prob for part in drop_paths(block)] == [0.25, 0.25]
    assert drop_paths(make(0.0)) == []
    branch = torch.ones(400, 3, WIDTH)
    with isolated(0, "test"), torch.no_grad():
        for part in drop_paths(block):  # it drops whole images, and scales the others up
            kept = part.train()(branch).flatten(1)
            assert (kept == kept[:, :1]).all()
            assert sorted(kept[:, 0].unique().tolist()) == pytest.approx([0, 4 / 3])
            assert 60 < (kept[:, 0] == 0).sum() < 140


@pytest.mark.parametrize("rates", [(0.1, 0.1, 0.1), (0.3, 0.2, 0.1), (0.0, 0.05, 0.2)])
def test_drop_path_at_other_rates_than_asked_is_an_error(rates, monkeypatch):
    module = encoder()

    def wrong(rate):
        for block, share in zip(module.blocks, rates, strict=True):
            block.drop_path1 = DropPath(share)

    monkeypatch.setattr(module, "set_drop_path", wrong)
    with pytest.raises(MaebenchError, match="to rise to 0.3 in the last block, the encoder's"):
        make_classifier(module, 10, 0.3)


def test_drop_path_that_was_not_asked_for_is_an_error():
    module = encoder()
    module.set_drop_path(0.2)
    with pytest.raises(MaebenchError, match="to rise to 0 in the last block"):
        make_classifier(module, 10, 0.0)


@torch.no_grad()
def test_class_and_register_tokens_are_left_out_of_the_mean(monkeypatch):
    mine, images = classifier().eval(), torch.randn(3, 1, 8, 8)
    mine.head.weight.normal_()
    before, tokens = mine(images), type(mine.encoder)._tokens

    def other_prefix(self, x_BND, seen, layers=None):
        x_BND = x_BND.clone()
        x_BND[:, : self.prefix] = 1e3 * torch.randn(len(x_BND), self.prefix, WIDTH)
        return tokens(self, x_BND, seen, layers)

    monkeypatch.setattr(type(mine.encoder), "_tokens", other_prefix)
    assert torch.equal(mine(images), before)


# ---- rates


def test_every_layer_has_its_own_rate_and_only_matrices_are_decayed():
    mine = classifier()
    groups = layer_groups(mine, 0.5)
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
    assert {g["scale"] for g in layer_groups(mine, 1.0)} == {1}


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_an_encoder_whose_layer_ids_leave_layers_out_is_refused(decay, monkeypatch):
    mine = classifier()
    layers = {name: min(layer, 1) for name, layer in mine.encoder.layer_ids().items()}
    monkeypatch.setattr(mine.encoder, "layer_ids", lambda: layers)
    if decay == 1:  # all alike anyway
        assert layer_groups(mine, decay)
        return
    with pytest.raises(MaebenchError, match="gave 3 learning rates, 5 were wanted"):
        layer_groups(mine, decay)


@pytest.mark.parametrize(
    ("method", "wrong", "message"),
    [
        ("no_weight_decay", lambda names: {*names, "pos_embd"}, "names 'pos_embd', which is no"),
        ("layer_ids", lambda names: {**names, "norm.wait": 0}, "names 'norm.wait', which is no"),
        (
            "layer_ids",
            lambda names: {k: v for k, v in names.items() if k != "cls_token"},
            "leaves out the parameter 'cls_token'",
        ),
    ],
)
def test_a_name_that_is_no_parameter_and_a_parameter_without_a_layer_are_refused(
    method, wrong, message, monkeypatch
):
    mine = classifier()
    names = wrong(getattr(mine.encoder, method)())
    monkeypatch.setattr(mine.encoder, method, lambda: names)
    with pytest.raises(MaebenchError, match=rf"{method}\(\) {message}") as raised:
        layer_groups(mine, 0.75)
    assert "\n" not in str(raised.value)


def test_every_parameter_is_in_exactly_one_group():
    mine = classifier()
    grouped = [id(p) for group in layer_groups(mine, 0.75) for p in group["params"]]
    assert sorted(grouped) == sorted(map(id, mine.parameters()))


def test_rates_and_decay_are_those_that_timm_gives_the_same_transformer():
    theirs = VisionTransformer(
        **{"img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": WIDTH},
        **{"depth": DEPTH, "num_heads": 2, "global_pool": "avg", "fc_norm": True},
    )
    wanted = {}
    spared = theirs.no_weight_decay()
    for group in param_groups_layer_decay(theirs, 0.05, spared, layer_decay=0.65):
        names = [n for n, p in theirs.named_parameters() if any(p is q for q in group["params"])]
        wanted |= dict.fromkeys(names, (pytest.approx(group["lr_scale"]), group["weight_decay"]))
    mine = classifier()
    found = {}
    for group in layer_groups(mine, 0.65, MAE_SPARED):
        for name, parameter in mine.named_parameters():
            if any(parameter is q for q in group["params"]):
                where = (group["scale"], group.get("weight_decay", 0.05))
                found[name.removeprefix("encoder.")] = where
    # ours keeps a norm that fine-tuning does not use, and has a register token
    extra = {"norm.weight", "norm.bias", "reg_token"}
    assert {n: v for n, v in found.items() if n not in extra} == wanted
