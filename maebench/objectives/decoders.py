"""Decoders: an encoder's tokens to a prediction for each patch.

Shape suffixes: B images, L patches, M patches that are asked for, P prefix tokens, N tokens,
S layers of the encoder, E its width, D decoder width, T dimension of a patch's target.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from maebench.encoders.attention import choose_attention
from maebench.encoders.blocks import (
    Block,
    Mlp,
    initialise,
    norm_layer,
    sincos_positions,
)
from maebench.encoders.encoder import Tokens
from maebench.encoders.inputs import Inputs
from maebench.encoders.sizes import Depth, Heads, Width
from maebench.errors import ConfigError
from maebench.masking.patches import patchify, take, unpatchify
from maebench.objectives.objective import Objective
from maebench.objectives.targets import layers_like_the_last


class DecoderSize(NamedTuple):
    """Depth, width and heads of a decoder."""

    depth: int
    width: int
    heads: int


def default_decoder(width: int, depth: int) -> DecoderSize:
    """The paper's 8 x 512 x 16 from ViT-B up, and half the encoder's width with 1-2 blocks below.

    Heads are 32 wide as in the paper; a small encoder is not to be outdone by its decoder.
    """
    if width >= 768:
        return DecoderSize(8, 512, 16)
    half = max(4, width // 2 // 4 * 4)
    return DecoderSize(2 if depth > 4 else 1, half, default_heads(half))


def default_heads(width: int) -> int:
    """One head per 32 of width, or as many fewer as divide it."""
    return next(n for n in range(max(1, width // 32), 0, -1) if width % n == 0)


class Decoding(Objective):
    """An objective with a decoder of transformer blocks."""

    decoder_depth: Depth | None = Field(
        default=None,
        description="decoder blocks; default 8 from width 768 up, else 2 (1 up to depth 4)",
        examples=[2],
    )
    decoder_width: Width | None = Field(
        default=None,
        description="decoder width; default 512 from width 768 up, else half the encoder's",
        examples=[16],
    )
    decoder_heads: Heads | None = Field(
        default=None,
        description="decoder heads; default 16 from width 768 up, else one per 32 of width",
        examples=[2],
    )

    def decoder_size(self, width: int, depth: int) -> DecoderSize:
        """The decoder for an encoder of this width and depth.

        Raises:
            ConfigError: the heads do not divide the width.
        """
        default = default_decoder(width, depth)
        size = DecoderSize(
            self.decoder_depth or default.depth,
            self.decoder_width or default.width,
            self.decoder_heads
            or (default_heads(self.decoder_width) if self.decoder_width else default.heads),
        )
        if size.width % size.heads or size.width % 4:
            raise ConfigError(
                f"objective.decoder_width: {size.width} must be a multiple of 4 (sin-cos "
                f"positions) and of objective.decoder_heads={size.heads}"
            )
        return size


class TransformerDecoder(nn.Module):
    """Mask tokens at empty places, positions, transformer blocks, and a linear head.

    Parameters have the names of the official MAE code. It reads the encoder's end alone, none of
    its `layers`.

    Args:
        width: of the tokens that it reads.
        size: depth, width and heads.
        encoder: gives the grids: that of patches, and the one that its tokens lie on. Where that
            is coarser, each token predicts all its patches.
        dimension: T, of the prediction of a patch.
        fills: whether places may be empty; without, there is no mask token.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self, width: int, size: DecoderSize, encoder: Any, dimension: int, fills: bool = True
    ) -> None:
        super().__init__()
        D = size.width
        self.out_grid = encoder.out_grid
        (H, W), (h, w) = encoder.grid, encoder.out_grid
        self.per = (H // h, W // w)  # patches of a token
        self.decoder_embed = nn.Linear(width, D)
        if fills:
            self.mask_token = nn.Parameter(torch.empty(1, 1, D))
        self.decoder_blocks: Any = nn.ModuleList(Block(D, size.heads) for _ in range(size.depth))
        self.decoder_norm = norm_layer(D)
        self.decoder_pred = nn.Linear(D, self.per[0] * self.per[1] * dimension)
        self.decoder_pos_embed = nn.Parameter(
            sincos_positions(self.out_grid, D)[None], requires_grad=False
        )
        initialise(self)

    def forward(self, tokens: Tokens, at_BM: Tensor | None = None) -> Tensor:
        """Predictions of all patches, (B, L, T), or of those at `at_BM`, (B, M, T)."""
        prefix_BPD = self.decoder_embed(tokens.prefix)
        x_BND = self.decoder_embed(tokens.patches)
        if tokens.seen is not None:
            embedded = Tokens(prefix_BPD, x_BND, tokens.grid, tokens.seen)
            x_BND = embedded.on_grid(self.mask_token)
        x_BLD = x_BND + self.decoder_pos_embed
        # sums of blocks are float32 in mixed precision too, as the encoder's
        x_BND = torch.cat([prefix_BPD.to(x_BLD.dtype), x_BLD], 1)
        choose_attention(self.decoder_blocks, x_BND)
        for block in self.decoder_blocks[:-1]:
            x_BND = block(x_BND)
        last, P = self.decoder_blocks[-1], prefix_BPD.shape[1]
        if at_BM is not None and self.per == (1, 1):  # the end only where the loss is
            return self.decoder_pred(self.decoder_norm(last(x_BND, at_BM + P)))
        x_BLD = last(x_BND)[:, P:]
        x_BLT = per_patch(self.decoder_pred(self.decoder_norm(x_BLD)), self.out_grid, self.per)
        return x_BLT if at_BM is None else take(x_BLT, at_BM)


def per_patch(x_BNT: Tensor, out_grid: tuple[int, int], per: tuple[int, int]) -> Tensor:
    """What each token says of all its patches, (B, N, r*s*T), as patches in order, (B, L, T)."""
    return x_BNT if per == (1, 1) else patchify(unpatchify(x_BNT, out_grid, per), (1, 1))


class CrossAttentionDecoder(nn.Module):
    """Queries that look at the encoder's tokens and never at each other.

    A query is the mask token with the position of a patch, on the grid that masks are drawn on
    whatever grid the encoder ends on. Each block reads its own weighted sum of the encoder's
    layers: blocks 1 to depth - 1 and the last after the final norm, which so is trained (the
    paper's code takes the last block before it, and the embedding too). Layers of another grid or
    width than the last are left out.

    Args:
        encoder: gives grid, width and layers.
        size: depth, width and heads.
        inputs: what the encoder is fed.
        dimension: T, of the prediction of a patch.
    """

    def __init__(self, encoder: Any, size: DecoderSize, inputs: Inputs, dimension: int) -> None:
        super().__init__()
        D = size.width
        self.layers = tuple(n for n in layers_like_the_last(encoder, inputs) if n < encoder.depth)
        self.mask_token = nn.Parameter(torch.empty(1, 1, D))
        self.decoder_pos_embed = nn.Parameter(
            sincos_positions(encoder.grid, D)[None], requires_grad=False
        )
        S = len(self.layers) + 1
        self.layer_weights = nn.Parameter(torch.empty(size.depth, S))
        self.decoder_blocks = nn.ModuleList(
            CrossBlock(encoder.width, D, size.heads) for _ in range(size.depth)
        )
        self.decoder_norm = norm_layer(D)
        self.decoder_pred = nn.Linear(D, dimension)
        initialise(self)
        # arXiv 2401.14391, official code: a sum of layers is about as large as one of them
        nn.init.normal_(self.layer_weights, std=S**-0.5)

    def forward(self, tokens: Tokens, at_BM: Tensor | None = None) -> Tensor:
        """Predictions of all patches, (B, L, T), or of those at `at_BM`, (B, M, T)."""
        levels = [*(tokens.layers[number] for number in self.layers), tokens]
        layers_SBNE = torch.stack(
            [torch.cat([t.prefix, t.patches], 1).to(tokens.patches.dtype) for t in levels]
        )
        places_LD = self.decoder_pos_embed[0]
        if at_BM is None:
            places_BMD = places_LD.expand(len(tokens.patches), -1, -1)
        else:
            places_BMD = places_LD[at_BM]
        x_BMD = self.mask_token + places_BMD
        for block, weight_S in zip(self.decoder_blocks, self.layer_weights, strict=True):
            x_BMD = block(x_BMD, (weight_S[:, None, None, None] * layers_SBNE).sum(0))
        return self.decoder_pred(self.decoder_norm(x_BMD))


class CrossBlock(nn.Module):
    """Attention of queries to tokens, then an MLP, each with a norm before and a sum after.

    Args:
        token_width: E, of the tokens.
        width: D, of the queries.
        heads: of the attention.
    """

    def __init__(self, token_width: int, width: int, heads: int) -> None:
        super().__init__()
        self.norm_tokens = norm_layer(token_width)
        self.norm1 = norm_layer(width)
        self.attn = nn.MultiheadAttention(
            width, heads, kdim=token_width, vdim=token_width, batch_first=True
        )
        self.norm2 = norm_layer(width)
        self.mlp = Mlp(width, 4 * width)  # as wide as in the transformer decoder

    def forward(self, x_BMD: Tensor, tokens_BNE: Tensor) -> Tensor:
        """The queries, each moved by what it finds in the tokens."""
        found_BNE = self.norm_tokens(tokens_BNE)
        read_BMD, _ = self.attn(self.norm1(x_BMD), found_BNE, found_BNE, need_weights=False)
        x_BMD = x_BMD + read_BMD
        return x_BMD + self.mlp(self.norm2(x_BMD))
