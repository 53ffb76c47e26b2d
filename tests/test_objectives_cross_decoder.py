"""The cross-attention decoder: queries that do not see each other, and a share of them."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import pytest
import torch
from fakes import Dense
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import gelu, layer_norm, linear, softmax
from torch.utils.flop_counter import FlopCounterMode

from maebench import MAE, Batch, Draws, Inputs
from maebench.encoders import ViTNano
from maebench.masking import hide
from maebench.objectives.mae import count_predicted
from maebench.rng import isolated

B, SIZE = 4, (16, 16)


def build(encoder=None, depth=3, **options):
    with isolated(0, "test"):
        encoder = encoder or ViTNano(width=16, depth=depth, heads=2, patch=4).build(
            Inputs.of_images(3, SIZE)
        )
        options = {"decoder_depth": 2, "decoder_width": 24, "decoder_heads": 3, **options}
        module = MAE(decoder="cross-attention", **options).build(encoder, Inputs.of_images(3, SIZE))
        with torch.no_grad():  # biases are 0 and norms 1 at first: an error there would not show
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
    return module


def batch_of(grid=(4, 4), count=B, seed=0, hidden=None):
    ids, length = torch.arange(count), grid[0] * grid[1]
    images = torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    mask = hide(Draws(seed, "masking", ids).uniform(length), hidden or length * 3 // 4, grid)
    return Batch(images, ids, Draws(seed, "objective", ids), mask)


def tokens_of(module, batch):
    return module.encoder(batch.images, batch.mask, module.decoder.layers)


# ---- what is predicted


@torch.no_grad()
def test_it_equals_attention_written_out():
    module, batch = build().eval(), batch_of()
    decoder, tokens = module.decoder, tokens_of(module, batch)
    levels = [*(tokens.layers[n] for n in (1, 2)), tokens]
    x = (decoder.mask_token + decoder.decoder_pos_embed).expand(B, -1, -1)
    for number, block in enumerate(decoder.decoder_blocks):
        weights = decoder.layer_weights[number].tolist()
        mixed = sum(
            w * torch.cat([t.prefix, t.patches], 1) for w, t in zip(weights, levels, strict=True)
        )
        norm = block.norm_tokens
        mixed = layer_norm(mixed, (16,), norm.weight, norm.bias, 1e-6)
        attn, bias = block.attn, block.attn.in_proj_bias.chunk(3)
        q = linear(block.norm1(x), attn.q_proj_weight, bias[0])
        k = linear(mixed, attn.k_proj_weight, bias[1])
        v = linear(mixed, attn.v_proj_weight, bias[2])
        q, k, v = (t.unflatten(2, (3, 8)).transpose(1, 2) for t in (q, k, v))
        read = softmax(q @ k.transpose(2, 3) / math.sqrt(8), -1) @ v
        x = x + attn.out_proj(read.transpose(1, 2).flatten(2))
        mlp = block.mlp
        x = x + mlp.fc2(gelu(mlp.fc1(block.norm2(x))))
    expected = decoder.decoder_pred(decoder.decoder_norm(x))
    torch.testing.assert_close(decoder(tokens), expected, atol=1e-5, rtol=1e-5)
    some = batch.mask.places[:, ::2]
    torch.testing.assert_close(
        decoder(tokens, some),
        expected.gather(1, some[:, :, None].expand(-1, -1, 48)),
        atol=1e-5,
        rtol=1e-5,
    )


def test_what_is_said_of_one_patch_does_not_depend_on_which_others_are_asked():
    module, batch = build().eval(), batch_of()
    tokens = tokens_of(module, batch)
    all_of_it = module.decoder(tokens)
    for places in ([3], [3, 4], [15, 0, 3], [3, 3, 3]):
        at = torch.tensor(places).expand(B, -1)
        torch.testing.assert_close(
            module.decoder(tokens, at), all_of_it[:, places], atol=1e-6, rtol=0
        )
    # exactly: no other place's position has any influence
    positions = module.decoder.decoder_pos_embed.requires_grad_()
    at = torch.tensor([3, 7, 11]).expand(B, -1)
    (slope,) = torch.autograd.grad(module.decoder(tokens, at)[:, 1].sum(), positions)
    assert slope[0].abs().sum(1).nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize("encoder", [None, Dense()], ids=["vit", "dense and coarser"])
def test_hidden_pixels_and_places_outside_of_the_grid_do_not_matter(encoder):
    module = build(encoder.build(Inputs.of_images(3, SIZE)) if encoder else None).eval()
    grid = module.encoder.grid
    assert module.decoder.decoder_pos_embed.shape == (1, math.prod(grid), 24)
    batch = batch_of(grid)
    images = batch.images.clone().requires_grad_()
    made = module.reconstruct(images, batch.mask)
    assert made.prediction.shape == (B, math.prod(grid), module.patch[0] * module.patch[1] * 3)
    (slope,) = torch.autograd.grad(made.prediction.sum(), images)
    p = module.patch[0]
    hidden = batch.mask.hidden.view(B, 1, *grid).repeat_interleave(p, 2).repeat_interleave(p, 3)
    assert not (slope * hidden).any()
    assert (slope * ~hidden).any()


def test_patches_of_one_coarse_token_are_told_apart():
    made = (
        build(Dense().build(Inputs.of_images(3, SIZE)))
        .eval()
        .reconstruct(batch_of().images, batch_of((8, 8)).mask)
    )
    cells = made.prediction.view(B, 4, 2, 4, 2, -1)
    assert (cells[:, :, 0, :, 0] - cells[:, :, 1, :, 1]).abs().amin(-1).gt(0).any()


# ---- the encoder's layers


@pytest.mark.parametrize(("depth", "layers"), [(1, ()), (2, (1,)), (4, (1, 2, 3))])
def test_each_block_weighs_all_blocks_before_the_last_and_the_normed_end(depth, layers):
    module = build(depth=depth)
    assert module.decoder.layers == layers
    assert module.decoder.layer_weights.shape == (2, len(layers) + 1)
    module(batch_of())["loss"].backward()
    assert module.decoder.layer_weights.grad.ne(0).all()
    without = {n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()}
    # every other parameter is trained, the encoder's final norm among them
    assert without == {"decoder.decoder_pos_embed", "encoder.pos_embed"}


def test_weights_of_layers_begin_so_that_a_sum_is_as_large_as_one_layer():
    encoder = ViTNano(width=16, depth=16, heads=2, patch=4).build(Inputs.of_images(3, SIZE))
    with isolated(0, "test"):
        module = MAE(decoder="cross-attention", decoder_depth=40).build(
            encoder, Inputs.of_images(3, SIZE)
        )
    weights = module.decoder.layer_weights
    assert weights.shape == (40, 16)
    assert weights.std().item() == pytest.approx(16**-0.5, rel=0.1)
    assert abs(weights.mean()) < 0.03


# ---- the share


@settings(max_examples=200)
@given(st.integers(1, 5000), st.integers(1, 1000))
def test_the_count_is_the_share_rounded_half_up_and_at_least_one(hidden, thousandths):
    count = count_predicted(hidden, thousandths / 1000)
    exact = Fraction(thousandths, 1000) * hidden
    assert count == max(1, math.floor(exact + Fraction(1, 2)))
    assert 1 <= count <= hidden


def test_a_third_is_the_papers_quarter_of_all_patches_at_three_quarters():
    assert count_predicted(147, None) == 49 == 196 // 4
    assert [count_predicted(n, None) for n in (1, 2, 3, 12)] == [1, 1, 1, 4]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 15), st.floats(0.01, 1), st.integers(0, 50))
def test_of_every_image_as_many_different_hidden_patches_are_predicted(hidden, share, seed):
    module, batch = build_once(), batch_of(seed=seed, hidden=hidden)
    module.options = module.options.model_copy(update={"share": share})
    at = module.scored(batch, batch.mask)
    assert at.shape == (B, count_predicted(hidden, share))
    for places, hides in zip(at.tolist(), batch.mask.hidden, strict=True):
        assert places == sorted(set(places))
        assert hides[places].all()


def build_once(kept=[]):  # noqa: B006 - one for all examples
    return (kept or kept.append(build()) or kept)[0]


def test_each_hidden_patch_has_its_turn_and_images_differ():
    module = build(share=0.25)
    batch, counts, alike = batch_of(count=100), torch.zeros(100, 16), 0
    for epoch in range(40):
        at = module.scored(
            dataclasses.replace(batch, draws=Draws(0, "objective", batch.ids, epoch)), batch.mask
        )
        counts.scatter_add_(1, at, torch.ones(100, 3))
        alike += (at[0] == at[1]).all().item()
    # 40 steps with 3 of 12: 10 each, with a deviation of sqrt(40 * .25 * .75) = 2.7
    assert counts[~batch.mask.hidden].eq(0).all()
    assert counts[batch.mask.hidden].mean() == 10
    assert counts[batch.mask.hidden].std().item() == pytest.approx(2.74, rel=0.1)
    assert alike < 10


def test_each_image_keeps_its_patches_however_a_batch_is_split():
    module = build()
    whole = module.scored(batch_of(), batch_of().mask)
    for size in (1, 2, 3):
        parts = [module.scored(part, part.mask) for part in batch_of().split(size)]
        assert torch.equal(torch.cat(parts), whole)


@torch.no_grad()
def test_the_loss_is_the_error_of_the_patches_that_were_drawn():
    module, batch = build(share=0.5).eval(), batch_of()
    at = module.scored(batch, batch.mask)
    made = module.reconstruct(batch.images, batch.mask)
    by_hand = [
        (made.prediction[b, place] - made.target[b, place]).square().mean()
        for b in range(B)
        for place in at[b].tolist()
    ]
    assert len(by_hand) == B * 6
    loss = module(batch_of())["loss"]
    torch.testing.assert_close(loss, torch.stack(by_hand).mean(), atol=1e-6, rtol=1e-5)


def test_operations_fall_with_the_share():
    def flops(**options):
        encoder = ViTNano(width=16, depth=3, heads=2, patch=2).build(Inputs.of_images(3, SIZE))
        module = build(encoder, decoder_depth=2, **options)
        with FlopCounterMode(display=False) as counter:
            module(batch_of((8, 8)))
        total = counter.get_total_flops()
        inside = counter.get_flop_counts()[f"{type(module).__name__}.encoder"]
        return total - sum(inside.values())

    whole, half, sixth = (flops(share=share) for share in (1.0, 0.5, 1 / 6))
    assert sixth < half < whole
    # keys and values of the tokens are read whatever is asked; the rest goes with the queries
    assert (half - sixth) / (whole - half) == pytest.approx(16 / 24, rel=0.01)
