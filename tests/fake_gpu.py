"""Tensors that stand for a GPU's: shapes, dtypes and devices without numbers, on any machine.

What asks for a number (a synchronisation), or brings tensors of two devices together, is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from maebench import Draws
from maebench.data import resizing
from maebench.encoders import attention

GPU = "cuda:0"


@contextmanager
def fake_gpu() -> Iterator[FakeTensorMode]:
    """Inside, tensors that are made are fake, and autocast is as on a card that has bf16.

    Gradients are none: torch asks the driver before it computes them.
    """
    resizing._table.cache_clear()
    with (
        FakeTensorMode(allow_non_fake_inputs=False) as mode,
        attention.using(True),  # which one is faster is asked once, and waits
        patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        patch("torch.cuda.is_bf16_supported", lambda *_: True),
        patch("torch.autograd.grad", lambda outputs, inputs, *_, **__: (torch.zeros_like(inputs),)),
    ):
        yield mode
    resizing._table.cache_clear()


def faked(mode: FakeTensorMode, value: Any) -> Any:
    """The same on the GPU: of tensors, and of tuples, mappings and dataclasses of them."""
    if isinstance(value, Tensor):
        with mode:
            return mode.from_tensor(value).detach().to(GPU)
    if isinstance(value, Draws):
        made = Draws(0, "fake", faked(mode, value.ids))
        made._key = value._key
        return made
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: faked(mode, getattr(value, f.name)) for f in fields(value)}
        )
    if isinstance(value, tuple):
        return tuple(faked(mode, each) for each in value)
    return value


def on_gpu(mode: FakeTensorMode, module: nn.Module) -> dict[str, Tensor]:
    """The parameters, which ask for gradients, and the buffers of a module on the GPU."""
    return {
        **{k: faked(mode, v).requires_grad_(v.requires_grad) for k, v in module.named_parameters()},
        **{k: faked(mode, v) for k, v in module.named_buffers()},
    }


def call(module: nn.Module, state: dict[str, Tensor], *arguments: Any) -> Any:
    """What a module gives with parameters and buffers of a GPU."""
    return functional_call(module, state, arguments)
