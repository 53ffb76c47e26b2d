"""The transformer block in plain torch, and what vision transformers share.

Shape suffixes: B images, N tokens, D width, G heads, E width of a head. Parameters have the names
of timm and of the official MAE code.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maebench.encoders.attention import attend
from maebench.masking.patches import take

# arXiv 2111.06377, official code: LayerNorm's eps is 1e-6, not torch's 1e-5.
norm_layer = partial(nn.LayerNorm, eps=1e-6)


class Block(nn.Module):
    """A pre-norm transformer block: attention, then an MLP, each with a norm before it.

    Source: Dosovitskiy et al. 2020, arXiv 2010.11929, equations 2 and 3.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = norm_layer(width)
        self.attn = Attention(width, heads)
        self.drop_path1: nn.Module = nn.Identity()
        self.norm2 = norm_layer(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path2: nn.Module = nn.Identity()

    def forward(self, x_BND: Tensor, at_BM: Tensor | None = None) -> Tensor:
        """All tokens (B, N, D), or those at `at_BM` (B, M, D), having looked at all tokens."""
        normed_BND = self.norm1(x_BND)
        if at_BM is not None:
            x_BND = take(x_BND, at_BM)
        x_BND = x_BND + self.drop_path1(self.attn(normed_BND, at_BM))
        return x_BND + self.drop_path2(self.mlp(self.norm2(x_BND)))


class Attention(nn.Module):
    """Multi-head self-attention, by the fused kernel or by two matmuls and a softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (width // heads) ** -0.5
        self.fused_attn = True  # `choose_attention` decides
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, at_BM: Tensor | None = None) -> Tensor:
        """All tokens, or those at `at_BM`, as a mean of what all have to say to it."""
        if at_BM is None:
            q_BGNE, k_BGNE, v_BGNE = self._heads(self.qkv(x_BND), 3)
        else:
            D, weight, bias = x_BND.shape[2], self.qkv.weight, self.qkv.bias
            (q_BGNE,) = self._heads(F.linear(take(x_BND, at_BM), weight[:D], bias[:D]), 1)
            k_BGNE, v_BGNE = self._heads(F.linear(x_BND, weight[D:], bias[D:]), 2)
        read_BGNE = attend(q_BGNE, k_BGNE, v_BGNE, self.fused_attn)
        return self.proj(read_BGNE.transpose(1, 2).flatten(2))

    def _heads(self, x_BNF: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Queries, keys or values of each head, (B, G, N, E), off one projection."""
        B, N, _ = x_BNF.shape
        return x_BNF.reshape(B, N, parts, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


class Mlp(nn.Module):
    """Two linear layers with GELU between them, on each token alone."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Tokens to tokens of the same shape."""
        return self.fc2(self.act(self.fc1(x_BND)))


class DropPath(nn.Module):
    """Leaves a residual branch out for some images while training, and scales it up for the rest.

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """The branch (B, ...), all 0 for a share `drop_prob` of the images."""
        if not self.training:
            return x
        keep = 1 - self.drop_prob
        return x * x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(keep).div_(keep)


def drop_paths(blocks: Iterable[Any], rate: float, training: bool) -> None:
    """Drops residual branches of blocks with a rate that grows linearly to `rate` in the last."""
    blocks = list(blocks)
    for block, share in zip(blocks, torch.linspace(0, rate, len(blocks)), strict=True):
        if share > 0:
            block.drop_path1 = DropPath(float(share)).train(training)
            block.drop_path2 = DropPath(float(share)).train(training)


def initialise(module: nn.Module) -> None:
    """Initialises as the paper does: xavier for matrices, zero for their biases, .02 for tokens.

    The embedding is initialised as the linear map it is; its bias keeps torch's own values, as in
    the official code (models_mae.py, initialize_weights).
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d):
            nn.init.xavier_uniform_(part.weight.view(part.weight.shape[0], -1))
    for name, parameter in module.named_parameters():
        if name in ("cls_token", "reg_token", "mask_token"):
            nn.init.normal_(parameter, std=0.02)


def sincos_line(length: int, width: int) -> Tensor:
    """Sin-cos positions on a line, float32 (L, D): [sin(all frequencies), cos(all frequencies)].

    omega_i = 10000^(-i / (D/2)). Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5, there
    with sine and cosine in turn.
    """
    omega = 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle_LF = torch.arange(length, dtype=torch.float64)[:, None] * omega
    return torch.cat([angle_LF.sin(), angle_LF.cos()], 1).float()


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Sin-cos positions in the layout of the masked autoencoder, float32 (L, D).

    The first half of the channels encodes the column, the second the row, each as
    [sin(all frequencies), cos(all frequencies)] with omega_i = 10000^(-i / (D/4)). timm's helper
    has another layout. Source: official MAE code, util/pos_embed.py.
    """
    omega = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows, columns = torch.meshgrid(
        *(torch.arange(g, dtype=torch.float64) for g in grid), indexing="ij"
    )
    halves = [
        torch.cat(
            [(axis.flatten()[:, None] * omega).sin(), (axis.flatten()[:, None] * omega).cos()], 1
        )
        for axis in (columns, rows)
    ]
    return torch.cat(halves, 1).float()
