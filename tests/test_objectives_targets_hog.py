"""Histograms of gradients against scikit-image's, number for number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import hog

from maebench import MAE, ConfigError, Inputs
from maebench.encoders import ViTNano
from maebench.masking import hide
from maebench.objectives.targets import Hog


def images_of(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_scikit_image(images, cell):
    """(B, C, rows of cells, columns of cells, 9)."""
    each = [
        hog(channel, 9, cell, (1, 1), "L2", feature_vector=False)[:, :, 0, 0]
        for image in images.double().numpy()
        for channel in image
    ]
    return np.stack(each).reshape(*images.shape[:2], *each[0].shape)


def in_patches(cells, per):
    """Cells (B, C, h, w, 9) as (B, L, cells of a patch x channels x orientations)."""
    B, C, h, w, _ = cells.shape
    x = cells.reshape(B, C, h // per[0], per[0], w // per[1], per[1], 9)
    return x.transpose(0, 2, 4, 3, 5, 1, 6).reshape(B, (h // per[0]) * (w // per[1]), -1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "patch", "cell", "expected_cell"),
    [
        ((16, 24), (4, 4), None, (2, 2)),
        ((8, 8), (2, 2), None, (2, 2)),  # half would be one pixel
        ((21, 14), (7, 7), None, (7, 7)),  # half is no whole number
        ((32, 48), (16, 16), None, (8, 8)),  # as in the paper
        ((16, 24), (4, 8), None, (2, 4)),
        ((16, 24), (4, 8), 4, (4, 4)),
        ((16, 24), (8, 8), 1, (1, 1)),
        ((18, 18), (9, 9), 3, (3, 3)),
    ],
)
def test_it_equals_scikit_images_of_each_channel(size, patch, cell, expected_cell, channels):
    images = images_of(2, channels, *size)
    target = Hog(patch, Inputs.of_images(channels, size), cell)
    found = target(images)
    per = (patch[0] // expected_cell[0], patch[1] // expected_cell[1])
    expected = in_patches(by_scikit_image(images, expected_cell), per)
    assert found.shape == expected.shape
    assert found.shape[2] == target.dimension == per[0] * per[1] * 9 * channels
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_of_real_digits_it_equals_scikit_images():
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images[:50, None]).float() / 16
    found = Hog((4, 4), Inputs.of_images(1, (8, 8)))(images)
    np.testing.assert_allclose(
        found.numpy(), in_patches(by_scikit_image(images, (2, 2)), (2, 2)), atol=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 360), st.floats(0.01, 100))
def test_a_slope_in_one_direction_is_all_in_one_orientation(degrees, steepness):
    if abs(degrees / 20 - round(degrees / 20)) < 1e-3:
        return  # on the border of two
    down, right = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    places = torch.arange(16.0)
    images = steepness * (down * places[:, None] + right * places)[None, None]
    inside = Hog((4, 4), Inputs.of_images(1, (16, 16)), 4)(images)[0].view(4, 4, 9)[1:3, 1:3]
    expected = torch.zeros(9)
    expected[int(degrees % 180 // 20)] = 1
    torch.testing.assert_close(inside, expected.expand(2, 2, 9), atol=1e-4, rtol=0)


def test_a_negative_image_and_any_contrast_have_the_same_histograms():
    images, target = images_of(2, 3, 16, 16), Hog((4, 4), Inputs.of_images(3, (16, 16)))
    torch.testing.assert_close(target(-images), target(images), atol=1e-4, rtol=0)
    torch.testing.assert_close(target(7 * images + 2), target(images), atol=1e-4, rtol=0)


def test_every_cells_histogram_has_length_one_or_is_zero_where_nothing_changes():
    target = Hog((4, 4), Inputs.of_images(3, (16, 16)))
    lengths = target(images_of(2, 3, 16, 16)).view(2, 16, -1, 9).square().sum(3)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert not target(torch.full((1, 3, 16, 16), 0.7)).any()


def test_only_the_next_pixel_reaches_over_from_other_patches():
    images, target = images_of(1, 1, 16, 16), Hog((4, 4), Inputs.of_images(1, (16, 16)))
    inner = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    inner[..., 5:7, 5:7] = True  # of the patch at (1, 1) what its neighbours do not touch
    found = target(images + inner * 3.0) - target(images)
    assert found[0].abs().amax(1).nonzero().flatten().tolist() == [5]


@pytest.mark.parametrize(
    ("cell", "patch", "fits"), [(3, (4, 4), "1, 2, 4"), (8, (4, 4), "1, 2, 4"), (4, (4, 6), "1, 2")]
)
def test_cells_that_do_not_divide_the_patch_are_refused_with_those_that_do(cell, patch, fits):
    encoder = ViTNano(width=16, depth=2, heads=2, patch=patch).build(Inputs.of_images(3, (24, 24)))
    told = f"objective.hog_cell: {cell} does not divide patches of {patch[0]}x{patch[1]}; cells that do: {fits}"
    with pytest.raises(ConfigError, match=f"^{told}$"):
        MAE(target="hog", hog_cell=cell).build(encoder, Inputs.of_images(3, (24, 24)))


def test_there_are_no_pixels_and_it_is_said_why():
    encoder = ViTNano(width=16, depth=2, heads=2, patch=4).build(Inputs.of_images(3, (16, 16)))
    module = MAE(target="hog").build(encoder, Inputs.of_images(3, (16, 16)))
    images = images_of(2, 3, 16, 16)
    made = module.reconstruct(images, hide(images_of(2, 16), 12, (4, 4)))
    assert made.prediction.shape == made.target.shape == (2, 16, 4 * 9 * 3)
    assert (made.pixels, made.oracle, made.space) == (None, None, "hog")
    assert made.how.startswith("no pixels: ")
