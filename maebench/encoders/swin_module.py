"""The Swin transformer as a torch module: timm's, with a learned token at hidden patches.

Shape suffixes: B images, h w the map of a stage, N = h * w tokens, D width of a stage. Parameters
have the names of timm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import timm.models.swin_transformer as swin
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from maebench.encoders.encoder import Tokens, check_images
from maebench.masking.mask import Mask

if TYPE_CHECKING:
    from maebench.encoders.swin import Swin


class SwinTransformer(nn.Module):
    """A Swin transformer; see `maebench.encoders.encoder.EncoderModule`.

    `depth` counts the blocks of all stages. Tokens of a layer lie on the grid of its stage and are
    as wide as its stage; a merging of tokens belongs to the block that follows it.
    """

    prefix = 0

    def __init__(
        self, options: Swin, image_size: tuple[int, int], patch: tuple[int, int], channels: int
    ) -> None:
        super().__init__()
        whole = swin.SwinTransformer(
            img_size=image_size,
            patch_size=patch,
            in_chans=channels,
            num_classes=0,
            embed_dim=options.width,
            depths=options.depths,
            num_heads=options.heads,
            window_size=options.window,
            drop_path_rate=0.0,  # `set_drop_path` sets it
        )
        merged = 2 ** (len(options.depths) - 1)
        self.patch = patch
        self.channels = channels
        self.grid = (image_size[0] // patch[0], image_size[1] // patch[1])
        self.out_grid = (self.grid[0] // merged, self.grid[1] // merged)
        self.width = options.width * merged
        self.depth = sum(options.depths)
        self.patch_embed = whole.patch_embed
        self.layers: Any = whole.layers
        self.norm = whole.norm
        # SimMIM's code (models/simmim.py, SwinTransformerForSimMIM)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(options.width), std=0.02))

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Encodes images (B, C, H, W), the token in place of what `mask` hides."""
        check_images(self, images)
        x_BhwD = self.patch_embed(images)
        if mask is not None:
            hidden_Bhw1 = mask.hidden.view(-1, *self.grid, 1)
            x_BhwD = torch.where(hidden_Bhw1, self.mask_token.to(x_BhwD.dtype), x_BhwD)
        kept: dict[int, Tokens] = {}
        number = 0
        for stage in self.layers:
            x_BhwD = stage.downsample(x_BhwD)
            for block in stage.blocks:
                number += 1
                x_BhwD = block(x_BhwD)
                if number in layers:
                    kept[number] = tokens_of(x_BhwD)
        return tokens_of(self.norm(x_BhwD), kept)

    def layer_ids(self) -> dict[str, int]:
        """The block of each parameter, 0 for the embedding and depth + 1 for the last norm."""
        starts = {"norm.": self.depth + 1}
        number = 0
        for s, stage in enumerate(self.layers):
            starts[f"layers.{s}.downsample."] = number + 1
            for b in range(len(stage.blocks)):
                number += 1
                starts[f"layers.{s}.blocks.{b}."] = number
        return {
            name: next((layer for start, layer in starts.items() if name.startswith(start)), 0)
            for name, _ in self.named_parameters()
        }

    def no_weight_decay(self) -> set[str]:
        """Biases by relative position, as in Swin's code, and the token, as in SimMIM's."""
        return {
            name
            for name, _ in self.named_parameters()
            if name == "mask_token" or name.endswith("relative_position_bias_table")
        }

    def set_drop_path(self, rate: float) -> None:
        """Drops residual branches with a rate that grows linearly to `rate` in the last block."""
        blocks = [block for stage in self.layers for block in stage.blocks]
        for block, share in zip(blocks, torch.linspace(0, rate, self.depth), strict=True):
            if share > 0:
                block.drop_path1 = DropPath(float(share)).train(self.training)
                block.drop_path2 = DropPath(float(share)).train(self.training)


def tokens_of(x_BhwD: Tensor, layers: dict[int, Tokens] | None = None) -> Tokens:
    """A map as patch tokens in raster order, without any prefix."""
    h, w = x_BhwD.shape[1:3]
    x_BND = x_BhwD.flatten(1, 2)
    return Tokens(x_BND[:, :0], x_BND, (h, w), None, layers or {})
