"""What masks are like: statistics of many of them.

E epochs, B images, L = h * w patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IMAGES = 256  # in a sample, as in the milliseconds; each epoch draws masks for them anew
STATISTICS = (  # what `describe` gives
    *("grid", "num_hidden", "realised_ratio", "rate_min", "rate_max", "autocorrelation"),
    *("components", "size_1", "size_2", "size_5", "size_17", "distance", "overlap", "ms_per_256"),
)
SIZES = ((1, 1), (2, 4), (5, 16), (17, None))  # patches of a component, each four times the last


@dataclass(frozen=True)
class Sample:
    """Masks of some images over some epochs.

    Args:
        hidden: bool (E, B, L) on the CPU.
        grid: h * w = L.
        images: the first epoch's crops, float32 (B, C, H, W) in 0..255, on the CPU.
        milliseconds: median over epochs, per 256 images in batches of the run's size,
            with what the strategy asks of a model.
    """

    hidden: Tensor
    grid: tuple[int, int]
    images: Tensor
    milliseconds: float


def describe(found: Sample) -> dict[str, Any]:
    """Statistics of a sample of masks, as plain values.

    Returns:
        grid: "h x w"; num_hidden and realised_ratio: of each image; rate_min, rate_max: share of
        the masks that hide the position hidden least, and most, often; autocorrelation: of the
        visible map with itself one patch away, mean over rows and columns (0: independent);
        components: visible pieces per image, patches that touch at a side; size_1 to size_17: share
        of the seen patches in pieces of 1, 2-4, 5-16 and 17 or more; distance: mean from a hidden
        patch to the nearest seen one, in patches; overlap: share of an epoch's hidden patches that
        are hidden in the next epoch too (the ratio, if epochs are independent and positions alike;
        None for one epoch); ms_per_256: milliseconds.
    """
    from scipy import ndimage

    E, B, L = found.hidden.shape
    h, w = found.grid
    hidden_NHW = found.hidden.view(E * B, h, w)
    rate_L = found.hidden.double().mean((0, 1))
    num_hidden = int(found.hidden[0, 0].sum())
    within = [[[0] * 3, [0] * 3, [0] * 3], [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0] * 3] * 3]
    pieces, count = ndimage.label(~hidden_NHW.numpy(), within)  # no piece reaches another image
    size = torch.bincount(torch.from_numpy(pieces).flatten().long())[1:]
    # other images are farther away than anything in this one
    distance = ndimage.distance_transform_edt(hidden_NHW.numpy(), (h + w, 1, 1))
    again = int((found.hidden[1:] & found.hidden[:-1]).sum()) / max(1, (E - 1) * B * num_hidden)
    return {
        "grid": f"{h}x{w}",
        "num_hidden": num_hidden,
        "realised_ratio": num_hidden / L,
        "rate_min": float(rate_L.min()),
        "rate_max": float(rate_L.max()),
        "autocorrelation": autocorrelation(hidden_NHW),
        "components": count / len(hidden_NHW),
        **{f"size_{low}": _share(size, low, high) for low, high in SIZES},
        "distance": float(distance[hidden_NHW.numpy()].mean()) if num_hidden else 0.0,
        "overlap": again if E > 1 else None,
        "ms_per_256": found.milliseconds,
    }


def autocorrelation(hidden_NHW: Tensor) -> float:
    """Lag-1 autocorrelation of the visible map, the mean of its rows' and its columns'.

    Each map's own mean is taken off, so independent patches have -1 / (L - 1). NaN for maps that
    are one row and one column wide, or of one value.
    """
    visible = 1.0 - hidden_NHW.double()
    visible = visible - visible.mean((1, 2), keepdim=True)
    products = [visible[:, 1:] * visible[:, :-1], visible[:, :, 1:] * visible[:, :, :-1]]
    means = [product.mean() for product in products if product.numel()]
    return float(torch.stack(means).mean() / visible.square().mean()) if means else float("nan")


def _share(size: Tensor, low: int, high: int | None) -> float:
    inside = (size >= low) & (size <= (high or size.max()))
    return int(size[inside].sum()) / int(size.sum())
