"""Pixels to what an encoder takes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from maebench.encoders.inputs import IMAGES, LONGEST_SIDE, MOST_CHANNELS, Inputs
from maebench.errors import ConfigError


class Normaliser:
    """Pixels in 0..255 to the encoder's input: zero mean and unit deviation per channel.

    Without mean and deviation, as of text, what is given is what the encoder gets.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: str) -> None:
        self.mean = torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 (B, C, H, W)."""
        images = images.to(self.mean.device)
        return (images.float() / 255 - self.mean) / self.std if self.mean.numel() else images

    def inverse(self, images: Tensor) -> Tensor:
        """Pixels in 0..1, not clipped."""
        return images * self.std + self.mean if self.mean.numel() else images


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

    kind: ClassVar[str] = IMAGES

    def __post_init__(self) -> None:
        """Refuses sizes that no image is brought to.

        Raises:
            ConfigError: names both.
        """
        if max(*self.size, *self.resized) > LONGEST_SIDE or self.channels > MOST_CHANNELS:
            raise ConfigError(
                f"an encoder of images of {'x'.join(map(str, (self.channels, *self.size)))} "
                f"(channels x rows x columns): {LONGEST_SIDE} pixels of a side and {MOST_CHANNELS} "
                "channels are the most"
            )

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
class AsItIs:
    """What belongs to an encoder of other inputs than images: it gets what the data set yields.

    Args:
        inputs: what it was built for.
    """

    inputs: Inputs

    interpolation: ClassVar[None] = None

    @property
    def kind(self) -> str:
        """Of the inputs."""
        return self.inputs.kind

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuses what has another shape.

        Raises:
            ConfigError: names both.
        """
        self.inputs.check(shape, name)

    def on(self, device: str) -> Preprocessor:
        """The same on a device."""
        return Preprocessor(self, Normaliser((), (), device))

    def dump(self) -> dict[str, Any]:
        """As JSON values."""
        return self.inputs.dump()


def preprocess_of(
    inputs: Inputs, mean: Sequence[float] = (), std: Sequence[float] = ()
) -> Preprocess | AsItIs:
    """What a data set's own model or control does with its inputs."""
    if inputs.kind == IMAGES:
        return Preprocess(inputs.image_size, inputs.channels, mean, std)
    return AsItIs(replace(inputs, num_classes=0))  # of which features do not depend


@dataclass(frozen=True)
class Preprocessor:
    """Pre-processing on a device."""

    what: Preprocess | AsItIs
    normalise: Normaliser

    def __call__(self, images: Tensor) -> Tensor:
        """Pixels in 0..255, (B, C, H, W), to the encoder's input, float32 (B, C', h, w)."""
        images = images.to(self.normalise.mean.device)
        if isinstance(self.what, Preprocess) and self.what.interpolation is not None:
            images = self._brought(images, self.what)
        return self.normalise(images)

    def inverse(self, images: Tensor) -> Tensor:
        """The encoder's input as pixels in 0..1, not clipped, at the encoder's size."""
        return self.normalise.inverse(images)

    def view(self, images: Tensor) -> Tensor:
        """A training crop at the encoder's size, whole: the centre crop is for whole images."""
        what = self.what
        if isinstance(what, AsItIs) or what.interpolation is None or images.shape[2:] == what.size:
            return images
        return self._resized(images, what.size)

    def _resized(self, images: Tensor, sides: tuple[int, int]) -> Tensor:
        mode = self.what.interpolation
        smooth = {} if mode == "nearest" else {"antialias": True, "align_corners": False}
        # antialiased, as Pillow does and as the weights saw their images in training
        return interpolate(images.float(), sides, mode=mode, **smooth).clamp(0, 255)  # type: ignore[arg-type]

    def _brought(self, images: Tensor, what: Preprocess) -> Tensor:
        """Resized until the shorter side fits, cut at the centre; grey given to all channels."""
        if images.shape[1] != what.channels:
            images = images.expand(-1, what.channels, -1, -1)
        (H, W), (h, w) = images.shape[2:], what.size
        if (H, W) == (h, w):  # such as a training crop, which is the view already
            return images
        tall, wide = what.resized
        scale = max(tall / H, wide / W)
        # torchvision's Resize cuts the longer side's fraction off, its CenterCrop rounds to even
        sides = int(H * scale + ROUNDING), int(W * scale + ROUNDING)
        if sides != (H, W):
            images = self._resized(images, sides)
        top, left = round((sides[0] - h) / 2), round((sides[1] - w) / 2)
        return images[:, :, top : top + h, left : left + w]
