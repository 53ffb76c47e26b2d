"""Majorities, confusions and IoU against torchmetrics and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score
from torchmetrics.classification import MulticlassJaccardIndex

from maebench_evals.patches import (
    VOID,
    confusion,
    iou,
    iou_of_images,
    majority,
    mean_iou,
    on_pixels,
)


def maps(B=5, side=12, classes=4, seed=0, void=0.1):
    numbers = np.random.default_rng(seed)
    found = numbers.integers(0, classes, (B, side, side))
    found[numbers.random(found.shape) < void] = VOID
    return torch.from_numpy(found.astype("uint8"))


@pytest.mark.parametrize("grid", [(3, 3), (2, 6), (12, 12), (1, 1)])
def test_the_majority_is_numpys_most_frequent_class(grid):
    truth = maps()
    found = majority(truth, grid, 4).view(5, *grid)
    h, w = 12 // grid[0], 12 // grid[1]
    for b in range(5):
        for i in range(grid[0]):
            for j in range(grid[1]):
                cell = truth[b, i * h : (i + 1) * h, j * w : (j + 1) * w].numpy()
                cell = cell[cell != VOID]
                expected = np.bincount(cell, minlength=4).argmax() if cell.size else VOID
                assert int(found[b, i, j]) == expected


def test_a_patch_without_a_class_has_none_and_one_pixel_is_enough():
    truth = torch.full((1, 4, 4), VOID, dtype=torch.uint8)
    truth[0, 3, 3] = 2
    assert majority(truth, (2, 2), 3).tolist() == [[VOID, VOID, VOID, 2]]


def test_patches_become_all_their_pixels():
    classes = torch.tensor([[0, 1, 2, 3, 4, 5]])
    found = on_pixels(classes, (2, 3), (4, 9))
    assert found.shape == (1, 4, 9)
    assert torch.equal(majority(found.to(torch.uint8), (2, 3), 6), classes)
    assert found[0, 1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.sampled_from([0.0, 0.2, 0.9]))
def test_counts_and_scores_are_scikit_learns_and_torchmetrics(seed, classes, void):
    truth, guess = (
        maps(seed=seed, classes=classes, void=void),
        maps(seed=seed + 1, void=0) % classes,
    )
    found = confusion(truth, guess, classes)
    for b in range(len(truth)):
        there = truth[b] != VOID
        if not bool(there.any()):
            continue
        t, g = truth[b][there].numpy(), guess[b][there].numpy()
        expected = confusion_matrix(t, g, labels=range(classes))
        assert np.array_equal(found[b].numpy(), expected)
        own = jaccard_score(t, g, labels=np.unique(t), average="macro", zero_division=0)
        assert float(iou_of_images(found[b : b + 1])[0]) == pytest.approx(own)
    if bool((truth != VOID).any()):
        oracle = MulticlassJaccardIndex(classes, average="macro", ignore_index=VOID)
        expected = float(oracle(guess.long(), truth.long()))
        assert mean_iou(found.sum(0)) == pytest.approx(expected, abs=1e-6)


def test_a_class_of_neither_truth_nor_guess_does_not_count():
    truth = torch.tensor([[[0, 0], [1, 1]]], dtype=torch.uint8)
    found = confusion(truth, truth, 5)
    assert iou(found)[0].isnan().tolist() == [False, False, True, True, True]
    assert mean_iou(found[0]) == 1


def test_to_guess_the_background_always_earns_its_part_of_what_the_image_has():
    truth = torch.tensor([[[0, 0], [0, 3]]], dtype=torch.uint8)
    found = confusion(truth, torch.zeros_like(truth), 4)
    assert float(iou_of_images(found)[0]) == pytest.approx(0.75 / 2)
    other = confusion(truth, torch.tensor([[[0, 0], [1, 3]]], dtype=torch.uint8), 4)
    assert float(iou_of_images(other)[0]) == pytest.approx((2 / 3 + 1) / 2), "no third class of 0"
