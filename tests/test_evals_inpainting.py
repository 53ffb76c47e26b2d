"""What is guessed without a model: against sparse solvers, by hand, and by what must hold."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
import scipy.ndimage
import scipy.sparse
import torch
from hypothesis import strategies as st

from maebench import MaebenchError, hidden_pixels, patchify
from maebench.masking import hide
from maebench_evals import inpainting
from maebench_evals.hidden import patch_of
from maebench_evals.inpainting import (
    BASELINES,
    harmonic,
    mean_colour,
    nearest_patch,
    patch_means,
    pull_push,
)


def random_mask(count, grid=(8, 8), ratio=0.75, seed=3):
    L = grid[0] * grid[1]
    scores = torch.rand(count, L, generator=torch.Generator().manual_seed(seed))
    return hide(scores, round(L * ratio), grid)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def solved_by_scipy(image, hidden):
    """Laplace's equation on hidden pixels (H, W) of one channel by a sparse direct solver."""
    H, W = image.shape
    number = -np.ones((H, W), int)
    number[hidden] = range(hidden.sum())
    rows, right = scipy.sparse.lil_matrix((hidden.sum(),) * 2), np.zeros(hidden.sum())
    for y, x in zip(*hidden.nonzero(), strict=True):
        me = number[y, x]
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < H and 0 <= u < W:
                rows[me, me] += 1
                if hidden[v, u]:
                    rows[me, number[v, u]] -= 1
                else:
                    right[me] += image[v, u]
    found = image.copy()
    found[hidden] = scipy.sparse.linalg.spsolve(rows.tocsr(), right)
    return found


@pytest.mark.parametrize(
    ("size", "grid", "ratio"),
    [((16, 16), (8, 8), 0.75), ((12, 20), (3, 5), 0.6), ((24, 24), (6, 6), 0.97)],
)
def test_harmonic_inpainting_is_what_a_sparse_solver_gives(size, grid, ratio):
    images, mask = 3 + noise(3, 2, *size).double(), random_mask(3, grid, ratio)
    found, hidden = (
        harmonic(images, mask),
        hidden_pixels(mask, patch_of(mask, images))[:, 0].numpy(),
    )
    for b in range(3):
        for c in range(2):
            expected = solved_by_scipy(images[b, c].numpy(), hidden[b])
            np.testing.assert_allclose(found[b, c], expected, atol=1e-5)


def test_a_ramp_between_seen_columns_is_reproduced():
    """A hidden band over the whole height has no other edge than its two seen sides."""
    images = torch.arange(32.0).expand(2, 1, 16, 32)
    columns = torch.tensor([0.0, 1, 1, 1, 0, 0, 1, 0]).expand(2, 4, 8)
    mask = hide(columns.flatten(1), 16, (4, 8))
    torch.testing.assert_close(harmonic(images, mask), images.contiguous(), atol=1e-4, rtol=0)


def test_a_hole_in_a_plane_is_reproduced():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    images = (2 * x - y).expand(1, 3, 24, 24)
    hole = torch.zeros(6, 6)
    hole[1:5, 1:4] = 1
    mask = hide(hole.flatten()[None], 12, (6, 6))
    torch.testing.assert_close(harmonic(images, mask), images.contiguous(), atol=1e-4, rtol=0)


def test_one_colour_stays_what_it_is():
    images = torch.tensor([0.2, -1.5, 7.0]).view(1, 3, 1, 1).expand(2, 3, 32, 24).contiguous()
    for fill in BASELINES.values():
        torch.testing.assert_close(fill(images, random_mask(2)), images)
    black = torch.zeros(1, 1, 8, 8)
    assert torch.equal(harmonic(black, random_mask(1, (4, 4))), black)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    st.integers(0, 10**6),
    st.tuples(st.integers(2, 6), st.integers(1, 6)),
    st.integers(1, 4),
    st.floats(0.05, 0.95),
    st.floats(-1e4, 1e4),
)
def test_no_hidden_pixel_leaves_the_range_of_the_seen_ones(seed, grid, patch, ratio, offset):
    """The maximum principle, and it may not depend on where zero lies."""
    images = offset + noise(2, 1, grid[0] * patch, grid[1] * patch, seed=seed).double()
    num_hidden = min(max(1, round(ratio * grid[0] * grid[1])), grid[0] * grid[1] - 1)
    scores = torch.rand(2, grid[0] * grid[1], generator=torch.Generator().manual_seed(seed))
    mask = hide(scores, num_hidden, grid)
    found, hidden = harmonic(images, mask), hidden_pixels(mask, patch_of(mask, images))
    for b in range(2):
        seen = images[b][~hidden[b]]
        slack = 1e-3 * (seen.max() - seen.min()) + 1e-5 * seen.abs().max()
        assert found[b].min() >= seen.min() - slack
        assert found[b].max() <= seen.max() + slack


