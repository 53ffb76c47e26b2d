"""The masked autoencoder against Hugging Face's, and its loss and pixels by hand."""

from __future__ import annotations

import math

import pytest
import torch
from fakes import Dense
from hypothesis import given, settings
from hypothesis import strategies as st

from maebench import MAE, Batch, ConfigError, Draws, Inputs, patchify, unpatchify
from maebench.encoders import ViTNano
from maebench.masking import hide
from maebench.masking.patches import take
from maebench.objectives.decoders import default_decoder
from maebench.objectives.targets import VARIANCE_EPS, statistics_from_seen
from maebench.rng import isolated

B = 3
TARGETS = ("pixels", "normalised-pixels")


def mae(size=(16, 16), patch=4, channels=3, target="pixels", encoder=None, **decoder):
    encoder = encoder or ViTNano(width=32, depth=2, heads=4, patch=patch)
    with isolated(0, "test"):
        module = MAE(target=target, **decoder).build(
            encoder.build(Inputs.of_images(channels, size)), Inputs.of_images(channels, size)
        )
        with torch.no_grad():  # biases are 0 and norms 1 at first: an error there would not show
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
    return module.eval()


def images_of(size=(16, 16), channels=3):
    return torch.randn(B, channels, *size, generator=torch.Generator().manual_seed(1)) + 0.5


def scores_of(length):
    return torch.rand(B, length, generator=torch.Generator().manual_seed(2))


def mask_of(grid, ratio=0.75):
    scores = scores_of(grid[0] * grid[1])
    return hide(scores, round(ratio * scores.shape[1]), grid)


def loss_of(module, images, mask):
    ids = torch.arange(len(images))
    return module(Batch(images, ids, Draws(0, "objective", ids), mask))["loss"]


# ---- Hugging Face


def as_hugging_face_names(weights):
    """Our weights under the names of ViTMAEForPreTraining."""
    renamed = {}
    for name, value in weights.items():
        for ours, theirs in (
            ("encoder.blocks.", "vit.layers."),
            ("decoder.decoder_blocks.", "decoder.decoder_layers."),
            ("encoder.patch_embed.proj.", "vit.embeddings.patch_embeddings.projection."),
            ("encoder.cls_token", "vit.embeddings.cls_token"),
            ("encoder.pos_embed", "vit.embeddings.position_embeddings"),
            ("encoder.norm.", "vit.layernorm."),
            (".norm1.", ".layernorm_before."),
            (".norm2.", ".layernorm_after."),
            (".attn.proj.", ".attention.o_proj."),
        ):
            name = name.replace(ours, theirs)
        if ".attn.qkv." in name:
            for which, part in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace(".attn.qkv.", f".attention.{which}_proj.")] = part
        elif name == "decoder.decoder_pos_embed":  # theirs has a row of zeros for the class token
            renamed[name] = torch.cat([torch.zeros_like(value[:, :1]), value], 1)
        else:
            renamed[name] = value
    return renamed


