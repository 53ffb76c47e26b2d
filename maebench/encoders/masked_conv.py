"""Masked convolutions: a convolutional network in which hidden cells stay exactly 0.

A convolution needs its grid, so hidden patches cannot be dropped. Instead the image is 0 there, and
after each layer that makes something of nothing (a convolution, a norm, a pooling) hidden cells are
0 again. Batch norm takes its statistics over seen cells alone. Source: Tian et al. 2023, arXiv
2301.03580, section 3.1; Woo et al. 2023, arXiv 2301.00808, section 3.1.

B images, C channels of a map, H W its cells, h w those of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maebench.errors import ConfigError
from maebench.masking.mask import Mask

# timm's pooling and norm layers are subclasses of torch's, or have these names
MAKES = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LayerNorm, nn.Linear)
# their statistics are of a whole map, hidden cells with it
WHOLE = (nn.GroupNorm, nn.InstanceNorm2d, nn.SyncBatchNorm)
NAMED = ("GlobalResponseNorm",)


class Seen:
    """Which cells the pass that is being made sees; all of them where there is no mask."""

    def __init__(self) -> None:
        self.cells: Tensor | None = None  # float32 (B, 1, h, w), 1 where seen
        self.count = 0  # of cells that are seen, in all images

    @contextmanager
    def of(self, mask: Mask | None) -> Iterator[None]:
        """Passes inside see what a mask leaves."""
        if mask is not None:
            h, w = mask.grid
            self.cells = (~mask.hidden).float().view(-1, 1, h, w)
            self.count = mask.seen.numel()
        try:
            yield
        finally:
            self.cells = None

    def on(self, cells: Tensor) -> int:
        """How many of these cells, as `at` gives them, are seen; the device is not asked."""
        assert self.cells is not None
        return self.count * cells[0].numel() // self.cells[0].numel()

    def at(self, size: tuple[int, int], last: bool = False) -> Tensor | None:
        """The cells on a map of (H, W), float32 (B, 1, H, W), or with `last` (B, H, W, 1).

        None where all are seen, and on a map that has become smaller than the mask: it is pooled.
        """
        if self.cells is None:
            return None
        (H, W), (h, w) = size, self.cells.shape[2:]
        if H < h or W < w:
            return None
        cells = self.cells
        if (H, W) != (h, w):
            cells = F.interpolate(cells, (H, W), mode="nearest")
        return cells.permute(0, 2, 3, 1) if last else cells


class Zeroing:
    """A forward hook that puts 0 into the hidden cells of what a layer gives.

    An object, so that a copy of the network has its own.
    """

    def __init__(self, seen: Seen, last: bool) -> None:
        self.seen, self.last = seen, last

    def __call__(self, module: nn.Module, inputs: Any, made: Tensor) -> Tensor:
        """The same, hidden cells 0."""
        if made.ndim != 4:
            return made
        size = made.shape[1:3] if self.last else made.shape[2:]
        cells = self.seen.at((size[0], size[1]), self.last)
        return made if cells is None else made * cells.to(made.dtype)


class SeenBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics are of seen cells alone, and that leaves hidden ones 0."""

    seen: Seen

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """As torch's where all is seen."""
        cells = self.seen.at((x_BCHW.shape[2], x_BCHW.shape[3]))
        if cells is None:
            return super().forward(x_BCHW)
        if not self.training:
            return super().forward(x_BCHW) * cells.to(x_BCHW.dtype)
        count = self.seen.on(cells)
        if count < 2:  # torch refuses it too: one number has no variance
            raise ConfigError("batch norm needs two seen cells: give a larger batch or lower ratio")
        x = x_BCHW.float()
        mean_C = (x * cells).sum((0, 2, 3)) / count
        off = (x - mean_C[:, None, None]) * cells
        variance_C = off.square().sum((0, 2, 3)) / count
        self._follow(mean_C.detach(), variance_C.detach(), count)
        scale = (variance_C + self.eps).rsqrt() * self.weight
        made = (off * scale[:, None, None] + self.bias[:, None, None]) * cells
        return made.to(x_BCHW.dtype)

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor, count: int) -> None:
        """Running statistics as torch's: the variance without bias."""
        assert self.num_batches_tracked is not None and self.momentum is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C * count / (count - 1), self.momentum)


class SeenBatchNormAct(SeenBatchNorm):
    """Timm's batch norm with an activation, which leaves 0 as it is or is found out."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """As timm's where all is seen."""
        made: Tensor = self.act(self.drop(super().forward(x_BCHW)))
        return made


def mask_layers(network: nn.Module, seen: Seen) -> None:
    """Makes every layer of a network leave hidden cells 0; names of parameters stay.

    Raises:
        ConfigError: it has a norm over a batch of another kind than `nn.BatchNorm2d`, or one
            over a whole map.
    """
    for module in list(network.modules()):
        if isinstance(module, WHOLE):
            raise ConfigError(f"{type(module).__name__} takes its mean over hidden cells too")
        if isinstance(module, nn.BatchNorm2d):
            named = type(module).__name__
            if type(module) is not nn.BatchNorm2d and named != "BatchNormAct2d":
                raise ConfigError(f"{named} is no plain batch norm")
            plain = type(module) is nn.BatchNorm2d
            module.__class__ = SeenBatchNorm if plain else SeenBatchNormAct
            module.seen = seen  # type: ignore[assignment]
        elif isinstance(module, MAKES) or type(module).__name__ in NAMED:
            last = isinstance(module, nn.Linear) or (
                isinstance(module, nn.LayerNorm) and "2d" not in type(module).__name__
            )
            last |= getattr(module, "channel_dim", 1) == -1
            module.register_forward_hook(Zeroing(seen, last))