def test_what_is_not_solved_is_an_error(monkeypatch):
    monkeypatch.setattr(inpainting, "STEPS_PER_PIXEL", 0)
    with pytest.raises(MaebenchError, match=r"2 channels of 2 images of 16x16 .* after 0 steps"):
        harmonic(noise(2, 1, 16, 16), random_mask(2))


def test_images_of_many_sizes_are_solved_in_parts(monkeypatch):
    images, mask = noise(7, 2, 16, 16), random_mask(7)
    whole = harmonic(images, mask)
    monkeypatch.setattr(inpainting, "CELLS", 2 * 2 * 16 * 16)
    torch.testing.assert_close(harmonic(images, mask), whole, atol=1e-6, rtol=0)


def test_the_nearest_patch_is_copied_and_of_equals_the_first():
    images = torch.arange(9.0).view(1, 1, 3, 3)
    mask = hide(torch.tensor([[1.0, 0, 1, 1, 1, 1, 1, 1, 0]]), 7, (3, 3))
    expected = torch.tensor([[1.0, 1, 1], [1, 1, 8], [8, 8, 8]])
    assert torch.equal(nearest_patch(images, mask)[0, 0], expected)
    tie = hide(torch.tensor([[0.0, 1, 0]]), 1, (1, 3))
    found = nearest_patch(torch.tensor([5.0, 0, 7]).view(1, 1, 1, 3), tie)
    assert found.flatten().tolist() == [5, 5, 7]


def test_the_nearest_patch_is_that_of_a_distance_transform():
    mask, images = random_mask(6, (7, 9), 0.9), noise(6, 2, 28, 18)
    found = patchify(nearest_patch(images, mask), (4, 2))
    patches = patchify(images, (4, 2))
    for b in range(6):
        hidden = mask.hidden[b].view(7, 9).numpy()
        far = scipy.ndimage.distance_transform_edt(hidden).flatten()
        for i in range(63):
            (source,) = (j for j in range(63) if torch.equal(found[b, i], patches[b, j]))
            assert not mask.hidden[b, source]
            apart = np.hypot(i // 9 - source // 9, i % 9 - source % 9)
            assert apart == pytest.approx(far[i])


def test_true_means_are_those_of_each_hidden_patch():
    images, mask = noise(3, 2, 16, 16), random_mask(3)
    found, patches = (
        patchify(patch_means(images, mask), (2, 2)),
        patchify(images, (2, 2)),
    )
    torch.testing.assert_close(found[mask.hidden], patches[mask.hidden].mean(1, True).expand(-1, 8))
    assert torch.equal(found[~mask.hidden], patches[~mask.hidden])


def test_pull_push_starts_near_the_end():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    images, mask = (x + 2 * y).expand(4, 1, 64, 64).contiguous(), random_mask(4)
    hidden = hidden_pixels(mask, patch_of(mask, images))
    end = harmonic(images, mask)
    start = (pull_push(images, hidden) - end).abs()[hidden].mean()
    assert start < 0.3 * (mean_colour(images, mask) - end).abs()[hidden].mean()
    assert (end[~hidden] == images[~hidden]).all()


@pytest.mark.parametrize("fill", BASELINES.values(), ids=BASELINES)
@pytest.mark.parametrize("size", [(16, 16), (8, 24), (40, 56)])
def test_baselines_read_no_hidden_pixel_and_no_other_image(fill, size):
    images, mask = noise(4, 2, *size), random_mask(4)
    hidden = hidden_pixels(mask, patch_of(mask, images))
    found = fill(images, mask)
    assert torch.equal(torch.where(hidden, images, found), images)
    other = fill(torch.where(hidden, 99 * torch.rand_like(images), images), mask)
    torch.testing.assert_close(torch.where(hidden, other, 0.0), torch.where(hidden, found, 0.0))
    parts = zip(images.split(1), mask.split(1), strict=True)
    alone = torch.cat([fill(image, one) for image, one in parts])
    torch.testing.assert_close(alone, found)


def test_the_mean_colour_is_that_of_the_seen_pixels():
    images, mask = noise(3, 2, 16, 16), random_mask(3)
    found, hidden = mean_colour(images, mask), hidden_pixels(mask, patch_of(mask, images))
    for b in range(3):
        for c in range(2):
            expected = images[b, c][~hidden[b, 0]].mean()
            mine = found[b, c][hidden[b, 0]]
            torch.testing.assert_close(mine, expected.expand_as(mine))
