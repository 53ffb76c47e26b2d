"""Images reach foreign weights as those saw them in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from maebench import ConfigError
from maebench.data.preprocess import Preprocess

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def images(channels=3, size=(40, 60)):
    """Smooth pictures: resizing noise is another question."""
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, n) for n in size), indexing="ij")
    waves = [((a * rows + b * columns) * 9).sin() for a, b in ((1, 0), (0, 1), (1, 1))]
    one = torch.stack(waves)[:channels] * 120 + 128
    return one.round().to(torch.uint8)[None]


def fit(**changes):
    settings = {"size": (28, 28), "channels": 3, "mean": IMAGENET[0], "std": IMAGENET[1]}
    return Preprocess(**{**settings, "interpolation": "bicubic", **changes})


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("size", [(40, 60), (28, 28), (20, 17)])
def test_it_is_torchvisions_resize_centre_crop_and_normalise(interpolation, crop, size):
    from torchvision.transforms import v2

    if size == (28, 28) and crop < 1:  # the encoder's own size is taken as it is
        size = (28, 40)

    picture = images(size=size)
    ours = fit(interpolation=interpolation, crop=crop).on("cpu")(picture)
    modes = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    theirs = v2.Compose(
        [
            v2.Resize(round(28 / crop), interpolation=modes[interpolation]),
            v2.CenterCrop(28),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(*IMAGENET),
        ]
    )(Image.fromarray(picture[0].permute(1, 2, 0).numpy()))
    assert ours.shape == (1, 3, 28, 28)
    # Pillow rounds to whole grey levels after each of its two passes
    off = (ours[0] - theirs).abs() * torch.tensor(IMAGENET[1])[:, None, None] * 255
    assert off.max() < 2.5
    assert off.mean() < 0.5


def test_a_grey_image_is_given_to_all_channels():
    grey = images(1)
    made = fit(mean=(0.5,) * 3, std=(0.5,) * 3).on("cpu")(grey)
    assert torch.equal(made[:, 0], made[:, 1])
    assert torch.equal(
        made, fit(mean=(0.5,) * 3, std=(0.5,) * 3).on("cpu")(grey.expand(-1, 3, -1, -1))
    )


def test_images_of_the_right_size_are_only_normalised():
    picture = images(size=(28, 28))
    made = fit().on("cpu")
    torch.testing.assert_close(made.inverse(made(picture)), picture / 255)


def test_the_crop_keeps_the_centre():
    picture = torch.zeros(1, 1, 16, 16)
    picture[:, :, 4:12, 4:12] = 255
    one = Preprocess((8, 8), 1, (0.0,), (1.0,), "bilinear", 0.5)
    assert one.resized == (16, 16)
    assert bool((one.on("cpu")(picture) == 1).all())


@pytest.mark.parametrize(
    ("changes", "shape", "fits"),
    [
        ({}, (3, 99, 99), True),
        ({}, (1, 5, 7), True),
        ({}, (2, 28, 28), False),
        ({}, (28, 28), False),
        ({"channels": 1, "mean": (0.0,), "std": (1.0,)}, (3, 28, 28), False),
        ({"interpolation": None}, (3, 28, 28), True),
        ({"interpolation": None}, (3, 28, 29), False),
        ({"interpolation": None}, (1, 28, 28), False),
    ],
)
def test_what_cannot_be_brought_to_the_encoder_is_refused(changes, shape, fits):
    one = fit(**changes)
    if fits:
        one.check("it", shape)
        return
    with pytest.raises(ConfigError, match=r"it was built for images of .* \(channels x rows x"):
        one.check("it", shape)


def test_it_is_kept_as_plain_values():
    import json

    assert json.loads(json.dumps(fit(crop=0.9).dump()))["crop"] == 0.9
    assert np.isclose(fit(crop=0.9).resized[0], 31)


def test_a_training_crop_is_seen_whole_to_its_edge():
    one = fit(crop=0.5).on("cpu")
    crop = images(size=(60, 60)).float()
    blackened = crop.clone()
    blackened[:, :, :4] = 0
    seen, other = (one(one.view(picture)) for picture in (crop, blackened))
    assert seen.shape == (1, 3, 28, 28)
    assert (seen[:, :, 0] != other[:, :, 0]).all()
    whole, cut = (one(picture) for picture in (crop, blackened))  # a test image loses its edge
    assert torch.equal(whole, cut)
