"""Units: squares of several patches are hidden or seen together."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from maebench.errors import ConfigError
from maebench.masking.mask import Masking, View

if TYPE_CHECKING:
    from torch import Tensor


class Units(Masking):
    """Hides squares of several patches drawn at random; the ratio counts squares.

    SimMIM and Hiera hide squares of 32 pixels (size=32, of=pixels), Pixio of 4x4 patches (size=4).
    Sources: Xie et al. 2021, arXiv 2111.09886; Ryali et al. 2023, arXiv 2306.00989;
    Yang et al. 2025, arXiv 2512.15715.
    """

    name: ClassVar[str] = "units"
    size: PositiveInt = Field(2, description="side of a square")
    of: Literal["patches", "pixels"] = Field("patches", description="what the side is counted in")

    def unit(self, patch: tuple[int, int]) -> tuple[int, int]:
        """How many patches lie in a square.

        Raises:
            ConfigError: a side in pixels is no multiple of the patch.
        """
        if self.of == "patches":
            return (self.size, self.size)
        if self.size % patch[0] or self.size % patch[1]:
            raise ConfigError(
                f"masking.size: {self.size} pixels are no multiple of patches of "
                f"{patch[0]}x{patch[1]}"
            )
        return (self.size // patch[0], self.size // patch[1])

    def scores(self, view: View) -> Tensor:
        """One uniform number per square, float32 (B, L)."""
        return view.draws.uniform(view.length)
