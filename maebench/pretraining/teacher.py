"""What learned maskings ask: an EMA teacher of what is trained, or that itself as it is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from maebench import masking
from maebench.errors import ConfigError
from maebench.masking.patches import upsampled
from maebench.pretraining.hardware import mixed
from maebench.rng import Draws, isolated

# HPM uses .999 to .9999 (arXiv 2304.05919).
TEACHER_DECAY = 0.999


def answers(
    module: Any,
    images: Tensor,
    ids: Tensor,
    seed: int,
    epoch: int | Tensor = 0,
    precision: str = "fp32",
) -> dict[str, Callable[[], Tensor]]:
    """What a view's lazy methods give for this very crop; each is computed once, when asked.

    Args:
        module: the objective around its encoder, a teacher or the one that is trained.
        images: float32 (B, C, H, W), normalised.
        ids: sample ids, int64 (B,).
        seed: of the run.
        epoch: one for all, or int64 (B,).
        precision: "fp32", "bf16" or "fp16", as the run's own steps.
    """
    made = {"attention": _attention, "features": _features, "patch_loss": _patch_loss}

    def ask(what: str) -> Tensor:
        device = str(images.device)
        with (
            _as_is(module),
            isolated(seed, "answers", what, device=device),
            mixed(device, precision),
        ):
            return made[what](module, images, Draws(seed, "patch loss", ids, epoch)).float()

    return {what: functools.cache(functools.partial(ask, what)) for what in made}


@contextmanager
def _as_is(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode and without gradients, then as it was."""
    was = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was)


def _attention(module: Any, images: Tensor, draws: Draws) -> Tensor:
    return module.encoder.attention(images)


def _features(module: Any, images: Tensor, draws: Draws) -> Tensor:
    """One feature per patch of the grid that masks are drawn on, (B, L, D)."""
    tokens = module.encoder(images)
    # a hierarchical encoder ends coarser: each of its tokens stands for several patches
    return upsampled(tokens.patches, tokens.grid, module.encoder.grid)


def _patch_loss(module: Any, images: Tensor, draws: Draws) -> Tensor:
    """The error of each patch when its random half of the image is hidden, (B, L).

    Raises:
        ConfigError: the objective does not reconstruct.
    """
    if not hasattr(module, "reconstruct"):
        raise ConfigError(
            "this masking asks for the loss of each patch, which the objective has not"
        )
    grid = module.encoder.grid
    length = grid[0] * grid[1]
    scores = draws.uniform(length)
    first = masking.hide(scores, length // 2, grid)
    second = masking.hide(first.hidden.logical_not().float(), length - length // 2, grid)
    loss = torch.zeros_like(scores)
    for mask in (first, second):
        made = module.reconstruct(images, mask)
        loss = torch.where(mask.hidden, made.errors(), loss)
    return loss
