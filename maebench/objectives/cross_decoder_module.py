"""The cross-attention decoder as a torch module: each patch is read off the encoder's tokens alone.

Shape suffixes: B images, L patches, M patches that are asked for, N tokens of the encoder, S of
its layers, E its width, D decoder width, T numbers of a patch.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from maebench.encoders.encoder import Tokens
from maebench.encoders.vit_module import initialise, norm_layer, sincos_positions
from maebench.objectives.decoder import DecoderSize
from maebench.objectives.objective import Inputs
from maebench.objectives.targets_features import layers_like_the_last


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
        numbers: T that are predicted for each patch.
    """

    def __init__(self, encoder: Any, size: DecoderSize, inputs: Inputs, numbers: int) -> None:
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
        self.decoder_pred = nn.Linear(D, numbers)
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
        given: E, width of the tokens.
        width: D, of the queries.
        heads: of the attention.
    """

    def __init__(self, given: int, width: int, heads: int) -> None:
        super().__init__()
        self.norm_tokens = norm_layer(given)
        self.norm1 = norm_layer(width)
        self.attn = nn.MultiheadAttention(width, heads, kdim=given, vdim=given, batch_first=True)
        self.norm2 = norm_layer(width)
        self.mlp = Mlp(width, 4 * width)  # as wide as in the transformer decoder

    def forward(self, x_BMD: Tensor, tokens_BNE: Tensor) -> Tensor:
        """The queries, each moved by what it finds in the tokens."""
        found_BNE = self.norm_tokens(tokens_BNE)
        read_BMD, _ = self.attn(self.norm1(x_BMD), found_BNE, found_BNE, need_weights=False)
        x_BMD = x_BMD + read_BMD
        return x_BMD + self.mlp(self.norm2(x_BMD))
