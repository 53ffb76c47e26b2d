"""Our transformer block is timm's: the same weights give the same numbers to the last bit."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import DropPath as TimmDropPath
from timm.models.vision_transformer import Block as TimmBlock
from torch import nn

from maebench.encoders.blocks import Block, DropPath, drop_paths
from maebench.masking.patches import take
from maebench.rng import isolated

WIDTH, HEADS = 24, 3


def theirs(ratio=4.0):
    norm = partial(nn.LayerNorm, eps=1e-6)
    with isolated(0, "block"):
        return TimmBlock(WIDTH, HEADS, ratio, qkv_bias=True, norm_layer=norm)


def ours(ratio=4.0):
    with isolated(0, "block"):
        return Block(WIDTH, HEADS, ratio)


def tokens(count=9, dtype=torch.float32):
    return torch.randn(4, count, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("ratio", [4.0, 2.5])
def test_the_same_seed_gives_the_weights_of_timm_under_the_names_of_timm(ratio):
    mine, other = ours(ratio).state_dict(), theirs(ratio).state_dict()
    assert list(mine) == list(other)
    assert all(torch.equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "explicit"])
@pytest.mark.parametrize("count", [1, 9, 70])
def test_forward_and_gradients_equal_those_of_timm_to_the_last_bit(fused, count):
    made = []
    for block in (ours(), theirs()):
        block.attn.fused_attn = fused
        x = tokens(count).requires_grad_()
        y = block(x)
        y.square().sum().backward()
        made.append((y.detach(), x.grad, {n: p.grad for n, p in block.named_parameters()}))
    (y, x, own), (other_y, other_x, other) = made
    assert torch.equal(y, other_y) and torch.equal(x, other_x)
    assert all(torch.equal(own[name], other[name]) for name in other)


@given(seed=st.integers(0, 99), count=st.integers(1, 9), fused=st.booleans())
def test_some_tokens_alone_are_what_they_are_among_all(seed, count, fused):
    block, x = ours().double(), tokens(dtype=torch.float64).requires_grad_()
    block.attn.fused_attn = fused
    generator = torch.Generator().manual_seed(seed)
    at = torch.rand(4, 9, generator=generator).argsort(1)[:, :count]
    wanted, got = take(block(x), at), block(x, at)
    assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-12)
    weights = torch.rand(wanted.shape, generator=generator, dtype=wanted.dtype)
    inputs = [x, *block.parameters()]
    each = [torch.autograd.grad((y * weights).sum(), inputs) for y in (wanted, got)]
    for a, b in zip(*each, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11)


def test_under_bfloat16_autocast_too():
    made = []
    for block in (ours(), theirs()):
        block.attn.fused_attn = False
        with torch.autocast("cpu", torch.bfloat16):
            made.append(block(tokens()))
    assert torch.equal(*made)


def test_both_kernels_of_attention_agree():
    block = ours()
    made = []
    for fused in (True, False):
        block.attn.fused_attn = fused
        made.append(block(tokens()))
    torch.testing.assert_close(*made, rtol=0, atol=1e-6)


@given(st.floats(0.01, 0.99), st.integers(1, 9))
def test_branches_are_dropped_as_timm_drops_them(rate, images):
    x = torch.arange(images * 6.0).view(images, 2, 3) + 1
    made = []
    for module in (DropPath(rate), TimmDropPath(rate)):
        with isolated(3, "drop"):
            made.append(module.train()(x))
        assert torch.equal(module.eval()(x), x)
    assert torch.equal(*made)


def test_the_rate_grows_to_the_last_block_and_the_first_has_none():
    blocks = [ours() for _ in range(4)]
    drop_paths(blocks, 0.3, training=True)
    for which in ("drop_path1", "drop_path2"):
        first, *others = (getattr(block, which) for block in blocks)
        assert isinstance(first, nn.Identity)
        assert [part.drop_prob for part in others] == pytest.approx([0.1, 0.2, 0.3])
        assert all(part.training for part in others)
