"""The grid of patches that positions belong to is read off them, or is not known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maebench.encoders.blocks import sincos_positions
from maebench.models.grid import explained, grids, learned_grid, likeness, sincos_grid, square

GRIDS = [(4, 4), (2, 8), (8, 2), (6, 6), (4, 9), (8, 8), (4, 16), (16, 4), (14, 14), (7, 28)]


def smooth(grid, seed=0, noise=0.1, scale=0.3, width=192):
    """Positions as training makes them: near ones alike, in rows as in columns."""
    generator = torch.Generator().manual_seed(seed)
    side = max(grid)
    at = [torch.arange(n).double() / side / scale for n in grid]
    near = [torch.exp(-((a[:, None] - a[None]) ** 2) / 2) for a in at]
    alike_LL = torch.kron(*near) + 1e-6 * torch.eye(grid[0] * grid[1])
    drawn_LD = torch.randn(len(alike_LL), width, generator=generator).double()
    noise_LD = torch.randn(len(alike_LL), width, generator=generator).double()
    return torch.linalg.cholesky(alike_LL) @ drawn_LD + noise * noise_LD


@pytest.mark.parametrize("grid", [*GRIDS, (1, 6), (5, 1), (3, 3), (1, 1)])
def test_sin_cos_positions_say_their_grid_exactly(grid):
    assert sincos_grid(sincos_positions(grid, 24)) == grid
    assert sincos_grid(sincos_positions(grid, 24) + 0.01) is None


@pytest.mark.parametrize("grid", [(4, 4), (6, 6), (4, 9), (8, 8), (4, 16), (14, 14), (7, 28)])
def test_learned_positions_show_their_grid(grid):
    assert learned_grid([smooth(grid)]) == grid


@given(st.sampled_from(GRIDS), st.integers(0, 10_000), st.floats(0, 2), st.floats(0.1, 0.6))
def test_learned_positions_never_show_another_grid(grid, seed, noise, scale):
    assert learned_grid([smooth(grid, seed, noise, scale)]) in (None, grid)


@given(st.sampled_from([16, 36, 64]), st.integers(0, 10_000))
def test_positions_as_they_were_drawn_show_no_grid(length, seed):
    generator = torch.Generator().manual_seed(seed)
    assert learned_grid([torch.randn(length, 64, generator=generator)]) is None
    assert learned_grid([torch.zeros(length, 64)]) is None


def test_with_or_without_a_class_token_is_read_off_as_well():
    whole = torch.cat([torch.randn(1, 192).double(), smooth((5, 20))])
    assert learned_grid([whole[1:], whole]) == (5, 20)
    bare = smooth((5, 13))  # without its first position an 8 x 8 grid would have as many
    assert learned_grid([bare[1:], bare]) == (5, 13)


def test_few_positions_show_nothing():
    assert learned_grid([smooth((3, 3))]) is None
    assert learned_grid([]) is None


def test_noise_explains_nothing_on_average():
    generator = torch.Generator().manual_seed(0)
    shares = [
        explained(likeness(torch.randn(36, 64, generator=generator)), grid)
        for _ in range(30)
        for grid in grids(36)
    ]
    assert abs(sum(shares) / len(shares)) < 0.01


def test_square_grids_and_all_grids_of_a_length():
    assert (square(16), square(1), square(12), square(0)) == ((4, 4), (1, 1), None, None)
    assert grids(12) == [(1, 12), (2, 6), (3, 4), (4, 3), (6, 2), (12, 1)]
