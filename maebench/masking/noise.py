"""Colour noise: blobs of a chosen size are hidden, cut out of filtered noise."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from maebench.masking.mask import Masking, View

# Over so many deviations of the widest filter, opposite edges of the torus that the noise lies on
# have a correlation below exp(-4) = .02.
MARGIN = 4
TRUNCATE = 4  # deviations at which a filter ends, as scipy.ndimage.gaussian_filter's does


class ColourNoise(Masking):
    """What the four colours share: white noise, filtered, its highest values hidden.

    The noise is made for each image and step; ColorMAE cuts it out of a bank of 3,072 patterns.
    G(s) is a Gaussian filter of s patches. The paper does not say its widths; these are ours,
    in patches. Source: Hinojosa et al. 2024, arXiv 2407.13036.
    """

    ahead: ClassVar[bool] = True
    narrow: ClassVar[float]
    wide: ClassVar[float]
    # At .75 the names are wrong: green noise spreads and purple clusters (lag-1 autocorrelation at
    # 14x14: -.03 and .30; at .9 .04 and -.05). Far below, a sampled Gaussian is the identity, which
    # leaves nothing of blue and green.
    scale: float = Field(
        default=1.0, ge=0.9, le=8, description="multiplies the widths of the filter"
    )

    def scores(self, view: View) -> Tensor:
        """Filtered Gaussian noise, float32 (B, L)."""
        (H, W), pad = view.grid, math.ceil(MARGIN * self.scale * max(self.narrow, self.wide))
        h, w = _quick(H + pad), _quick(W + pad)
        noise = torch.fft.rfft2(view.draws.normal(h, w))
        y, x = torch.fft.fftfreq(h, device=view.device), torch.fft.rfftfreq(w, device=view.device)
        low, high = (
            _gaussian(y, self.scale * s)[:, None] * _gaussian(x, self.scale * s)
            for s in (self.narrow, self.wide)
        )
        made = torch.fft.irfft2(noise * self.colour(low, high), s=(h, w))
        return made[:, :H, :W].flatten(1)

    def colour(self, narrow: Tensor, wide: Tensor) -> Tensor:
        """The filter in frequencies, from the narrow and the wide Gaussian's."""
        raise NotImplementedError


class RedNoise(ColourNoise):
    """Hides large blobs: noise under a wide Gaussian filter."""

    name: ClassVar[str] = "red-noise"
    narrow, wide = 0.0, 2.0

    def colour(self, narrow: Tensor, wide: Tensor) -> Tensor:
        """G(2)."""
        return wide


class BlueNoise(ColourNoise):
    """Hides single patches at even distances: noise minus what a Gaussian filter leaves of it."""

    name: ClassVar[str] = "blue-noise"
    narrow, wide = 0.0, 1.0

    def colour(self, narrow: Tensor, wide: Tensor) -> Tensor:
        """1 - G(1)."""
        return 1 - wide


class GreenNoise(ColourNoise):
    """Hides blobs of a middle size: noise between two Gaussian filters; the paper's best."""

    name: ClassVar[str] = "green-noise"
    narrow, wide = 0.5, 2.0

    def colour(self, narrow: Tensor, wide: Tensor) -> Tensor:
        """G(.5) - G(2)."""
        return narrow - wide


class PurpleNoise(ColourNoise):
    """Hides very large and very small structure: noise without the band of the green one."""

    name: ClassVar[str] = "purple-noise"
    narrow, wide = 0.5, 2.0

    def colour(self, narrow: Tensor, wide: Tensor) -> Tensor:
        """1 - G(.5) + G(2)."""
        return 1 - narrow + wide


def _gaussian(frequency: Tensor, sigma: float) -> Tensor:
    """What a sampled Gaussian of `sigma` patches leaves of each frequency (cycles per patch)."""
    reach = int(TRUNCATE * sigma + 0.5)
    place = torch.arange(-reach, reach + 1, device=frequency.device)
    weight = torch.exp(-0.5 * (place / max(sigma, 1e-6)).square())
    return torch.cos(2 * math.pi * frequency[:, None] * place) @ (weight / weight.sum())


def _quick(length: int) -> int:
    """The next even length: a real transform of an odd one takes twice as long."""
    return length + length % 2
