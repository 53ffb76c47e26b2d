"""Pixels to what an encoder takes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from maebench.errors import ConfigError


class Normaliser:
    """Pixels in 0..255 to the encoder's input: zero mean and unit deviation per channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: str) -> None:
        self.mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 (B, C, H, W)."""
        return (images.to(self.mean.device).float() / 255 - self.mean) / self.std

    def inverse(self, images: Tensor) -> Tensor:
        """Pixels in 0..1, not clipped."""
        return images * self.std + self.mean


ROUNDING = 1e-6  # 28 / 17 * 17 is 28 and not 27


@dataclass(frozen=True)
class Preprocess:
    """What belongs to the weights: an encoder fed otherwise gives other features.

    Args:
        size: rows and columns that the encoder takes.
        channels: that it takes.
        mean: per channel, of pixels in 0..1.
        std: per channel.
        interpolation: how images of another size are brought to it; None where they are refused,
            as for an encoder that was trained on this very data.
        crop: share of the resized sides that the centre crop keeps, as 224 of 256 in MAE.
    """

    size: tuple[int, int]
    channels: int
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: str | None = None
    crop: float = 1.0

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuses images, (channels, rows, columns), that cannot become what the encoder takes.

        Raises:
            ConfigError: names both sizes, or both channel counts.
        """
        wanted = (self.channels, *self.size)
        # a grey image is one of equal colours; colours are not made grey unasked
        becomes = self.interpolation and len(shape) == 3 and shape[0] in (1, self.channels)
        if shape != wanted and not becomes:
            raise ConfigError(
                f"{name} was built for images of {'x'.join(map(str, wanted))} "
                f"(channels x rows x columns), got {'x'.join(map(str, shape))}"
            )

    @property
    def resized(self) -> tuple[int, int]:
        """Rows and columns before the centre crop."""
        # timm cuts the fraction off; MAE's 224 / .875 is 256 exactly
        full = (int(side / self.crop + ROUNDING) for side in self.size)
        return next(full), next(full)

    def on(self, device: str) -> Preprocessor:
        """The same with its statistics on a device."""
        return Preprocessor(self, Normaliser(self.mean, self.std, device))

    def dump(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "size": list(self.size),
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop": self.crop,
        }


@dataclass(frozen=True)
class Preprocessor:
    """Pre-processing on a device."""

    what: Preprocess
    normalise: Normaliser

    def __call__(self, images: Tensor) -> Tensor:
        """Pixels in 0..255, (B, C, H, W), to the encoder's input, float32 (B, C', h, w)."""
        images = images.to(self.normalise.mean.device)
        if self.what.interpolation is not None:
            images = self._brought(images)
        return self.normalise(images)

    def inverse(self, images: Tensor) -> Tensor:
        """The encoder's input as pixels in 0..1, not clipped, at the encoder's size."""
        return self.normalise.inverse(images)

    def view(self, images: Tensor) -> Tensor:
        """A training crop at the encoder's size, whole: the centre crop is for whole images."""
        if self.what.interpolation is None or images.shape[2:] == self.what.size:
            return images
        return self._resized(images, self.what.size)

    def _resized(self, images: Tensor, sides: tuple[int, int]) -> Tensor:
        mode = self.what.interpolation
        smooth = {} if mode == "nearest" else {"antialias": True, "align_corners": False}
        # antialiased, as Pillow does and as the weights saw their images in training
        return interpolate(images.float(), sides, mode=mode, **smooth).clamp(0, 255)  # type: ignore[arg-type]

    def _brought(self, images: Tensor) -> Tensor:
        """Resized until the shorter side fits, cut at the centre; grey given to all channels."""
        if images.shape[1] != self.what.channels:
            images = images.expand(-1, self.what.channels, -1, -1)
        (H, W), (h, w) = images.shape[2:], self.what.size
        if (H, W) == (h, w):  # such as a training crop, which is the view already
            return images
        tall, wide = self.what.resized
        scale = max(tall / H, wide / W)
        # torchvision's Resize cuts the longer side's fraction off, its CenterCrop rounds to even
        sides = int(H * scale + ROUNDING), int(W * scale + ROUNDING)
        if sides != (H, W):
            images = self._resized(images, sides)
        top, left = round((sides[0] - h) / 2), round((sides[1] - w) / 2)
        return images[:, :, top : top + h, left : left + w]
