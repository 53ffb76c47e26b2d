"""What can be guessed of hidden patches without a model: the baselines of reconstruction.

Each takes normalised images (B, C, H, W) and a mask, reads no hidden pixel and no other image, and
gives the images with their hidden patches filled in. `patch_means` alone reads what is hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from maebench import MaebenchError, Mask, hidden_pixels, patchify, unpatchify
from maebench_evals.hidden import pasted, patch_of

# The residual of Laplace's equation that is left, as a share of the range of an image's seen
# pixels. It moves no pixel by more than itself times a quarter of the longest mean random walk to
# a seen pixel: 0.074 n^2 for a hole of n x n. At n = 224 that is a tenth of one of 255 grey levels.
TOLERANCE = 1e-7
# Conjugate gradients need some 4 n steps for that in a hole of n x n; ten times a side of the
# image is more than any mask of it asks for.
STEPS_PER_PIXEL = 10
CELLS = 2**18  # pixels solved at once: what a CPU's cache holds of five float64 arrays


def mean_colour(images: Tensor, mask: Mask) -> Tensor:
    """Hidden pixels have the mean of the image's seen pixels, per channel."""
    hidden = hidden_pixels(mask, patch_of(mask, images))
    seen = ~hidden
    mean = (images * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)
    return torch.where(hidden, mean, images)


def nearest_patch(images: Tensor, mask: Mask) -> Tensor:
    """Hidden patches are copies of the seen patch whose centre is nearest, in patches.

    Of equally near ones it is the first in raster order.
    """
    h, w = mask.grid
    at = torch.cartesian_prod(*(torch.arange(n, device=mask.seen.device) for n in (h, w)))
    square_LL = (at[:, None] - at[None]).square().sum(-1)  # whole numbers: equal is equal
    # argmin gives the first of equals, and `seen` is ascending
    nearest_BL = square_LL[:, mask.seen].argmin(-1).T
    source_BL = mask.seen.gather(1, nearest_BL)  # a seen patch is its own nearest
    patch = patch_of(mask, images)
    patches_BLT = patchify(images, patch)
    index = source_BL[..., None].expand(-1, -1, patches_BLT.shape[2])
    return unpatchify(patches_BLT.gather(1, index), mask.grid, patch)


def harmonic(images: Tensor, mask: Mask) -> Tensor:
    """Hidden pixels are the mean of their neighbours: Laplace's equation with seen pixels fixed.

    A pixel has its up to four neighbours in the image, so nothing flows over the image's edge.

    Raises:
        MaebenchError: it was not solved within the steps that are allowed.
    """
    hidden = hidden_pixels(mask, patch_of(mask, images))
    size = max(1, CELLS // images[0].numel()) if images.device.type == "cpu" else len(images)
    parts = zip(images.split(size), hidden.split(size), strict=True)
    return torch.cat([_solve(image.double(), where).to(images) for image, where in parts])


def _solve(images: Tensor, hidden: Tensor) -> Tensor:
    """Conjugate gradients on the hidden pixels of each channel, from pull-push, in float64.

    Every image and channel takes its own steps and stops on its own, so that it does not matter
    which others are solved beside it.
    """
    # each channel is a system of its own: (S, H, W)
    solved = pull_push(images, hidden).flatten(0, 1)
    inside = hidden.expand_as(images).flatten(0, 1)
    allowed = (TOLERANCE * _seen_range(images, hidden)).flatten(0, 1)
    going = torch.arange(len(solved), device=solved.device)  # which systems are not yet solved
    u, weight = solved.clone(), inside * _neighbours(solved)
    residual = -_outflow(u, inside, weight)
    direction, square = residual.clone(), residual.square().sum((1, 2), keepdim=True)
    steps = STEPS_PER_PIXEL * sum(images.shape[2:])
    for _ in range(steps + 1):
        # the root of the sum of squares is never below the largest
        left = (square.sqrt() > allowed).flatten()
        if not bool(left.all()):
            solved[going] = u
            state = (going, u, inside, weight, residual, direction, square, allowed)
            going, u, inside, weight, residual, direction, square, allowed = (
                each[left] for each in state
            )
        if not len(going):
            return solved.view_as(images)
        onward = _outflow(direction, inside, weight)
        step = square / (direction * onward).sum((1, 2), keepdim=True)
        u.addcmul_(step, direction)
        residual.addcmul_(step, onward, value=-1)
        before, square = square, residual.square().sum((1, 2), keepdim=True)
        direction.mul_(square / before).add_(residual)
    raise MaebenchError(
        f"harmonic inpainting: {len(going)} channels of {len(images)} images of "
        f"{images.shape[2]}x{images.shape[3]} pixels are not solved to {TOLERANCE:g} of their "
        f"range after {steps} steps"
    )


def _outflow(u: Tensor, inside: Tensor, weight: Tensor) -> Tensor:
    """How much higher a hidden pixel is than its neighbours, summed over them; 0 where seen.

    `weight` is the number of neighbours of a hidden pixel.
    """
    out = weight * u
    out[:, 1:] -= u[:, :-1]
    out[:, :-1] -= u[:, 1:]
    out[:, :, 1:] -= u[:, :, :-1]
    out[:, :, :-1] -= u[:, :, 1:]
    return out.mul_(inside)


def _neighbours(u: Tensor) -> Tensor:
    """How many neighbours a pixel has in the image, (H, W): 4, fewer at the edge."""
    number = u.new_zeros(u.shape[1:])
    for part in (number[1:], number[:-1], number[:, 1:], number[:, :-1]):
        part += 1
    return number


def _seen_range(images: Tensor, hidden: Tensor) -> Tensor:
    """Highest minus lowest seen pixel of each image and channel, (B, C, 1, 1)."""
    high = images.masked_fill(hidden, -float("inf")).amax((2, 3), keepdim=True)
    low = images.masked_fill(hidden, float("inf")).amin((2, 3), keepdim=True)
    # one colour has no range: there the rounding of pull-push is all that could be left
    return (high - low).maximum(1e-6 * high.abs())


def pull_push(images: Tensor, hidden: Tensor) -> Tensor:
    """Seen pixels diffused over the hidden ones: pull up a pyramid of means, push down bilinearly.

    Source: Gortler et al. 1996, "The Lumigraph", section 3.4.3 (pull-push).
    """
    weight = (~hidden).to(images)
    if bool((weight > 0).all()) or max(images.shape[2:]) == 1:
        return images
    values = avg_pool2d(images * weight, 2, ceil_mode=True, count_include_pad=False)
    share = avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
    coarse = values / share.clamp(min=1e-6)  # where no pixel is seen the next level fills
    coarse = pull_push(coarse, share == 0)
    fine = interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(hidden, fine, images)


def patch_means(images: Tensor, mask: Mask) -> Tensor:
    """Hidden patches have their true mean: no baseline, it reads what is hidden."""
    patches_BLT = patchify(images, patch_of(mask, images))
    return pasted(patches_BLT.mean(-1, keepdim=True).expand_as(patches_BLT), images, mask)


BASELINES = {"mean-colour": mean_colour, "nearest-patch": nearest_patch, "harmonic": harmonic}
