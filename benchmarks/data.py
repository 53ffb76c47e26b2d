"""Cropping, decoding and the cache of decoded images: what data costs, in turn with torchvision.

    OMP_NUM_THREADS=1 python benchmarks/data.py [FOLDER] [--rounds N] [--write]

FOLDER holds JPEG files; without it 600 of 500x375 and about 48 KB are made. Prints Markdown;
--write also puts it into results/reference/speed-data.md. Takes about six minutes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import timing
import torch
from PIL import Image
from torchvision import io
from torchvision.transforms import InterpolationMode, v2

from maebench import files
from maebench.data.augment import Augment, crop_parameters
from maebench.data.decode import Decoding, read_image, read_pixels, to_tensor
from maebench.data.from_files import from_files
from maebench.data.images import OnDisk
from maebench.data.reading import Reading
from maebench.data.resizing import cut
from maebench.pretraining.hardware import keep_memory

SHAPES = ((1, 28, 28), (3, 32, 32))
BATCHES = (64, 256, 1024)
MADE, SIZE = 600, (500, 375)
HOW = Decoding(3)
Variants = dict[str, Callable[[], object]]


def crop_variants(shape: tuple[int, int, int], augment: Augment) -> tuple[Variants, dict[str, int]]:
    """Crop and flip by torchvision image by image, and by maebench for whole batches."""
    images = torch.randint(0, 256, (max(BATCHES), *shape), dtype=torch.uint8)
    each = v2.Compose(
        [
            v2.RandomResizedCrop(
                shape[1:], augment.scale, interpolation=InterpolationMode.BICUBIC, antialias=True
            ),
            v2.RandomHorizontalFlip(),
        ]
    )
    ids = torch.arange(max(BATCHES))
    sizes = torch.tensor(shape[1:]).expand(len(ids), 2)

    def ours(batch: int) -> None:
        some = ids[:batch]
        boxes, flips = crop_parameters(augment, 0, some, torch.zeros_like(some), sizes[:batch])
        cut(images[:batch], boxes, flips, shape[1:], augment.shift)

    variants: Variants = {"torchvision, tensors": lambda: [each(image) for image in images[:256]]}
    variants |= {f"maebench, batch {batch}": partial(ours, batch) for batch in BATCHES}
    return variants, dict(zip(variants, (256, *BATCHES), strict=True))


def crops(rounds: int) -> str:
    """Microseconds per image of a random crop and flip."""
    keep_memory()  # as a run does, for both
    rows = []
    for shape in SHAPES:
        variants, counts = crop_variants(shape, Augment())
        found = timing.in_turn(variants, rounds)
        first = next(iter(found.values()))
        rows += [
            {
                "image": "x".join(map(str, (*shape[1:], shape[0]))),
                "what": name,
                "us per image": f"{timing.seconds(samples) / counts[name] * 1e6:.1f}",
                "times as fast": per_image(first, samples, counts[name] / 256),
                "clean": timing.share(samples),
            }
            for name, samples in found.items()
        ]
    return timing.table(rows)


def per_image(first: list[timing.Sample], samples: list[timing.Sample], more: float) -> str:
    """How many times as fast as the first, per image."""
    return timing.faster(first, [replace(one, seconds=one.seconds / more) for one in samples])


def decoding(paths: list[Path], rounds: int) -> str:
    """Images decoded per second by threads of one process."""
    ways: dict[str, Callable[[Path], object]] = {
        "PIL": lambda path: to_tensor(read_image(path, HOW)[0]),
        "torchvision.io": lambda path: io.decode_jpeg(io.read_file(str(path))),
        "maebench (simplejpeg)": lambda path: read_pixels(path, HOW),
    }

    def all_of(threads: int, way: Callable[[Path], object]) -> None:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(way, paths):
                pass

    variants: Variants = {
        f"{name}, {threads}": partial(all_of, threads, way)
        for threads in (1, 2)
        for name, way in ways.items()
    }
    return rates(variants, len(paths), rounds, "decoder, threads")


def end_to_end(paths: list[Path], folder: Path, rounds: int) -> str:
    """Crops of 224x224 per second from files: without a cache, while it is filled, and filled."""
    os.environ["MAEBENCH_CACHE"] = str(folder / "cache")
    root = Path(os.path.commonpath(paths))

    def split(cache_gb: float, workers: int) -> OnDisk:
        reading = Reading(cache_gb=cache_gb)
        images = from_files(paths, None, [], root, (224, 224), 3, "fail", 0, reading=reading)
        assert isinstance(images, OnDisk)
        return replace(images, workers=workers)

    def all_of(images: OnDisk, cold: bool = False) -> None:
        if cold:
            files.remove(folder / "cache" / "decoded")
        plan = [(part, torch.zeros_like(part)) for part in torch.arange(len(images)).split(64)]
        for _ in images.crops(plan, Augment(), 0, "cpu"):
            pass

    variants: Variants = {}
    for workers in (0, 2):
        named = f"{workers or 'no'} workers"
        variants[f"decoded each time, {named}"] = partial(all_of, split(0, workers))
        variants[f"cache cold, {named}"] = partial(all_of, split(50, workers), cold=True)
        variants[f"cache warm, {named}"] = partial(all_of, split(50, workers))
    return rates(variants, len(paths), rounds, "crops")


def rates(variants: Variants, count: int, rounds: int, what: str) -> str:
    """Images per second of each variant, and how many times as fast as the first it is."""
    found = timing.in_turn(variants, rounds)
    first = next(iter(found.values()))
    return timing.table(
        [
            {
                what: name,
                "images/s": f"{count / timing.seconds(samples):,.0f}",
                "times as fast": timing.faster(first, samples),
                "clean": timing.share(samples),
            }
            for name, samples in found.items()
        ]
    )


def made(folder: Path) -> list[Path]:
    """JPEG files as large as photographs: smooth colours with a little noise, as of a sensor."""
    paths = []
    for number in range(MADE):
        rng = np.random.default_rng(number)
        rough = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(rough.resize(SIZE, Image.Resampling.BICUBIC), dtype=float)
        noisy = smooth + rng.normal(0, 7, (*smooth.shape[:2], 1))
        paths.append(folder / f"{number:04}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=85)
    return paths


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="JPEG files; made where left out")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help="into results/reference/speed-data.md")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = arguments.folder
        paths = sorted(given.rglob("*.jp*g"))[:MADE] if given else made(folder)
        if not paths:
            raise SystemExit(f"no JPEG files in {given}")
        size = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        machine = timing.machine(shlex.join(["python", *sys.argv]))
        files_are = f"{len(paths)} JPEG files of {size:.0f} KB on average. {machine}"
        sections = {
            "Random crop and flip": f"{machine}\n\n{crops(arguments.rounds)}",
            "Decoding": f"{files_are}\n\n{decoding(paths, arguments.rounds)}",
            "From files to crops of 224x224": (
                f"{files_are} The files, and what is cached, are in the system's memory.\n\n"
                f"{end_to_end(paths, folder, arguments.rounds)}"
            ),
        }
    timing.publish("speed-data.md", "Decoding and cropping", sections, arguments.write)


if __name__ == "__main__":
    main()
