"""The vision transformer's options, in seven sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveInt

from maebench.encoders.encoder import Encoder
from maebench.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


def default_patch(image_size: tuple[int, int]) -> int:
    """The side of a patch: 2 for images up to 8 px, 4 up to 32, 8 up to 96, 16 above."""
    side = max(image_size)
    return 2 if side <= 8 else 4 if side <= 32 else 8 if side <= 96 else 16


class ViT(Encoder):
    """A vision transformer with pre-norm blocks, sin-cos positions and a class token.

    Source: Dosovitskiy et al. 2020, arXiv 2010.11929, in the form of He et al. 2021,
    arXiv 2111.06377, appendix A.
    """

    example: ClassVar[dict[str, Any]] = {"width": 16, "depth": 2, "heads": 2}

    width: PositiveInt = Field(768, description="numbers per token, a multiple of 4 and of heads")
    depth: PositiveInt = Field(12, description="number of transformer blocks")
    heads: PositiveInt = Field(12, description="number of attention heads")
    mlp_ratio: float = Field(4.0, gt=0, description="hidden width of the MLP over the width")
    patch: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="pixels of a patch: a side, or rows,columns; default by image size "
        "(2 up to 8 px, 4 to 32, 8 to 96, 16 above)",
    )
    registers: int = Field(0, ge=0, description="number of register tokens beside the class token")

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

    def build(self, image_size: tuple[int, int], channels: int) -> nn.Module:
        """The torch module, freshly initialised as in the paper."""
        if self.width % self.heads or self.width % 4:
            raise ConfigError(
                f"encoder.width: {self.width} must be a multiple of 4 (sin-cos positions) "
                f"and of encoder.heads={self.heads}"
            )
        patch = self.patch_size(image_size)
        from maebench.encoders.vit_module import VisionTransformer

        return VisionTransformer(self, image_size, patch, channels)


class ViTNano(ViT):
    """A vision transformer of width 64 with 3 blocks: minutes on a laptop."""

    name: ClassVar[str] = "vit-nano"
    width: PositiveInt = Field(64, description="numbers per token, a multiple of 4 and of heads")
    depth: PositiveInt = Field(3, description="number of transformer blocks")
    heads: PositiveInt = Field(4, description="number of attention heads")


class ViTMicro(ViT):
    """A vision transformer of width 128 with 4 blocks."""

    name: ClassVar[str] = "vit-micro"
    width: PositiveInt = Field(128, description="numbers per token, a multiple of 4 and of heads")
    depth: PositiveInt = Field(4, description="number of transformer blocks")
    heads: PositiveInt = Field(4, description="number of attention heads")


class ViTTiny(ViT):
    """ViT-Ti of the DeiT paper: width 192 with 12 blocks (arXiv 2012.12877, table 1)."""

    name: ClassVar[str] = "vit-tiny"
    width: PositiveInt = Field(192, description="numbers per token, a multiple of 4 and of heads")
    heads: PositiveInt = Field(3, description="number of attention heads")


class ViTSmall(ViT):
    """ViT-S of the DeiT paper: width 384 with 12 blocks (arXiv 2012.12877, table 1)."""

    name: ClassVar[str] = "vit-small"
    width: PositiveInt = Field(384, description="numbers per token, a multiple of 4 and of heads")
    heads: PositiveInt = Field(6, description="number of attention heads")


class ViTBase(ViT):
    """ViT-B: width 768 with 12 blocks (arXiv 2010.11929, table 1)."""

    name: ClassVar[str] = "vit-base"


class ViTLarge(ViT):
    """ViT-L: width 1024 with 24 blocks (arXiv 2010.11929, table 1)."""

    name: ClassVar[str] = "vit-large"
    width: PositiveInt = Field(1024, description="numbers per token, a multiple of 4 and of heads")
    depth: PositiveInt = Field(24, description="number of transformer blocks")
    heads: PositiveInt = Field(16, description="number of attention heads")


class ViTHuge(ViT):
    """ViT-H: width 1280 with 32 blocks (arXiv 2010.11929, table 1)."""

    name: ClassVar[str] = "vit-huge"
    width: PositiveInt = Field(1280, description="numbers per token, a multiple of 4 and of heads")
    depth: PositiveInt = Field(32, description="number of transformer blocks")
    heads: PositiveInt = Field(16, description="number of attention heads")
