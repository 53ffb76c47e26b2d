"""Which images look alike though their files differ: resized, saved again, slightly changed.

Shape suffixes: N images, C channels, S side of a thumbnail, K frequencies.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SIDE = 32  # of the thumbnail, and LOW of the frequencies kept: as phash of the imagehash library
LOW = 8
# Of 203 drawings of Open Clip Art, median after JPEG at quality 30 .9997, at half the size .99997;
# of 19,900 pairs of 200 of them 15 reach .99, all stars of one series that look alike.
LEAST_CORRELATION = 0.99
BLOCK = 2048  # hashes compared at once: 0.5 GB beside 60,000
FAINT = 1.0  # length of a thumbnail's contrast below which it is of one colour


def thumbnails(pixels: Tensor) -> NDArray[np.uint8]:
    """Gray images of 32x32, uint8 (N, S, S), from uint8 (N, C, H, W)."""
    gray = pixels.float().mean(1, keepdim=True)
    if gray.shape[2:] != (SIDE, SIDE):
        gray = F.interpolate(gray, (SIDE, SIDE), mode="bicubic", antialias=True)
    return np.asarray((gray[:, 0] + 0.5).clamp(0, 255).to(torch.uint8).numpy())


def perceptual_hash(gray_NSS: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The low frequencies of thumbnails, without their mean, as rows (N, K) of length 1.

    A perceptual hash keeps which of these numbers are above their median (Zauner 2010,
    "Implementation and benchmarking of perceptual image hash functions"). The numbers are kept
    here: in symmetric drawings many are near the median, and a tenth of such bits flips when a
    file is saved again. Thumbnails of one colour are zeros.
    """
    from scipy.fft import dctn

    low = np.zeros((len(gray_NSS), LOW * LOW), np.float32)
    for start in range(0, len(low), BLOCK):
        part = gray_NSS[start : start + BLOCK].astype(np.float32)
        found = dctn(part, axes=(1, 2), norm="ortho")[:, :LOW, :LOW]
        low[start : start + BLOCK] = found.reshape(len(part), -1)
    low[:, 0] = 0  # the mean
    return _standard(low)


def look_alikes(
    ours_NSS: NDArray[np.uint8], theirs_NSS: NDArray[np.uint8], mirrored: bool
) -> list[tuple[int, int]]:
    """Pairs of images of two splits that look alike, as positions, each of `theirs` once.

    Their hashes, and the whole thumbnails, are correlated by .99 or more. Images of one colour
    look like many others, and are left out.

    Args:
        ours_NSS: thumbnails of one split.
        theirs_NSS: thumbnails of the other.
        mirrored: whether a mirrored image looks alike.
    """
    pairs: dict[int, int] = {}
    our_hash = perceptual_hash(ours_NSS)
    for turned in (False, True) if mirrored else (False,):
        other_NSS = theirs_NSS[:, :, ::-1] if turned else theirs_NSS
        hashes = perceptual_hash(other_NSS)
        for start in range(0, len(hashes), BLOCK):
            alike = hashes[start : start + BLOCK] @ our_hash.T
            theirs, ours = np.nonzero(alike >= LEAST_CORRELATION)
            for part in np.array_split(np.arange(len(ours)), len(ours) // BLOCK + 1):
                i, j = theirs[part] + start, ours[part]
                same = (_centred(other_NSS[i]) * _centred(ours_NSS[j])).sum(1)
                for one, other in zip(
                    i[same >= LEAST_CORRELATION], j[same >= LEAST_CORRELATION], strict=True
                ):
                    pairs.setdefault(int(one), int(other))
    return sorted((j, i) for i, j in pairs.items())


def _centred(gray_NSS: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Thumbnails without their mean as rows of length 1."""
    rows = gray_NSS.reshape(len(gray_NSS), SIDE * SIDE).astype(np.float32)
    return _standard(rows - rows.mean(1, keepdims=True))


def _standard(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1; zeros where they are faint."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    made = np.where(length > FAINT, rows / np.maximum(length, FAINT), 0)
    return np.asarray(made, dtype=np.float32)


def one_colour(pixels: Tensor) -> Tensor:
    """Which images (N, C, H, W) have one colour everywhere, bool (N,)."""
    flat = pixels.flatten(2)
    return (flat == flat[:, :, :1]).all(2).all(1)
