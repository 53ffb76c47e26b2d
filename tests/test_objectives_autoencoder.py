"""The autoencoder: its loss by hand, what passes its bottleneck, and when it warns."""

from __future__ import annotations

import pytest
import torch
from fakes import Dense
from whole import TINY, B, batch_of, built, images_of

from maebench import Inputs, unpatchify
from maebench.encoders import ViTNano
from maebench.masking import hide
from maebench.objectives import MAE, Autoencoder, Contractive, Denoising, Sparse
from maebench.objectives.autoencoder import dimension_covered
from maebench.testing import ObjectiveContract


class TestAutoencoder(ObjectiveContract):
    component = Autoencoder


class TestDecoderOfAnotherSize(ObjectiveContract):
    component = Autoencoder(bottleneck=5, decoder_depth=2, decoder_width=24, decoder_heads=3)


@pytest.mark.parametrize("encoder", [TINY, Dense()], ids=["vit", "dense"])
def test_the_loss_is_the_mean_squared_error_of_all_pixels(encoder):
    module, images = built(Autoencoder(), (8, 16), encoder=encoder), images_of((8, 16))
    made = unpatchify(module.predict(images), module.encoder.grid, module.encoder.patch)
    by_hand = sum((made - images).square().flatten().tolist()) / images.numel()
    assert module(batch_of(images))["loss"].item() == pytest.approx(by_hand, rel=1e-5)


def test_nothing_goes_past_the_bottleneck():
    module = built(Autoencoder(), encoder=ViTNano(width=16, depth=2, heads=2, registers=2))
    assert module.encode(images_of()).shape == (B, 3 + 16, 12)
    assert (module.predict(images_of()).std(0) > 1e-4).all()
    with torch.no_grad():
        module.bottleneck.weight.zero_()
    made = module.predict(images_of())
    assert torch.equal(made, made[:1].expand_as(made))


def test_the_class_tokens_code_is_read():
    module, images = built(Autoencoder()), images_of()
    code = module.encode(images)
    code[:, 0] += 1.0
    assert not torch.allclose(module.decode(code), module.predict(images))


@pytest.mark.parametrize(
    ("encoder", "size", "channels", "covered", "width"),
    [
        (TINY, (16, 16), 3, 48, 12),
        (TINY, (8, 16), 1, 16, 4),
        (ViTNano(width=16, heads=2, patch=(2, 4)), (8, 8), 3, 24, 6),
        (ViTNano(width=16, heads=2, patch=1), (4, 4), 1, 1, 1),
        (Dense(), (8, 16), 3, 48, 12),  # patches of 2, cells of 4
    ],
)
def test_the_default_code_is_a_quarter_of_what_a_token_covers(
    encoder, size, channels, covered, width
):
    module = built(Autoencoder(), size, channels, encoder)
    assert dimension_covered(module.encoder, Inputs.of_images(channels, size)) == covered
    assert module.bottleneck.out_features == width
    assert built(Autoencoder(bottleneck=3)).bottleneck.out_features == 3


def notes(objective, encoder=TINY, size=(16, 16), channels=1):
    return objective.notes(
        encoder.build(Inputs.of_images(channels, size)), Inputs.of_images(channels, size)
    )


def test_a_code_as_wide_as_a_patch_is_told_in_one_line():
    assert notes(Autoencoder(bottleneck=64)) == (
        "objective.bottleneck=64: not narrower than a patch, of dimension 16, so that the "
        "identity can be learnt; below 16, or objective 'sparse', 'contractive', 'denoising'",
    )
    assert len(notes(Autoencoder(bottleneck=16))) == 1
    assert notes(Autoencoder(bottleneck=15)) == notes(Autoencoder()) == ()


def test_a_coarser_encoder_is_measured_by_what_its_tokens_cover():
    # patches of 2x2, tokens of 4x4
    assert len(notes(Autoencoder(bottleneck=16), Dense())) == 1
    assert notes(Autoencoder(bottleneck=15), Dense()) == ()


def test_tokens_narrower_than_a_patch_cannot_copy_it_whatever_the_code():
    # 16 numbers a token for 48 of a patch
    assert notes(Autoencoder(bottleneck=64), channels=3) == ()


@pytest.mark.parametrize(
    "objective",
    [MAE(), Denoising(bottleneck=64), Sparse(bottleneck=64), Contractive(bottleneck=64)],
    ids=lambda objective: objective.name,
)
def test_a_penalty_or_noise_needs_no_narrow_code(objective):
    assert notes(objective) == ()


def test_an_evaluation_gets_hidden_pixels_at_0_and_the_whole_image_beside_it():
    module, images = built(Autoencoder()), images_of()
    scores = torch.rand(B, 16, generator=torch.Generator().manual_seed(2))
    mask = hide(scores, 12, (4, 4))
    made = module.reconstruct(images, mask)
    hidden = unpatchify(mask.hidden[:, :, None].expand(-1, -1, 48), (4, 4), (4, 4))
    assert torch.equal(made.prediction, module.predict(images * ~hidden))
    assert torch.equal(made.whole, module.predict(images))
    assert (made.space, made.pixels is made.prediction) == ("pixels", True)
