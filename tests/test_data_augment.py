"""Crops follow torchvision's distribution and its pixels, and belong to the sample alone."""

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop, v2

from maebench.data.augment import (
    Augment,
    ClampedAugment,
    Crops,
    crop_boxes,
    crop_parameters,
    cut,
    resize,
)
from maebench.data.decode import crop, fit
from maebench.rng import Draws, isolated

PLAIN = {"scale": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": False}


def boxes_of(augment, size, count=4000, seed=0):
    draws = Draws(seed, "test", torch.arange(count))
    return crop_boxes(augment, draws, torch.tensor(size).expand(count, 2))


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


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


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((0, 0, 40, 60), (32, 32)),
        ((3, 5, 30, 17), (32, 32)),
        ((0, 0, 7, 5), (16, 24)),
        ((39, 59, 1, 1), (8, 8)),
        ((10, 20, 30, 40), (30, 40)),
        ((1, 2, 38, 57), (4, 4)),
    ],
)
def test_cut_is_torchvisions_resized_crop(box, size, flip):
    image = noise(1, 3, 40, 60).float()
    wanted = v2.functional.resized_crop(
        image, *box, size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True
    ).clamp(0, 255)
    wanted = wanted.flip(3) if flip else wanted
    got = cut(image, torch.tensor([box]).float(), torch.tensor([flip]), size)
    assert (got - wanted).abs().mean() < 1e-3
    assert (got - wanted).abs().max() < 0.01
    pillow = Image.fromarray(image[0].permute(1, 2, 0).byte().numpy())
    assert (crop(pillow, box, flip, size) - wanted).abs().max() < 0.01


def test_cutting_the_whole_image_at_its_size_changes_nothing():
    images = noise(5, 1, 9, 13).float()
    box = torch.tensor([[0.0, 0.0, 9.0, 13.0]]).expand(5, 4)
    got = cut(images, box, torch.zeros(5, dtype=torch.bool), (9, 13))
    assert (got - images).abs().max() < 1e-3


@pytest.mark.parametrize("top", [-3, 0, 2, 3])
@pytest.mark.parametrize("left", [-2, 0, 3])
def test_a_box_over_the_edge_repeats_the_edge(top, left):
    image = noise(1, 1, 8, 10)
    wide = np.pad(image[0, 0].numpy(), 3, mode="edge")
    wanted = torch.from_numpy(wide[3 + top : 11 + top, 3 + left : 13 + left]).float()
    box = torch.tensor([[top, left, 8, 10]]).float()
    got = cut(image.float(), box, torch.tensor([False]), (8, 10), reach=3)
    assert (got[0, 0] - wanted).abs().max() < 1e-3
    from_file = crop(Image.fromarray(image[0, 0].numpy()), (top, left, 8, 10), False, (8, 10))
    assert torch.equal(from_file[0, 0], wanted)


def test_a_shift_as_large_as_the_image_still_shows_its_edge():
    image = Image.fromarray(noise(4, 4).numpy())
    below = crop(image, (9, 0, 4, 4), False, (4, 4))[0, 0]
    assert below.tolist() == [[image.getpixel((x, 3)) for x in range(4)]] * 4
    assert crop(image, (-9, -9, 4, 4), False, (4, 4)).unique().tolist() == [image.getpixel((0, 0))]


def test_shifts_reach_every_neighbour_and_no_further():
    boxes = boxes_of(Augment(shift=1, **PLAIN), (8, 8), count=900)
    found = boxes[:, :2].unique(dim=0).tolist()
    assert sorted(found) == [[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert (boxes[:, 2:] == 8).all()


def test_a_crop_does_not_depend_on_the_batch_it_is_in():
    augment, size = Augment(), torch.tensor([[20, 24]])
    images, ids = noise(33, 3, 20, 24).float(), torch.arange(100, 133)
    epochs = torch.arange(33) % 3
    boxes, flips = crop_parameters(augment, 7, ids, epochs, size.expand(33, 2))
    together = cut(images, boxes, flips, (16, 16))
    for i in range(33):
        box, flip = crop_parameters(augment, 7, ids[i : i + 1], epochs[i : i + 1], size)
        assert torch.equal(box[0], boxes[i]) and torch.equal(flip[0], flips[i])
        alone = cut(images[i : i + 1], box, flip, (16, 16))
        # a matrix product may add up in another order for another batch: float32's last bits
        assert (alone[0] - together[i]).abs().max() < 1e-3


@pytest.mark.parametrize("size", [(16, 16), (60, 30), (8, 20)])
def test_resize_takes_the_centre_as_reading_a_file_does(size):
    smooth = Image.fromarray(noise(6, 9).numpy()).resize((45, 30), Image.Resampling.BICUBIC)
    array = torch.from_numpy(np.array(smooth))[None, None].float()
    wanted = fit(smooth, size).float()
    assert (resize(array, size)[0] - wanted).abs().mean() < 1.0


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 100), (8, 4)), ((100, 1), (8, 8)), ((1, 1), (5, 7))]
)
def test_images_of_one_row_or_column_resize_to_numbers(shape, size):
    assert resize(noise(2, 1, *shape).float(), size).isfinite().all()


def test_batches_of_one_stack_to_one_batch():
    one = torch.zeros(1, dtype=torch.int64)
    part = Crops(
        torch.zeros(1, 3, 2, 2), one, one, one, torch.zeros(1, 4), one.bool(), torch.zeros(1, 2)
    )
    stacked = Crops.stack([part, part])
    assert stacked.images.shape == (2, 3, 2, 2) and stacked.boxes.shape == (2, 4)
    assert stacked.to("cpu").index is stacked.index


@pytest.mark.parametrize(
    "options",
    [{"scale": (0.0, 1.0)}, {"scale": (0.5, 0.2)}, {"scale": (0.5, 1.5)}, {"aspect": (2.0, 1.0)}],
)
def test_empty_or_impossible_ranges_are_refused(options):
    with pytest.raises(ValueError, match="smallest <= largest"):
        Augment(**options)
