"""Data sets of a known truth: images and windows of text that show their class, or do not."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from maebench.data.augment import Augment
from maebench.data.dataset import Dataset, Request
from maebench.data.images import Images, from_arrays
from maebench.data.rows import from_rows
from maebench.encoders.inputs import TEXT
from maebench.errors import DataError
from maebench.rng import Draws, permutation

SPLITS = ("train", "test")  # what every data set has
SIDE = 16  # pixels: four patches a side, and more than the 11 of SSIM's window
TEST = 240  # images: chance on four classes then is 0.25 give or take 0.092
TRAIN = 240  # images: enough to learn plain patterns without error, in a fraction of a second
NOISE = 20  # deviation in grey levels: patterns three times as high are not yet clipped
LENGTH = 16  # tokens of a window
WORDS = 10  # that each class prefers
SPECIAL = 2  # token ids before the words: the class token's, and the one of what is hidden


class Synthetic(Dataset):
    """Noise with a pattern per class in it: flat, rows, columns or a board, in every patch.

    Where images have a label, every pixel has it too.
    """

    name: ClassVar[str] = "synthetic"
    signal: float = Field(
        default=3.0, ge=0, description="height of the pattern in deviations of the noise"
    )
    classes: int = Field(
        default=4, ge=2, le=4, description="number of classes, equally many images each"
    )
    train: int = Field(default=TRAIN, ge=1, description="number of training images")
    truth: Literal["true", "flipped", "half", "none"] = Field(
        default="true",
        description="test labels; flipped: all of two classes, half: the first half's alone",
    )
    others: bool = Field(
        default=False, description="other noise in the second half of the test images"
    )

    def load(self, request: Request) -> Images:
        """One split, always the same."""
        if request.split not in SPLITS:
            raise DataError(f"no split {request.split!r}: data sets have {' and '.join(SPLITS)}")
        count = self.train if request.split == "train" else TEST
        purpose = f"synthetic {request.split}"
        labels = permutation(count, 0, purpose) % self.classes
        others = torch.zeros(count, dtype=torch.bool)
        others[count // 2 :] = self.others and request.split == "test"
        values = self.values(labels, others, purpose)
        wrong = {"flipped": count, "half": count // 2}.get(self.truth, 0)
        if request.split == "test":
            labels[:wrong] = 1 - labels[:wrong]
        if self.truth == "none":
            return self.split(values, None, [], request)
        return self.split(values, labels.numpy(), [f"class {c}" for c in range(4)], request)

    def values(self, labels: Tensor, others: Tensor, purpose: str) -> Tensor:
        """Images of classes, of which some have other noise, uint8 (N, SIDE, SIDE)."""
        sign = (-1.0) ** torch.arange(SIDE)
        rows, columns = sign[:, None].expand(SIDE, SIDE), sign[None].expand(SIDE, SIDE)
        patterns = torch.stack([torch.ones(SIDE, SIDE), rows, columns, rows * columns])
        ids = torch.arange(len(labels))
        noise = Draws(0, purpose, ids).normal(SIDE, SIDE)
        noise[others] = 3 * Draws(1, purpose, ids[others]).normal(SIDE, SIDE)
        grey = 127 + NOISE * (self.signal * patterns[labels] + noise)
        return grey.round().clamp(0, 255).to(torch.uint8)

    def split(
        self, values: Tensor, labels: np.ndarray | None, names: list[str], request: Request
    ) -> Images:
        """They as a split."""
        maps = None
        if labels is not None:
            maps = np.repeat(labels.astype("uint8"), SIDE * SIDE).reshape(-1, SIDE, SIDE)
        names = names[: self.classes * bool(names)]
        return from_arrays(values.numpy(), labels, names, request.image_size, maps)

    def preset(self) -> dict[str, Any]:
        """All that a config needs; crops leave the patterns as they are."""
        whole = Augment(scale=(1, 1), aspect=(1, 1), flip=False)
        return {"image_size": (SIDE, SIDE), "budget": "steps=1", "augment": whole.model_dump()}


class SyntheticText(Synthetic):
    """The same of text: windows of words, of which each class has some that it prefers."""

    name: ClassVar[str] = "synthetic-text"
    gives: ClassVar[str] = TEXT

    def values(self, labels: Tensor, others: Tensor, purpose: str) -> Tensor:
        """Windows of classes, of which some are of half of the words alone, int64 (N, LENGTH)."""
        ids = torch.arange(len(labels))
        draws = Draws(0, purpose, ids)
        word = draws.integers(4 * WORDS, LENGTH)
        word[others] //= 2
        own = labels[:, None] * WORDS + draws.integers(WORDS, LENGTH)
        prefers = draws.uniform(LENGTH) < self.signal / (1 + self.signal)
        return SPECIAL + torch.where(prefers, own, word)

    def split(
        self, values: Tensor, labels: np.ndarray | None, names: list[str], request: Request
    ) -> Images:
        """They as a split."""
        names = names[: self.classes * bool(names)]
        vocabulary = SPECIAL + 4 * WORDS
        return from_rows(values.numpy(), labels, names, TEXT, vocabulary=vocabulary, mask_id=1)

    def preset(self) -> dict[str, Any]:
        """All that a config needs."""
        return {"budget": "steps=1"}
