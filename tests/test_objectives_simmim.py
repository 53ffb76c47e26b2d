"""SimMIM against Hugging Face's, its loss by hand, and around encoders of three kinds."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import tiny
import torch
from fakes import Dense
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from views import draw_view

from maebench import Batch, ConfigError, Draws, Inputs, Tokens, patchify, unpatchify
from maebench.encoders import SwinNano, ViTNano, keep_positions
from maebench.masking import Units, View, hide
from maebench.masking.patches import hidden_pixels
from maebench.objectives import SimMIM
from maebench.pretraining import checkpoints
from maebench.pretraining import loop as story
from maebench.pretraining.optimiser import parameter_groups
from maebench.rng import isolated
from maebench.testing import Broken, ObjectiveContract

B = 3


class TestContract(ObjectiveContract):
    component = SimMIM


class ScoresAll(SimMIM):
    """SimMIM that scores what is seen as well, and does not say so."""

    name: ClassVar[str] = "scores-all"

    def build(self, encoder, inputs):
        module = super().build(encoder, inputs)

        def forward(batch):
            made = module.reconstruct(batch.images, batch.mask)
            return {"loss": (made.prediction - made.target).abs().mean()}

        module.forward = forward
        return module


def test_the_contract_sees_a_loss_on_seen_patches():
    contract = type("Made", (ObjectiveContract,), {"component": ScoresAll})
    with pytest.raises(Broken, match="other pixels in seen patches change the loss"):
        contract().test_the_loss_compares_the_patches_it_declares()


def simmim(size=(32, 32), channels=3, encoder=None):
    """SimMIM with every weight moved: at first biases are 0, where an error would not show."""
    encoder = encoder or ViTNano(width=32, depth=2, heads=4, patch=4)
    with isolated(0, "test"):
        module = SimMIM().build(
            encoder.build(Inputs.of_images(channels, size)), Inputs.of_images(channels, size)
        )
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
    return module.eval()


def images_of(size=(32, 32), channels=3, seed=1):
    return torch.randn(B, channels, *size, generator=torch.Generator().manual_seed(seed))


def mask_of(grid, ratio=0.6):
    scores = torch.rand(B, grid[0] * grid[1], generator=torch.Generator().manual_seed(2))
    return hide(scores, round(ratio * scores.shape[1]), grid)


def loss_of(module, images, mask):
    ids = torch.arange(len(images))
    return module(Batch(images, ids, Draws(0, "objective", ids), mask))["loss"]


# ---- Hugging Face


def hugging_face(channels=3, size=32):
    from transformers import ViTConfig, ViTForMaskedImageModeling

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        layer_norm_eps=1e-6,
        image_size=size,
        patch_size=4,
        num_channels=channels,
        encoder_stride=4,
    )
    with isolated(3, "test"):
        model = ViTForMaskedImageModeling(config)
        for parameter in model.parameters():  # what is 0 or 1 at first would hide an error
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def named_as_ours(weights):
    """Hugging Face's names as ours, the head's rows from (C, p, q) to (p, q, C)."""
    renamed = {}
    for name, value in weights.items():
        for theirs, ours in (
            ("vit.layers.", "encoder.blocks."),
            ("vit.embeddings.patch_embeddings.projection.", "encoder.patch_embed.proj."),
            ("vit.embeddings.cls_token", "encoder.cls_token"),
            ("vit.embeddings.mask_token", "encoder.mask_token"),
            ("vit.embeddings.position_embeddings", "encoder.pos_embed"),
            ("vit.layernorm.", "encoder.norm."),
            (".layernorm_before.", ".norm1."),
            (".layernorm_after.", ".norm2."),
            (".attention.o_proj.", ".attn.proj."),
            ("decoder.0.", "head."),
        ):
            name = name.replace(theirs, ours)
        if name.startswith("head."):
            value = value.flatten(1) if value.ndim > 1 else value
            value = value.unflatten(0, (-1, 4, 4)).movedim(0, 2).flatten(0, 2)
        renamed[name] = value
    for name in [n for n in renamed if ".attention.q_proj." in n]:
        parts = [renamed.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        renamed[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    return renamed


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_loss_and_reconstruction_equal_hugging_faces_on_its_own_weights(channels):
    theirs, ours = hugging_face(channels), simmim(channels=channels)
    # strict: each of their weights, the token and the positions included, is one of ours
    ours.load_state_dict(named_as_ours(theirs.state_dict()), strict=True)
    images, mask = images_of(channels=channels), mask_of((8, 8))
    found = theirs(images, bool_masked_pos=mask.hidden)
    torch.testing.assert_close(loss_of(ours, images, mask), found.loss, atol=1e-5, rtol=0)
    made = ours.reconstruct(images, mask)
    pixels = unpatchify(made.pixels, (8, 8), (4, 4))
    torch.testing.assert_close(pixels, found.reconstruction, atol=1e-4, rtol=0)

    whole = theirs.vit(images).last_hidden_state  # what evaluations read
    tokens = ours.encoder(images)
    torch.testing.assert_close(
        torch.cat([tokens.prefix, tokens.patches], 1), whole, atol=1e-5, rtol=0
    )


# ---- loss


ENCODERS = {
    "vit": (ViTNano(width=16, depth=1, heads=2, patch=2), (16, 32)),
    "swin": (SwinNano(width=8, depths=(1, 1), heads=(1, 2)), (16, 32)),
    "dense": (Dense(), (16, 32)),
}
every_encoder = pytest.mark.parametrize("name", ENCODERS)


def around(name, channels=3):
    encoder, size = ENCODERS[name]
    return simmim(size, channels, encoder), images_of(size, channels)


@every_encoder
@torch.no_grad()
def test_the_loss_is_the_mean_absolute_error_of_hidden_pixels_alone(name):
    module, images = around(name)
    mask = mask_of(module.encoder.grid)
    made = module.reconstruct(images, mask)
    prediction = unpatchify(made.prediction, mask.grid, (2, 2))
    by_hand = [
        (prediction[b, c, 2 * y + i, 2 * x + j] - images[b, c, 2 * y + i, 2 * x + j]).abs().item()
        for b in range(B)
        for y in range(8)
        for x in range(16)
        if mask.hidden[b, 16 * y + x]
        for c in range(3)
        for i in range(2)
        for j in range(2)
    ]
    assert len(by_hand) == B * 77 * 12  # .6 of 128 patches
    loss = loss_of(module, images, mask)
    assert loss.item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    # the official sum over (count + 1e-5) / channels is the same number to the last digits
    hidden = hidden_pixels(mask, (2, 2))
    official = ((prediction - images).abs() * hidden).sum() / (hidden.sum() + 1e-5) / 3
    torch.testing.assert_close(loss, official, atol=1e-6, rtol=0)


@every_encoder
@torch.no_grad()
def test_reconstructed_pixels_use_no_hidden_pixel(name):
    module, images = around(name)
    mask = mask_of(module.encoder.grid)
    pixels = module.reconstruct(images, mask).pixels
    other = torch.where(hidden_pixels(mask, (2, 2)), images_of(ENCODERS[name][1], seed=5), images)
    assert torch.equal(module.reconstruct(other, mask).pixels, pixels)
    assert not torch.equal(module.reconstruct(images.flip(3), mask).pixels, pixels)


@every_encoder
def test_every_trainable_parameter_gets_a_gradient(name):
    module, images = around(name)
    loss_of(module, images, mask_of(module.encoder.grid)).backward()
    without = {n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == ({"encoder.pos_embed"} if name == "vit" else set())


def test_a_batch_without_a_mask_is_refused():
    with pytest.raises(ConfigError, match="'simmim' needs a masking"):
        loss_of(simmim(), images_of(), None)


# ---- a mask that is finer than the grid on which the encoder ends


@torch.no_grad()
def test_a_token_of_swin_predicts_each_of_the_patches_it_covers_in_its_place():
    module = simmim(encoder=SwinNano())
    assert (module.encoder.grid, module.encoder.out_grid) == ((16, 16), (8, 8))
    assert (module.per, module.head.out_features) == ((2, 2), 4 * 12)
    cell = images_of((4, 4))[0]  # what every token is to say
    module.head.weight.zero_()
    module.head.bias.copy_(patchify(cell[None], (2, 2)).flatten())
    made = module.reconstruct(images_of(), mask_of((16, 16)))
    assert torch.equal(unpatchify(made.pixels, (16, 16), (2, 2)), cell.repeat(B, 1, 8, 8))


def test_hidden_squares_of_eight_pixels_are_scored_pixel_by_pixel():
    module, images = simmim(encoder=SwinNano()), images_of()
    ids = torch.arange(B)
    view = View((16, 16), 0, ids, Draws(0, "masking", ids))
    mask = draw_view(Units(size=8, of="pixels"), 0.5, (2, 2), view)
    assert mask.num_hidden == 128
    assert (
        hidden_pixels(mask, (2, 2)).unflatten(2, (4, 8)).unflatten(4, (4, 8)).sum((3, 5)) % 64 == 0
    ).all()
    given = images.requires_grad_()
    loss_of(module, given, mask).backward()
    # a hidden pixel is in the loss as target alone: each of them by its sign over their number
    slope = given.grad.abs()[hidden_pixels(mask, (2, 2)).expand_as(given)]
    assert torch.allclose(slope, torch.full_like(slope, 1 / (B * 128 * 4 * given.shape[1])))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 255), st.integers(0, 2**31))
def test_the_loss_of_any_mask_is_that_of_its_images_one_by_one(hidden, seed):
    module, images = CACHED
    scores = torch.rand(B, 256, generator=torch.Generator().manual_seed(seed))
    mask = hide(scores, hidden, (16, 16))
    with torch.no_grad():
        whole = loss_of(module, images, mask)
        each = [loss_of(module, images[b : b + 1], part) for b, part in enumerate(mask.split(1))]
    torch.testing.assert_close(torch.stack(each).mean(), whole, atol=1e-5, rtol=1e-4)


CACHED = simmim(encoder=SwinNano(width=8, depths=(1, 1), heads=(1, 2))), images_of()


# ---- the encoder


class DropsModule(nn.Module):
    grid, out_grid, patch, width, prefix, depth = (4, 4), (4, 4), (2, 2), 4, 0, 1
    inputs = Inputs.of_images(1, (8, 8))

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, images, mask=None, layers=()):
        x = self.norm(self.embed(patchify(images, (2, 2))).transpose(1, 2)).transpose(1, 2)
        index = mask.seen[:, :, None].expand(-1, -1, 4)
        return Tokens(x[:, :0], x.gather(1, index), (4, 4), mask.seen)


class KeepsModule(DropsModule):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        everything = tokens.on_grid(torch.zeros(()))
        return dataclasses.replace(tokens, patches=everything, seen=None)


def test_an_encoder_that_drops_patches_is_refused():
    with pytest.raises(ConfigError) as told:
        SimMIM().build(DropsModule(), Inputs.of_images(1, (8, 8)))
    assert str(told.value) == (
        "objective 'simmim' needs an encoder that gives hidden patches a token each: "
        "this one (DropsModule) drops them and has no keep_positions()"
    )


@pytest.mark.parametrize("training", [True, False])
def test_the_look_at_an_encoder_leaves_mode_buffers_and_random_state(training):
    encoder = KeepsModule().train(training)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    keep_positions(encoder, "simmim")
    assert encoder.training == encoder.norm.training == training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in encoder.parameters())


def test_the_token_is_not_decayed():
    groups, names = parameter_groups(simmim(), 0.05)
    decayed = len(groups[0]["params"])
    assert names.index("encoder.mask_token") >= decayed > names.index("encoder.cls_token")


# ---- the whole way


@pytest.mark.parametrize("objective", ["mae", "simmim"])
def test_a_run_around_swin_is_loaded_and_reconstructs(tmp_path, objective):
    swin = SwinNano(width=8, depths=(1, 1), heads=(1, 2))
    plan = tiny.plan(tmp_path, encoder=swin, objective=objective)
    model = tiny.load(tmp_path)
    images = plan.config.splits().load("test").pick(range(4))
    assert model.encode(images).shape == (4, 16)
    assert {k: v.shape[1] for k, v in model.encode_all(images, (1, 2)).items()} == {
        (None, "mean"): 16,
        (1, "mean"): 8,
        (2, "mean"): 16,
    }
    pixels = model.normalise(images)
    made = model.decoder().reconstruct(pixels, hide(torch.rand(4, 16), 8, (4, 4)))
    assert made.prediction.shape == (4, 16, 4)


def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(story, "CHECKPOINT_SHARE", 0)
    ends = []
    for name in ("at once", "stopped"):
        config = tiny.config(objective="simmim", machine={"checkpoint_seconds": 1e-9})
        plan = story.prepare(config, tmp_path / name)
        if name == "stopped":
            steps = story.pretrain(plan)
            assert [next(steps).number, next(steps).number] == [1, 2]
            steps.close()
        assert [step.number for step in story.pretrain(plan)][-1] == 3
        ends.append(checkpoints.newest(plan.run.folder / "checkpoint"))
    assert ends[0]["weights"] == ends[1]["weights"]