def hugging_face(ours, size, channels, normalised):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    decoder = ours.decoder
    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        layer_norm_eps=1e-6,
        image_size=size,
        patch_size=4,
        num_channels=channels,
        decoder_num_attention_heads=decoder.decoder_blocks[0].attn.num_heads,
        decoder_hidden_size=decoder.decoder_embed.out_features,
        decoder_num_hidden_layers=len(decoder.decoder_blocks),
        decoder_intermediate_size=4 * decoder.decoder_embed.out_features,
        mask_ratio=0.75,
        norm_pix_loss=normalised,
    )
    model = ViTMAEForPreTraining(config)
    # strict: every weight of theirs, positions included, is one of ours
    model.load_state_dict(as_hugging_face_names(ours.state_dict()), strict=True)
    return model.eval()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_loss_prediction_and_features_equal_hugging_faces(target, channels):
    ours = mae(channels=channels, target=target, decoder_depth=2, decoder_width=24, decoder_heads=3)
    theirs = hugging_face(ours, 16, channels, target != "pixels")
    images, noise, mask = images_of(channels=channels), scores_of(16), mask_of((4, 4))
    found = theirs(images, noise=noise)
    assert torch.equal(found.mask.bool(), mask.hidden)
    torch.testing.assert_close(loss_of(ours, images, mask), found.loss, atol=1e-5, rtol=0)
    made = ours.reconstruct(images, mask)
    torch.testing.assert_close(made.prediction, found.logits, atol=1e-5, rtol=0)

    tokens, latent = ours.encoder(images, mask), theirs.vit(images, noise=noise).last_hidden_state
    order = noise.argsort(1)[:, :4].argsort(1)  # theirs keeps the shuffled order
    torch.testing.assert_close(tokens.prefix, latent[:, :1], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        tokens.patches,
        latent[:, 1:].gather(1, order[:, :, None].expand(-1, -1, 32)),
        atol=1e-5,
        rtol=0,
    )
    theirs.config.mask_ratio = 0.0
    whole = theirs.vit(images, noise=torch.arange(16.0).expand(B, -1)).last_hidden_state
    tokens = ours.encoder(images)
    torch.testing.assert_close(
        torch.cat([tokens.prefix, tokens.patches], 1), whole, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("target", TARGETS)
@torch.no_grad()
def test_an_oblong_image_gives_hugging_faces_prediction_too(target):
    # theirs builds positions for square counts of patches only: 2 x 8 passes for 4 x 4
    ours = mae((8, 32), target=target, decoder_depth=2, decoder_width=24)
    theirs = hugging_face(ours, (8, 32), 3, target != "pixels")
    images, noise, mask = images_of((8, 32)), scores_of(16), mask_of((2, 8))
    encoded = theirs.vit(images, noise=noise)
    logits = theirs.decoder(encoded.last_hidden_state, encoded.ids_restore).logits
    assert torch.equal(encoded.mask.bool(), mask.hidden)
    torch.testing.assert_close(ours.reconstruct(images, mask).prediction, logits, atol=1e-5, rtol=0)
    assert torch.equal(
        theirs.patchify(images, interpolate_pos_encoding=True), patchify(images, (4, 4))
    )


# ---- patches


@settings(max_examples=50, deadline=None)
@given(*[st.integers(1, 4)] * 6)
def test_unpatchify_undoes_patchify(batch, channels, h, w, p, q):
    images = torch.arange(batch * channels * h * p * w * q).float()
    images = images.view(batch, channels, h * p, w * q)
    patches = patchify(images, (p, q))
    assert patches.shape == (batch, h * w, p * q * channels)
    assert torch.equal(unpatchify(patches, (h, w), (p, q)), images)


def test_patches_lie_in_raster_order_with_the_channel_last():
    images = torch.arange(2 * 4 * 6).view(1, 2, 4, 6)  # pixel = 24 c + 6 y + x
    found = patchify(images, (2, 3))[0]
    for number, (top, left) in enumerate([(0, 0), (0, 3), (2, 0), (2, 3)]):
        expected = [
            24 * c + 6 * (top + y) + left + x for y in range(2) for x in range(3) for c in range(2)
        ]
        assert found[number].tolist() == expected


def test_hidden_places_are_those_that_are_not_seen():
    mask = mask_of((3, 5), 0.6)
    for places, seen in zip(mask.places.tolist(), mask.seen.tolist(), strict=True):
        assert places == sorted(set(range(15)) - set(seen))


# ---- loss


@pytest.mark.parametrize("target", TARGETS)
def test_the_target_is_the_patch_or_the_patch_by_its_mean_and_unbiased_deviation(target):
    images = images_of()
    found = mae(target=target).target(images)
    patch = images[1, :, 4:8, 12:16].permute(1, 2, 0).flatten().tolist()  # number 1 * 4 + 3
    if target != "pixels":
        mean = sum(patch) / len(patch)
        variance = sum((v - mean) ** 2 for v in patch) / (len(patch) - 1)
        patch = [(v - mean) / math.sqrt(variance + 1e-6) for v in patch]
    torch.testing.assert_close(found[1, 7], torch.tensor(patch))


def test_a_patch_of_one_colour_has_a_finite_target():
    assert torch.equal(
        mae(target="normalised-pixels").target(torch.ones(1, 3, 16, 16)), torch.zeros(1, 16, 48)
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("encoder", [None, Dense()], ids=["vit", "dense"])
def test_the_loss_is_the_mean_squared_error_of_hidden_patches_alone(target, encoder, monkeypatch):
    module, images = mae((8, 16), 2, target=target, encoder=encoder), images_of((8, 16))
    mask = mask_of(module.encoder.grid)
    made, loss = module.reconstruct(images, mask), loss_of(module, images, mask)
    assert made.prediction.shape == made.target.shape == (B, 32, 12)
    by_hand = [
        (made.prediction[b, place] - made.target[b, place]).square().sum().item() / 12
        for b in range(B)
        for place in range(32)
        if mask.hidden[b, place]
    ]
    assert len(by_hand) == B * 24
    torch.testing.assert_close(loss.item(), sum(by_hand) / len(by_hand), atol=1e-6, rtol=1e-5)
    # a seen patch may be anything
    wrong = torch.where(mask.hidden[:, :, None], made.target, 1e6)
    monkeypatch.setattr(module.target, "at", lambda images, at_BM: take(wrong, at_BM))
    assert loss_of(module, images, mask) == loss


@pytest.mark.parametrize("encoder", [None, Dense()], ids=["vit", "dense"])
def test_every_trainable_parameter_gets_a_gradient(encoder):
    module = mae((8, 8), 2, encoder=encoder)
    loss_of(module, images_of((8, 8)), mask_of((4, 4))).backward()
    without = {n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()}
    # a dense encoder has its own token for what is hidden
    unused = {"decoder.mask_token"} if encoder else {"encoder.pos_embed"}
    assert without == {"decoder.decoder_pos_embed"} | unused


def test_a_batch_without_a_mask_is_refused():
    with pytest.raises(ConfigError, match="needs a masking"):
        loss_of(mae(), images_of(), None)


# ---- the decoder


@pytest.mark.parametrize(
    ("width", "depth", "expected"),
    [
        *((768, 12, (8, 512, 16)), (1024, 24, (8, 512, 16)), (1280, 32, (8, 512, 16))),
        *((64, 3, (1, 32, 1)), (128, 4, (1, 64, 2)), (192, 12, (2, 96, 3)), (384, 12, (2, 192, 6))),
    ],
)
def test_the_default_decoder_is_the_papers_for_large_and_half_as_wide_for_small(
    width, depth, expected
):
    assert default_decoder(width, depth) == expected
    assert MAE().decoder_size(width, depth) == expected


@settings(max_examples=200)
@given(st.integers(1, 400).map(lambda n: 4 * n), st.integers(1, 40))
def test_the_default_decoder_fits_every_encoder(width, depth):
    size = MAE().decoder_size(width, depth)
    assert size.width % size.heads == size.width % 4 == 0
    assert MAE(decoder_width=width).decoder_size(64, depth).width == width


def test_what_is_asked_of_the_decoder_is_built():
    module = mae(decoder_depth=3, decoder_width=64, decoder_heads=8).decoder
    assert (len(module.decoder_blocks), module.decoder_embed.out_features) == (3, 64)
    assert module.decoder_blocks[0].attn.num_heads == 8
    assert (
        mae(decoder_width=96).decoder.decoder_blocks[0].attn.num_heads == 3
    )  # 32 each, as in the paper


@pytest.mark.parametrize(("width", "heads"), [(30, 3), (32, 5)])
def test_a_decoder_that_cannot_be_built_is_refused(width, heads):
    with pytest.raises(
        ConfigError, match=rf"objective.decoder_width: {width} must .*decoder_heads={heads}$"
    ):
        mae(decoder_width=width, decoder_heads=heads)


def test_initial_weights_of_the_decoder_are_the_papers():
    with isolated(0, "test"):
        encoder = ViTNano(width=256).build(Inputs.of_images(1, (8, 8)))
        before = {k: v.clone() for k, v in encoder.state_dict().items()}
        module = MAE(decoder_width=256).build(encoder, Inputs.of_images(1, (8, 8)))
    decoder = module.decoder
    assert abs(decoder.mask_token.std() / 0.02 - 1) < 0.2
    for linear in (decoder.decoder_embed, decoder.decoder_pred, decoder.decoder_blocks[0].attn.qkv):
        bound = math.sqrt(6 / sum(linear.weight.shape))
        assert 0.98 * bound < linear.weight.abs().max() <= bound
        assert (linear.bias == 0).all()
    assert all(torch.equal(v, before[k]) for k, v in module.encoder.state_dict().items())


def test_an_encoder_that_ends_on_a_coarser_grid_predicts_whole_cells():
    module = mae((8, 16), encoder=Dense(width=16))  # patches of 2, cells of 4
    decoder = module.decoder
    assert (decoder.out_grid, decoder.per, module.patch) == ((2, 4), (2, 2), (2, 2))
    picture = images_of((4, 4))[0]  # what every cell is to show
    with torch.no_grad():
        decoder.decoder_pred.weight.zero_()
        decoder.decoder_pred.bias.copy_(patchify(picture[None], (2, 2)).flatten())
    made = module.reconstruct(images_of((8, 16)), mask_of((4, 8)))
    assert torch.equal(unpatchify(made.pixels, (4, 8), (2, 2)), picture.repeat(B, 1, 2, 4))


# ---- pixels


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("encoder", [None, Dense()], ids=["vit", "dense"])
def test_reconstructed_pixels_use_no_hidden_pixel(target, encoder):
    module, images = mae((8, 16), 2, target=target, encoder=encoder), images_of((8, 16))
    mask = mask_of(module.encoder.grid)
    pixels = module.reconstruct(images, mask).pixels
    covered = unpatchify(mask.hidden[:, :, None].expand(-1, -1, 12), (4, 8), (2, 2))
    other = torch.where(covered, torch.randn_like(images) * 9, images)
    assert torch.equal(module.reconstruct(other, mask).pixels, pixels)
    assert not torch.equal(module.reconstruct(other.flip(3), mask).pixels, pixels)


def test_pixels_of_normalised_predictions_are_scaled_back_by_interpolated_statistics():
    module, images, mask = mae(target="normalised-pixels"), images_of(), mask_of((4, 4))
    made = module.reconstruct(images, mask)
    mean, deviation = statistics_from_seen(patchify(images, (4, 4)), mask)
    torch.testing.assert_close(made.pixels, made.prediction * deviation + mean)
    assert made.space == "normalised-pixels"
    assert "interpolated from the seen" in made.how
    raw = mae().reconstruct(images, mask)
    assert (raw.space, raw.pixels is raw.prediction) == ("pixels", True)


def test_statistics_of_seen_patches_are_their_own_and_of_hidden_ones_by_inverse_square_distance():
    patches, mask = patchify(images_of((12, 20)), (4, 4)), mask_of((3, 5), 0.6)
    mean, deviation = statistics_from_seen(patches, mask)
    assert mean.shape == deviation.shape == (B, 15, 1)
    for b in range(B):
        own = [
            (p.mean().item(), math.sqrt(p.var(correction=1).item() + VARIANCE_EPS))
            for p in patches[b]
        ]
        for place in range(15):
            if not mask.hidden[b, place]:
                expected = own[place]
                assert (mean[b, place].item(), deviation[b, place].item()) == pytest.approx(
                    own[place], rel=1e-6
                )
                continue
            weights = [
                1 / ((s // 5 - place // 5) ** 2 + (s % 5 - place % 5) ** 2)
                for s in mask.seen[b].tolist()
            ]
            expected = [
                sum(w * own[s][i] for w, s in zip(weights, mask.seen[b].tolist(), strict=True))
                / sum(weights)
                for i in range(2)
            ]
            assert (mean[b, place].item(), deviation[b, place].item()) == pytest.approx(
                expected, rel=1e-5
            )


def test_statistics_do_not_read_hidden_patches():
    patches, mask = patchify(images_of(), (4, 4)), mask_of((4, 4))
    nothing = torch.where(mask.hidden[:, :, None], math.nan, patches)
    for one, other in zip(
        statistics_from_seen(patches, mask), statistics_from_seen(nothing, mask), strict=True
    ):
        assert torch.equal(one, other)
