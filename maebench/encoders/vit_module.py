"""The vision transformer as a torch module, embedding only the patches it sees unless told.

Shape suffixes: B images, C channels, H W pixels, h w grid, p q pixels of a patch, L = h * w
patches, K seen patches, N tokens, D width, G heads. Parameters have the names of timm and of the
official MAE code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from maebench.encoders.encoder import Tokens, check_images
from maebench.masking.mask import Mask
from maebench.masking.patches import raw_patches, take

if TYPE_CHECKING:
    from maebench.encoders.vit import ViT

# arXiv 2111.06377, official code: LayerNorm's eps is 1e-6, not torch's 1e-5.
norm_layer = partial(nn.LayerNorm, eps=1e-6)

# Up to so many tokens two matmuls and a softmax beat the fused kernel on a CPU in float32
# (benchmarks/attention.py); in bfloat16 they do at every length that was measured.
EXPLICIT_UP_TO = 65


class VisionTransformer(nn.Module):
    """A vision transformer; see `maebench.encoders.encoder.EncoderModule`."""

    def __init__(
        self, options: ViT, image_size: tuple[int, int], patch: tuple[int, int], channels: int
    ) -> None:
        super().__init__()
        self.patch = patch
        self.channels = channels
        self.grid = self.out_grid = (image_size[0] // patch[0], image_size[1] // patch[1])
        self.width = D = options.width
        self.depth = options.depth
        self.prefix = 1 + options.registers

        self.patch_embed: Any = nn.Module()
        self.patch_embed.proj = nn.Conv2d(channels, D, patch, patch)
        self.cls_token = nn.Parameter(torch.empty(1, 1, D))
        if options.registers:
            self.reg_token = nn.Parameter(torch.empty(1, options.registers, D))
        self.mask_token: nn.Parameter | None
        self.register_parameter("mask_token", None)  # until keep_positions()
        positions_LD = sincos_positions(self.grid, D)
        self.pos_embed = nn.Parameter(
            torch.cat([torch.zeros(1, D), positions_LD])[None], requires_grad=False
        )
        self.blocks = nn.ModuleList(
            make_block(D, options.heads, options.mlp_ratio) for _ in range(self.depth)
        )
        self.norm = norm_layer(D)
        initialise(self)

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Encodes images (B, C, H, W) and sees `mask.seen` patches, or all without a mask."""
        check_images(self, images)
        x_BND = self._embed(images, mask)
        seen = None if mask is None or self.mask_token is not None else mask.seen
        kept: dict[int, Tokens] = {}
        for number, block in enumerate(self.blocks, 1):
            x_BND = block(x_BND)
            if number in layers:
                kept[number] = self._tokens(x_BND, seen)
        return self._tokens(self.norm(x_BND), seen, kept)

    def attention(self, images: Tensor) -> Tensor:
        """Attention of the class token to each patch in the last block, mean over heads, (B, L)."""
        x_BND = self._embed(images, None)
        for block in self.blocks[:-1]:
            x_BND = block(x_BND)
        last: Any = self.blocks[-1]
        attn = last.attn
        x_BND = last.norm1(x_BND)
        B, N, _ = x_BND.shape
        q_BGNE, k_BGNE, _ = (
            attn.qkv(x_BND).view(B, N, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        )
        scores_BGN = (q_BGNE[:, :, :1] * attn.scale @ k_BGNE.transpose(-2, -1)).softmax(-1)[:, :, 0]
        return scores_BGN.mean(1)[:, self.prefix :]

    def keep_positions(self) -> None:
        """From now on hidden patches are replaced by a learned token instead of dropped.

        The token is drawn from torch's global state, as in SimMIM's code (models/simmim.py,
        VisionTransformerForSimMIM): a normal of deviation .02 cut off at one deviation.
        """
        if self.mask_token is None:
            token_11D = self.cls_token.new_empty(1, 1, self.width)
            self.mask_token = nn.Parameter(nn.init.trunc_normal_(token_11D, 0, 0.02, -0.02, 0.02))

    def layer_ids(self) -> dict[str, int]:
        """The layer of each parameter, as in the official layer decay (util/lr_decay.py)."""
        return {name: self._layer(name) for name, _ in self.named_parameters()}

    def no_weight_decay(self) -> set[str]:
        """The positions; the class token is decayed, as in the official pretraining code.

        A token for hidden patches is not, as in SimMIM's code for Swin.
        """
        return {"pos_embed"} if self.mask_token is None else {"pos_embed", "mask_token"}

    def set_drop_path(self, rate: float) -> None:
        """Drops residual branches with a rate that grows linearly to `rate` in the last block."""
        for block, share in zip(self.blocks, torch.linspace(0, rate, self.depth), strict=True):
            if share > 0:
                block.drop_path1 = DropPath(float(share)).train(self.training)
                block.drop_path2 = DropPath(float(share)).train(self.training)

    def _embed(self, images: Tensor, mask: Mask | None) -> Tensor:
        patches_BNE = raw_patches(images, self.patch)
        positions_BND = self.pos_embed[:, 1:]
        if mask is not None and self.mask_token is None:
            patches_BNE = take(patches_BNE, mask.seen)
            positions_BND = positions_BND[0][mask.seen]
        proj = self.patch_embed.proj
        # A convolution whose stride is its kernel is a linear map of each patch.
        x_BND = F.linear(patches_BNE, proj.weight.flatten(1), proj.bias)
        if mask is not None and self.mask_token is not None:
            x_BND = torch.where(mask.hidden[:, :, None], self.mask_token.to(x_BND.dtype), x_BND)
        x_BND = x_BND + positions_BND
        prefix = [self.cls_token + self.pos_embed[:, :1]]
        if self.prefix > 1:
            prefix.append(self.reg_token)
        x_BND = torch.cat([torch.cat(prefix, 1).expand(len(images), -1, -1), x_BND], 1)
        choose_attention(self.blocks, x_BND)
        return x_BND

    def _tokens(
        self, x_BND: Tensor, seen: Tensor | None, layers: dict[int, Tokens] | None = None
    ) -> Tokens:
        return Tokens(
            x_BND[:, : self.prefix], x_BND[:, self.prefix :], self.grid, seen, layers or {}
        )

    def _layer(self, name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.depth + 1 if name.startswith("norm.") else 0


def make_block(width: int, heads: int, mlp_ratio: float = 4.0) -> Block:
    """Timm's pre-norm block as the masked autoencoder uses it."""
    return Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm_layer)


def choose_attention(blocks: Any, x_BND: Tensor) -> None:
    """Sets fused or explicit attention, whichever was measured faster for this device."""
    bf16 = x_BND.dtype == torch.bfloat16 or torch.is_autocast_enabled(x_BND.device.type)
    fused = x_BND.device.type != "cpu" or (not bf16 and x_BND.shape[1] > EXPLICIT_UP_TO)
    for block in blocks:
        if block.attn.fused_attn != fused:
            block.attn.fused_attn = fused


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
