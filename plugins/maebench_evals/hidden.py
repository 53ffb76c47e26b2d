"""Which pixels and targets are hidden, and how near a guess comes to them.

B images, L = h * w patches, M hidden patches of each image, T the dimension of a target, C, H, W
of images in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from maebench import MaebenchError, Mask, Model, Result, hidden_pixels, unpatchify

WINDOW = 11  # SSIM's Gaussian window, Wang et al. 2004
NO_PIXELS = "the objective gives no pixels"
HIDDEN_ALONE = (
    "nothing is learnt of seen patches, or they are not predicted in pixels without their own mean"
)
# Share of a sum of squares that is rounding: 2^-53 an addition, over some thousand batches. Equal
# targets have a variance of about that, and not of zero.
ROUNDING = 1e-12
SMALLEST_ERROR = 1e-10  # mean squared error below which PSNR is 100 dB


def patch_of(mask: Mask, images_BCHW: Tensor) -> tuple[int, int]:
    """Rows and columns of a patch in pixels."""
    return images_BCHW.shape[2] // mask.grid[0], images_BCHW.shape[3] // mask.grid[1]


def hidden_of(patches_BLT: Tensor, mask: Mask) -> Tensor:
    """The hidden patches of each image, (B, M, T)."""
    return patches_BLT[mask.hidden].view(len(patches_BLT), mask.num_hidden, -1)


def first(mask: Mask, count: int) -> Mask:
    """The masks of the first images."""
    return Mask(mask.hidden[:count], mask.seen[:count], mask.grid)


def distance_to_seen(mask: Mask) -> Tensor:
    """Steps of a chess king from each patch to the nearest seen one, int64 (B, L); 0 where seen."""
    reached = (~mask.hidden).float().view(-1, 1, *mask.grid)
    distance = torch.zeros_like(reached)
    # what is seen grows by one patch to all eight sides until it fills the grid
    for _ in range(max(mask.grid) - 1):
        distance += 1 - reached
        reached = max_pool2d(reached, 3, stride=1, padding=1)
    return distance.flatten(1).long()


def sum_at(distance_BM: Tensor, mask: Mask, values_BM: Tensor | None = None) -> Tensor:
    """The sum of values at each distance, or the number of patches, float64 (longest side,)."""
    values = torch.ones_like(distance_BM) if values_BM is None else values_BM
    at, length = distance_BM.flatten().cpu(), max(mask.grid)
    return torch.bincount(at, values.flatten().double().cpu(), length)


def pasted(patches_BLT: Tensor, images_BCHW: Tensor, mask: Mask) -> Tensor:
    """The images with predicted pixels in place of the hidden ones, (B, C, H, W)."""
    patch = patch_of(mask, images_BCHW)
    predicted = unpatchify(patches_BLT, mask.grid, patch)
    return torch.where(hidden_pixels(mask, patch), predicted, images_BCHW)


def zero() -> Tensor:
    """The float64 number that a sum begins with."""
    return torch.zeros((), dtype=torch.float64)


@dataclass
class TargetVariance:
    """Sums over the hidden targets of a split, for how far these lie from their mean."""

    total: Tensor = field(default_factory=zero)  # (T,)
    square: Tensor = field(default_factory=zero)  # (T,)
    patches: int = 0
    images: int = 0

    def add(self, truth_BMT: Tensor) -> None:
        """Counts the hidden targets of a batch, float64."""
        self.total = self.total + truth_BMT.sum((0, 1)).cpu()
        self.square = self.square + truth_BMT.square().sum((0, 1)).cpu()
        self.patches += truth_BMT.shape[0] * truth_BMT.shape[1]
        self.images += len(truth_BMT)

    def per_image(self) -> float:
        """The squared deviation of the hidden targets from their mean, summed over an image.

        Raises:
            MaebenchError: there is none.
        """
        found = (self.square - self.total.square() / self.patches).sum().item() / self.images
        if found <= ROUNDING * self.square.sum().item() / self.images:
            raise MaebenchError("reconstruction: all hidden targets are equal, there is no R2")
        return found


def decibels(error: Tensor) -> Tensor:
    """Peak signal to noise ratio of mean squared errors of pixels in 0..1, float64 on the CPU."""
    return -10 * error.double().clamp(min=SMALLEST_ERROR).log10().cpu()


def whole_psnr(model: Model, true: Tensor, made: Tensor) -> Tensor:
    """The ratio over all pixels of each normalised image (B, C, H, W), clipped to 0..1."""
    right, guess = model.pixels(true).clamp(0, 1), model.pixels(made).clamp(0, 1)
    return decibels((right - guess).square().mean((1, 2, 3)))


@dataclass
class Similarity:
    """How near the pixels of images are to the truth, one number per image."""

    psnr: list[Tensor] = field(default_factory=list)
    ssim: list[Tensor] = field(default_factory=list)

    def add(
        self, model: Model, true: Tensor, filled: Tensor, mask: Mask, window: bool = True
    ) -> None:
        """Compares normalised images (B, C, H, W) in 0..1, clipped, on their hidden pixels.

        SSIM is the mean of its map over the hidden pixels: an image without its seen ones would be
        another image. It is left out where the image is smaller than its window.
        """
        hidden = hidden_pixels(mask, patch_of(mask, true)).expand_as(true)
        right, guess = model.pixels(true).clamp(0, 1), model.pixels(filled).clamp(0, 1)
        count = hidden.sum((1, 2, 3))
        error = ((right - guess).square() * hidden).sum((1, 2, 3)) / count
        self.psnr.append(decibels(error))
        if not window or min(true.shape[2:]) < WINDOW:
            return
        # its import takes seconds
        from torchmetrics.functional.image import structural_similarity_index_measure as ssim

        _, map_BCHW = ssim(guess, right, data_range=1.0, reduction="none", return_full_image=True)
        found = (map_BCHW * hidden).sum((1, 2, 3)) / count
        self.ssim.append(found.double().clamp(-1, 1).cpu())

    def results(
        self, where: Mapping[str, object], metrics: Sequence[str], missing: str = NO_PIXELS
    ) -> Iterator[Result]:
        """PSNR and SSIM under these names, or as many of them as there are names."""
        small = f"the image is smaller than SSIM's window of {WINDOW} pixels"
        for metric, values in zip(metrics, (self.psnr, self.ssim), strict=False):
            if values:
                yield Result(metric, torch.cat(values), where)
            else:
                yield Result(metric, None, where, small if self.psnr else missing)
