"""Objectives that are given whole images: how they are built and asked in tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maebench import Batch, Draws, Inputs
from maebench.encoders import ViTNano
from maebench.rng import isolated

B = 4
TINY = ViTNano(width=16, depth=2, heads=2, patch=4)


def built(objective: Any, size=(16, 16), channels=3, encoder: Any = TINY) -> Any:
    """The module, a little off its start: at first biases are 0, and an error there is not seen."""
    with isolated(0, "test"):
        module = objective.build(
            encoder.build(Inputs.of_images(channels, size)), Inputs.of_images(channels, size)
        )
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
    return module.eval()


def images_of(size=(16, 16), channels=3, count=B) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, *size, generator=generator) + 0.5


def draws_of(count=B, epoch=0) -> Draws:
    return Draws(0, "objective", torch.arange(count), epoch)


def batch_of(images: Tensor, epoch=0) -> Batch:
    return Batch(images, torch.arange(len(images)), draws_of(len(images), epoch))
