"""How weights are updated: AdamW's groups and the rate of each step."""

from __future__ import annotations

import math
from typing import Any

from maebench.encoders.encoder import check_parameter_names


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
