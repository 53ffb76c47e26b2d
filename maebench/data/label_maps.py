"""Label maps: of each pixel of an image its class, for evaluations of single patches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maebench.data.decode import fit, read_header
from maebench.data.split_info import digest
from maebench.data.tree import SUFFIXES, readable
from maebench.errors import DataError

VOID = 255  # of no class, as in Pascal VOC: such pixels count for nothing
PLAIN = ("1", "L", "P")  # one number for each pixel; of a palette it is the colour's place
FOLDER = "masks"  # of `folder:`, beside its images


@dataclass(frozen=True)
class LabelMaps:
    """The label maps of a split, one for each of its images and in their order.

    Args:
        size: rows and columns that they are brought to, as the images are.
        files: each map's file and its image's; none where they are held.
        held: all maps, uint8 (N, H, W), where they are in memory.
        classes: the class of each number in a file, others being void; empty where the numbers
            are the classes and 255 is void.
        names: one per class, as far as they have names.
    """

    size: tuple[int, int]
    files: tuple[tuple[Path, Path], ...] = ()
    held: Tensor | None = None
    classes: Mapping[int, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files) if self.held is None else len(self.held)

    def pick(self, index: Sequence[int]) -> Tensor:
        """Some maps, uint8 (B, H, W), 255 where a pixel has no class.

        Raises:
            DataError: a file is missing, damaged, holds colours, or is of another size than its
                image, or the image is turned by EXIF; names it.
        """
        if self.held is not None:
            return self.held[list(index)]
        with ThreadPoolExecutor() as pool:
            return torch.stack([*pool.map(self._read, index)])

    def at(self, index: Tensor) -> LabelMaps:
        """Those at these positions."""
        if self.held is not None:
            return replace(self, held=self.held[index])
        return replace(self, files=tuple(self.files[i] for i in index.tolist()))

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the content does."""
        how = repr((self.size, sorted(self.classes.items()))).encode()
        if self.held is not None:
            return digest(how, self.held.contiguous().numpy().data.cast("B"))
        try:
            return digest(how, *(digest(path.read_bytes()).encode() for path, _ in self.files))
        except OSError as error:
            raise DataError(f"cannot read label map {error.filename}: {error.strerror}") from error

    def _read(self, place: int) -> Tensor:
        path, image = self.files[place]
        levels = read_map(path)
        header = read_header(image)
        if "orientation" in header.traits:
            raise DataError(
                f"image {readable(str(image))} is to be turned by its EXIF, and nothing says "
                "whether its label map is: save it upright"
            )
        if levels.shape != (header.height, header.width):
            raise DataError(
                f"label map {readable(str(path))} has {levels.shape[0]}x{levels.shape[1]} pixels, "
                f"its image {readable(image.name)} {header.height}x{header.width}"
            )
        if self.classes:
            table = np.full(256, VOID, np.uint8)
            table[[*self.classes]] = [*self.classes.values()]
            levels = table[levels]
        return fit(Image.fromarray(levels), self.size, Image.Resampling.NEAREST)[0]


def read_map(path: Path) -> np.ndarray:
    """The numbers of a label map's file, uint8 (H, W).

    Raises:
        DataError: it cannot be read, or has more than one number of 8 bits for a pixel; names it.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in PLAIN:
                raise DataError(
                    f"label map {readable(str(path))} has pixels of {image.mode}: one number of 8 "
                    "bits for each is wanted, as in a gray PNG or one with a palette"
                )
            return np.array(image).astype("uint8")
    # what PIL raises on damaged bytes, see `decode._opened`
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise DataError(f"cannot read label map {readable(str(path))}: {reason}") from error


def held_maps(maps: np.ndarray, size: tuple[int, int], names: Iterable[str] = ()) -> LabelMaps:
    """Label maps from an array.

    Args:
        maps: uint8 (N, H, W), 255 where a pixel has no class.
        size: rows and columns to bring them to, by the nearest pixel.
        names: one per class.
    """
    if tuple(maps.shape[1:]) != size:
        resized = [fit(Image.fromarray(one), size, Image.Resampling.NEAREST)[0] for one in maps]
        return LabelMaps(size, held=torch.stack(resized), names=tuple(names))
    return LabelMaps(size, held=torch.from_numpy(maps), names=tuple(names))


# ---- beside the images of a folder


def map_folder(root: Path) -> Path | None:
    """`masks/` below a folder where it mirrors its images; as a class it holds images of its own.

    It does where any PNG in it lies where an image of the folder lies.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        return None
    endings = (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))

    def has_image(path: Path) -> bool:
        beside = root / path.relative_to(folder)
        return any(beside.with_suffix(ending).is_file() for ending in endings)

    return folder if any(map(has_image, folder.rglob("*.png"))) else None


def without_image(folder: Path, root: Path, paths: Iterable[Path]) -> list[str]:
    """The label maps that belong to none of some images."""
    wanted = {path.relative_to(root).with_suffix(".png") for path in paths}
    found = (path.relative_to(folder) for path in folder.rglob("*.png"))
    return sorted(readable(str(path)) for path in found if path not in wanted)


def maps_beside(
    paths: Sequence[Path], root: Path, folder: Path, size: tuple[int, int]
) -> LabelMaps:
    """The label maps of some images of a folder: same path below `masks/`, as PNG.

    Raises:
        DataError: an image has none; names the first, and how many there are.
    """
    files = [(folder / path.relative_to(root)).with_suffix(".png") for path in paths]
    if missing := [file for file in files if not file.is_file()]:
        more = f" (the first of {len(missing):,} of {len(files):,})" if len(missing) > 1 else ""
        raise DataError(
            f"label map {readable(str(missing[0]))} is missing{more}: {FOLDER}/ has a PNG for each "
            "image or for none"
        )
    return LabelMaps(size, tuple(zip(files, paths, strict=True)))
