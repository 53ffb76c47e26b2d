"""The variational autoencoder: its KL, its ELBO, its noise and its pictures against torch's own."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.distributions import Normal, kl_divergence

from maebench import Batch, Draws, Inputs, unpatchify
from maebench.encoders import ViTNano
from maebench.masking import hide
from maebench.masking.patches import hidden_pixels
from maebench.objectives import Variational
from maebench.objectives.variational import kl_to_prior, warm_up
from maebench.rng import isolated
from maebench.testing import ObjectiveContract

B, Z, SIZE, N = 3, 5, (8, 12), 8 * 12 * 3  # N: pixels times channels
DECODERS = {"decoder_depth": [2], "decoder_width": [16], "decoder_heads": [2]}


class TestVariational(ObjectiveContract):
    component = Variational
    variants = DECODERS


class TestEveryTermOfTheLoss(ObjectiveContract):
    component = Variational(latent=Z, beta=4.0, warm_up=0.0, free_bits=0.05)
    variants = DECODERS


def module_of(**options):
    encoder = ViTNano(width=32, depth=2, heads=4, patch=4)
    with isolated(0, "test"):
        made = Variational(**{"latent": Z, "warm_up": 0.0, **options})
        module = made.build(encoder.build(Inputs.of_images(3, SIZE)), Inputs.of_images(3, SIZE))
        with torch.no_grad():  # biases are 0 at first: an error there would not show
            module.posterior.bias.copy_(torch.randn(2 * Z))
    return module.eval()


def fixed(mean, log_var, **options):
    """A module whose posterior is the same for every image."""
    module = module_of(**options)
    with torch.no_grad():
        module.posterior.weight.zero_()
        module.posterior.bias.copy_(torch.tensor([*mean, *log_var]))
    return module


def batch_of(count=B, progress=1.0):
    images = torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    ids = torch.arange(count)
    return Batch(images, ids, Draws(0, "objective", ids), progress=progress)


def asked(module, batch):
    """What the module gives, the batch's random numbers left as they are."""
    return module(dataclasses.replace(batch, draws=batch.draws.at(slice(None))))


# ---- the loss


@given(st.floats(-5, 5), st.floats(-6, 3))
def test_the_kl_is_torchs(mean, log_var):
    mean, log_var = torch.tensor(mean).double(), torch.tensor(log_var).double()
    expected = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0, 1))
    torch.testing.assert_close(kl_to_prior(mean, log_var).float(), expected.float())


@torch.no_grad()
def test_the_loss_is_the_negative_elbo_of_unit_gaussians_over_half_the_pixels():
    module, batch = module_of(), batch_of()
    found = asked(module, batch)
    mean, log_var = module.encode(batch.images)
    posterior = Normal(mean, (log_var / 2).exp())
    latent = mean + posterior.stddev * batch.draws.at(slice(None)).normal(Z)
    made = unpatchify(module.decode(latent), module.encoder.grid, (4, 4))
    likelihood = Normal(made, 1.0).log_prob(batch.images).sum((1, 2, 3))
    kl = kl_divergence(posterior, Normal(0, 1)).sum(1)
    per_half = (kl - likelihood).mean() / (N / 2)
    torch.testing.assert_close(found["loss"], per_half - math.log(2 * math.pi))
    torch.testing.assert_close(found["kl"], kl.mean())
    torch.testing.assert_close(found["error"], (made - batch.images).square().mean())


@torch.no_grad()
def test_beta_weighs_the_kl_alone():
    batch = batch_of()
    one, four = (asked(module_of(beta=beta), batch) for beta in (1, 4))
    assert one["error"] == four["error"]
    torch.testing.assert_close(four["loss"] - one["loss"], 3 * 2 * one["kl"] / N)


@pytest.mark.parametrize(
    ("progress", "share", "weight"),
    [(0, 0.1, 0), (0.05, 0.1, 0.5), (0.1, 0.1, 1), (0.7, 0.1, 1), (0, 0, 1), (0.5, 1, 0.5)],
)
@torch.no_grad()
def test_the_kl_is_warmed_up_along_a_line(progress, share, weight):
    assert warm_up(progress, share) == pytest.approx(weight)
    found = asked(module_of(warm_up=share), batch_of(progress=progress))
    torch.testing.assert_close(found["loss"], found["error"] + 2 * weight * found["kl"] / N)


def test_free_bits_are_paid_once_and_push_nothing_below():
    mean = [0.0, 0.1, 0.0, 2.0, 0.0]  # KL 0, 0.005, 0, 2 and 0 nats
    module, batch = fixed(mean, [0.0] * Z, free_bits=0.25), batch_of()
    found = asked(module, batch)
    paid = 4 * 0.25 + 2.0
    torch.testing.assert_close(found["loss"] - found["error"], torch.tensor(2 * paid / N))
    torch.testing.assert_close(found["kl"], torch.tensor(2.005))
    kl = 2 * kl_to_prior(*module.encode(batch.images)).clamp(min=0.25).sum(1).mean() / N
    (slope,) = torch.autograd.grad(kl, module.posterior.bias)
    assert slope.nonzero().flatten().tolist() == [3]


