"""What transformers of patches and of words have in common: their sizes."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from maebench.encoders.encoder import Encoder
from maebench.errors import ConfigError

WIDTH = "width of a token, a multiple of 4 and of heads"
DEPTH, HEADS = "number of transformer blocks", "number of attention heads"


class Transformer(Encoder):
    """A plain transformer, of the size of ViT-B and of BERT base where nothing else is said."""

    example: ClassVar[dict[str, Any]] = {"width": 16, "depth": 2, "heads": 2}

    width: PositiveInt = Field(default=768, description=WIDTH)
    depth: PositiveInt = Field(default=12, description=DEPTH)
    heads: PositiveInt = Field(default=12, description=HEADS)
    mlp_ratio: float = Field(
        default=4.0, gt=0, description="hidden width of the MLP over the width"
    )

    def check_width(self) -> None:
        """Refuses a width that heads and positions do not divide.

        Raises:
            ConfigError: names both.
        """
        if self.width % self.heads or self.width % 4:
            raise ConfigError(
                f"encoder.width: {self.width} must be a multiple of 4 (sin-cos positions) "
                f"and of encoder.heads={self.heads}"
            )


class Nano(Transformer):
    """Width 64 with 3 blocks: minutes on a laptop."""

    width: PositiveInt = Field(default=64, description=WIDTH)
    depth: PositiveInt = Field(default=3, description=DEPTH)
    heads: PositiveInt = Field(default=4, description=HEADS)


class Micro(Transformer):
    """Width 128 with 4 blocks."""

    width: PositiveInt = Field(default=128, description=WIDTH)
    depth: PositiveInt = Field(default=4, description=DEPTH)
    heads: PositiveInt = Field(default=4, description=HEADS)


class Tiny(Transformer):
    """Width 192 with 12 blocks (DeiT-Ti: arXiv 2012.12877, table 1)."""

    width: PositiveInt = Field(default=192, description=WIDTH)
    heads: PositiveInt = Field(default=3, description=HEADS)


class Small(Transformer):
    """Width 384 with 12 blocks (DeiT-S: arXiv 2012.12877, table 1)."""

    width: PositiveInt = Field(default=384, description=WIDTH)
    heads: PositiveInt = Field(default=6, description=HEADS)
