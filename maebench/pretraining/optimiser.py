"""How weights are updated: AdamW's groups and the rate of each step."""

from __future__ import annotations

import math
from inspect import unwrap
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer

from maebench.encoders.encoder import check_parameter_names


class AdamW(torch.optim.AdamW):
    """torch's AdamW to the last bit, without the wrappers around its methods.

    They import torch's compiler to be left alone by it (torch/_compile.py, and `_use_grad` in
    torch/optim/optimizer.py): 1.2 s before the first step, as long as torch's own import.
    """

    add_param_group: ClassVar[Any] = unwrap(Optimizer.add_param_group)
    zero_grad: ClassVar[Any] = unwrap(Optimizer.zero_grad)
    state_dict: ClassVar[Any] = unwrap(Optimizer.state_dict)
    load_state_dict: ClassVar[Any] = unwrap(Optimizer.load_state_dict)
    step: ClassVar[Any] = torch.no_grad()(unwrap(torch.optim.AdamW.step))


def parameter_groups(module: Any, weight_decay: float) -> tuple[list[dict[str, Any]], list[str]]:
    """AdamW's two groups and the parameters' names in their order.

    Vectors, biases and what the encoder names are not decayed; tokens are, as in the official
    code (timm's add_weight_decay of 0.3.2).

    Raises:
        MaebenchError: the encoder names what is no parameter, or leaves one out.
    """
    check_parameter_names(module.encoder)
    spared = {f"encoder.{name}" for name in module.encoder.no_weight_decay()}
    decayed: list[tuple[str, Any]] = []
    kept: list[tuple[str, Any]] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (kept if parameter.ndim <= 1 or name in spared else decayed).append((name, parameter))
    groups = [
        {"params": [p for _, p in decayed], "weight_decay": weight_decay},
        {"params": [p for _, p in kept], "weight_decay": 0.0},
    ]
    return groups, [n for n, _ in [*decayed, *kept]]


def learning_rate(
    step: float, steps: float, peak: float, warmup: float = 0.0, floor: float = 0.0
) -> float:
    """The rate of update `step` (from 0): linear warm-up to the peak, then half a cosine.

    The official code starts at exactly 0, a wasted update; here the first is one part of warm-up.
    Source: He et al. 2021, arXiv 2111.06377, table 8; Loshchilov and Hutter 2016, arXiv 1608.03983.

    Args:
        step: updates that are done; of a run by the clock, milliseconds.
        steps: updates in all, or milliseconds.
        peak: the largest rate.
        warmup: share of the steps with a rising rate.
        floor: the rate at the end.
    """
    rising = round(warmup * steps)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    share = (step - rising) / max(1, steps - rising)
    return floor + (peak - floor) * half_cosine(share)


def half_cosine(done: float, total: float = 1.0) -> float:
    """From 1 where nothing is done to 0 where all is, along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * done / total))
