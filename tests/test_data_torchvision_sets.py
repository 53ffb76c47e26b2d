"""Files as torchvision lays them out become the right pixels and labels; missing ones are named."""

import gzip
import hashlib
import json
import pickle
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image
from torchvision import datasets

from maebench.config.run import RunConfig
from maebench.data import BUILT_IN, Request
from maebench.data.torchvision_sets import TorchvisionSet
from maebench.data.torchvision_sources import PRESETS, SOURCES
from maebench.errors import ConfigError, DataError

SETS = {cls.name: cls for cls in BUILT_IN if issubclass(cls, TorchvisionSet)}
IDX = ("mnist", "fashion-mnist", "kmnist", "emnist-letters")
N = 6  # images of a split


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any try to reach another machine fails as on a machine without a network."""
    tries = []

    def refuse(*args, **_):
        tries.append(args)
        raise socket.gaierror("no network here")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return tries


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def load(name, folder, split="train", **how):
    return SETS[name]().load(Request(split, data_dir=folder, **how))


def refused(name, folder, *words, **how):
    with pytest.raises(DataError) as caught:
        load(name, folder, **how)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(name)
    for word in words:
        assert word in message, message
    return message


# The table.


def test_there_are_thirteen_and_each_has_a_source():
    assert len(SETS) == 13 and SETS.keys() == SOURCES.keys()


@pytest.mark.parametrize("name", SETS)
def test_every_preset_makes_a_run(name):
    config = RunConfig(dataset=name)
    assert config.size == SOURCES[name].size
    config.encoder.patch_size(config.size)
    characters = name in (*IDX, "svhn")
    assert config.augment.flip is not characters
    assert config.augment.scale == ((0.6, 1.0) if characters else (0.2, 1.0))
    assert SETS[name]().preset() == PRESETS[name]


# Missing files.


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", SETS)
def test_missing_files_are_named_with_what_to_do_and_no_network_is_touched(
    name, split, tmp_path, no_network
):
    message = refused(name, tmp_path, str(tmp_path), "--data-dir", "--download", split=split)
    part = SOURCES[name].train if split == "train" else SOURCES[name].test
    for file in part.files[:2]:
        assert file.split("|")[0] in message
    assert no_network == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SETS)
def test_the_folder_is_asked_for(name):
    for download in (False, True):
        refused(name, None, "--data-dir", download=download)


@pytest.mark.parametrize("name", SETS)
def test_a_folder_that_does_not_exist_is_named(name, tmp_path):
    refused(name, tmp_path / "gone", str(tmp_path / "gone"), "--data-dir")


def test_the_home_folder_of_nobody_is_one_line():
    with pytest.raises(ConfigError, match="there is no home folder for ~nobody-here"):
        SETS["mnist"]().load(Request("train", data_dir=Path("~nobody-here/x")))


@pytest.mark.parametrize("name", [name for name in SETS if name != "imagenet"])
def test_a_download_that_fails_says_why_in_one_line(name, tmp_path, no_network):
    refused(name, tmp_path, "--download failed", "no network here", str(tmp_path), download=True)
    assert no_network


def test_imagenet_cannot_be_downloaded_and_says_so(tmp_path, no_network):
    refused("imagenet", tmp_path, "cannot be downloaded", "devkit", "folder:DIR", download=True)
    assert no_network == []


@pytest.mark.parametrize("name", [name for name in SETS if name != "imagenet"])
def test_only_download_passes_download_to_torchvision(name, tmp_path, monkeypatch):
    calls = []

    class Spy:
        classes = classes_split_dict = ()

        def __init__(self, root, **options):
            calls.append((root, options))
            raise RuntimeError("Dataset not found or corrupted.")

    monkeypatch.setattr(datasets, SOURCES[name].cls, Spy)
    refused(name, tmp_path)
    assert all("download" not in options for _, options in calls)
    calls.clear()
    refused(name, tmp_path, "Dataset not found or corrupted.", download=True)
    ((root, options),) = calls
    assert root == str(tmp_path) and options["download"] is True


# MNIST and its relatives.


def write_idx(folder, name, packed=False, seed=0):
    """Both splits; gives {split: (pixels, labels)} as they lie in the files."""
    folder.mkdir(parents=True, exist_ok=True)
    stems = (
        ("emnist-letters-train", "emnist-letters-test") if "emnist" in name else ("train", "t10k")
    )
    first = 1 if "emnist" in name else 0
    held = {}
    for i, (split, stem) in enumerate(zip(("train", "test"), stems, strict=True)):
        pixels = noise(N + i, 28, 28, seed=seed + i)
        labels = (np.arange(N + i, dtype=np.uint8) * 3) % 10 + first
        for what, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            content = head + array.tobytes()
            if packed:
                (folder / f"{stem}-{what}-ubyte.gz").write_bytes(gzip.compress(content))
            else:
                (folder / f"{stem}-{what}-ubyte").write_bytes(content)
        held[split] = (pixels, labels)
    return held


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", IDX)
def test_idx_files_are_found_flat_or_nested_plain_or_gzipped(name, nested, packed, tmp_path):
    folder = tmp_path / SOURCES[name].cls / "raw" if nested else tmp_path
    held = write_idx(folder, name, packed)
    for split, (pixels, labels) in held.items():
        images = load(name, tmp_path, split)
        letters = name == "emnist-letters"
        wanted = pixels.transpose(0, 2, 1) if letters else pixels
        assert np.array_equal(images.pixels[:, 0].numpy(), wanted)
        assert images.info.labels.tolist() == [int(label) - letters for label in labels]
        assert images.info.channels == 1 and images.info.size == (28, 28)


@pytest.mark.parametrize("name", IDX)
def test_idx_images_labels_and_names_are_torchvisions(name, tmp_path):
    cls = SOURCES[name].cls
    write_idx(tmp_path / cls / "raw", name)
    options = {"split": "letters"} if cls == "EMNIST" else {}
    theirs = getattr(datasets, cls)(str(tmp_path), train=False, **options)
    if cls == "EMNIST":  # torchvision's own advice: turn its images to see them upright
        theirs.data = theirs.data.transpose(1, 2)
    ours = load(name, tmp_path, "test")
    assert torch.equal(ours.pixels[:, 0], theirs.data)
    names = [theirs.classes[target] for target in theirs.targets]
    assert [ours.info.class_names[label] for label in ours.info.labels] == names
    assert len(ours.info.class_names) == (26 if cls == "EMNIST" else 10)


def test_what_is_downloaded_is_read_from_where_torchvision_puts_it(tmp_path, monkeypatch):
    def download(self):
        write_idx(tmp_path / "KMNIST" / "raw", "kmnist")

    monkeypatch.setattr(datasets.KMNIST, "download", download)
    refused("kmnist", tmp_path)
    assert len(load("kmnist", tmp_path, download=True)) == N
    assert len(load("kmnist", tmp_path)) == N


def test_images_and_labels_of_different_numbers_are_refused(tmp_path):
    write_idx(tmp_path, "mnist")
    other = (tmp_path / "t10k-labels-idx1-ubyte").read_bytes()
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(other)
    with pytest.raises(DataError, match=r"6x28x28 numbers.*7: they do not belong together"):
        load("mnist", tmp_path)


def test_labels_that_the_set_has_not_are_refused(tmp_path):
    write_idx(tmp_path, "mnist")
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    with pytest.raises(DataError, match="has labels that mnist has not: 10 classes"):
        load("mnist", tmp_path)


def test_a_damaged_idx_file_is_named(tmp_path):
    write_idx(tmp_path, "mnist", packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=str(path)):
        load("mnist", tmp_path)


# Arrays.


def write_cifar(folder, monkeypatch, name):
    """Pickles as they are published, with their checksums in torchvision's lists."""
    cls = getattr(datasets, SOURCES[name].cls)
    base = folder / cls.base_folder
    base.mkdir()
    fine = "fine_labels" if name == "cifar100" else "labels"
    names = [f"class {i}" for i in range(100 if name == "cifar100" else 10)]
    held = {"train": [], "test": []}
    for split, files in (("train", cls.train_list), ("test", cls.test_list)):
        entries = []
        for i, (file, _) in enumerate(files):
            pixels, labels = noise(3, 3 * 32 * 32, seed=len(split) + i), [i, 9, 4]
            content = {"data": pixels, fine: labels, "coarse_labels": [0, 0, 0]}
            (base / file).write_bytes(pickle.dumps(content))
            entries.append([file, md5(base / file)])
            held[split].append((pixels.reshape(3, 3, 32, 32), labels))
        monkeypatch.setattr(cls, f"{split}_list", entries)
    (base / cls.meta["filename"]).write_bytes(pickle.dumps({cls.meta["key"]: names}))
    monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5(base / cls.meta["filename"])})
    return held, names


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_has_its_pixels_labels_and_names(name, tmp_path, monkeypatch):
    held, names = write_cifar(tmp_path, monkeypatch, name)
    for split, batches in held.items():
        images = load(name, tmp_path, split)
        assert np.array_equal(images.pixels.numpy(), np.concatenate([b[0] for b in batches]))
        assert images.info.labels.tolist() == [label for b in batches for label in b[1]]
        assert images.info.class_names == tuple(names)
    theirs = getattr(datasets, SOURCES[name].cls)(str(tmp_path), train=True)
    first = torchvision.transforms.functional.pil_to_tensor(theirs[0][0])
    assert torch.equal(load(name, tmp_path).pixels[0], first)


