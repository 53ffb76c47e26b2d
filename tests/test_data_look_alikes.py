"""Images that look alike are found though their files differ, and others are not."""

import io

import imagehash
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import idctn

from maebench.data.look_alikes import look_alikes, one_colour, perceptual_hash, thumbnails


def picture(seed, side=96):
    """A smooth colour picture, as photographs are."""
    rough = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC)


def small(*pictures):
    return np.concatenate(
        [thumbnails(torch.from_numpy(np.array(p)).permute(2, 0, 1)[None]) for p in pictures]
    )


def saved_again(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


CHANGES = {
    "jpeg 90": lambda image: saved_again(image, 90),
    "jpeg 30": lambda image: saved_again(image, 30),
    "half the size": lambda image: image.resize((48, 48)),
    "darker": lambda image: image.point(lambda level: level * 0.8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_saved_again_looks_like_itself_and_like_no_other(change):
    ours = [picture(seed) for seed in range(30)]
    theirs = [CHANGES[change](picture(seed)) for seed in (3, 7, 100)]
    assert look_alikes(small(*ours), small(*theirs), mirrored=False) == [(3, 0), (7, 1)]


def test_a_mirrored_picture_looks_alike_only_where_that_is_asked():
    ours, theirs = small(picture(0), picture(1)), small(picture(1).transpose(0))
    assert look_alikes(ours, theirs, mirrored=False) == []
    assert look_alikes(ours, theirs, mirrored=True) == [(1, 0)]


def test_pictures_of_one_colour_look_like_none():
    plain = small(*(Image.new("RGB", (9, 9), (level,) * 3) for level in (0, 100, 255)))
    assert look_alikes(plain, plain, mirrored=True) == []


def test_the_hash_is_what_the_imagehash_library_takes_the_signs_of():
    """Its bits say which of these frequencies are above their median."""
    gray = small(*(picture(seed) for seed in range(20)))
    for one, thumbnail in zip(perceptual_hash(gray), gray, strict=True):
        bits = imagehash.phash(Image.fromarray(thumbnail)).hash.flatten()
        # the mean, which we leave out, is the largest and above any median
        above = one > np.median(np.append(one[1:], np.inf))
        assert (above[1:] == bits[1:]).all()


def test_the_hash_keeps_low_frequencies_alone():
    high = np.zeros((32, 32))
    high[20, 20] = 500
    gray = np.clip(idctn(high, norm="ortho") + 128, 0, 255).astype("uint8")
    assert np.abs(perceptual_hash(gray[None])).max() < 0.5 or not perceptual_hash(gray[None]).any()


def test_one_colour_is_one_in_every_channel():
    images = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    images[0, 1] = 9  # a colour, the same everywhere
    images[1, 2, 3, 3] = 1
    assert one_colour(images).tolist() == [True, False, True]
    assert one_colour(images[:0]).tolist() == []
