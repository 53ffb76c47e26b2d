"""Which published data sets there are, read from files as torchvision lays them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from maebench.data.dataset import Dataset, Request
from maebench.data.from_files import from_files
from maebench.data.images import Images, from_arrays, with_maps
from maebench.data.label_maps import LabelMaps
from maebench.data.torchvision_sources import PRESETS, SOURCES, Part, Source, read_idx
from maebench.errors import DataError
from maebench.files import with_home

MOST_NAMED = 3  # missing files that an error names; the others are counted


class TorchvisionSet(Dataset):
    """A data set that torchvision knows."""

    downloads: ClassVar[bool] = True  # whether torchvision can fetch it

    @property
    def source(self) -> Source:
        """Where it comes from."""
        return SOURCES[self.name]

    def part(self, request: Request) -> Part:
        """The split that is asked for."""
        return self.source.train if request.split == "train" else self.source.test

    def read_from(self, request: Request) -> tuple[Path, ...] | None:
        """The files below --data-dir, or the folders there that hold them."""
        parts = [self.part(replace(request, split=split)) for split in ("train", "test")]
        names = [name for part in parts for file in part.files for name in _either(file)]
        tops = dict.fromkeys(Path(name).parts[0] for name in names)
        return tuple(self.folder(request) / top for top in tops)

    def preset(self) -> dict[str, Any]:
        """By image size and count."""
        return dict(PRESETS[self.name])

    def folder(self, request: Request) -> Path:
        """Where files are looked for.

        Raises:
            DataError: the request names no folder.
        """
        if request.data_dir is None:
            files = _listed(self.part(request).files)
            fetch = ", where --download may put them" if self.downloads else ""
            raise DataError(f"{self.name}: give the folder of {files} with --data-dir{fetch}")
        return with_home(request.data_dir).absolute()

    def torchvision(self, request: Request) -> Any:
        """Torchvision's object for a split, its files fetched only where that was asked for.

        Raises:
            DataError: files are missing or damaged, or cannot be fetched.
        """
        from torchvision import datasets

        folder, part = self.folder(request), self.part(request)
        fetch = {"download": True} if request.download and self.downloads else {}
        try:
            return getattr(datasets, self.source.cls)(str(folder), **part.options, **fetch)
        # What torchvision raises where files are missing, damaged or laid out otherwise: its own
        # RuntimeError, or what opening (OSError), parsing (ValueError) or naming (KeyError) gives.
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise self.missing(request, [folder], error) from error

    def missing(self, request: Request, places: list[Path], error: Exception | None) -> DataError:
        """The error that says what was looked for, where, and what to do."""
        files = self.part(request).files
        where = " or ".join(map(str, places))
        reason = f" ({' '.join(str(error).split())})" if error else ""
        if request.download and self.downloads:
            return DataError(
                f"{self.name}: --download failed{reason}. Put {_listed(files)} into {where}"
            )
        absent = [
            file
            for file in files
            if not any((place / name).exists() for place in places for name in _either(file))
        ]
        if not absent:
            return DataError(
                f"{self.name}: {_listed(files)} in {where} cannot be used{reason}. {self.advice()}"
            )
        return DataError(f"{self.name}: no {_listed(tuple(absent))} in {where}. {self.advice()}")

    def advice(self) -> str:
        """What to do where files are missing."""
        return "Give their folder with --data-dir, or fetch them into it with --download"


class IdxSet(TorchvisionSet):
    """Gray images of 28x28 in the files of MNIST, flat or where torchvision puts them."""

    def load(self, request: Request) -> Images:
        """One split, from plain or gzipped IDX files."""
        files = self.find(request)
        if files is None and request.download:
            self.torchvision(request)
            files = self.find(request)
        if files is None:
            raise self.missing(request, self.places(request), None)
        pixels, labels = (read_idx(file) for file in files)
        if pixels.ndim != 3 or labels.shape != pixels.shape[:1] or not pixels.size:
            raise DataError(
                f"{files[0]} holds {'x'.join(map(str, pixels.shape))} numbers, "
                f"{files[1].name} {'x'.join(map(str, labels.shape))}: they do not belong together"
            )
        pixels, labels, names = self.arranged(pixels, labels.astype("int64"))
        if not 0 <= labels.min() <= labels.max() < len(names):
            raise DataError(
                f"{files[1]} has labels that {self.name} has not: {len(names)} classes are wanted"
            )
        return from_arrays(pixels, labels, names, request.image_size)

    def read_from(self, request: Request) -> tuple[Path, ...] | None:
        """Every place of every file: one that appears may be taken before another."""
        tops = super().read_from(request) or ()
        return tuple(place / top.name for place in self.places(request) for top in tops)

    def places(self, request: Request) -> list[Path]:
        """The folders that are looked into, in this order."""
        folder = self.folder(request)
        return [folder, folder / self.source.cls / "raw"]

    def find(self, request: Request) -> list[Path] | None:
        """The files of images and labels, both in one place, or None."""
        for place in self.places(request):
            files = [
                next((place / name for name in _either(file) if (place / name).is_file()), None)
                for file in self.part(request).files
            ]
            if None not in files:
                return [file for file in files if file]
        return None

    def arranged(
        self, pixels: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Upright images, labels from 0, and their names."""
        from torchvision import datasets

        return pixels, labels, list(getattr(datasets, self.source.cls).classes)