def test_damaged_files_are_not_called_missing(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, "cifar10")
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-1])
    refused("cifar10", tmp_path, "cannot be used (Dataset not found or corrupted")
    path.unlink()
    message = refused("cifar10", tmp_path, "no cifar-10-batches-py/data_batch_2 in")
    assert "data_batch_1" not in message


def test_svhn_has_its_pixels_and_labels(tmp_path, monkeypatch):
    split_list = dict(datasets.SVHN.split_list)
    pixels, labels = noise(5, 3, 32, 32), np.array([1, 10, 9, 10, 2], np.uint8)
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels.transpose(2, 3, 1, 0), "y": labels[:, None]})
        split_list[split] = [*split_list[split][:2], md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    for split in ("train", "test"):
        images = load("svhn", tmp_path, split)
        assert np.array_equal(images.pixels.numpy(), pixels)
        assert images.info.labels.tolist() == [1, 0, 9, 0, 2]
        assert images.info.class_names == tuple("0123456789")


@pytest.mark.parametrize("named", [True, False])
def test_stl10_has_its_pixels_and_labels_upright(named, tmp_path, monkeypatch):
    base = tmp_path / "stl10_binary"
    base.mkdir()
    held = {}
    for seed, split in enumerate(("train", "test")):
        pixels = noise(4 + seed, 3, 96, 96, seed=seed)
        labels = np.array([10, 1, 5, 3, 10][: 4 + seed], np.uint8)
        (base / f"{split}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())  # by columns
        (base / f"{split}_y.bin").write_bytes(labels.tobytes())
        held[split] = pixels, labels
    (base / "unlabeled_X.bin").write_bytes(noise(1, 3, 96, 96).tobytes())
    for which in ("train_list", "test_list"):
        entries = [[file, md5(base / file)] for file, _ in getattr(datasets.STL10, which)]
        monkeypatch.setattr(datasets.STL10, which, entries)
    names = [str(i) for i in range(10)]
    if named:
        names = "airplane bird car cat deer dog horse monkey ship truck".split()
        (base / "class_names.txt").write_text("\n".join(names) + "\n")
    for split, (pixels, labels) in held.items():
        images = load("stl10", tmp_path, split)
        assert np.array_equal(images.pixels.numpy(), pixels)
        assert images.info.labels.tolist() == [int(label) - 1 for label in labels]
        assert images.info.class_names == tuple(names)


# Photographs in files.


def draw(path, seed, size=(30, 40)):
    """A PNG under any suffix: PIL goes by content, and pixels come back exactly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise(*size, 3, seed=seed)
    Image.fromarray(pixels).save(path, "PNG")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def check(name, folder, split, pictures, labels, names, **options):
    images = SETS[name](**options).load(Request(split, data_dir=folder, image_size=(30, 40)))
    assert torch.equal(images.pixels, torch.stack(pictures))
    assert images.info.labels.tolist() == labels
    assert images.info.class_names == tuple(names)
    assert images.info.channels == 3


def test_food101_has_its_images_and_labels(tmp_path):
    base = tmp_path / "food-101"
    listing = {"waffles": ["waffles/3", "waffles/1"], "apple_pie": ["apple_pie/2"]}
    (base / "meta").mkdir(parents=True)
    for split in ("train", "test"):
        (base / "meta" / f"{split}.json").write_text(json.dumps(listing))
    pictures = [
        draw(base / "images" / f"{file}.jpg", seed)
        for seed, file in enumerate(file for files in listing.values() for file in files)
    ]
    for split in ("train", "test"):
        check("food101", tmp_path, split, pictures, [1, 1, 0], ["apple_pie", "waffles"])
    (base / "meta" / "test.json").unlink()
    refused("food101", tmp_path, "no food-101/meta/test.json in", split="test")


def test_oxford_pets_have_their_images_and_labels(tmp_path):
    base = tmp_path / "oxford-iiit-pet"
    names = ["Abyssinian", "american_bulldog", "Bombay"]
    rows = [(f"{names[c]}_{i}", c) for i, c in ((100, 0), (7, 2), (1, 1))]
    pictures = [draw(base / "images" / f"{file}.jpg", s) for s, (file, _) in enumerate(rows)]
    (base / "annotations").mkdir()
    for split in ("trainval", "test"):
        lines = [f"{file} {label + 1} 1 1\n" for file, label in rows]
        (base / "annotations" / f"{split}.txt").write_text("".join(lines))
    for split in ("train", "test"):
        titles = ["Abyssinian", "American Bulldog", "Bombay"]
        check("oxford-pets", tmp_path, split, pictures, [0, 2, 1], titles)
    (base / "annotations" / "trainval.txt").write_text("only two\n")
    refused("oxford-pets", tmp_path, "cannot be used (not enough values")


def test_oxford_pets_have_trimaps_whose_edge_is_void(tmp_path):
    base = tmp_path / "oxford-iiit-pet"
    draw(base / "images" / "Bombay_1.jpg", 0)
    (base / "annotations" / "trimaps").mkdir(parents=True)
    for split in ("trainval", "test"):
        (base / "annotations" / f"{split}.txt").write_text("Bombay_1 1 1 1\n")
    trimap = noise(30, 40, seed=3) % 3 + 1
    Image.fromarray(trimap).save(base / "annotations" / "trimaps" / "Bombay_1.png")
    images = SETS["oxford-pets"]().load(Request("train", data_dir=tmp_path, image_size=(30, 40)))
    maps = images.info.maps
    assert maps.names == ("pet", "background")
    expected = np.array([0, 0, 1, 255], np.uint8)[trimap]
    assert np.array_equal(maps.pick([0])[0].numpy(), expected)


def test_pascal_voc_has_its_images_and_class_maps_and_no_labels(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    (base / "SegmentationClass").mkdir()
    for name, files in (("train", ["b", "a"]), ("val", ["c"])):
        (base / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("\n".join(files) + "\n")
    pictures, classes = {}, {}
    for seed, file in enumerate("abc"):
        pictures[file] = draw(base / "JPEGImages" / f"{file}.jpg", seed)
        classes[file] = noise(30, 40, seed=seed) % 21
        classes[file][0] = 255
        made = Image.frombytes("P", (40, 30), classes[file].tobytes())
        made.putpalette([value for value in range(256) for _ in range(3)])
        made.save(base / "SegmentationClass" / f"{file}.png")
    for split, files in (("train", "ba"), ("test", "c")):
        request = Request(split, data_dir=tmp_path, image_size=(30, 40))
        images = SETS["voc-segmentation"]().load(request)
        assert images.info.labels is None
        assert torch.equal(images.pixels, torch.stack([pictures[file] for file in files]))
        found = images.info.maps.pick(range(len(files)))
        assert np.array_equal(found.numpy(), np.stack([classes[file] for file in files]))
    assert len(images.info.maps.names) == 21
    (base / "SegmentationClass" / "c.png").unlink()
    with pytest.raises(DataError, match=r"cannot read label map .*c\.png: No such file"):
        images.info.maps.pick([0])


@pytest.mark.parametrize("size", ["160px", "full"])
def test_imagenette_has_its_images_and_labels(size, tmp_path):
    base = tmp_path / {"160px": "imagenette2-160", "full": "imagenette2"}[size]
    wnids = list(datasets.Imagenette._WNID_TO_CLASS)
    for folder, split in (("train", "train"), ("val", "test")):
        pictures = [
            draw(base / folder / wnid / f"{i}.JPEG", label * 2 + i)
            for label, wnid in enumerate(wnids)
            for i in range(2)
        ]
        names = [", ".join(names) for names in datasets.Imagenette._WNID_TO_CLASS.values()]
        labels = [label for label in range(10) for _ in range(2)]
        check("imagenette", tmp_path, split, pictures, labels, names, size=size)
    assert names[0] == "tench, Tinca tinca"
    (base / "val").rename(base / "other")
    with pytest.raises(DataError, match=f"no {base.name}/val in"):
        SETS["imagenette"](size=size).load(Request("test", data_dir=tmp_path))


def test_imagenet_has_its_images_and_labels(tmp_path):
    names = {"n01": ("tench", "Tinca tinca"), "n02": ("crane",), "n03": ("goldfish",)}
    torch.save((names, ["n02", "n01"]), tmp_path / "meta.bin")
    for folder, split in (("train", "train"), ("val", "test")):
        pictures = [draw(tmp_path / folder / w / "x.JPEG", i) for i, w in enumerate(names)]
        wanted = ["tench, Tinca tinca", "crane", "goldfish"]
        check("imagenet", tmp_path, split, pictures, [0, 1, 2], wanted)
    (tmp_path / "meta.bin").unlink()
    refused("imagenet", tmp_path, "no meta.bin or ILSVRC2012_devkit_t12.tar.gz in", "folder:DIR")


def test_photographs_come_at_the_preset_size_where_none_is_asked_for(tmp_path):
    torch.save(({"n01": ("a",), "n02": ("b",)}, []), tmp_path / "meta.bin")
    for seed, wnid in enumerate(("n01", "n02")):
        draw(tmp_path / "train" / wnid / "x.JPEG", seed)
    assert load("imagenet", tmp_path).info.size == (224, 224)


def test_bad_photographs_are_named_or_left_out(tmp_path):
    torch.save(({"n01": ("a",), "n02": ("b",)}, []), tmp_path / "meta.bin")
    for seed, wnid in enumerate(("n01", "n02")):
        draw(tmp_path / "train" / wnid / "x.JPEG", seed)
    (tmp_path / "train" / "n01" / "x.JPEG").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"n01/x\.JPEG"):
        load("imagenet", tmp_path)
    kept = load("imagenet", tmp_path, on_bad_image="skip")
    assert kept.info.skipped == ("train/n01/x.JPEG",)
    assert (kept.info.ids.tolist(), kept.info.labels.tolist()) == ([1], [1])
