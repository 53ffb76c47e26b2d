"""What is hidden and how far it is from what is seen, and how near a guess comes to it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from maebench import MaebenchError, hidden_pixels, patchify
from maebench.masking import hide
from maebench_evals.hidden import (
    TargetVariance,
    distance_to_seen,
    first,
    hidden_of,
    pasted,
    patch_of,
    sum_at,
)


def random_mask(count, grid=(8, 8), ratio=0.75, seed=3):
    L = grid[0] * grid[1]
    scores = torch.rand(count, L, generator=torch.Generator().manual_seed(seed))
    return hide(scores, round(L * ratio), grid)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_distances_are_those_of_a_chessboard_transform():
    for grid, ratio in (((7, 9), 0.9), ((8, 8), 0.5), ((1, 6), 0.8), ((5, 5), 0.96)):
        mask = random_mask(5, grid, ratio)
        found = distance_to_seen(mask).view(5, *grid)
        for b in range(5):
            hidden = mask.hidden[b].view(grid).numpy()
            expected = scipy.ndimage.distance_transform_cdt(hidden, metric="chessboard")
            assert np.array_equal(found[b].numpy(), expected)


def test_sums_at_a_distance_are_those_of_a_loop():
    mask = random_mask(4, (6, 6), 0.9)
    distance = distance_to_seen(mask)[mask.hidden].view(4, -1)
    values = noise(*distance.shape).double()
    number, total = sum_at(distance, mask), sum_at(distance, mask, values)
    assert len(number) == len(total) == 6 and number.sum() == distance.numel()
    for d in range(6):
        assert number[d] == (distance == d).sum()
        assert total[d] == pytest.approx(values[distance == d].sum().item())


def test_pasted_patches_are_where_pixels_are_hidden():
    images, mask = noise(3, 2, 16, 16), random_mask(3)
    other = patchify(noise(3, 2, 16, 16, seed=1), (2, 2))
    found = patchify(pasted(other, images, mask), (2, 2))
    assert torch.equal(found[mask.hidden], other[mask.hidden])
    assert torch.equal(found[~mask.hidden], patchify(images, (2, 2))[~mask.hidden])


def test_hidden_pixels_are_those_of_hidden_patches():
    mask = hide(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]]), 1, (2, 2))
    hidden = hidden_pixels(mask, (2, 6))
    assert hidden.shape == (2, 1, 4, 12)
    expected = torch.zeros(2, 4, 12, dtype=torch.bool)
    expected[0, :2, :6] = expected[1, 2:, 6:] = True
    assert torch.equal(hidden[:, 0], expected)


def test_hidden_patches_are_taken_image_by_image_and_the_first_masks_are_those_of_the_first():
    mask, patches = random_mask(5), noise(5, 64, 3)
    found = hidden_of(patches, mask)
    assert found.shape == (5, 48, 3)
    for b in range(5):
        assert torch.equal(found[b], patches[b][mask.hidden[b]])
    two = first(mask, 2)
    assert two.grid == mask.grid
    assert torch.equal(two.hidden, mask.hidden[:2]) and torch.equal(two.seen, mask.seen[:2])
    assert patch_of(mask, torch.zeros(1, 3, 16, 24)) == (2, 3)


def test_the_variance_of_targets_in_batches_is_that_of_all_at_once():
    truth = 2 + noise(6, 5, 3).double()
    found = TargetVariance()
    for part in truth.split(4):
        found.add(part)
    assert (found.images, found.patches) == (6, 30)
    expected = 5 * truth.flatten(0, 1).var(0, correction=0).sum().item()
    assert found.per_image() == pytest.approx(expected)
    equal = TargetVariance()
    equal.add(torch.ones(2, 5, 3, dtype=torch.float64))
    with pytest.raises(MaebenchError, match="all hidden targets are equal, there is no R2"):
        equal.per_image()
