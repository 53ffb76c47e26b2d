"""Hiera: attention inside mask units, pooled between stages; timm's blocks.

Shape suffixes: B images, K seen units, N tokens, D width of a stage, u v rows and columns of a unit
in tokens. Parameters have the names of timm.
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
from maebench.encoders.sizes import Depths, Heads, Side, Width
from maebench.encoders.stages import first_patch, merged_patch
from maebench.errors import ConfigError
from maebench.masking.mask import Mask

WIDTH = "width of a token in the first stage, twice that in each that follows"
DEPTHS, HEADS = "number of blocks in each stage", "attention heads of the first stage"


class Hiera(Encoder):
    """A hierarchical transformer that drops whole mask units, each of which ends as one token.

    The last two stages attend over all units, of two stages the last, and those before inside a
    unit; what each gives is brought to the last grid and added, as in its masked autoencoder. A
    unit is as large as the stages pool; the paper's keeps 2x2 tokens of a unit. Source: Ryali et
    al. 2023, arXiv 2306.00989.
    """

    example: ClassVar[dict[str, Any]] = {"width": 8, "depths": (1, 2), "heads": 1}

    width: Width = Field(default=96, description=WIDTH)
    depths: Depths = Field(
        default=(1, 2, 7, 2), min_length=1, description=DEPTHS, examples=[(2, 3)]
    )
    heads: Heads = Field(default=1, description=HEADS)
    patch: Side | None = Field(
        default=None,
        description="pixels of a side of a token of the first stage; default 2 for images up to "
        "32 px, 4 above",
    )

    def patch_size(self, image_size: tuple[int, int]) -> int:
        """The side of a token of the first stage in pixels.

        Raises:
            ConfigError: the mask units do not divide the image.
        """
        patch = self.patch or first_patch(image_size)
        merged_patch(image_size, (patch, patch), self.depths, masked=True)
        return patch

    def build(self, inputs: Inputs) -> EncoderModule:
        """The torch module, freshly initialised as timm's.

        Raises:
            ConfigError: sizes that do not fit, or stages in which units never meet.
        """
        if self.width % self.heads:
            raise ConfigError(
                f"encoder.width: {self.width} is no multiple of encoder.heads={self.heads}"
            )
        return HieraModule(self, inputs, self.patch_size(inputs.image_size))


class HieraNano(Hiera):
    """A Hiera of width 32 with two stages of 2 blocks: minutes on a laptop."""

    name: ClassVar[str] = "hiera-nano"
    width: Width = Field(default=32, description=WIDTH)
    depths: Depths = Field(default=(2, 2), min_length=1, description=DEPTHS, examples=[(2, 3)])
    heads: Heads = Field(default=2, description=HEADS)


class HieraTiny(Hiera):
    """Hiera-T: width 96, stages of 1, 2, 7 and 2 blocks (arXiv 2306.00989, table 2)."""

    name: ClassVar[str] = "hiera-tiny"


class HieraModule(nn.Module):
    """A Hiera; see `maebench.encoders.encoder.EncoderModule`.

    Tokens of a layer lie on the grid of its stage and are as wide as its stage.
    """

    prefix = 0

    def __init__(self, options: Hiera, inputs: Inputs, patch: int) -> None:
        from timm.models.hiera import Hiera as Whole

        super().__init__()
        pools = len(options.depths) - 1
        unit = 2**pools
        # timm's (True, True, False, False), with as many stages over all units at the end
        inside = tuple(stage < max(1, pools - 1) and pools > 0 for stage in range(pools + 1))
        # timm's for patches of 4: a kernel of 7; in proportion for smaller ones
        kernel = 7 if patch == 4 else 2 * patch - 1
        whole = Whole(
            img_size=inputs.image_size,
            in_chans=inputs.channels,
            embed_dim=options.width,
            num_heads=options.heads,
            num_classes=0,
            stages=options.depths,
            q_pool=pools,
            mask_unit_size=(unit, unit),
            mask_unit_attn=inside,
            patch_kernel=(kernel, kernel),
            patch_stride=(patch, patch),
            patch_padding=(kernel // 2, kernel // 2),
        )
        self.inputs = inputs
        self.patch = (patch * unit, patch * unit)
        (H, W) = inputs.image_size
        self.grid = self.out_grid = (H // self.patch[0], W // self.patch[1])
        self.width, self.depth = options.width * unit, sum(options.depths)
        self.patch_embed, self.pos_embed = whole.patch_embed, whole.pos_embed
        self.unroll, self.reroll = whole.unroll, whole.reroll
        self.blocks: Any = whole.blocks
        if all(block.attn.use_mask_unit_attn for block in self.blocks):
            raise ConfigError(
                f"encoder.depths: with {options.depths} no block attends over all units, as the "
                "first of a stage attends like the stage before: give the last stage 2 or more"
            )
        self.ends = tuple(whole.stage_ends)
        sides = [unit // 2**stage for stage in range(pools)]
        self.fusion = nn.ModuleList(
            nn.Conv2d(options.width * 2**stage, self.width, side, side)
            for stage, side in enumerate(sides)
        )
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self.mask_token: nn.Parameter | None
        self.register_parameter("mask_token", None)  # until keep_positions()

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Encodes images (B, C, H, W) and sees `mask.seen` units, or all without a mask."""
        self.inputs.check(tuple(images.shape[1:]), "the encoder")
        x_BND = self._embed(images, mask)
        places = None if mask is None or self.mask_token is not None else mask.seen
        if places is not None:  # units are what tokens of the unrolled order are grouped by last
            B, _, D = x_BND.shape
            x_BGLD = x_BND.view(B, -1, self.grid[0] * self.grid[1], D)
            index = places[:, None, :, None].expand(-1, x_BGLD.shape[1], -1, D)
            x_BND = x_BGLD.gather(2, index).flatten(1, 2)
        kept: dict[int, Tokens] = {}
        stages: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x_BND = block(x_BND)
            if number in self.ends[:-1] or number + 1 in layers:
                x_BKuvD = self._units(x_BND, number)
                if number in self.ends[:-1]:
                    stages.append(x_BKuvD)
                if number + 1 in layers:
                    kept[number + 1] = self._tokens(x_BKuvD, places)
        fused_BND = x_BND
        for conv, x_BKuvD in zip(self.fusion, stages, strict=True):
            B, K = x_BKuvD.shape[:2]
            fused_BND = fused_BND + conv(x_BKuvD.flatten(0, 1).permute(0, 3, 1, 2)).view(B, K, -1)
        end_BND = self.norm(fused_BND)
        return Tokens(end_BND[:, :0], end_BND, self.grid, places, kept)

    def _embed(self, images: Tensor, mask: Mask | None) -> Tensor:
        """Tokens of the first stage with their positions, units apart, (B, N, D)."""
        if mask is None:
            return self.unroll(self.patch_embed(images) + self.pos_embed)
        cells_BL = ~mask.hidden
        x_BND = self.patch_embed(images, cells_BL.view(-1, 1, *mask.grid))
        if self.mask_token is not None:
            h, w = (side // p for side, p in zip(self.inputs.image_size, self.first, strict=True))
            seen_BN1 = (
                nn.functional.interpolate(
                    cells_BL.float().view(-1, 1, *mask.grid), (h, w), mode="nearest"
                )
                .flatten(2)
                .transpose(1, 2)
            )
            x_BND = torch.where(seen_BN1 > 0, x_BND, self.mask_token.to(x_BND.dtype))
        return self.unroll(x_BND + self.pos_embed)

    @property
    def first(self) -> tuple[int, int]:
        """Pixels of a token of the first stage."""
        p, q = self.patch_embed.proj.stride
        return p, q

    def _units(self, x_BND: Tensor, number: int) -> Tensor:
        """The tokens of a block by units, each in raster order, (B, K, u, v, D)."""
        found: Tensor = self.reroll(x_BND, number, mask=x_BND)  # any mask: units stay apart
        return found

    def _tokens(self, x_BKuvD: Tensor, places: Tensor | None) -> Tokens:
        """Units as tokens in raster order of the whole image."""
        B, _, u, v, D = x_BKuvD.shape
        (h, w), device = self.grid, x_BKuvD.device
        seen_BK = torch.arange(h * w, device=device).expand(B, -1) if places is None else places
        rows = (seen_BK // w * u)[:, :, None, None] + torch.arange(u, device=device)[:, None]
        columns = (seen_BK % w * v)[:, :, None, None] + torch.arange(v, device=device)
        at_BN, order_BN = (rows * (w * v) + columns).flatten(1).sort(1)
        x_BND = x_BKuvD.flatten(1, 3).gather(1, order_BN[:, :, None].expand(-1, -1, D))
        return Tokens(x_BND[:, :0], x_BND, (h * u, w * v), None if places is None else at_BN)

    def keep_positions(self) -> None:
        """From now on a learned token takes the place of hidden ones."""
        device, width = self.pos_embed.device, self.pos_embed.shape[2]
        token = nn.init.trunc_normal_(torch.empty(width, device=device), std=0.02)
        self.mask_token = nn.Parameter(token)

    def layer_ids(self) -> dict[str, int]:
        """The block of each parameter, 0 for the embedding, depth + 1 for what fuses the stages."""
        found = {}
        for name, _ in self.named_parameters():
            first, *rest = name.split(".")
            last = self.depth + 1 if first in ("norm", "fusion") else 0
            found[name] = int(rest[0]) + 1 if first == "blocks" else last
        return found

    def no_weight_decay(self) -> set[str]:
        """The positions, and the token of hidden ones."""
        return {"pos_embed"} | ({"mask_token"} if self.mask_token is not None else set())

    def set_drop_path(self, rate: float) -> None:
        """Drops residual branches with a rate that grows linearly to `rate` in the last block."""
        drop_paths(self.blocks, rate, self.training)
