"""Boxes come out with torchvision's and Pillow's pixels, many at once as one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from maebench.data import resizing
from maebench.data.augment import Augment, crop_parameters
from maebench.data.decode import fit
from maebench.data.resizing import cut, cut_one, resize


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


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
    assert (cut_one(image[0].byte(), box, flip, size) - wanted).abs().max() < 0.01


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
    from_file = cut_one(image[0], (top, left, 8, 10), False, (8, 10))
    assert torch.equal(from_file[0, 0], wanted)


def test_a_shift_as_large_as_the_image_still_shows_its_edge():
    image = noise(1, 4, 4)
    below = cut_one(image, (9, 0, 4, 4), False, (4, 4))[0, 0]
    assert below.tolist() == [image[0, 3].tolist()] * 4
    assert cut_one(image, (-9, -9, 4, 4), False, (4, 4)).unique() == image[0, 0, 0]


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


@st.composite
def boxes_with_images(draw):
    """Images of one size, whole boxes that reach over the edge by at most `reach`, a size."""
    height, width, reach = (
        draw(st.integers(1, 20)),
        draw(st.integers(1, 20)),
        draw(st.integers(0, 3)),
    )
    boxes = []
    for _ in range(draw(st.integers(1, 4))):
        h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
        top = draw(st.integers(-reach, height - h + reach))
        boxes.append([top, draw(st.integers(-reach, width - w + reach)), h, w])
    # torch's resize to one column repeats the first row: no image that is learnt from has one
    size = draw(st.integers(1, 20)), draw(st.integers(2, 20))
    channels, seed = draw(st.sampled_from([1, 3])), draw(st.integers(0, 99))
    return noise(len(boxes), channels, height, width, seed=seed), boxes, size, reach


@given(boxes_with_images(), st.lists(st.booleans(), min_size=4, max_size=4))
def test_any_box_of_a_batch_is_what_it_is_alone(made, flips):
    images, boxes, size, reach = made
    flips = flips[: len(boxes)]
    together = cut(images, torch.tensor(boxes).float(), torch.tensor(flips), size, reach)
    assert together.dtype == torch.float32
    for image, box, flip, got in zip(images, boxes, flips, together, strict=True):
        assert (cut_one(image, box, flip, size)[0] - got).abs().max() < 0.02  # of 255


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 9, 12)])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_images_that_only_move_have_the_pixels_of_the_matrices_to_the_bit(shape, shift):
    images, ids = noise(40, *shape), torch.arange(40)
    places = torch.randint(-shift, shift + 1, (40, 2), generator=torch.Generator().manual_seed(0))
    boxes = torch.cat([places, torch.tensor(shape[1:]).expand(40, 2)], 1).float()
    flips = ids % 2 == 0
    moved = cut(images, boxes, flips, shape[1:], shift)
    boxes[0, 2:] -= 1  # where one is of another size, all go by matrices
    assert torch.equal(cut(images, boxes, flips, shape[1:], shift)[1:], moved[1:])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 120, 110)])
@pytest.mark.parametrize("shift", [0, 4])
def test_images_as_bytes_and_as_numbers_give_the_same_in_parts_of_any_size(
    shape, shift, monkeypatch
):
    images, ids = noise(40, *shape), torch.arange(40)
    size = torch.tensor(shape[1:]).expand(40, 2)
    boxes, flips = crop_parameters(Augment(shift=shift), 0, ids, ids, size)
    whole = cut(images, boxes, flips, shape[1:], shift)
    assert torch.equal(cut(images.float(), boxes, flips, shape[1:], shift), whole)
    monkeypatch.setattr(resizing, "PART", 3 * 5 * shape[1] * shape[2])
    assert (cut(images, boxes, flips, shape[1:], shift) - whole).abs().max() < 1e-3


@pytest.mark.parametrize("has_table", [True, False])
def test_the_weights_of_many_boxes_are_those_made_for_each(has_table, monkeypatch):
    monkeypatch.setattr(resizing, "_has_table", lambda out, full: has_table)
    start, length = torch.tensor([0, 3, 7, -2]), torch.tensor([10, 4, 1, 9])
    flips = torch.tensor([False, True, False, True])
    found = resizing.BoxWeights.of(start, length, flips.long(), 6, 10, 2)[0:4]
    made = resizing._weights(start.float() + 2, length.float(), 6, 14)
    made = torch.where(flips[:, None, None], made.flip(1), made)
    assert (found - made).abs().max() < 1e-6


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
