"""Grids: strategies that choose single patches, by place or by chance."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from maebench.errors import ConfigError
from maebench.masking.mask import Masking, View


class Random(Masking):
    """Hides patches drawn uniformly without replacement, as the masked autoencoder does.

    Source: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", section 3,
    arXiv 2111.06377.
    """

    name: ClassVar[str] = "random"
    ahead: ClassVar[bool] = True

    def scores(self, view: View) -> Tensor:
        """One uniform number per patch, float32 (B, L)."""
        return view.draws.uniform(view.length)


class Grid(Masking):
    """Sees a regular grid of patches and hides those between.

    Each k x k cell has k * k places; whole places are hidden in an order drawn per image, so with
    k = 2 and ratio .75 one patch of four is seen at a random phase. Other ratios hide a random
    part of one more place. Source: He et al. 2021, figure 6 "grid-wise sampling",
    arXiv 2111.06377.
    """

    name: ClassVar[str] = "grid"
    ahead: ClassVar[bool] = True
    k: int = Field(
        default=2, ge=2, le=8, description="side of a cell in patches; natural ratios: n / k^2"
    )

    def scores(self, view: View) -> Tensor:
        """The rank of a patch's place in its cell, ties broken at random, float32 (B, L)."""
        h, w = view.grid
        rows = torch.arange(h, device=view.device)[:, None] % self.k
        columns = torch.arange(w, device=view.device)[None, :] % self.k
        place_L = (rows * self.k + columns).flatten()
        rank_BP = view.draws.uniform(self.k * self.k).argsort(1).argsort(1)
        return rank_BP[:, place_L] + view.draws.uniform(view.length)


class Uniform(Masking):
    """Sees one random patch of each k x k cell, as UM-MAE does; other ratios see more, or fewer.

    With k = 2 and ratio .75 each cell sees exactly one; the places are dealt out in an order that
    is drawn per image, so that each of the four is taken by a quarter of the cells. At other ratios
    cells differ by one patch at most.
    The original's second masking, of seen patches by tokens, is left out.
    Source: Li et al. 2022, arXiv 2205.10063.
    """

    name: ClassVar[str] = "uniform"
    plane: ClassVar[bool] = True
    version: ClassVar[int] = 2
    ahead: ClassVar[bool] = True
    k: int = Field(default=2, ge=2, le=8, description="side of a cell in patches")

    def scores(self, view: View) -> Tensor:
        """A patch's rank in its cell over the cell's size, ties broken at random, (B, L)."""
        (h, w), k = view.grid, self.k
        rows, columns = -(-h // k), -(-w // k)  # a cell at the edge may be cut
        place_BCP = view.draws.uniform(rows * columns, k * k)
        # in an order of its own per image: what does not divide evenly has to go anywhere
        order_BP = view.draws.uniform(k * k).argsort(1)
        dealt_BC = order_BP.gather(1, view.draws.uniform(rows * columns).argsort(1) % (k * k))
        first = torch.arange(k * k, device=view.device) == dealt_BC[:, :, None]
        y, x = torch.arange(h, device=view.device), torch.arange(w, device=view.device)
        there = torch.zeros(rows, columns, k, k, dtype=torch.bool, device=view.device)
        there[y[:, None] // k, x // k, y[:, None] % k, x % k] = True
        # the dealt place comes first, places cut off by the edge last
        key = torch.where(first, -1.0, place_BCP) + 2.0 * ~there.flatten(2).flatten(0, 1)
        rank_BCP = key.argsort(2).argsort(2).float()
        # over the size of its cell, so that one cut by the edge hides the same share
        size_C1 = there.sum((2, 3)).view(-1, 1)
        score_BCP = (rank_BCP + view.draws.uniform(rows * columns, k * k)) / size_C1
        score_BHW = (
            score_BCP.unflatten(2, (k, k))
            .unflatten(1, (rows, columns))
            .transpose(2, 3)
            .reshape(view.batch, rows * k, columns * k)[:, :h, :w]
        )
        return score_BHW.flatten(1)


class Units(Masking):
    """Hides squares of several patches drawn at random; the ratio counts squares.

    SimMIM and Hiera hide squares of 32 pixels (size=32, of=pixels), Pixio of 4x4 patches (size=4).
    Sources: Xie et al. 2021, arXiv 2111.09886; Ryali et al. 2023, arXiv 2306.00989;
    Yang et al. 2025, arXiv 2512.15715.
    """

    name: ClassVar[str] = "units"
    plane: ClassVar[bool] = True
    ahead: ClassVar[bool] = True
    size: PositiveInt = Field(default=2, description="side of a square")
    of: Literal["patches", "pixels"] = Field(
        default="patches", description="what the side is counted in"
    )

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


class Centred(Masking):
    """Hides the patches nearest to the centre: the border has to predict the middle.

    The middle is never seen while pretraining, its positions stay untrained: low scores are a
    finding, not a bug. Source: Pathak et al. 2016, "Context Encoders", central region,
    arXiv 1604.07379.
    """

    name: ClassVar[str] = "centred"
    plane: ClassVar[bool] = True
    covers: ClassVar[bool] = False
    ahead: ClassVar[bool] = True
    shape: Literal["square", "disc"] = Field(
        default="square", description="outline of what is cut out"
    )
    jitter: float = Field(
        default=0.0, ge=0, description="standard deviation of its centre, in patches"
    )

    def scores(self, view: View) -> Tensor:
        """Minus the distance to the centre, ties broken at random, float32 (B, L)."""
        return -self.distance(view) + self.tie(view)

    def tie(self, view: View) -> Tensor:
        """What orders equal distances at random, and only those, float32 (B, L)."""
        # unmoved distances are whole numbers; moved ones are hardly ever equal
        return view.draws.uniform(view.length) * (1e-3 if self.jitter else 1.0)

    def distance(self, view: View) -> Tensor:
        """The distance to the moved centre, float32 (B, L), whole numbers where it is unmoved."""
        h, w = view.grid
        moved_B2 = view.draws.normal(2) * self.jitter
        y = torch.arange(h, device=view.device)[None, :, None] - (h - 1) / 2
        x = torch.arange(w, device=view.device)[None, None, :] - (w - 1) / 2
        dy, dx = y - moved_B2[:, :1, None], x - moved_B2[:, 1:, None]
        if self.shape == "square":
            return (2 * torch.maximum(dy.abs(), dx.abs())).flatten(1)
        return (4 * (dy.square() + dx.square())).flatten(1)


class Border(Centred):
    """Hides the patches farthest from the centre: the middle has to predict the border.

    The border is never seen while pretraining, as the middle never is under `centred`; the
    well-behaved relative is `inverse-block`. Also known as outpainting: Teterwak et al. 2019,
    "Boundless", arXiv 1908.07007.
    """

    name: ClassVar[str] = "border"
    plane: ClassVar[bool] = True
    ahead: ClassVar[bool] = True

    def scores(self, view: View) -> Tensor:
        """The distance to the centre, ties broken at random, float32 (B, L)."""
        return self.distance(view) + self.tie(view)
