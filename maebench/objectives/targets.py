"""What is predicted of each patch, and how a prediction becomes pixels again.

Shape suffixes: B images, L patches, K seen patches, T numbers of a patch.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from maebench.masking.mask import Mask
from maebench.masking.patches import patchify, take
from maebench.objectives.objective import Inputs, Reconstruction

VARIANCE_EPS = 1e-6  # official MAE code, models_mae.py, forward_loss


class Target(Protocol):
    """What is predicted of each patch."""

    numbers: int  # T

    def __call__(self, images: Tensor) -> Tensor:
        """The target of normalised images (B, C, H, W), float32 (B, L, T), without a gradient."""

    def reconstruction(self, prediction_BLT: Tensor, images: Tensor, mask: Mask) -> Reconstruction:
        """The prediction beside the truth, and as pixels where there is a way."""


class Pixels:
    """The pixels of a patch.

    Args:
        patch: rows and columns of a patch in pixels.
        inputs: gives the channels.
    """

    space = "pixels"

    def __init__(self, patch: tuple[int, int], inputs: Inputs) -> None:
        self.patch = patch
        self.numbers = patch[0] * patch[1] * inputs.channels

    def __call__(self, images: Tensor) -> Tensor:
        """The pixels, float32 (B, L, T)."""
        return patchify(images.float(), self.patch)

    def reconstruction(self, prediction_BLT: Tensor, images: Tensor, mask: Mask) -> Reconstruction:
        """The prediction is pixels already."""
        return Reconstruction(
            prediction_BLT, self(images), self.space, prediction_BLT, "as predicted"
        )


class LowPass(Pixels):
    """The pixels of the image without its high frequencies.

    What lies further from 0 in the Fourier plane than a radius is cut off; at the borders the
    image goes on with its other side.

    Args:
        patch: rows and columns of a patch in pixels.
        inputs: gives the channels.
        radius: as a share of the highest frequency, half a wave per pixel.
    """

    space = "low-pass pixels"

    def __init__(self, patch: tuple[int, int], inputs: Inputs, radius: float) -> None:
        super().__init__(patch, inputs)
        self.radius = radius

    def __call__(self, images: Tensor) -> Tensor:
        """The smoothed pixels, float32 (B, L, T)."""
        x_BCHW = images.detach().float()
        H, W = x_BCHW.shape[2:]
        rows = torch.fft.fftfreq(H, device=images.device)
        columns = torch.fft.rfftfreq(W, device=images.device)
        # the margin is for frequencies on the circle, whose length is rounded
        kept = torch.hypot(rows[:, None], columns) <= self.radius / 2 + 1e-6
        low_BCHW = torch.fft.irfft2(torch.fft.rfft2(x_BCHW) * kept, s=(H, W))
        return patchify(low_BCHW, self.patch)

    def reconstruction(self, prediction_BLT: Tensor, images: Tensor, mask: Mask) -> Reconstruction:
        """The prediction is pixels of a smooth image."""
        how = "as predicted, of the image without high frequencies"
        return Reconstruction(prediction_BLT, self(images), self.space, prediction_BLT, how)


class NormalisedPixels(Pixels):
    """The pixels of a patch minus their mean, over their standard deviation."""

    space = "normalised-pixels"

    def __call__(self, images: Tensor) -> Tensor:
        """The normalised pixels, float32 (B, L, T)."""
        patches_BLT = patchify(images.float(), self.patch)
        # var is unbiased, as in the official code
        variance, mean = torch.var_mean(patches_BLT, dim=-1, keepdim=True)
        return (patches_BLT - mean) / (variance + VARIANCE_EPS).sqrt()

    def reconstruction(self, prediction_BLT: Tensor, images: Tensor, mask: Mask) -> Reconstruction:
        """Pixels with statistics from what is seen, and beside them with the true ones."""
        patches_BLT = patchify(images.float(), self.patch)
        mean_BL1, std_BL1 = statistics_from_seen(patches_BLT, mask)
        true_variance, true_mean = torch.var_mean(patches_BLT, dim=-1, keepdim=True)
        return Reconstruction(
            prediction_BLT,
            self(images),
            self.space,
            prediction_BLT * std_BL1 + mean_BL1,
            "mean and deviation of each patch interpolated from the seen patches",
            prediction_BLT * (true_variance + VARIANCE_EPS).sqrt() + true_mean,
        )


def statistics_from_seen(patches_BLT: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch, a hidden one's from the seen ones by inverse distance.

    Returns:
        Two tensors float32 (B, L, 1); a seen patch has its own statistics. Weights are one over
        the squared distance between patch centres (Shepard 1968).
    """
    variance, mean = torch.var_mean(patches_BLT, dim=-1)
    own_BL2 = torch.stack([mean, (variance + VARIANCE_EPS).sqrt()], -1)
    h, w = mask.grid
    places = (
        torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1)
        .view(-1, 2)
        .to(patches_BLT)
    )
    weight_BLK = torch.cdist(places, places)[:, mask.seen].permute(1, 0, 2).pow(-2)
    own = weight_BLK.isinf()
    weight_BLK = torch.where(own.any(-1, keepdim=True), own.to(weight_BLK), weight_BLK)
    blended_BL2 = weight_BLK @ take(own_BL2, mask.seen) / weight_BLK.sum(-1, keepdim=True)
    return blended_BL2[..., :1], blended_BL2[..., 1:]
