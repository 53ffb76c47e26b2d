"""The vision transformer in seven sizes: options and torch module.

Shape suffixes: B images, C channels, H W pixels, h w grid, p q pixels of a patch, L = h * w
patches, K seen patches, N tokens, D width, G heads. Parameters have the names of timm and of the
official MAE code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from maebench.encoders.attention import attention_of_class, choose_attention
from maebench.encoders.blocks import (
    Block,
    drop_paths,
    initialise,
    norm_layer,
    sincos_positions,
)
from maebench.encoders.encoder import EncoderModule, Tokens
from maebench.encoders.inputs import Inputs
from maebench.encoders.sizes import (
    DEPTH,
    HEADS,
    MOST_WIDTH,
    WIDTH,
    Depth,
    Heads,
    Micro,
    Nano,
    Side,
    Small,
    Tiny,
    Transformer,
    Width,
)
from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import raw_patches, take


def default_patch(image_size: tuple[int, int]) -> int:
    """The side of a patch: 2 for images up to 8 px, 4 up to 32, 8 up to 96, 16 above."""
    side = max(image_size)
    return 2 if side <= 8 else 4 if side <= 32 else 8 if side <= 96 else 16


class ViT(Transformer):
    """A vision transformer with pre-norm blocks, sin-cos positions and a class token.

    Source: Dosovitskiy et al. 2020, arXiv 2010.11929, in the form of He et al. 2021,
    arXiv 2111.06377, appendix A.
    """

    patch: Side | tuple[Side, Side] | None = Field(
        default=None,
        description="pixels of a patch: a side, or rows,columns; default by image size "
        "(2 up to 8 px, 4 to 32, 8 to 96, 16 above)",
    )
    registers: int = Field(
        default=0,
        ge=0,
        le=MOST_WIDTH,
        description="number of register tokens beside the class token",
    )

    def patch_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a patch in pixels.

        Raises:
            ConfigError: it does not divide the image.
        """
        patch = self.patch or default_patch(image_size)
        ph, pw = (patch, patch) if isinstance(patch, int) else patch
        if image_size[0] % ph or image_size[1] % pw:
            h, w = image_size
            fits = [s for s in range(1, min(h, w) + 1) if h % s == 0 and w % s == 0]
            raise ConfigError(
                f"encoder.patch: {ph}x{pw} does not divide images of {h}x{w}; "
                f"square patches that do: {', '.join(map(str, fits))}"
            )
        return ph, pw

    def build(self, inputs: Inputs) -> EncoderModule:
        """The torch module, freshly initialised as in the paper."""
        self.check_width()
        return VisionTransformer(self, inputs, self.patch_size(inputs.image_size))


class ViTNano(Nano, ViT):
    """A vision transformer of width 64 with 3 blocks: minutes on a laptop."""

    name: ClassVar[str] = "vit-nano"


class ViTMicro(Micro, ViT):
    """A vision transformer of width 128 with 4 blocks."""

    name: ClassVar[str] = "vit-micro"


class ViTTiny(Tiny, ViT):
    """ViT-Ti of the DeiT paper: width 192 with 12 blocks (arXiv 2012.12877, table 1)."""

    name: ClassVar[str] = "vit-tiny"


class ViTSmall(Small, ViT):
    """ViT-S of the DeiT paper: width 384 with 12 blocks (arXiv 2012.12877, table 1)."""

    name: ClassVar[str] = "vit-small"


class ViTBase(ViT):
    """ViT-B: width 768 with 12 blocks (arXiv 2010.11929, table 1)."""

    name: ClassVar[str] = "vit-base"


class ViTLarge(ViT):
    """ViT-L: width 1024 with 24 blocks (arXiv 2010.11929, table 1)."""

    name: ClassVar[str] = "vit-large"
    width: Width = Field(default=1024, description=WIDTH)
    depth: Depth = Field(default=24, description=DEPTH)
    heads: Heads = Field(default=16, description=HEADS)


class ViTHuge(ViT):
    """ViT-H: width 1280 with 32 blocks (arXiv 2010.11929, table 1)."""

    name: ClassVar[str] = "vit-huge"
    width: Width = Field(default=1280, description=WIDTH)
    depth: Depth = Field(default=32, description=DEPTH)
    heads: Heads = Field(default=16, description=HEADS)


class VisionTransformer(nn.Module):
    """A vision transformer; see `maebench.encoders.encoder.EncoderModule`."""

    def __init__(self, options: ViT, inputs: Inputs, patch: tuple[int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.inputs = inputs
        (H, W), (p, q) = inputs.image_size, patch
        self.grid = self.out_grid = (H // p, W // q)
        self.width = D = options.width
        self.depth = options.depth
        self.prefix = 1 + options.registers

        self.patch_embed: Any = nn.Module()
        self.patch_embed.proj = nn.Conv2d(inputs.channels, D, patch, patch)
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
            Block(D, options.heads, options.mlp_ratio) for _ in range(self.depth)
        )
        self.norm = norm_layer(D)
        initialise(self)

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Encodes images (B, C, H, W) and sees `mask.seen` patches, or all without a mask."""
        self.inputs.check(tuple(images.shape[1:]), "the encoder")
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
        return attention_of_class(last.attn, last.norm1(x_BND))[:, self.prefix :]

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
        drop_paths(self.blocks, rate, self.training)

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