class ArraySet(TorchvisionSet):
    """Images that torchvision holds as one array."""

    def load(self, request: Request) -> Images:
        """One split, from the array of torchvision's object."""
        found = self.torchvision(request)
        pixels, labels = (np.asarray(getattr(found, held)) for held in self.source.holds)
        if pixels.shape[1] != 3:  # CIFAR's colours come last
            pixels = pixels.transpose(0, 3, 1, 2)
        # SVHN names no classes, they are the digits; STL-10 none where class_names.txt is missing
        names = getattr(found, "classes", [str(i) for i in range(labels.max() + 1)])
        return from_arrays(np.ascontiguousarray(pixels), labels, names, request.image_size)


class FileSet(TorchvisionSet):
    """Photographs of all sizes, each in a file."""

    any_size: ClassVar[bool] = True
    # the class of each number in its label maps, empty where these are the classes, and their names
    map_classes: ClassVar[dict[int, int]] = {}
    map_names: ClassVar[tuple[str, ...]] = ()

    def load(self, request: Request) -> Images:
        """One split, from the paths of torchvision's object."""
        found = self.torchvision(request)
        held = [getattr(found, name) for name in self.source.holds]
        if self.source.labelled:
            paths, labels = held if len(held) == 2 else zip(*held[0], strict=True)
        else:
            (paths,), labels = held, None
        paths, size = [Path(path) for path in paths], request.image_size or self.source.size
        images = from_files(
            paths,
            labels,
            [
                name if isinstance(name, str) else ", ".join(name)
                for name in (found.classes if self.source.labelled else ())
            ],
            self.folder(request),
            size,
            channels=3,
            on_bad_image=request.on_bad_image,
            memory_limit=request.memory_limit,
            progress=request.progress,
            reading=request.reading,
        )
        maps = [Path(path) for path in self.map_files(found)]
        if not maps or not maps[0].parent.is_dir():  # published apart, and not there
            return images
        pairs = tuple((maps[i], paths[i]) for i in images.info.ids.tolist())
        return with_maps(images, LabelMaps(size, pairs, None, self.map_classes, self.map_names))

    def map_files(self, found: Any) -> Sequence[str | Path]:
        """The label maps of torchvision's object, in the order of its images; none by default."""
        return ()


class MNIST(IdxSet):
    """Handwritten digits: 60,000 to train and 10,000 to test, gray, 28x28 pixels.

    Source: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
    recognition".
    """

    name: ClassVar[str] = "mnist"


class FashionMNIST(IdxSet):
    """Clothes in ten classes: 60,000 to train and 10,000 to test, gray, 28x28 pixels.

    Source: Xiao, Rasul and Vollgraf 2017, arXiv 1708.07747.
    """

    name: ClassVar[str] = "fashion-mnist"


class KMNIST(IdxSet):
    """Cursive Japanese characters in ten classes: 60,000 and 10,000, gray, 28x28 pixels.

    Source: Clanuwat et al. 2018, arXiv 1812.01718.
    """

    name: ClassVar[str] = "kmnist"


