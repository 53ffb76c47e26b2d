"""How large a decoder is: the options that objectives with one share."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field, PositiveInt

from maebench.errors import ConfigError
from maebench.objectives.objective import Objective


class DecoderSize(NamedTuple):
    """Depth, width and heads of a decoder."""

    depth: int
    width: int
    heads: int


def default_decoder(width: int, depth: int) -> DecoderSize:
    """The paper's 8 x 512 x 16 from ViT-B up, and half the encoder's width with 1-2 blocks below.

    Heads are 32 numbers wide as in the paper; a small encoder is not to be outdone by its decoder.
    """
    if width >= 768:
        return DecoderSize(8, 512, 16)
    half = max(4, width // 2 // 4 * 4)
    return DecoderSize(2 if depth > 4 else 1, half, default_heads(half))


def default_heads(width: int) -> int:
    """One head per 32 of width, or as many fewer as divide it."""
    return next(n for n in range(max(1, width // 32), 0, -1) if width % n == 0)


class Decoding(Objective):
    """An objective with a decoder of transformer blocks."""

    decoder_depth: PositiveInt | None = Field(
        None,
        description="decoder blocks; default 8 from width 768 up, else 2 (1 up to depth 4)",
        examples=[2],
    )
    decoder_width: PositiveInt | None = Field(
        None,
        description="decoder width; default 512 from width 768 up, else half the encoder's",
        examples=[16],
    )
    decoder_heads: PositiveInt | None = Field(
        None,
        description="decoder heads; default 16 from width 768 up, else one per 32 of width",
        examples=[2],
    )

    def decoder_size(self, width: int, depth: int) -> DecoderSize:
        """The decoder for an encoder of this width and depth.

        Raises:
            ConfigError: the heads do not divide the width.
        """
        default = default_decoder(width, depth)
        size = DecoderSize(
            self.decoder_depth or default.depth,
            self.decoder_width or default.width,
            self.decoder_heads
            or (default_heads(self.decoder_width) if self.decoder_width else default.heads),
        )
        if size.width % size.heads or size.width % 4:
            raise ConfigError(
                f"objective.decoder_width: {size.width} must be a multiple of 4 (sin-cos "
                f"positions) and of objective.decoder_heads={size.heads}"
            )
        return size