def test_free_bits_are_counted_image_by_image():
    """An image far below what is free pays it, however much another one uses."""
    module, batch = module_of(free_bits=0.5), batch_of()
    found = [asked(module, part) for part in batch.split(1)]
    whole = asked(module, batch)
    mean = sum(part["loss"] for part in found) / B
    torch.testing.assert_close(whole["loss"], mean)


def test_active_dimensions_are_those_that_tell_more_than_a_hundredth_of_a_nat():
    # KL is half the square of the mean
    module = fixed([0.0, 0.1, 0.2, -1.0, 0.13], [0.0] * Z)
    assert asked(module, batch_of())["active"] == 2
    module = fixed([0.0, 0.15, 0.2, -1.0, 0.13], [0.0] * Z)
    assert asked(module, batch_of())["active"] == 3


# ---- the latent


def test_latents_are_drawn_with_the_posteriors_mean_and_deviation(monkeypatch):
    mean, log_var = [0.0, 1.0, -2.0, 0.5, 3.0], [0.0, -2.0, 1.0, -6.0, 0.5]
    module, seen = fixed(mean, log_var), []
    decode = module.decode
    monkeypatch.setattr(module, "decode", lambda z: seen.append(z) or decode(z))
    count = 4000
    with torch.no_grad():
        module(batch_of(count))
    (latent,) = seen
    deviation = torch.tensor(log_var).mul(0.5).exp()
    error = deviation / math.sqrt(count)
    assert ((latent.mean(0) - torch.tensor(mean)).abs() < 4 * error).all()
    # the standard error of a normal's deviation is itself over the root of 2 n
    assert ((latent.std(0) - deviation).abs() < 4 * error / math.sqrt(2)).all()
    assert latent.corrcoef().shape == (count, count)
    between = latent.T.corrcoef() - torch.eye(Z)
    assert between.abs().max() < 4 / math.sqrt(count)


@torch.no_grad()
def test_the_decoder_is_given_the_latent_and_nothing_else_of_the_image():
    module, images = fixed([0.5] * Z, [-1.0] * Z), batch_of().images
    made = module.predict(images)
    assert all(torch.equal(made[0], one) for one in made)
    assert not torch.equal(made[0, 0], made[0, 1])  # positions tell patches apart
    other = module_of()
    assert not torch.equal(*other.predict(images)[:2])


@torch.no_grad()
def test_a_reconstruction_is_of_the_mean_latent_without_noise():
    module, images = module_of(), batch_of().images
    mask = hide(torch.rand(B, 6, generator=torch.Generator().manual_seed(2)), 4, (2, 3))
    made = module.reconstruct(images, mask)
    given = images.masked_fill(hidden_pixels(mask, (4, 4)), 0.0)
    assert torch.equal(made.pixels, module.decode(module.encode(given)[0]))
    assert torch.equal(made.whole, module.decode(module.encode(images)[0]))
    assert torch.equal(made.whole, module.reconstruct(images, mask).whole)


def test_the_posterior_and_the_decoder_are_trained():
    module = module_of().train()
    asked(module, batch_of())["loss"].backward()
    left = {n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()}
    assert left == {"decoder.decoder_pos_embed", "encoder.pos_embed"}


# ---- pictures


@torch.no_grad()
def test_samples_are_decoded_standard_normal_latents_whatever_the_images():
    module, batch = module_of(), batch_of()
    one, two = (
        module.pictures(images, batch.draws.at(slice(None)))["samples"].images
        for images in (batch.images, 1 - batch.images[:1])
    )
    assert torch.equal(one, two) and one.shape == (8, 8, 3, *SIZE)
    latent = batch.draws.at(slice(0, 1)).normal(8, 8, Z)[0]
    expected = unpatchify(module.decode(latent[3, 4:5]), (2, 3), (4, 4))[0]
    torch.testing.assert_close(one[3, 4], expected)


@torch.no_grad()
def test_a_traversal_moves_one_dimension_of_the_first_images_mean():
    module, batch = module_of(), batch_of()
    board = module.pictures(batch.images, batch.draws)["traversal"]
    made = board.images
    assert made.shape == (Z, 7, 3, *SIZE)
    assert board.columns == ("-3", "-2", "-1", "+0", "+1", "+2", "+3")
    mean, log_var = module.encode(batch.images)
    order = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0, 1)).mean(0).argsort()
    for row, dimension in enumerate(reversed(order.tolist())):
        assert board.rows[row].startswith(f"{dimension}: ")
        for column, value in enumerate(range(-3, 4)):
            latent = mean[:1].clone()
            latent[0, dimension] = value
            expected = unpatchify(module.decode(latent), (2, 3), (4, 4))[0]
            torch.testing.assert_close(made[row, column], expected)


@torch.no_grad()
def test_a_traversal_shows_at_most_eight_dimensions():
    with isolated(0, "test"):
        encoder = ViTNano(width=32, depth=1, heads=4, patch=4).build(Inputs.of_images(3, SIZE))
        module = Variational(latent=20).build(encoder, Inputs.of_images(3, SIZE))
    batch = batch_of()
    assert module.pictures(batch.images, batch.draws)["traversal"].images.shape[:2] == (8, 7)


# ---- options


@pytest.mark.parametrize(
    ("option", "value"),
    [("latent", 0), ("beta", 0), ("beta", -1), ("warm_up", 1.5), ("free_bits", -0.1)],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValidationError, match=option):
        Variational(**{option: value})