class EMNISTLetters(IdxSet):
    """Handwritten letters, both cases as one class: 124,800 and 20,800, gray, 28x28 pixels.

    Source: Cohen, Afshar, Tapson and van Schaik 2017, arXiv 1702.05373.
    """

    name: ClassVar[str] = "emnist-letters"

    def arranged(
        self, pixels: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Its files hold transposed images and labels 1 to 26; class 0 is "N/A"."""
        from torchvision import datasets

        names = datasets.EMNIST.classes_split_dict["letters"]
        return pixels.transpose(0, 2, 1).copy(), labels - 1, names[1:]


class CIFAR10(ArraySet):
    """Photographs in ten classes: 50,000 to train and 10,000 to test, 32x32 pixels.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """

    name: ClassVar[str] = "cifar10"


class CIFAR100(ArraySet):
    """Photographs in a hundred classes: 50,000 to train and 10,000 to test, 32x32 pixels.

    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """

    name: ClassVar[str] = "cifar100"


class SVHN(ArraySet):
    """House numbers, one digit each: 73,257 to train and 26,032 to test, 32x32 pixels.

    Source: Netzer et al. 2011, "Reading digits in natural images with unsupervised feature
    learning".
    """

    name: ClassVar[str] = "svhn"


class STL10(ArraySet):
    """Photographs in ten classes: 5,000 to train and 8,000 to test, 96x96 pixels.

    Its 100,000 unlabelled images are not used. Source: Coates, Lee and Ng 2011, "An analysis of
    single-layer networks in unsupervised feature learning".
    """

    name: ClassVar[str] = "stl10"


class Food101(FileSet):
    """Photographs of 101 dishes: 75,750 to train and 25,250 to test, at 224x224 pixels.

    Source: Bossard et al. 2014, "Food-101: mining discriminative components with random forests".
    """

    name: ClassVar[str] = "food101"


class OxfordPets(FileSet):
    """Photographs of 37 breeds of cats and dogs: 3,680 and 3,669, at 224x224 pixels.

    Source: Parkhi, Vedaldi, Zisserman and Jawahar 2012, "Cats and dogs".
    """

    name: ClassVar[str] = "oxford-pets"
    # of the trimaps; 3 is the edge between both, which their authors call not classified
    map_classes: ClassVar[dict[int, int]] = {1: 0, 2: 1}
    map_names: ClassVar[tuple[str, ...]] = ("pet", "background")

    def map_files(self, found: Any) -> Sequence[str | Path]:
        """Its trimaps."""
        files: Sequence[Path] = found._segs
        return files


class VOC(FileSet):
    """Photographs with the objects in them outlined: 1,464 and 1,449, at 224x224 pixels.

    The segmentation part of Pascal VOC 2012, train and val: label maps of 20 kinds of objects and
    background, and no label of the whole image. Source: Everingham et al. 2010, "The Pascal visual
    object classes (VOC) challenge".
    """

    name: ClassVar[str] = "voc-segmentation"
    map_names: ClassVar[tuple[str, ...]] = (
        *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
        *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
        *("sheep", "sofa", "train", "tvmonitor"),
    )

    def map_files(self, found: Any) -> Sequence[str | Path]:
        """Its class maps."""
        files: Sequence[str] = found.masks
        return files


class Imagenette(FileSet):
    """Ten easy classes of ImageNet: 9,469 to train and 3,925 to test, at 160x160 pixels.

    Source: Howard 2019, fast.ai's Imagenette, version 2.
    """

    name: ClassVar[str] = "imagenette"
    size: Literal["160px", "320px", "full"] = Field(
        default="160px",
        description="which of the published files, by the shorter side of their images",
    )

    def part(self, request: Request) -> Part:
        """The split in the folder of the chosen size."""
        part = super().part(request)
        folder = "imagenette2" if self.size == "full" else f"imagenette2-{self.size[:-2]}"
        files = tuple(f"{folder}/{name}" for name in part.files)
        return Part({**part.options, "size": self.size}, files)


class ImageNet(FileSet):
    """ImageNet's 1,000 classes: 1,281,167 to train and 50,000 to test, at 224x224 pixels.

    Source: Russakovsky et al. 2015, arXiv 1409.0575.
    """

    name: ClassVar[str] = "imagenet"
    downloads: ClassVar[bool] = False

    def advice(self) -> str:
        """It is handed out on request only."""
        return (
            "It cannot be downloaded by --download: ask ImageNet for it, give its folder with "
            "--data-dir; without the devkit, --dataset folder:DIR takes train/ and val/ below DIR"
        )


def _either(file: str) -> list[str]:
    """The names of which any will do."""
    return file.split("|")


def _listed(files: tuple[str, ...]) -> str:
    """Names for a message: "a, b or c, and 4 more"."""
    names = []
    for first, *others in map(_either, files[:MOST_NAMED]):
        packed = others == [f"{first}.gz"]
        names.append(f"{first}[.gz]" if packed else " or ".join([first, *others]))
    more = len(files) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
