"""The Swin transformer's options, in two sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveInt

from maebench.encoders.encoder import Encoder
from maebench.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


class Swin(Encoder):
    """A Swin transformer: attention inside shifted windows, tokens merged 2x2 between stages.

    It keeps all positions: hidden patches are a learned token before anything mixes patches.
    Source: Liu et al. 2021, arXiv 2103.14030; the token: Xie et al. 2021, arXiv 2111.09886.
    """

    example: ClassVar[dict[str, Any]] = {"width": 16, "depths": (2, 2), "heads": (2, 2)}

    width: PositiveInt = Field(
        96, description="numbers per token in the first stage, twice as many in each that follows"
    )
    depths: tuple[PositiveInt, ...] = Field(
        (2, 2, 6, 2),
        min_length=1,
        description="number of blocks in each stage",
        examples=[(1, 2)],
    )
    heads: tuple[PositiveInt, ...] = Field(
        (3, 6, 12, 24),
        min_length=1,
        description="number of attention heads in each stage",
        examples=[(4, 4)],
    )
    window: PositiveInt = Field(
        7, description="side of a window in tokens, cut to the map where that is smaller"
    )
    patch: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="pixels of a patch: a side, or rows,columns; default 2 for images up to "
        "32 px, 4 above (arXiv 2103.14030)",
    )

    def patch_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of a patch in pixels.

        Raises:
            ConfigError: the total stride does not divide the image.
        """
        patch = self.patch or (2 if max(image_size) <= 32 else 4)
        size = (patch, patch) if isinstance(patch, int) else patch
        merged = 2 ** (len(self.depths) - 1)
        if any(side % (p * merged) for side, p in zip(image_size, size, strict=True)):
            raise ConfigError(
                f"encoder.patch: patches of {size[0]}x{size[1]} merged by "
                f"{merged}x{merged} over encoder.depths={self.depths} do not divide images of "
                f"{image_size[0]}x{image_size[1]}; {self._what_fits(image_size, size, merged)}"
            )
        return size

    def _what_fits(self, image_size: tuple[int, int], patch: tuple[int, int], merged: int) -> str:
        """Patches that would do with this image, or else the nearest image sizes."""
        sides = range(1, min(image_size) // merged + 1)
        fits = [str(s) for s in sides if not any(side % (s * merged) for side in image_size)]
        if fits:
            return f"square patches that do: {', '.join(fits)}"
        rows, columns = (
            max(1, round(side / (p * merged))) * p * merged
            for side, p in zip(image_size, patch, strict=True)
        )
        return f"give fewer stages, or images of {rows}x{columns}"

    def build(self, image_size: tuple[int, int], channels: int) -> nn.Module:
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
        patch = self.patch_size(image_size)
        from maebench.encoders.swin_module import SwinTransformer

        return SwinTransformer(self, image_size, patch, channels)


class SwinNano(Swin):
    """A Swin transformer of width 32 with two stages of 2 blocks: minutes on a laptop."""

    name: ClassVar[str] = "swin-nano"
    width: PositiveInt = Field(
        32, description="numbers per token in the first stage, twice as many in each that follows"
    )
    depths: tuple[PositiveInt, ...] = Field(
        (2, 2), min_length=1, description="number of blocks in each stage", examples=[(1, 2)]
    )
    heads: tuple[PositiveInt, ...] = Field(
        (2, 4),
        min_length=1,
        description="number of attention heads in each stage",
        examples=[(4, 4)],
    )
    window: PositiveInt = Field(
        4, description="side of a window in tokens, cut to the map where that is smaller"
    )


class SwinTiny(Swin):
    """Swin-T: width 96 with four stages of 2, 2, 6 and 2 blocks (arXiv 2103.14030, section 3.3)."""

    name: ClassVar[str] = "swin-tiny"
