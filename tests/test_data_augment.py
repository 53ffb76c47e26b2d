"""Crops follow torchvision's distribution, and belong to the sample alone."""

import numpy as np
import pytest
import scipy.stats
import torch
from torchvision.transforms import RandomResizedCrop

from maebench.data.augment import (
    Augment,
    ClampedAugment,
    Crops,
    crop_boxes,
    crop_parameters,
)
from maebench.rng import Draws, isolated

PLAIN = {"scale": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": False}


def boxes_of(augment, size, count=4000, seed=0):
    draws = Draws(seed, "test", torch.arange(count))
    return crop_boxes(augment, draws, torch.tensor(size).expand(count, 2))


@pytest.mark.parametrize("size", [(40, 60), (28, 28), (200, 30)])
def test_boxes_have_the_distribution_of_torchvision(size):
    augment = Augment()
    with isolated(0, "torchvision"):
        theirs = torch.tensor(
            [
                RandomResizedCrop.get_params(
                    torch.empty(1, *size), list(augment.scale), list(augment.aspect)
                )
                for _ in range(4000)
            ]
        )
    ours = boxes_of(augment, size)
    for name, a, b in zip(("top", "left", "height", "width"), ours.T, theirs.T, strict=True):
        test = scipy.stats.ks_2samp(a.numpy(), b.float().numpy())
        assert test.pvalue > 1e-3, (name, test)
        assert abs(a.mean() - b.float().mean()) < 0.05 * max(size), name


@pytest.mark.parametrize("size", [(40, 60), (28, 28), (200, 30)])
def test_clamped_boxes_are_drawn_once_and_cut_to_the_image(size):
    rng = np.random.default_rng(0)
    height, width = size
    area = height * width * rng.uniform(0.08, 1, 4000)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), 4000))
    h = np.minimum(np.round(np.sqrt(area / aspect)), height)
    w = np.minimum(np.round(np.sqrt(area * aspect)), width)
    top = rng.integers(0, (height - h + 1).astype(int))
    left = rng.integers(0, (width - w + 1).astype(int))
    ours = boxes_of(ClampedAugment(scale=(0.08, 1.0)), size).T.numpy()
    for name, a, b in zip(("top", "left", "height", "width"), ours, (top, left, h, w), strict=True):
        assert scipy.stats.ks_2samp(a, b).pvalue > 1e-3, name
    # not the same as ten tries: there a box that is cut does not come
    tries = boxes_of(Augment(scale=(0.08, 1.0)), size).T.numpy()
    assert scipy.stats.ks_2samp(ours[3], tries[3]).pvalue < 1e-6


def test_the_smallest_clamped_box_has_a_pixel():
    assert (boxes_of(ClampedAugment(scale=(0.01, 0.01)), (4, 4))[:, 2:] == 1).all()


def test_clamping_is_no_option_that_a_config_would_hold():
    assert set(ClampedAugment().model_dump()) == {"scale", "aspect", "shift", "flip"}


def test_boxes_are_whole_pixels_within_the_image_and_its_ranges():
    boxes = boxes_of(Augment(scale=(0.3, 0.9)), (50, 70))
    top, left, height, width = boxes.T
    assert torch.equal(boxes, boxes.round())
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 50).all() and (left + width <= 70).all()
    share, aspect = height * width / (50 * 70), width / height
    assert share.min() > 0.28 and share.max() < 0.92  # rounded to whole pixels
    assert aspect.min() > 0.7 and aspect.max() < 1.43


@pytest.mark.parametrize("size", [(10, 100), (100, 10), (30, 45), (31, 99)])
@pytest.mark.parametrize("aspect", [(1.0, 1.0), (0.9, 1.1)])
def test_where_no_try_fits_the_box_is_the_centre_that_torchvision_takes(size, aspect):
    theirs = RandomResizedCrop.get_params(torch.empty(1, *size), [1.0, 1.0], list(aspect))
    ours = boxes_of(Augment(scale=(1.0, 1.0), aspect=aspect), size, count=20)
    assert torch.equal(ours, torch.tensor([theirs]).float().expand(20, 4))


def test_boxes_differ_between_images_epochs_and_seeds():
    augment, size = Augment(), torch.tensor([[64, 64]]).expand(50, 2)
    ids, zero = torch.arange(50), torch.zeros(50, dtype=torch.int64)
    first, flips = crop_parameters(augment, 0, ids, zero, size)
    assert len(first.unique(dim=0)) > 45
    for seed, epoch in ((1, zero), (0, zero + 1)):
        other, turned = crop_parameters(augment, seed, ids, epoch, size)
        assert (other != first).any(1).sum() > 45
        assert (turned != flips).any()


def test_half_of_the_images_are_mirrored_and_none_where_flip_is_off():
    ids, size = torch.arange(4000), torch.tensor([[8, 8]]).expand(4000, 2)
    _, flips = crop_parameters(Augment(), 0, ids, torch.zeros_like(ids), size)
    _, none = crop_parameters(Augment(flip=False), 0, ids, torch.zeros_like(ids), size)
    assert 0.47 < flips.float().mean() < 0.53
    assert not none.any()


def test_shifts_reach_every_neighbour_and_no_further():
    boxes = boxes_of(Augment(shift=1, **PLAIN), (8, 8), count=900)
    found = boxes[:, :2].unique(dim=0).tolist()
    assert sorted(found) == [[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert (boxes[:, 2:] == 8).all()


def test_batches_of_one_stack_to_one_batch():
    one = torch.zeros(1, dtype=torch.int64)
    part = Crops(
        torch.zeros(1, 3, 2, 2), one, one, one, torch.zeros(1, 4), one.bool(), torch.zeros(1, 2)
    )
    stacked = Crops.stack([part, part])
    assert stacked.images.shape == (2, 3, 2, 2) and stacked.boxes.shape == (2, 4)


@pytest.mark.parametrize(
    "options",
    [{"scale": (0.0, 1.0)}, {"scale": (0.5, 0.2)}, {"scale": (0.5, 1.5)}, {"aspect": (2.0, 1.0)}],
)
def test_empty_or_impossible_ranges_are_refused(options):
    with pytest.raises(ValueError, match="smallest <= largest"):
        Augment(**options)
