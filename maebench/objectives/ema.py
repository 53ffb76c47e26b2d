"""The EMA teacher: a copy of a module that follows it as an exponential moving average."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def make_teacher(model: nn.Module) -> Any:
    """A copy of a module as it is now, in evaluation mode and without gradients."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def follow(teacher: nn.Module, model: nn.Module, decay: float, updates: int) -> None:
    """Moves a teacher's parameters towards those of the model; buffers are copied.

    Args:
        teacher: what `make_teacher` gave of this model.
        model: what is trained.
        decay: share of its own that a parameter keeps, per update.
        updates: how many there have been, this one included: after n the decay is at most
            (1 + n) / (10 + n), so that step 0 is soon forgotten.
    """
    decay = min(decay, (1 + updates) / (10 + updates))
    get_ema_multi_avg_fn(decay)(list(teacher.parameters()), list(model.parameters()), updates)
    for mine, theirs in zip(teacher.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)
