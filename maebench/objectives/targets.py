"""What is predicted of each patch, and how a prediction becomes pixels again.

Shape suffixes: B images, C channels, H W pixels, L patches, K seen patches, N tokens, D width,
T dimension of a patch's target, O orientations.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maebench.encoders.inputs import Inputs
from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import patchify, take, upsampled
from maebench.objectives.ema import follow, make_teacher
from maebench.objectives.objective import TOKENS, Reconstruction

VARIANCE_EPS = 1e-6  # official MAE code, models_mae.py, forward_loss


def taken(x_BLT: Tensor, at_BM: Tensor | None) -> Tensor:
    """The patches at some places, (B, M, T), or all of them."""
    return x_BLT if at_BM is None else take(x_BLT, at_BM)


class Target(Protocol):
    """What is predicted of each patch."""

    dimension: int  # T

    def __call__(self, images: Tensor) -> Tensor:
        """The target of normalised images (B, C, H, W), float32 (B, L, T), without a gradient."""

    def at(self, images: Tensor, at_BM: Tensor | None) -> Tensor:
        """The target of some patches, float32 (B, M, T), or of all."""

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
        self.dimension = patch[0] * patch[1] * inputs.channels

    def __call__(self, images: Tensor) -> Tensor:
        """The pixels, float32 (B, L, T)."""
        return patchify(images.float(), self.patch)

    def at(self, images: Tensor, at_BM: Tensor | None) -> Tensor:
        """The target of some patches, float32 (B, M, T), or of all."""
        return taken(self(images), at_BM)

    def reconstruction(self, prediction_BLT: Tensor, images: Tensor, mask: Mask) -> Reconstruction:
        """The prediction is pixels already."""
        return Reconstruction(
            prediction_BLT, self(images), self.space, prediction_BLT, "as predicted"
        )


class TokenIds:
    """Which token a patch of text is.

    Args:
        inputs: gives the vocabulary.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.dimension = inputs.vocabulary  # logits

    def __call__(self, images: Tensor) -> Tensor:
        """The ids, int64 (B, L)."""
        return images

    def at(self, images: Tensor, at_BM: Tensor | None) -> Tensor:
        """Some ids, int64 (B, M), or all."""
        return images if at_BM is None else images.gather(1, at_BM)

    def reconstruction(self, prediction_BLT: Tensor, images: Tensor, mask: Mask) -> Reconstruction:
        """The logits beside the ids."""
        return Reconstruction(prediction_BLT, images, TOKENS)


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
        return self.at(images, None)

    def at(self, images: Tensor, at_BM: Tensor | None) -> Tensor:
        """The normalised pixels of some patches alone, float32 (B, M, T), or of all."""
        patches_BMT = taken(patchify(images.float(), self.patch), at_BM)
        # var is unbiased, as in the official code
        variance, mean = torch.var_mean(patches_BMT, dim=-1, keepdim=True)
        return (patches_BMT - mean) / (variance + VARIANCE_EPS).sqrt()

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
    sides = (torch.arange(side, device=patches_BLT.device) for side in (h, w))
    places = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).view(-1, 2).to(patches_BLT)
    weight_BLK = torch.cdist(places, places)[:, mask.seen].permute(1, 0, 2).pow(-2)
    own = weight_BLK.isinf()
    weight_BLK = torch.where(own.any(-1, keepdim=True), own.to(weight_BLK), weight_BLK)
    blended_BL2 = weight_BLK @ take(own_BL2, mask.seen) / weight_BLK.sum(-1, keepdim=True)
    return blended_BL2[..., :1], blended_BL2[..., 1:]


ORIENTATIONS = 9  # of 20 degrees each, a gradient and its opposite alike (arXiv 2112.09133)
NORM_EPS = 1e-5  # scikit-image's hog, which this equals number for number


