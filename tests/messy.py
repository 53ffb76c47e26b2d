"""Folders of small images with what users' folders have, made for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Random levels, uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **how: Any) -> Path:
    """Writes an image, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)
    return path


def clean(root: Path, train: int = 8, test: int = 4, channels: int = 3) -> Path:
    """train/ and test/ of two classes, images of 8x8, no two alike."""
    for split, count in (("train", train), ("test", test)):
        for i in range(count):
            pixels = noise(8, 8, 3, seed=1000 * len(split) + i)
            save(
                root / f"{split}/{'ab'[i % 2]}/{i}.png", pixels if channels == 3 else pixels[..., 0]
            )
    return root
