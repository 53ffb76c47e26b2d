"""What is sent to a GPU to be cut there is what a worker would have cut."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import GPU, fake_gpu, faked
from hypothesis import given
from hypothesis import strategies as st

from maebench.data import regions as module
from maebench.data.augment import Augment, Crops, crop_parameters
from maebench.data.regions import Regions, packed, region
from maebench.data.resizing import cut_one


def pictures(sizes, channels=3):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (channels, *size), generator=generator, dtype=torch.uint8)
        for size in sizes
    ]


def crops_of(images, augment):
    ids = torch.arange(len(images))
    sizes = torch.tensor([x.shape[1:] for x in images])
    boxes, flips = crop_parameters(augment, 0, ids, torch.zeros_like(ids), sizes)
    return Crops(torch.empty(len(ids), 0), ids, ids, torch.zeros_like(ids), boxes, flips, sizes)


def regions_of(images, crops):
    each = zip(images, crops.boxes.int().tolist(), strict=True)
    return Regions(packed([region(image, box) for image, box in each], crops.flips), crops)


SIZES = [(16, 20), (50, 33), (9, 9), (120, 80), (16, 21), (50, 30), (300, 200)]


@pytest.mark.parametrize("augment", [Augment(), Augment(shift=4), Augment(scale=(1, 1))])
@pytest.mark.parametrize("channels", [1, 3])
def test_crops_of_regions_are_those_of_whole_images(augment, channels):
    images = pictures(SIZES, channels)
    crops = crops_of(images, augment)
    made = regions_of(images, crops).cut("cpu", (12, 14))
    for number, image in enumerate(images):
        box, flip = crops.boxes[number].int().tolist(), bool(crops.flips[number])
        one = cut_one(image, box, flip, (12, 14))[0]
        assert (made.images[number] - one).abs().max() < 0.01  # of 255: other sums
    for name in ("index", "ids", "epoch", "boxes", "flips", "sizes"):
        assert torch.equal(getattr(made, name), getattr(crops, name))


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=20),
    st.sampled_from([1, 5_000, 2**25]),
)
def test_every_region_is_in_one_block_which_is_not_much_larger(sizes, most):
    images, flips = pictures(sizes), torch.arange(len(sizes)) % 3 == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_BYTES", most)
        blocks = packed(images, flips)
    assert sorted(place for block in blocks for place in block.place.tolist()) == [
        *range(len(images))
    ]
    for block in blocks:
        own = [images[i] for i in block.place.tolist()]
        assert torch.equal(block.flips, flips[block.place])
        for x, there, box in zip(own, block.pixels, block.boxes.tolist(), strict=True):
            assert box == [0, 0, *x.shape[1:]]
            assert torch.equal(there[:, : box[2], : box[3]], x)
        if len(own) > 1:
            assert block.pixels.nbytes <= min(most, 2 * sum(x.nbytes for x in own))


def test_images_of_one_size_are_one_block():
    assert len(packed(pictures([(40, 30)] * 9), torch.zeros(9, dtype=bool))) == 1


def test_a_region_is_no_view_of_its_image():
    (image,) = pictures([(40, 30)])
    before = image.clone()
    region(image, (0, 0, 40, 30)).zero_()
    region(image, (-2, 0, 40, 30)).zero_()
    assert torch.equal(image, before)


def test_a_gpu_cuts_regions_without_being_asked():
    images = pictures(SIZES)
    made = regions_of(images, crops_of(images, Augment(shift=4)))
    with fake_gpu() as mode:
        found = faked(mode, made).cut(GPU, (224, 224))  # its crops are nowhere asked for
    assert str(found.images.device) == GPU and found.images.shape == (7, 3, 224, 224)
