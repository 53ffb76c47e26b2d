"""How weights are updated: AdamW's groups and the rate of each step."""

from __future__ import annotations

import math
from typing import Any

from maebench.config.run import Optimiser
from maebench.encoders.encoder import check_parameter_names


def parameter_groups(model: Any, weight_decay: float) -> tuple[list[dict[str, Any]], list[str]]:
    """AdamW's two groups and the parameters' names in their order.

    Vectors, biases and what the encoder names are not decayed; tokens are, as in the official
    code (timm's add_weight_decay of 0.3.2).

    Raises:
        MaebenchError: the encoder names what is no parameter, or leaves one out.
    """
    check_parameter_names(model.encoder)
    spared = {f"encoder.{name}" for name in model.encoder.no_weight_decay()}
    decayed: list[tuple[str, Any]] = []
    kept: list[tuple[str, Any]] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (kept if parameter.ndim <= 1 or name in spared else decayed).append((name, parameter))
    groups = [
        {"params": [p for _, p in decayed], "weight_decay": weight_decay},
        {"params": [p for _, p in kept], "weight_decay": 0.0},
    ]
    return groups, [n for n, _ in [*decayed, *kept]]


def learning_rate(step: float, steps: float, peak: float, optimiser: Optimiser) -> float:
    """The rate of update `step` (from 0) per 256 images: linear warm-up, then half a cosine.

    A run by the clock counts milliseconds instead of steps.

    The official code starts at exactly 0, a wasted update; here the first is one part of warm-up.
    """
    warmup = round(optimiser.warmup * steps)
    floor = optimiser.min_lr
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, steps - warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * share))
