"""The rate of each step, and what weight decay leaves alone."""

from __future__ import annotations

import fakes
import pytest
import torch
from torch import nn

from maebench import MAE, Inputs, MaebenchError
from maebench.encoders import ViTNano
from maebench.pretraining.optimiser import AdamW, learning_rate, parameter_groups


def test_the_learning_rate_warms_up_to_its_peak_and_falls_to_its_floor():
    rate = [learning_rate(step, 100, 0.5, 0.1, 0.01) for step in range(101)]
    assert rate[0] == pytest.approx(0.5 / 11)  # not 0: a wasted update
    assert rate[9] == pytest.approx(0.5 * 10 / 11)
    assert rate[10] == 0.5
    assert rate[55] == pytest.approx((0.5 + 0.01) / 2)  # half way down the cosine
    assert rate[100] == pytest.approx(0.01)  # would be the next one
    assert 0.01 < rate[99] < 0.011
    assert rate[:11] == sorted(rate[:11])
    assert rate[10:] == sorted(rate[10:], reverse=True)
    assert learning_rate(0, 1, 0.5) == 0.5


def test_only_matrices_and_tokens_are_decayed():
    encoder = ViTNano(width=16, depth=1, heads=2, registers=1).build(Inputs.of_images(1, (8, 8)))
    model = MAE().build(encoder, Inputs.of_images(1, (8, 8)))
    groups, names = parameter_groups(model, 0.3)
    by_name = dict(model.named_parameters())
    parameters = [p for group in groups for p in group["params"]]
    assert [by_name[name] is p for name, p in zip(names, parameters, strict=True)] == [True] * len(
        names
    )
    blocks = [f"{prefix}.0" for prefix in ("encoder.blocks", "decoder.decoder_blocks")]
    linear = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
    matrices = ["encoder.patch_embed.proj", "decoder.decoder_embed", "decoder.decoder_pred"]
    matrices += [f"{block}.{part}" for block in blocks for part in linear]
    norms = ["encoder.norm", "decoder.decoder_norm"]
    norms += [f"{block}.{part}" for block in blocks for part in ("norm1", "norm2")]
    tokens = ["encoder.cls_token", "encoder.reg_token", "decoder.mask_token"]
    decayed, kept = (names[: len(groups[0]["params"])], names[len(groups[0]["params"]) :])
    assert set(decayed) == {f"{m}.weight" for m in matrices} | set(tokens)
    assert set(kept) == {f"{m}.bias" for m in [*matrices, *norms]} | {f"{n}.weight" for n in norms}
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]


def test_an_encoders_own_list_spares_weights_of_decay(monkeypatch):
    model = MAE().build(
        fakes.Dense().build(Inputs.of_images(1, (8, 8))), Inputs.of_images(1, (8, 8))
    )
    monkeypatch.setattr(model.encoder, "no_weight_decay", lambda: {"down.weight"}, raising=False)
    groups, names = parameter_groups(model, 0.1)
    assert "encoder.down.weight" in names[len(groups[0]["params"]) :]
    assert "encoder.embed.weight" in names[: len(groups[0]["params"])]


@pytest.mark.parametrize(
    ("method", "names", "message"),
    [
        ("no_weight_decay", {"dwn.weight"}, r"no_weight_decay\(\) names 'dwn.weight', which is no"),
        ("layer_ids", {"embed.weight": 0}, r"layer_ids\(\) leaves out the parameter"),
    ],
)
def test_a_wrong_name_of_a_parameter_is_told(method, names, message, monkeypatch):
    model = MAE().build(
        fakes.Dense().build(Inputs.of_images(1, (8, 8))), Inputs.of_images(1, (8, 8))
    )
    monkeypatch.setattr(model.encoder, method, lambda: names)
    with pytest.raises(MaebenchError, match=message):
        parameter_groups(model, 0.1)


def test_every_parameter_that_learns_is_in_exactly_one_group():
    encoder = ViTNano(width=16, depth=1, heads=2).build(Inputs.of_images(1, (8, 8)))
    model = MAE().build(encoder, Inputs.of_images(1, (8, 8)))
    groups, _ = parameter_groups(model, 0.3)
    given = [id(p) for group in groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_the_optimiser_is_torchs_to_the_last_bit():
    def trained(kind):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 2))
        groups = [{"params": [p], "weight_decay": 0.1 * p.ndim} for p in model.parameters()]
        optimiser = kind(groups, betas=(0.9, 0.95), fused=True)
        for number in range(6):
            if number == 3:  # as a run that goes on
                kept = optimiser.state_dict()
                optimiser = kind(groups, betas=(0.9, 0.95), fused=True)
                optimiser.load_state_dict(kept)
            model(torch.randn(3, 5)).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
        return [*model.state_dict().values(), *(p.grad for p in model.parameters())]

    with torch.random.fork_rng():
        pairs = zip(trained(AdamW), trained(torch.optim.AdamW), strict=True)
        assert all((a is b is None) or torch.equal(a, b) for a, b in pairs)
