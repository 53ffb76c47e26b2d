"""The denoising autoencoder: what each kind of noise does, and that only the loss makes it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from whole import B, batch_of, built, draws_of, images_of

from maebench import ConfigError, patchify
from maebench.objectives import Denoising
from maebench.objectives.denoising import CORRUPTIONS, chosen, gaussian, salt_and_pepper
from maebench.testing import ObjectiveContract

KINDS = sorted(CORRUPTIONS)


class TestDenoising(ObjectiveContract):
    component = Denoising


class TestSaltAndPepper(ObjectiveContract):
    component = Denoising(corruption="salt-and-pepper", bottleneck=6)


# ---- noise


def test_gaussian_noise_has_the_deviation_that_is_asked_for():
    images = images_of((32, 32), count=8)
    noise = gaussian(images, 0.3, draws_of(8)) - images
    assert abs(noise.mean()) < 0.01
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    channels = noise.transpose(0, 1).flatten(1)
    assert (torch.corrcoef(channels) - torch.eye(3)).abs().max() < 0.05


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 0.999), st.integers(1, 9), st.integers(1, 9))
def test_the_share_of_replaced_pixels_is_exact_in_every_image(share, rows, columns):
    where = chosen(torch.zeros(B, 3, rows, columns), share, draws_of())
    assert where.shape == (B, 1, rows, columns)
    assert where.sum((1, 2, 3)).tolist() == [round(share * rows * columns)] * B


def test_masking_sets_all_channels_of_a_pixel_to_0_and_leaves_the_others():
    images = images_of()
    made = CORRUPTIONS["masking"](images, 0.25, draws_of())
    gone = (made == 0).all(1, keepdim=True)
    assert gone.sum((1, 2, 3)).tolist() == [64] * B
    assert torch.equal(made, torch.where(gone, 0.0, images))
    assert not torch.equal(gone[0], gone[1])


def test_salt_and_pepper_are_the_images_own_extremes_by_a_fair_coin():
    images = images_of((32, 32), count=16) * torch.tensor([1.0, 2.0, 3.0]).view(-1, 1, 1)
    made = salt_and_pepper(images, 0.5, draws_of(16))
    low, high = (f((2, 3), keepdim=True) for f in (images.amin, images.amax))
    pepper, salt = ((made == end).all(1, keepdim=True) for end in (low, high))
    assert torch.equal(made, torch.where(salt, high, torch.where(pepper, low, images)))
    assert (salt | pepper).sum((1, 2, 3)).tolist() == [512] * 16
    assert salt.sum().item() / (16 * 512) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_an_images_noise_does_not_depend_on_the_batch_it_is_in(kind):
    images, corrupt = images_of(), CORRUPTIONS[kind]
    whole = corrupt(images, 0.4, draws_of())
    parts = [corrupt(images[i : i + 1], 0.4, draws_of().at(slice(i, i + 1))) for i in range(B)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(corrupt(images, 0.4, draws_of(epoch=1)), whole)


# ---- the objective


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_compares_with_the_clean_image(kind, monkeypatch):
    module, images = built(Denoising(corruption=kind)), images_of()
    monkeypatch.setattr(module, "predict", lambda given: patchify(given, (4, 4)))
    noise = CORRUPTIONS[kind](images, module.amount, draws_of()) - images
    torch.testing.assert_close(module(batch_of(images))["loss"], noise.square().mean())
    # what gives the clean image back is perfect
    monkeypatch.setattr(module, "predict", lambda given: patchify(images, (4, 4)))
    assert module(batch_of(images))["loss"] == 0


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_evaluation_sees_no_noise(kind):
    module, images = built(Denoising(corruption=kind)), images_of()
    seen = []
    module.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module.train().predict(images)
    module(batch_of(images))
    assert torch.equal(seen[0], images)
    assert not torch.equal(seen[1], images)


def test_amounts_are_by_the_kind_of_noise():
    assert [Denoising(corruption=kind).noise for kind in KINDS] == [0.5, 0.25, 0.25]
    assert Denoising(amount=2.0).noise == 2.0


@pytest.mark.parametrize("kind", ["masking", "salt-and-pepper"])
def test_a_share_that_leaves_nothing_is_refused(kind):
    wanted = f"amount: a share of pixels below 1 with corruption={kind}, given 1"
    with pytest.raises(ValidationError, match=wanted):
        Denoising(corruption=kind, amount=1.0)


@pytest.mark.parametrize("amount", [0.001, 0.999])
def test_a_share_of_no_pixel_or_of_all_is_refused(amount):
    wanted = rf"^objective.amount: {amount} of the 256 pixels .* none or all; from 0.0039 to 0.9961"
    with pytest.raises(ConfigError, match=wanted):
        built(Denoising(corruption="masking", amount=amount))


def test_tokens_are_the_code_unless_a_narrower_one_is_asked_for():
    assert isinstance(built(Denoising()).bottleneck, nn.Identity)
    assert built(Denoising(bottleneck=5)).decoder.decoder_embed.in_features == 5
