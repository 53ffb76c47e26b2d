"""Images as rows of patches, and back: views only, so torch is not imported here.

Shape suffixes: B images, C channels, H W pixels, p q pixels of a patch, L patches, K of them,
T = p * q * C numbers of a patch, D width.
"""

from __future__ import annotations

from torch import Tensor

from maebench.masking.mask import Mask


def patchify(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """Cuts images (B, C, H, W) into patches (B, L, p*q*C), channel last inside a patch."""
    B, C, H, W = images.shape
    p, q = patch
    x = images.view(B, C, H // p, p, W // q, q).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(B, (H // p) * (W // q), p * q * C)


def unpatchify(patches_BLT: Tensor, grid: tuple[int, int], patch: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`."""
    B, _, T = patches_BLT.shape
    (h, w), (p, q) = grid, patch
    C = T // (p * q)
    x = patches_BLT.view(B, h, w, p, q, C).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(B, C, h * p, w * q)


def raw_patches(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """Cuts images (B, C, H, W) into patches (B, L, C*p*q), each in channel, row, column order."""
    B, C, H, W = images.shape
    p, q = patch
    x = images.view(B, C, H // p, p, W // q, q).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(B, (H // p) * (W // q), C * p * q)


def take(x_BLD: Tensor, index_BK: Tensor) -> Tensor:
    """The tokens at `index_BK` of each image, (B, K, D)."""
    return x_BLD.gather(1, index_BK[:, :, None].expand(-1, -1, x_BLD.shape[2]))


def upsampled(x_BND: Tensor, grid: tuple[int, int], finer: tuple[int, int]) -> Tensor:
    """The tokens (B, N, D) of a grid on a finer one, each at all its places, (B, L, D)."""
    if grid == finer:
        return x_BND
    x_BhwD = x_BND.unflatten(1, grid)
    x_BhwD = x_BhwD.repeat_interleave(finer[0] // grid[0], 1)
    return x_BhwD.repeat_interleave(finer[1] // grid[1], 2).flatten(1, 2)


def hidden_pixels(mask: Mask, patch: tuple[int, int]) -> Tensor:
    """Which pixels are hidden, bool (B, 1, H, W)."""
    grid = mask.hidden.view(-1, 1, *mask.grid)
    return grid.repeat_interleave(patch[0], 2).repeat_interleave(patch[1], 3)
