"""The transformer decoder as a torch module: tokens to numbers of each patch.

Shape suffixes: B images, L patches, M patches that are asked for, P prefix tokens, N tokens,
D decoder width, T numbers of a patch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from maebench.encoders.encoder import Tokens
from maebench.encoders.vit_module import (
    choose_attention,
    initialise,
    make_block,
    norm_layer,
    sincos_positions,
)
from maebench.masking.mask import Mask
from maebench.masking.patches import patchify, take, unpatchify
from maebench.objectives.decoder import DecoderSize


class TransformerDecoder(nn.Module):
    """Mask tokens at empty places, positions, transformer blocks, and a linear head.

    Parameters have the names of the official MAE code. It reads the encoder's end alone, none of
    its `layers`.

    Args:
        width: of the tokens that it is given.
        size: depth, width and heads.
        encoder: gives the grids: that of patches, and the one that its tokens lie on. Where that
            is coarser, each token predicts all its patches.
        numbers: T that are predicted for each patch.
        fills: whether places may be empty; without, there is no mask token.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self, width: int, size: DecoderSize, encoder: Any, numbers: int, fills: bool = True
    ) -> None:
        super().__init__()
        D = size.width
        self.out_grid = encoder.out_grid
        (H, W), (h, w) = encoder.grid, encoder.out_grid
        self.per = (H // h, W // w)  # patches of a token
        self.decoder_embed = nn.Linear(width, D)
        if fills:
            self.mask_token = nn.Parameter(torch.empty(1, 1, D))
        self.decoder_blocks: Any = nn.ModuleList(
            make_block(D, size.heads) for _ in range(size.depth)
        )
        self.decoder_norm = norm_layer(D)
        self.decoder_pred = nn.Linear(D, self.per[0] * self.per[1] * numbers)
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
        x_BND = torch.cat([prefix_BPD, x_BLD.to(prefix_BPD.dtype)], 1)
        choose_attention(self.decoder_blocks, x_BND)
        for block in self.decoder_blocks:
            x_BND = block(x_BND)
        x_BLD = x_BND[:, prefix_BPD.shape[1] :]
        if at_BM is not None and self.per == (1, 1):  # the head only where the loss is
            return self.decoder_pred(self.decoder_norm(take(x_BLD, at_BM)))
        x_BLT = per_patch(self.decoder_pred(self.decoder_norm(x_BLD)), self.out_grid, self.per)
        return x_BLT if at_BM is None else take(x_BLT, at_BM)


def per_patch(x_BNT: Tensor, out_grid: tuple[int, int], per: tuple[int, int]) -> Tensor:
    """What each token says of all its patches, (B, N, r*s*T), as patches in order, (B, L, T)."""
    return x_BNT if per == (1, 1) else patchify(unpatchify(x_BNT, out_grid, per), (1, 1))


def hidden_places(mask: Mask) -> Tensor:
    """Where the hidden patches of each image are, int64 (B, M), ascending."""
    return mask.hidden.nonzero()[:, 1].view(len(mask.hidden), mask.num_hidden)
