"""The embedded default: scikit-learn's handwritten digits."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from maebench.data.dataset import Dataset, Request
from maebench.data.images import Images, from_arrays
from maebench.rng import permutation

TEST_SHARE = 5  # every fifth image of a fixed order is test: 1,437 train, 360 test


class Digits(Dataset):
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels; nothing is downloaded.

    Source: Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits", test part.
    """

    name: ClassVar[str] = "digits"

    def load(self, request: Request) -> Images:
        """One split of a fixed shuffle; gray levels 0..16 become 0..255."""
        levels, labels = read_digits()
        order = permutation(len(levels), 0, "digits split").numpy()
        test = np.arange(len(order)) % TEST_SHARE == 0
        part = np.sort(order[test if request.split == "test" else ~test])
        pixels = np.round(levels[part] * (255 / 16)).astype("uint8")
        names = [str(number) for number in range(10)]
        return from_arrays(pixels, labels[part], names, request.image_size)

    def read_from(self, request: Request) -> tuple[Path, ...] | None:
        """scikit-learn's file."""
        file = digits_file()
        return None if file is None else (file,)

    def preset(self) -> dict[str, Any]:
        """Many small steps: about a minute on two cores."""
        return {
            "image_size": (8, 8),
            "encoder": "vit-nano",
            "budget": "steps=3600",
            "batch": 64,
            "lr": 8e-3,
            "augment": {"scale": (1.0, 1.0), "aspect": (1.0, 1.0), "shift": 1, "flip": False},
        }


def read_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Gray levels 0..16, (1797, 8, 8), and labels, (1797,), as `sklearn.datasets.load_digits`."""
    file = digits_file()
    if file is None:  # a release that keeps it elsewhere
        from sklearn.datasets import load_digits

        found = load_digits()
        return found.images, found.target
    table = np.loadtxt(file, delimiter=",")  # a row is 64 levels and the label
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype("int64")


def digits_file() -> Path | None:
    """scikit-learn's file, whose import alone takes over a second; None where it is not there."""
    found = find_spec("sklearn")
    file = (
        Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else None
    )
    return file if file is not None and file.is_file() else None
