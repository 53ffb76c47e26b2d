"""Label maps: cut as their images, by the nearest pixel; what is wrong with a file is one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from maebench.data import Request
from maebench.data.folder import Folder
from maebench.data.images import from_arrays, limited
from maebench.data.label_maps import VOID, held_maps
from maebench.data.layout import read_layout
from maebench.errors import DataError, PluginError


def noise(*shape, seed=0, high=256):
    return np.random.default_rng(seed).integers(0, high, shape, dtype=np.uint8)


def tree(root, splits=("train", "test"), count=6, size=(24, 30), suffix=".jpg"):
    """Images with label maps in the layout of a folder: each map has 3 classes and some void."""
    for number, split in enumerate(splits):
        for i in range(count):
            image = root / split / f"{i}{suffix}"
            label = root / "masks" / split / f"{i}.png"
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(*size, 3, seed=100 * number + i)).save(image)
            classes = noise(*size, seed=7 + 100 * number + i, high=3)
            classes[:3, :3] = VOID
            Image.fromarray(classes).save(label)
    return root


def load(root, split="train", **how):
    return Folder(path=root).load(Request(split, image_size=(12, 15), **how))


@pytest.mark.parametrize("memory_limit", [2**30, 0])
def test_a_map_is_the_one_of_its_image_by_the_nearest_pixel(tmp_path, memory_limit):
    images = load(tree(tmp_path), "test", memory_limit=memory_limit)
    maps = images.info.maps
    assert len(maps) == len(images) == 6
    found = maps.pick([4, 0])
    assert found.shape == (2, 12, 15) and found.dtype == torch.uint8
    for place, mine in zip((4, 0), found, strict=True):
        whole = np.asarray(Image.open(tmp_path / "masks" / "test" / f"{place}.png"))
        oracle = np.asarray(Image.fromarray(whole).resize((15, 12), Image.Resampling.NEAREST))
        assert np.array_equal(mine.numpy(), oracle)
    assert set(found.unique().tolist()) <= {0, 1, 2, VOID}


def test_an_image_and_its_map_are_cut_alike(tmp_path):
    root = tree(tmp_path, size=(40, 80))
    bright = np.zeros((40, 80), np.uint8)
    bright[:, 30:50] = 200
    Image.fromarray(bright).convert("RGB").save(root / "train" / "0.jpg", quality=100)
    Image.fromarray((bright > 0).astype("uint8")).save(root / "masks" / "train" / "0.png")
    images = Folder(path=root).load(Request("train", image_size=(20, 20)))
    shown = images.pick([0])[0, 0] > 100
    assert torch.equal(shown, images.info.maps.pick([0])[0] == 1)
    assert 0.4 < float(shown.float().mean()) < 0.6


@pytest.mark.parametrize("layout", ["splits", "classes", "flat"])
def test_masks_are_no_class_and_no_split_of_the_folder(tmp_path, layout):
    names = {"splits": ("train/a", "train/b", "test/a", "test/b"), "classes": ("a", "b")}
    tree(tmp_path, names.get(layout, ("",)))
    found = read_layout(tmp_path)
    assert found.maps == tmp_path / "masks"
    paths = [*found.train.paths, *found.test.paths]
    assert len(paths) == 6 * len(names.get(layout, ("",)))
    assert not any("masks" in path.parts for path in paths)
    assert found.class_names == (() if layout == "flat" else ("a", "b"))
    assert not [r for r in found.remarks if "masks" in str(r)]
    assert load(tmp_path).info.maps is not None


def test_a_map_without_an_image_is_left_out_and_counted(tmp_path):
    tree(tmp_path, ("a", "b"))
    Image.fromarray(noise(4, 4)).save(tmp_path / "masks" / "a" / "0 copy.png")
    found = read_layout(tmp_path)
    assert found.class_names == ("a", "b")
    (said,) = [r for r in found.remarks if r.what == "maps without an image"]
    assert said.count == 1
    assert "a/0 copy.png" in str(said)


def test_a_class_named_masks_is_a_class(tmp_path):
    for name in ("gloves", "masks"):
        for i in range(10):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(noise(8, 8, 3, seed=i)).save(tmp_path / name / f"{name}{i}.png")
    found = read_layout(tmp_path)
    assert found.maps is None
    assert found.class_names == ("gloves", "masks")
    assert load(tmp_path).info.maps is None


def test_the_fingerprint_of_images_does_not_change_with_maps_and_that_of_maps_does(tmp_path):
    first = load(tree(tmp_path / "a"))
    tree(tmp_path / "b")
    path = tmp_path / "b" / "masks" / "train" / "2.png"
    Image.fromarray(noise(24, 30, seed=5, high=2)).save(path)
    second = load(tmp_path / "b")
    assert first.info.fingerprint == second.info.fingerprint
    assert first.info.maps.fingerprint != second.info.maps.fingerprint
    assert first.info.maps.fingerprint == load(tmp_path / "a").info.maps.fingerprint


def test_a_part_of_a_split_has_its_own_maps(tmp_path):
    whole = load(tree(tmp_path))
    part = limited(whole, 3)
    assert len(part.info.maps) == 3
    places = part.info.ids.tolist()
    assert torch.equal(part.info.maps.pick([0, 2]), whole.info.maps.pick([places[0], places[2]]))
    assert part.info.maps.fingerprint != whole.info.maps.fingerprint


def test_images_that_cannot_be_read_leave_their_maps_out_too(tmp_path):
    root = tree(tmp_path)
    (root / "train" / "2.jpg").write_bytes(b"no image")
    whole = [load(root, on_bad_image="skip").info.maps.pick([i])[0] for i in range(5)]
    for i, mine in zip((0, 1, 3, 4, 5), whole, strict=True):
        path = root / "masks" / "train" / f"{i}.png"
        oracle = Image.open(path).resize((15, 12), Image.Resampling.NEAREST)
        assert np.array_equal(mine.numpy(), np.asarray(oracle))


# What is wrong.


def refused(root, what):
    with pytest.raises(DataError, match=what) as caught:
        images = load(root)
        images.info.maps.pick(range(len(images)))
    assert "\n" not in str(caught.value)


def test_a_map_of_another_size_names_both(tmp_path):
    root = tree(tmp_path)
    Image.fromarray(noise(30, 24, high=3)).save(root / "masks" / "train" / "3.png")
    refused(root, r"label map .*masks/train/3\.png has 30x24 pixels, its image 3\.jpg 24x30")


def test_a_missing_map_is_named_and_counted(tmp_path):
    root = tree(tmp_path)
    for i in (2, 5):
        (root / "masks" / "train" / f"{i}.png").unlink()
    refused(root, r"masks/train/2\.png is missing \(the first of 2 of 6\)")


def test_colours_are_no_classes(tmp_path):
    root = tree(tmp_path)
    Image.fromarray(noise(24, 30, 3)).save(root / "masks" / "train" / "1.png")
    refused(root, r"1\.png has pixels of RGB: one number of 8 bits")


def test_more_than_8_bits_are_refused_and_not_cut_off(tmp_path):
    root = tree(tmp_path)
    deep = np.arange(24 * 30, dtype=np.uint16).reshape(24, 30)
    Image.fromarray(deep).save(root / "masks" / "train" / "1.png")
    refused(root, r"1\.png has pixels of I;16")


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_image_that_is_turned_by_exif_is_refused(tmp_path, orientation):
    root = tree(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(24, 30, 3)).save(root / "train" / "1.jpg", exif=exif)
    refused(root, r"1\.jpg is to be turned by its EXIF")


def test_a_damaged_map_is_named(tmp_path):
    root = tree(tmp_path)
    path = root / "masks" / "train" / "1.png"
    path.write_bytes(path.read_bytes()[:60])
    refused(root, r"cannot read label map .*1\.png")


def test_a_palettes_colours_are_the_places_in_it(tmp_path):
    root = tree(tmp_path)
    classes = noise(24, 30, high=3)
    image = Image.fromarray(classes).convert("P")
    image = Image.frombytes("P", (30, 24), classes.tobytes())
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    image.save(root / "masks" / "train" / "0.png")
    images = Folder(path=root).load(Request("train", image_size=(24, 30)))
    assert np.array_equal(images.info.maps.pick([0])[0].numpy(), classes)


# In memory.


def test_arrays_have_maps_of_their_size():
    pixels, maps = noise(5, 3, 8, 8), noise(5, 8, 8, high=4)
    images = from_arrays(pixels, None, [], None, maps)
    assert torch.equal(images.info.maps.pick([3]), torch.from_numpy(maps[3:4]))
    smaller = from_arrays(pixels, None, [], (4, 4), maps)
    assert smaller.info.maps.pick(range(5)).shape == (5, 4, 4)
    assert set(smaller.info.maps.held.unique().tolist()) <= {0, 1, 2, 3}
    gray = from_arrays(pixels[:, 0], None, [], None, maps)
    assert torch.equal(gray.info.maps.held, torch.from_numpy(maps))


@pytest.mark.parametrize("maps", [noise(5, 8, 9), noise(4, 8, 8), noise(5, 8, 8).astype("int64")])
def test_maps_of_another_shape_are_refused(maps):
    with pytest.raises(PluginError, match="maps: uint8 5x8x8, as the images are, given"):
        from_arrays(noise(5, 3, 8, 8), None, [], None, maps)


def test_names_of_classes_are_kept():
    assert held_maps(noise(2, 4, 4, high=2), (4, 4), ("sky", "sea")).names == ("sky", "sea")
