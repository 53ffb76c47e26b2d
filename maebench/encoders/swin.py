"""The Swin transformer in two sizes: timm's, with a learned token at hidden patches.

Shape suffixes: B images, h w the map of a stage, N = h * w tokens, D width of a stage. Parameters
have the names of timm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from maebench.encoders.blocks import drop_paths
from maebench.encoders.encoder import Encoder, EncoderModule, Tokens
from maebench.encoders.inputs import Inputs
from maebench.encoders.sizes import Depths, Side, Width, Widths
from maebench.encoders.stages import first_patch, merged_patch
from maebench.errors import ConfigError
from maebench.masking.mask import Mask


class Swin(Encoder):
    """A Swin transformer: attention inside shifted windows, tokens merged 2x2 between stages.

    It keeps all positions: hidden patches are a learned token before anything mixes patches.
    Source: Liu et al. 2021, arXiv 2103.14030; the token: Xie et al. 2021, arXiv 2111.09886.
    """

    example: ClassVar[dict[str, Any]] = {"width": 16, "depths": (2, 2), "heads": (2, 2)}

    width: Width = Field(
        default=96,
        description="width of a token in the first stage, twice that in each that follows",
    )
    depths: Depths = Field(
        default=(2, 2, 6, 2),
        min_length=1,
        description="number of blocks in each stage",
        examples=[(1, 2)],
    )
    heads: Widths = Field(
        default=(3, 6, 12, 24),
        min_length=1,
        description="number of attention heads in each stage",
        examples=[(4, 4)],
    )
    window: Side = Field(
        default=7, description="side of a window in tokens, cut to the map where that is smaller"
    )
    patch: Side | tuple[Side, Side] | None = Field(
        default=None,
        description="pixels of a patch: a side, or rows,columns; default 2 for images up to "
        "32 px, 4 above (arXiv 2103.14030)",
    )

    def patch_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a patch in pixels.

        Raises:
            ConfigError: the total stride does not divide the image.
        """
        patch = self.patch or first_patch(image_size)
        size = (patch, patch) if isinstance(patch, int) else patch
        merged_patch(image_size, size, self.depths)
        return size

    def build(self, inputs: Inputs) -> EncoderModule:
        """The torch module, freshly initialised as timm's."""
        if len(self.depths) != len(self.heads):
            raise ConfigError(
                f"encoder.heads: {self.heads} must name one number for each stage of "
                f"encoder.depths={self.depths}"
            )
        for stage, heads in enumerate(self.heads):
            if self.width * 2**stage % heads:
                raise ConfigError(
                    f"encoder.width: {self.width} times {2**stage} is no multiple of the {heads} "
                    f"heads of stage {stage + 1} in encoder.heads={self.heads}"
                )
        return SwinTransformer(self, inputs, self.patch_size(inputs.image_size))


class SwinNano(Swin):
    """A Swin transformer of width 32 with two stages of 2 blocks: minutes on a laptop."""

    name: ClassVar[str] = "swin-nano"
    width: Width = Field(
        default=32,
        description="width of a token in the first stage, twice that in each that follows",
    )
    depths: Depths = Field(
        default=(2, 2),
        min_length=1,
        description="number of blocks in each stage",
        examples=[(1, 2)],
    )
    heads: Widths = Field(
        default=(2, 4),
        min_length=1,
        description="number of attention heads in each stage",
        examples=[(4, 4)],
    )
    window: Side = Field(
        default=4, description="side of a window in tokens, cut to the map where that is smaller"
    )


class SwinTiny(Swin):
    """Swin-T: width 96 with four stages of 2, 2, 6 and 2 blocks (arXiv 2103.14030, section 3.3)."""

    name: ClassVar[str] = "swin-tiny"


class SwinTransformer(nn.Module):
    """A Swin transformer; see `maebench.encoders.encoder.EncoderModule`.

    `depth` counts the blocks of all stages. Tokens of a layer lie on the grid of its stage and are
    as wide as its stage; a merging of tokens belongs to the block that follows it.
    """

    prefix = 0

    def __init__(self, options: Swin, inputs: Inputs, patch: tuple[int, int]) -> None:
        from timm.models.swin_transformer import SwinTransformer as Whole

        super().__init__()
        whole = Whole(
            img_size=inputs.image_size,
            patch_size=patch,
            in_chans=inputs.channels,
            num_classes=0,
            embed_dim=options.width,
            depths=options.depths,
            num_heads=options.heads,
            window_size=options.window,
            drop_path_rate=0.0,  # `set_drop_path` sets it
        )
        merged = 2 ** (len(options.depths) - 1)
        self.patch = patch
        self.inputs = inputs
        (H, W), (p, q) = inputs.image_size, patch
        self.grid = (H // p, W // q)
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
        self.inputs.check(tuple(images.shape[1:]), "the encoder")
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
        drop_paths(blocks, rate, self.training)


def tokens_of(x_BhwD: Tensor, layers: dict[int, Tokens] | None = None) -> Tokens:
    """A map as patch tokens in raster order, without any prefix."""
    h, w = x_BhwD.shape[1:3]
    x_BND = x_BhwD.flatten(1, 2)
    return Tokens(x_BND[:, :0], x_BND, (h, w), None, layers or {})
