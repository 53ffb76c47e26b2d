"""Common corruptions of images in five severities.

Images are float32 (B, C, H, W) in 0..1, on any device. Strengths are those of CIFAR-10-C for images
of up to 64 px and of ImageNet-C above (Hendrycks and Dietterich 2019, arXiv 1903.12261, official
code: make_cifar_c.py, make_imagenet_c.py).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from maebench import Draws

SMALL = 64  # pixels of a side up to which images count as small
Corruption = Callable[[Tensor, int, Draws], Tensor]
SEVERITIES = (1, 2, 3, 4, 5)

# of each severity: for small images, and for large ones
GAUSSIAN = ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38))  # deviation
SHOT = ((500, 250, 100, 75, 50), (60, 25, 12, 5, 3))  # photons of a white pixel
IMPULSE = ((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27))  # share of pixels
BLUR = ((0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6))  # deviation in pixels
CONTRAST = ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))  # factor
BRIGHTNESS = ((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5))  # added
PIXELATE = ((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25))  # factor of the sides
JPEG = ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7))  # quality
FOG = ((0.2, 0.5, 0.75, 1.0, 1.5), (1.5, 2.0, 2.5, 2.5, 3.0))  # height of the fog
OCTAVE = ((3.0, 3.0, 2.5, 2.0, 1.75), (2.0, 2.0, 1.7, 1.5, 1.4))  # its fall from octave to octave


def strength(table: tuple[tuple[float, ...], tuple[float, ...]], x: Tensor, severity: int) -> float:
    """The number of a severity for images of this size."""
    return float(table[max(x.shape[2:]) > SMALL][severity - 1])


def per_channel(draws: Draws, x: Tensor) -> Tensor:
    """Normal numbers for every value."""
    return draws.normal(*x.shape[1:]).to(x)


def gaussian_noise(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Noise of one deviation everywhere, as in weak light."""
    return x + strength(GAUSSIAN, x, severity) * per_channel(draws, x)


def shot_noise(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Noise of counted photons: normal, of the deviation of a Poisson number."""
    photons = strength(SHOT, x, severity)
    return x + (x.clamp(min=0) / photons).sqrt() * per_channel(draws, x)


def impulse_noise(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Some values are black or white."""
    u = draws.uniform(*x.shape[1:]).to(x)
    share = strength(IMPULSE, x, severity)
    return torch.where(u < share / 2, 0.0, torch.where(u < share, 1.0, x))


def gaussian_blur(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Out of focus."""
    deviation = strength(BLUR, x, severity)
    radius = max(1, math.ceil(3 * deviation))
    at = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    weights = (-(at**2) / (2 * deviation**2)).exp()
    weights = weights / weights.sum()
    C = x.shape[1]
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        kernel = weights.view(shape).expand(C, -1, -1, -1)
        pad = (0, 0, radius, radius) if shape[2] == -1 else (radius, radius, 0, 0)
        x = F.conv2d(F.pad(x, pad, mode="replicate"), kernel, groups=C)
    return x


def contrast(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Nearer to the image's mean."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * strength(CONTRAST, x, severity) + mean


def brightness(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Lighter; of colours the value of HSV, the lightest channel, which the others follow."""
    added = strength(BRIGHTNESS, x, severity)
    if x.shape[1] != 3:
        return x + added
    value = x.amax(1, keepdim=True)
    return torch.where(value > 0, x * ((value + added).clamp(max=1) / value.clamp(min=1e-6)), added)


def pixelate(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Made small and large again by a box filter, as Pillow's."""
    factor = strength(PIXELATE, x, severity)
    for axis in (2, 3):
        side = x.shape[axis]
        small = max(1, int(side * factor))
        both = box(side, small, x) @ box(small, side, x)
        x = torch.einsum("ij,bcjw->bciw" if axis == 2 else "ij,bchj->bchi", both.T, x)
    return x


def box(before: int, after: int, like: Tensor) -> Tensor:
    """What each pixel of a resized line is made of: the mean of those whose centres it covers.

    Float (before, after); pixels that grow are made of the one that lies over their centre.
    """
    scale = before / after
    reach = max(1.0, scale)
    at = torch.arange(before, device=like.device, dtype=like.dtype) + 0.5
    centre = (torch.arange(after, device=like.device, dtype=like.dtype) + 0.5) * scale
    off = (at[:, None] - centre) / reach
    covered = ((off > -0.5) & (off <= 0.5)).to(like.dtype)
    return covered / covered.sum(0)


def jpeg(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Saved as JPEG, by Pillow; channels that are no colours each alone."""
    quality = int(strength(JPEG, x, severity))
    B, C, H, W = x.shape
    each = (B, 3, H, W) if C == 3 else (B * C, 1, H, W)
    bytes_ = (x.clamp(0, 1) * 255).round().to(torch.uint8).cpu().view(each)
    saved = torch.stack([_as_jpeg(image, quality) for image in bytes_])
    return saved.view(B, C, H, W).to(x) / 255


def _as_jpeg(image: Tensor, quality: int) -> Tensor:
    """A gray or colour image, uint8 (C, H, W), after it was saved."""
    held = io.BytesIO()
    gray = len(image) == 1
    made = image[0] if gray else image.permute(1, 2, 0).contiguous()
    Image.fromarray(made.numpy()).save(held, "JPEG", quality=quality)
    pixels = torch.from_numpy(np.array(Image.open(held)))
    return pixels[None] if gray else pixels.permute(2, 0, 1)


def fog(x: Tensor, severity: int, draws: Draws) -> Tensor:
    """Clouds of all sizes before the image: noise whose octaves fall off, from coarse to fine."""
    height, fall = strength(FOG, x, severity), strength(OCTAVE, x, severity)
    side = 2 ** math.ceil(math.log2(max(x.shape[2:])))
    clouds: Tensor | float = 0.0
    cells, weight = 2, 1.0
    while cells <= side:
        coarse = draws.uniform(cells, cells).to(x)[:, None]
        layer = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
        clouds = clouds + weight * layer
        cells, weight = cells * 2, weight / fall
    assert isinstance(clouds, Tensor)
    clouds = clouds - clouds.amin((2, 3), keepdim=True)
    clouds = clouds / clouds.amax((2, 3), keepdim=True).clamp(min=1e-6)
    most = x.amax((1, 2, 3), keepdim=True)
    made = x + height * clouds[:, :, : x.shape[2], : x.shape[3]]
    return made * most / (most + height)


OF_IMAGES: dict[str, Corruption] = {
    "gaussian-noise": gaussian_noise,
    "shot-noise": shot_noise,
    "impulse-noise": impulse_noise,
    "gaussian-blur": gaussian_blur,
    "contrast": contrast,
    "brightness": brightness,
    "pixelate": pixelate,
    "jpeg": jpeg,
    "fog": fog,
}
