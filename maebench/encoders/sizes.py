"""What transformers of patches and of words have in common: their sizes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, PositiveInt

from maebench.encoders.encoder import Encoder
from maebench.errors import ConfigError

# Sizes that something is allocated or looped by are bounded, so that a slip of a zero is said at
# once: each bound lies well above the largest model of its kind that was published.
MOST_WIDTH = 2**15  # GPT-3 has 12,288 and PaLM 18,432; ViT-22B 6,144
MOST_DEPTH = 1024  # DeepNet has 1,000 blocks (arXiv 2203.00555); a thousand are built in a second
MOST_PER_SIDE = 2**14  # pixels of a patch or of a kernel: no more than an image has
MOST_MLP = 256.0  # times the width; 4 is usual, 16 the most that was tried on language
Width = Annotated[PositiveInt, Field(le=MOST_WIDTH)]
Depth = Annotated[PositiveInt, Field(le=MOST_DEPTH)]
Heads = Annotated[PositiveInt, Field(le=MOST_WIDTH)]  # one number of the width each
Side = Annotated[PositiveInt, Field(le=MOST_PER_SIDE)]
# Of a code or a latent, and no more than a matrix of the largest width to it can be: sparse codes
# have some four times the numbers of a patch, 3,072 for colours in 16 pixels.
Units = Annotated[PositiveInt, Field(le=2**20)]
# ResNets have 4 stages, and 14 halve the longest side to one pixel.
MOST_STAGES = 14
Widths = Annotated[tuple[Width, ...], Field(max_length=MOST_STAGES)]
Depths = Annotated[tuple[Depth, ...], Field(max_length=MOST_STAGES)]

WIDTH = "width of a token, a multiple of 4 and of heads"
DEPTH, HEADS = "number of transformer blocks", "number of attention heads"


class Transformer(Encoder):
    """A plain transformer, of the size of ViT-B and of BERT base where nothing else is said."""

    example: ClassVar[dict[str, Any]] = {"width": 16, "depth": 2, "heads": 2}

    width: Width = Field(default=768, description=WIDTH)
    depth: Depth = Field(default=12, description=DEPTH)
    heads: Heads = Field(default=12, description=HEADS)
    mlp_ratio: float = Field(
        default=4.0, gt=0, le=MOST_MLP, description="hidden width of the MLP over the width"
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

    width: Width = Field(default=64, description=WIDTH)
    depth: Depth = Field(default=3, description=DEPTH)
    heads: Heads = Field(default=4, description=HEADS)


class Micro(Transformer):
    """Width 128 with 4 blocks."""

    width: Width = Field(default=128, description=WIDTH)
    depth: Depth = Field(default=4, description=DEPTH)
    heads: Heads = Field(default=4, description=HEADS)


class Tiny(Transformer):
    """Width 192 with 12 blocks (DeiT-Ti: arXiv 2012.12877, table 1)."""

    width: Width = Field(default=192, description=WIDTH)
    heads: Heads = Field(default=3, description=HEADS)


class Small(Transformer):
    """Width 384 with 12 blocks (DeiT-S: arXiv 2012.12877, table 1)."""

    width: Width = Field(default=384, description=WIDTH)
    heads: Heads = Field(default=6, description=HEADS)