class Hog:
    """Histograms of oriented gradients, of each channel and in cells of their own.

    Gradients are differences [-1, 0, 1], 0 across the border of the image: the plain mask is what
    Dalal and Triggs (CVPR 2005) found best; MaskFeat takes Sobel's. A pixel votes for one
    orientation with the length of its gradient, and a cell's histogram has length 1. A pixel at
    the edge of a patch looks one pixel into the next.

    Args:
        patch: rows and columns of a patch in pixels.
        inputs: gives the channels.
        cell: side of a cell in pixels; default half the patch, or all where that is under 2 px.

    Raises:
        ConfigError: cells do not divide the patch.
    """

    space = "hog"

    def __init__(self, patch: tuple[int, int], inputs: Inputs, cell: int | None = None) -> None:
        self.cell = (cell, cell) if cell else (default_cell(patch[0]), default_cell(patch[1]))
        if any(side % c for side, c in zip(patch, self.cell, strict=True)):
            common = math.gcd(*patch)
            fits = [str(n) for n in range(1, common + 1) if common % n == 0]
            raise ConfigError(
                f"objective.hog_cell: {cell} does not divide patches of {patch[0]}x{patch[1]}; "
                f"cells that do: {', '.join(fits)}"
            )
        self.per = (patch[0] // self.cell[0], patch[1] // self.cell[1])  # cells of a patch
        self.dimension = self.per[0] * self.per[1] * ORIENTATIONS * inputs.channels

    def __call__(self, images: Tensor) -> Tensor:
        """The histograms, float32 (B, L, T)."""
        x_BCHW = images.detach().float()
        down_BCHW = F.pad(x_BCHW[:, :, 2:] - x_BCHW[:, :, :-2], (0, 0, 1, 1))
        right_BCHW = F.pad(x_BCHW[..., 2:] - x_BCHW[..., :-2], (1, 1))
        angle_BCHW = torch.atan2(down_BCHW, right_BCHW) % math.pi
        # an angle just below 0 comes out of the remainder as pi itself
        bin_BCHW = (angle_BCHW * (ORIENTATIONS / math.pi)).long().clamp(max=ORIENTATIONS - 1)
        votes_BCOHW = x_BCHW.new_zeros(*x_BCHW.shape[:2], ORIENTATIONS, *x_BCHW.shape[2:])
        votes_BCOHW.scatter_(
            2, bin_BCHW[:, :, None], torch.hypot(down_BCHW, right_BCHW)[:, :, None]
        )
        cells = F.avg_pool2d(votes_BCOHW.flatten(1, 2), self.cell).unflatten(1, (-1, ORIENTATIONS))
        cells = cells / (cells.square().sum(2, keepdim=True) + NORM_EPS**2).sqrt()
        return patchify(cells.flatten(1, 2), self.per)

    def at(self, images: Tensor, at_BM: Tensor | None) -> Tensor:
        """The histograms of some patches, float32 (B, M, T), or of all."""
        return taken(self(images), at_BM)

    def reconstruction(self, prediction_BLT: Tensor, images: Tensor, mask: Mask) -> Reconstruction:
        """The prediction beside the truth; there are no pixels."""
        how = "no pixels: histograms of gradients do not say where in its cell a gradient lies"
        return Reconstruction(prediction_BLT, self(images), self.space, how=how)


def default_cell(side: int) -> int:
    """Half the side of a patch, as MaskFeat's 8 of 16; all of it where half is odd or under 2."""
    return side // 2 if side % 2 == 0 and side >= 4 else side


LAYERS = 6  # data2vec for images (arXiv 2202.03555)


class Features(nn.Module):
    """Tokens that an EMA teacher makes of the whole image, the mean of some layers.

    The teacher, a slow average of the encoder, is never trained and never in training mode; it and
    its count of updates are part of the state. Each layer is normed without weights, and so is
    their mean: over the dimensions of each token mean and deviation are 0 and 1. A token of an
    encoder that ends coarser stands for all its patches.

    Args:
        encoder: what the teacher follows, as it is now.
        inputs: what it is fed.
        layers: number of last blocks; default six, or as many as there are.
        decay: of the average, per update.

    Raises:
        ConfigError: there are fewer such blocks.
    """

    space = "features"
    updates: Tensor

    def __init__(
        self, encoder: Any, inputs: Inputs, layers: int | None = None, decay: float = 0.999
    ) -> None:
        super().__init__()
        self.teacher: Any = make_teacher(encoder)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        alike = layers_like_the_last(self.teacher, inputs)
        if layers is not None and layers > len(alike):
            raise ConfigError(
                f"objective.teacher_layers: {layers}, but of this encoder's {encoder.depth} blocks "
                f"{len(alike)} end on its last grid at its last width; allowed: 1 to {len(alike)}"
            )
        self.layers = alike[-(layers or LAYERS) :]
        self.decay = decay
        self.dimension = encoder.width

    def train(self, mode: bool = True) -> Features:
        """Stays in evaluation mode, whatever becomes of what it is a part of."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The targets, float32 (B, L, D)."""
        tokens = self.teacher(images, None, self.layers)
        each = [_normed(tokens.layers[number].patches) for number in self.layers]
        mean_BND = _normed(torch.stack(each).mean(0))
        return upsampled(mean_BND, tokens.grid, self.teacher.grid)

    def at(self, images: Tensor, at_BM: Tensor | None) -> Tensor:
        """The targets of some patches, float32 (B, M, D), or of all."""
        return taken(self(images), at_BM)

    def follow(self, encoder: nn.Module) -> None:
        """Moves the teacher towards the encoder; called after each update."""
        self.updates += 1
        follow(self.teacher, encoder, self.decay, int(self.updates))

    def reconstruction(self, prediction_BLT: Tensor, images: Tensor, mask: Mask) -> Reconstruction:
        """The prediction beside the truth; there are no pixels."""
        how = "no pixels: an encoder's tokens are predicted, and nothing turns them into an image"
        # what another copy makes of an image is another target
        space = f"{self.space} of the copy after {self.updates.item()} updates"
        return Reconstruction(prediction_BLT, self(images), space, how=how)


def deviation_over_images(target_BLD: Tensor) -> Tensor:
    """How much targets at one place differ between images, a scalar: 0 once they all are alike."""
    return target_BLD.std(0, correction=0).mean()


@torch.no_grad()
def layers_like_the_last(encoder: Any, inputs: Inputs) -> tuple[int, ...]:
    """The blocks whose tokens lie on the last grid and have the last width, found by one image."""
    was = encoder.training
    image = inputs.zeros(1, next(encoder.parameters()).device)
    end = encoder.eval()(image, None, range(1, encoder.depth + 1))
    encoder.train(was)
    shapes = {number: level.patches.shape for number, level in end.layers.items()}
    return tuple(n for n in sorted(shapes) if shapes[n] == end.patches.shape)


def _normed(x_BND: Tensor) -> Tensor:
    return F.layer_norm(x_BND.float(), x_BND.shape[-1:])
