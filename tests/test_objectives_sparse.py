"""The sparse autoencoder: its penalties by worked numbers, and what its code is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.distributions import Bernoulli, kl_divergence
from whole import B, batch_of, built, draws_of, images_of

from maebench import Batch, ConfigError, Inputs
from maebench.encoders import ViTNano
from maebench.objectives import Sparse
from maebench.objectives.sparse import kl_to_mean_activation, largest
from maebench.rng import isolated
from maebench.testing import ObjectiveContract

PENALTIES = ("kl", "l1", "top-k")


class TestSparse(ObjectiveContract):
    component = Sparse


class TestKL(ObjectiveContract):
    component = Sparse(penalty="kl")


class TestLasso(ObjectiveContract):
    component = Sparse(penalty="l1")


class TestTopK(ObjectiveContract):
    component = Sparse(penalty="top-k", code="tokens")


# ---- the KL


def logit(*values):
    return torch.tensor(values).logit()


def test_the_kl_is_that_of_worked_numbers():
    # two tokens, two units: the first's mean is .3, the second's .05 = rho
    x = logit([0.2, 0.08], [0.4, 0.02])[None]
    # .05 ln(.05 / .3) + .95 ln(.95 / .7) = -.089588 + .290112; nothing of the second
    assert kl_to_mean_activation(x, 0.05).item() == pytest.approx(0.200524, abs=2e-6)
    assert kl_to_mean_activation(logit([0.5])[None], 0.5).item() == pytest.approx(0, abs=1e-6)
    # always on at rho = .1: .1 ln(.1 / .9) + .9 ln(.9 / .1) = .8 ln 9
    on = kl_to_mean_activation(logit([0.9], [0.9])[None], 0.1).item()
    assert on == pytest.approx(0.8 * math.log(9), rel=1e-5)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.floats(-8, 8), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(0.01, 0.99),
)
def test_the_kl_agrees_with_torchs_of_bernoulli_distributions(rows, rho):
    x = torch.tensor(rows, dtype=torch.float64)[None]
    expected = kl_divergence(Bernoulli(torch.tensor(rho)), Bernoulli(x.sigmoid().mean(1))).sum(1)
    torch.testing.assert_close(kl_to_mean_activation(x, rho), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("value", [200.0, -200.0])
def test_a_unit_that_is_off_or_on_everywhere_has_a_finite_penalty_and_a_gradient(value):
    x = torch.full((1, 4, 1), value, requires_grad=True)  # a sigmoid of 1 or 0 in float32
    kl_to_mean_activation(x, 0.05).backward()
    assert x.grad.isfinite().all()
    assert (x.grad.sign() == math.copysign(1, value)).all()


# ---- the loss


def test_the_kl_is_weighed_beside_half_the_squared_error_of_a_patch():
    module, images = built(Sparse(penalty="kl", weight=2.0, rho=0.1)), images_of()
    errors = (module.predict(images) - module.target(images)).square()  # 48 numbers a patch
    x = module.encode(images)
    assert x.shape == (B, 17, 4 * 48)
    expected = 0.0
    for b in range(B):
        mean = x[b].sigmoid().mean(0).tolist()
        kl = sum(0.1 * math.log(0.1 / r) + 0.9 * math.log(0.9 / (1 - r)) for r in mean)
        half = sum(errors[b].sum(1).tolist()) / 16 / 2
        expected += (half + 2.0 * kl) / B
    assert module(batch_of(images))["loss"].item() * 48 / 2 == pytest.approx(expected, rel=1e-4)


def test_the_l1_penalty_is_the_mean_sum_of_activations():
    module, images = built(Sparse(penalty="l1", weight=0.7)), images_of()
    error = module.error(module.predict(images), images)
    total = module.encode(images).clamp(min=0).sum() / (B * 17)
    expected = error + 2 * 0.7 / 48 * total
    torch.testing.assert_close(module(batch_of(images))["loss"], expected)


def test_top_k_has_no_penalty():
    module, images = built(Sparse(penalty="top-k")), images_of()
    torch.testing.assert_close(
        module(batch_of(images))["loss"], module.error(module.predict(images), images)
    )


@pytest.mark.parametrize("penalty", PENALTIES)
@torch.no_grad()
def test_a_loss_of_parts_averages_to_the_whole(penalty):
    # a mean activation over the batch would not
    module, images = built(Sparse(penalty=penalty)), images_of()
    images[0] *= 10
    batch = batch_of(images)
    parts = [module(part)["loss"] for part in batch.split(2)]
    torch.testing.assert_close(sum(parts) / 2, module(batch)["loss"])
    assert not torch.allclose(parts[0], parts[1], rtol=1e-3)


# ---- the code


def test_top_k_keeps_the_largest_of_each_token_as_they_are():
    x = torch.tensor([[[3.0, 1.0, 2.0, 0.0], [0.5, 4.0, 0.0, 0.1]]])
    assert largest(x, 2).tolist() == [[[3.0, 0.0, 2.0, 0.0], [0.5, 4.0, 0.0, 0.0]]]
    assert torch.equal(largest(x, 4), x)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(0, 1000))
def test_top_k_leaves_exactly_k_units_of_positive_ones(k, epoch):
    x = draws_of(epoch=epoch).uniform(5, 12) + 1e-3
    made = largest(x, k)
    assert (made > 0).sum(2).eq(k).all()
    left_out = torch.where(made > 0, 0.0, x).amax(2)
    assert (torch.where(made > 0, made, 9.0).amin(2) >= left_out).all()


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("code", ["bottleneck", "tokens"])
@torch.no_grad()
def test_the_decoder_reads_the_sparse_code_alone(penalty, code):
    module, images = built(Sparse(penalty=penalty, code=code)), images_of()
    read = []
    module.decoder.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    active = module(batch_of(images))["active"].item()
    given = torch.cat([read[0].prefix, read[0].patches], 1)
    x = module.encode(images)
    if code == "tokens":
        tokens = module.encoder(images)
        assert isinstance(module.bottleneck, nn.Identity)
        start = math.log(0.05 / 0.95) if penalty == "kl" else 0.0
        torch.testing.assert_close(x, torch.cat([tokens.prefix, tokens.patches], 1) + start)
    bent = x.sigmoid() if penalty == "kl" else x.relu()
    kept = torch.ones_like(x, dtype=torch.bool)
    if penalty == "top-k":
        kept.zero_().scatter_(2, x.topk(12, 2).indices, True)  # a quarter of 48
    torch.testing.assert_close(given, bent * kept)
    threshold = 2 * 0.05 if penalty == "kl" else 0.0
    assert active == pytest.approx((given > threshold).float().mean().item())


def test_default_units_are_four_times_the_numbers_of_a_patch_and_k_a_quarter():
    module = built(Sparse(penalty="top-k"), channels=1)
    assert (module.width, module.k) == (64, 4)
    assert built(Sparse(penalty="top-k", bottleneck=3), channels=1).k == 3
    assert built(Sparse(penalty="kl", bottleneck=24)).bottleneck.out_features == 24


@pytest.mark.parametrize("rho", [0.05, 0.3])
def test_units_begin_at_the_activation_that_is_wanted_of_them(rho):
    module = built(Sparse(penalty="kl", rho=rho))
    with torch.no_grad():
        module.bottleneck.weight.zero_()
        module.bottleneck.bias.zero_()
    code = module.activate(module.encode(images_of()))
    torch.testing.assert_close(code, torch.full_like(code, rho))


@pytest.mark.slow
def test_the_penalty_switches_units_off():
    shares = []
    for rho in (0.5, 0.02):
        module, images = (
            built(Sparse(penalty="kl", rho=rho), channels=1).train(),
            images_of(channels=1),
        )
        adam = torch.optim.Adam(module.parameters(), 1e-2)
        for _ in range(60):
            module(batch_of(images))["loss"].backward()
            adam.step()
            adam.zero_grad()
        shares.append(module.activate(module.encode(images)).mean().item())
    assert shares == pytest.approx([0.5, 0.02], rel=0.25)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": "l1", "rho": 0.1}, "rho is read by penalty=kl alone, given with penalty=l1"),
        ({"penalty": "top-k", "rho": 0.1}, "rho is read by penalty=kl alone"),
        (
            {"penalty": "top-k", "weight": 3.0},
            "weight is read by penalty=kl and penalty=l1 alone, given with penalty=top-k",
        ),
        ({"penalty": "kl", "k": 3}, "k is read by penalty=top-k alone, given with penalty=kl"),
        ({"penalty": "l1", "k": 3}, "k is read by penalty=top-k alone"),
        ({"code": "tokens", "bottleneck": 8}, "bottleneck is read by code=bottleneck alone"),
    ],
)
def test_an_option_that_is_not_read_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Sparse(**options)


@pytest.mark.parametrize("options", [{"bottleneck": 8}, {"code": "tokens"}])
def test_more_units_than_there_are_cannot_stay_on(options):
    units = 8 if "bottleneck" in options else 16
    with pytest.raises(ConfigError, match=rf"^objective.k: 17 of {units} units .* at most {units}"):
        built(Sparse(penalty="top-k", k=17, **options))


def test_it_trains_in_bfloat16():
    module, images = built(Sparse(penalty="kl")).train(), images_of()
    with torch.autocast("cpu", torch.bfloat16):
        made = module(Batch(images, torch.arange(B), draws_of()))
    assert made["loss"].dtype == torch.float32
    made["loss"].backward()
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


def test_so_many_units_that_a_patch_can_be_copied_are_warned_of():
    inputs = Inputs.of_images(1, (8, 8))
    with isolated(0, "test"):
        encoder = ViTNano(width=16, depth=1, heads=2, patch=2).build(Inputs.of_images(1, (8, 8)))
    (note,) = Sparse(k=4).notes(encoder, inputs)
    assert note.startswith("objective.k=4: not fewer than the dimension 4 of a patch")
    assert Sparse(k=3).notes(encoder, inputs) == Sparse(penalty="l1").notes(encoder, inputs) == ()
    assert Sparse().notes(encoder, inputs) == ()
