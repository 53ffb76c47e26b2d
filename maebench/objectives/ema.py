"""The EMA teacher: a copy of a module that follows it as an exponential moving average."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def make_teacher(module: nn.Module) -> Any:
    """A copy of a module as it is now, in evaluation mode and without gradients."""
    return copy.deepcopy(module).requires_grad_(False).eval()


@torch.no_grad()
def follow(teacher: nn.Module, module: nn.Module, decay: float, updates: int) -> None:
    """Moves a teacher's weights towards those of what is trained.

    Parameters and buffers of floats are averaged, buffers of whole numbers are copied.

    Args:
        teacher: what `make_teacher` gave of this module.
        module: what is trained.
        decay: share of its own that a weight keeps, per update.
        updates: how many there have been, this one included: after n the decay is at most
            (1 + n) / (10 + n), so that step 0 is soon forgotten.
    """
    pairs = [
        *zip(teacher.parameters(), module.parameters(), strict=True),
        *zip(teacher.buffers(), module.buffers(), strict=True),
    ]
    averaged = [pair for pair in pairs if pair[0].is_floating_point()]
    if averaged:
        mine, theirs = zip(*averaged, strict=True)
        decay = min(decay, (1 + updates) / (10 + updates))
        get_ema_multi_avg_fn(decay)(list(mine), list(theirs), updates)
    for own, other in pairs:
        if not own.is_floating_point():
            own.copy_(other)
