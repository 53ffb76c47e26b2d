"""Pixels to what an encoder takes, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Normalise:
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
