"""Pictures of reconstructions: every image in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maebench_evals.reconstruction_pictures import draw_images


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_grid_shows_images_in_their_places_with_gaps(channels):
    images = torch.zeros(2, 3, channels, 4, 4)
    images[1, 2] = 5.0  # clipped
    images[0, 1] = 0.5
    seen = {}
    fake = type("Fake", (), {"name": "fake", "picture": lambda self, *drawn: seen.update([drawn])})
    draw_images(fake(), "name", "title", images)
    (image,) = seen["name"].axes[0].get_images()
    array = np.asarray(image.get_array())
    assert array.shape[:2] == (2 * 4 + 1, 3 * 4 + 2)
    assert (array[:4, :4] == 0).all() and (array[:4, 5:9] == 0.5).all()
    assert (array[5:, 10:] == 1).all() and (array[4] == 1).all() and (array[:, 4] == 1).all()
