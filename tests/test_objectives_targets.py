"""The low-pass target against numpy's Fourier transform and known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maebench import MAE, Inputs, patchify, unpatchify
from maebench.encoders import ViTNano
from maebench.masking import hide
from maebench.objectives.targets import LowPass

RADIUS = 0.36


def smooth(images, radius=RADIUS, patch=(1, 1)):
    H, W = images.shape[2:]
    target = LowPass(patch, Inputs.of_images(images.shape[1], (H, W)), radius)
    return unpatchify(target(images), (H // patch[0], W // patch[1]), patch)


def images_of(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (7, 12), (12, 7), (16, 5)])
@pytest.mark.parametrize("radius", [0.2, RADIUS, 0.5, 1.0])
def test_it_equals_a_disc_in_numpys_fourier_plane(size, radius):
    images = images_of(2, 3, *size)
    fy, fx = (np.fft.fftfreq(n)[(...,) + (None,) * k] for n, k in zip(size, (1, 0), strict=True))
    disc = np.sqrt(fy**2 + fx**2) <= radius * 0.5 + 1e-9
    expected = np.fft.ifft2(np.fft.fft2(images.double().numpy()) * disc)
    assert np.abs(expected.imag).max() < 1e-9
    np.testing.assert_allclose(smooth(images, radius).numpy(), expected.real, atol=1e-5)


def test_at_the_papers_size_the_radius_is_about_its_forty_pixels():
    assert max(n for n in range(113) if n / 224 <= RADIUS / 2) == 40


@settings(max_examples=30, deadline=None)
@given(st.floats(-5, 5, width=32), st.integers(1, 9), st.integers(1, 9), st.floats(0.01, 1))
def test_an_image_of_one_colour_stays_as_it_is(value, rows, columns, radius):
    images = torch.full((1, 2, rows, columns), value)
    torch.testing.assert_close(smooth(images, radius), images, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("waves", "kept"), [(1, True), (5, True), (6, False), (12, False)])
@pytest.mark.parametrize("axis", [2, 3])
def test_a_wave_below_the_radius_stays_and_one_above_it_becomes_zero(waves, kept, axis):
    # 32 pixels: the highest frequency is 16 waves, the radius .36 of it 5.76
    wave = torch.cos(2 * math.pi * waves * torch.arange(32.0) / 32 + 0.3)
    images = wave.view(1, 1, 1, 32).expand(1, 1, 32, 32)
    images = images if axis == 3 else images.transpose(2, 3)
    expected = images if kept else torch.zeros_like(images)
    torch.testing.assert_close(smooth(images.contiguous()), expected, atol=1e-5, rtol=0)


def test_smoothing_twice_is_smoothing_once_and_takes_energy_away():
    images = images_of(2, 1, 28, 28)
    once = smooth(images)
    torch.testing.assert_close(smooth(once), once, atol=1e-5, rtol=0)
    kept = (once.square().sum() / images.square().sum()).item()
    assert 0.02 < kept < 0.2  # of white noise as much as the disc has of the plane: .10


def test_the_prediction_is_pixels_and_the_truth_is_the_smooth_image():
    encoder = ViTNano(width=16, depth=2, heads=2, patch=4).build(Inputs.of_images(3, (16, 16)))
    module = MAE(target="low-pass", low_pass=0.5).build(encoder, Inputs.of_images(3, (16, 16)))
    images = images_of(2, 3, 16, 16)
    made = module.reconstruct(images, hide(images_of(2, 16), 12, (4, 4)))
    assert made.space == "low-pass pixels" and "high frequencies" in made.how
    assert made.pixels is made.prediction and made.oracle is None
    torch.testing.assert_close(made.target, patchify(smooth(images, 0.5), (4, 4)))
    assert not torch.allclose(made.target, patchify(images, (4, 4)), atol=0.1)
