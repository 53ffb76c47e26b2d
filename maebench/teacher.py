"""The slow copy of a model that learned maskings ask."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from maebench import masking
from maebench.config import RunConfig
from maebench.data.augment import Crops
from maebench.rng import Draws

# HPM uses .999 to .9999 (arXiv 2304.05919).
TEACHER_DECAY = 0.999


class Teacher:
    """A slow copy of the model that learned maskings ask; checkpointed with the run."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        """Moves towards the model; in the first steps faster, so that step 0 is soon forgotten."""
        decay = min(TEACHER_DECAY, (1 + step) / (10 + step))
        for mine, theirs in zip(
            self.model.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if mine.is_floating_point():
                mine.lerp_(theirs.to(mine.dtype), 1 - decay)

    def answers(
        self, images: Tensor, config: RunConfig, crop: Crops
    ) -> dict[str, Callable[[], Tensor]]:
        """What a view's lazy methods give for this very crop."""
        return {
            "attention": lambda: self.model.encoder.attention(images),
            "teacher": lambda: self.model.encoder(images).patches,
            "patch_loss": lambda: self._patch_loss(images, config, crop),
        }

    @torch.no_grad()
    def _patch_loss(self, images: Tensor, config: RunConfig, crop: Crops) -> Tensor:
        """The error of each patch when its random half of the image is hidden, (B, L)."""
        grid = self.model.encoder.grid
        length = grid[0] * grid[1]
        scores = Draws(config.seed, "patch loss", crop.ids, crop.epoch).uniform(length)
        first = masking.hide(scores, length // 2, grid)
        second = masking.hide(first.hidden.logical_not().float(), length - length // 2, grid)
        loss = torch.zeros_like(scores)
        for mask in (first, second):
            made = self.model.reconstruct(images, mask)
            error = (made.prediction - made.target).square().mean(-1)
            loss = torch.where(mask.hidden, error, loss)
        return loss
