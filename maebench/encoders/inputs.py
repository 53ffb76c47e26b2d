"""What a model is fed: images, windows of text, or whatever a data set of another kind yields."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from maebench.errors import ConfigError
from maebench.rng import Draws

IMAGES, TEXT = "images", "text"
IDS = ("vocabulary", "mask_id", "class_id")  # what is said of token ids alone
# Of images: a side of 16,384 pixels is more than any set here has, and a single one of them takes
# 3 GiB as an encoder is fed; whole slides have more, and are cut into tiles first. Hyperspectral
# sensors have a few hundred channels.
LONGEST_SIDE, MOST_CHANNELS = 2**14, 2**12
ANY_KIND = ("any",)  # what a component takes that does not look at what it is fed


@dataclass(frozen=True)
class Inputs:
    """What a data set yields and a model is fed; fields are only ever added.

    Args:
        kind: "images", "text", or a plugin's own, such as "signals".
        shape: of one of them: (channels, rows, columns) of an image, (L,) of a window of L tokens.
        dtype: what the data set holds: `torch.uint8` of pixels, which an encoder gets normalised
            and as float32; `torch.int64` of token ids, and of other kinds the encoder's own.
        num_classes: 0 where there are no labels.
        vocabulary: of token ids, how many there are, from 0; 0 where there are none.
        mask_id: of token ids, the one that stands in the place of a hidden token.
        class_id: of token ids, the one whose embedding is the class token.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    num_classes: int = 0
    vocabulary: int = 0
    mask_id: int = 0
    class_id: int = 0

    @classmethod
    def of_images(cls, channels: int, image_size: tuple[int, int], num_classes: int = 0) -> Self:
        """Images of (rows, columns) pixels."""
        return cls(IMAGES, (channels, *image_size), torch.uint8, num_classes)

    @property
    def channels(self) -> int:
        """Of images: how many.

        Raises:
            ConfigError: these are no images.
        """
        return self._image()[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """Of images: rows and columns in pixels.

        Raises:
            ConfigError: these are no images.
        """
        return self._image()[1:]

    @property
    def numbers(self) -> int:
        """How many numbers one of them has."""
        return math.prod(self.shape)

    def zeros(self, count: int, device: torch.device | str = "cpu") -> Tensor:
        """What an encoder gets of `count` of them, all 0."""
        return torch.zeros(count, *self.shape, dtype=self._fed, device=device)

    def made_up(self, draws: Draws) -> Tensor:
        """What an encoder gets of one for each sample, at random: token ids or normal numbers."""
        if self.vocabulary:
            return draws.integers(self.vocabulary, *self.shape)
        return draws.normal(*self.shape).to(self._fed)

    def check(self, shape: tuple[int, ...], who: str) -> None:
        """Refuses what has another shape.

        Args:
            shape: of one of what is given.
            who: was built for these, such as "the encoder".

        Raises:
            ConfigError: names both shapes.
        """
        if shape == self.shape:
            return
        order = " (channels x rows x columns)" if self.kind == IMAGES else ""
        wanted, got = ("x".join(map(str, s)) for s in (self.shape, shape))
        raise ConfigError(f"{who} was built for {self.kind} of {wanted}{order}, got {got}")

    def dump(self) -> dict[str, Any]:
        """As JSON values, without the classes."""
        own = {"kind": self.kind, "shape": list(self.shape), "dtype": str(self.dtype)[6:]}
        ids = {key: getattr(self, key) for key in IDS}
        return own | (ids if self.vocabulary else {})

    @classmethod
    def load(cls, kept: dict[str, Any], num_classes: int) -> Self:
        """From what `dump` gave."""
        dtype = getattr(torch, kept["dtype"])
        ids = {key: kept[key] for key in IDS if key in kept}
        return cls(kept["kind"], tuple(kept["shape"]), dtype, num_classes, **ids)

    @property
    def _fed(self) -> torch.dtype:
        return torch.float32 if self.dtype == torch.uint8 else self.dtype

    def _image(self) -> tuple[int, int, int]:
        if self.kind != IMAGES:
            raise ConfigError(f"these are no images: {self.kind} have no channels and no size")
        channels, rows, columns = self.shape
        return channels, rows, columns


def examples_of(kind: str) -> str:
    """What several of a kind are called: images, windows of text, signals."""
    return "windows" if kind == TEXT else kind


def takes(component: Any, kind: str) -> bool:
    """Whether an encoder, objective or evaluation takes inputs of a kind, by what it declares."""
    return kind in component.takes or component.takes == ANY_KIND
