"""The embedded default: scikit-learn's handwritten digits."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

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
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = permutation(len(digits.images), 0, "digits split").numpy()
        test = np.arange(len(order)) % TEST_SHARE == 0
        part = np.sort(order[test if request.split == "test" else ~test])
        pixels = np.round(digits.images[part] * (255 / 16)).astype("uint8")
        names = [str(name) for name in digits.target_names]
        return from_arrays(pixels, digits.target[part], names, request.image_size)

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
