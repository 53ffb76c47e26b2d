"""Which grid of patches an embedding of positions belongs to: rows and columns.

Shapes: L patches, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from maebench.encoders.blocks import sincos_positions

Grid = tuple[int, int]
# Learned positions show their grid where distances in rows and columns explain at least this share
# of how alike two positions are, by more than LEAD / L better than any other grid's, and where
# neighbours above each other are about as alike as those beside each other. Over 1,400 random
# fields of 16 to 196 patches, smooth to rough and with noise, none that these let through had
# another grid, and 315 drawings of white noise showed none.
SHARE = 0.5
LEAD = 1.2
EVEN = 0.8  # the less alike neighbours over the more alike ones
FEWEST = 16  # of fewer patches any grid explains much by chance
# The sides, in pixels, of nearly every vision transformer that was ever published: ViT, DeiT, MAE.
USUAL_SIDES = (224, 384)


def sincos_grid(positions_LD: Tensor) -> Grid | None:
    """The grid whose sin-cos positions these are; None where they are none."""
    length, width = positions_LD.shape
    for grid in grids(length) if width % 4 == 0 else ():
        if torch.allclose(positions_LD.float(), sincos_positions(grid, width), atol=1e-4):
            return grid
    return None


def square(length: int) -> Grid | None:
    """The square grid of so many patches, where there is one."""
    side = math.isqrt(length)
    return (side, side) if side and side * side == length else None


def grids(length: int) -> list[Grid]:
    """Every grid of so many patches."""
    return [(n, length // n) for n in range(1, length + 1) if length % n == 0]


def learned_grid(candidates: Iterable[Tensor]) -> Grid | None:
    """The grid that learned positions show; None where they show none.

    Args:
        candidates: positions (L, D) with and without those of prefix tokens, where that is open.
    """
    found: list[tuple[float, Grid, bool]] = []
    shortest = math.inf
    for positions_LD in candidates:
        length = len(positions_LD)
        if length < FEWEST:
            continue
        shortest = min(shortest, length)
        alike_LL = likeness(positions_LD)
        # one column and one row explain the same: the row stands for both
        for grid in (g for g in grids(length) if g[1] > 1):
            found.append((explained(alike_LL, grid), grid, is_even(alike_LL, grid)))
    found.sort(reverse=True)
    if not found or found[0][0] < SHARE:
        return None
    lead = found[0][0] - found[1][0] if len(found) > 1 else 1.0
    _, grid, even = found[0]
    return grid if even and lead > LEAD / shortest else None


def likeness(positions_LD: Tensor) -> Tensor:
    """The correlation of each two positions, (L, L) float64."""
    centred_LD = positions_LD.double() - positions_LD.double().mean(0)
    unit_LD = centred_LD / centred_LD.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return unit_LD @ unit_LD.T


def explained(alike_LL: Tensor, grid: Grid) -> float:
    """The share of the likeness that distances in rows and columns of a grid explain, adjusted.

    Pairs of equal distances |rows| and |columns| form a group. Every grid of L patches has at most
    L - 1 groups, so that none has more freedom than another; adjusted for that freedom, noise
    explains 0 on average.
    """
    length = len(alike_LL)
    one, other = torch.triu_indices(length, length, 1)
    rows = (one // grid[1] - other // grid[1]).abs()
    columns = (one % grid[1] - other % grid[1]).abs()
    group, value = rows * grid[1] + columns, alike_LL[one, other]
    count = torch.bincount(group, minlength=length).double()
    mean = torch.bincount(group, value, length) / count.clamp_min(1)
    num_pairs, num_groups = len(value), int((count > 0).sum())
    within = (value - mean[group]).square().sum() / (num_pairs - num_groups)
    total = (value - value.mean()).square().sum() / (num_pairs - 1)
    return float(1 - within / total) if total > 0 else 0.0


def is_even(alike_LL: Tensor, grid: Grid) -> bool:
    """Whether neighbours in a column are about as alike as neighbours in a row.

    A long row that was cut in two has neighbours in a column that lie half a row apart.
    """
    index_hw = torch.arange(len(alike_LL)).view(grid)
    beside = alike_LL[index_hw[:, :-1], index_hw[:, 1:]]
    above = alike_LL[index_hw[:-1], index_hw[1:]]
    means = [float(pairs.mean()) for pairs in (beside, above) if pairs.numel()]
    return min(means) >= EVEN * max(means)
