"""How large a module would be: it is built with shapes alone, and nothing is written to memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

# What initialises weights: torch.nn.init's functions and the methods of tensors they are made of.
FILLING = {
    *("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "constant_"),
    *("kaiming_uniform_", "kaiming_normal_", "fill_", "zero_", "erfinv_", "clamp_", "mul_", "add_"),
}
# Bytes at which building is given up: addresses end at 128 TiB, and no memory is near.
MOST = 2**43


class TooLarge(Exception):
    """A module has more bytes of weights than it may have."""


class Size:
    """What the weights of a module take; a weight that is shared counts once.

    Args:
        most: bytes from which building is given up.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.bytes = 0
        self._seen: set[int] = set()

    def add(self, module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        """Counts a weight as it is registered.

        Raises:
            TooLarge: it is the one that is too much.
        """
        if parameter is None or parameter.untyped_storage().data_ptr() in self._seen:
            return
        self._seen.add(parameter.untyped_storage().data_ptr())
        size = parameter.numel() * parameter.element_size()
        self.bytes += size
        if self.bytes > self.most:
            raise TooLarge(f"more than {self.most:,} bytes")


@contextlib.contextmanager
def unfilled(most: int = MOST) -> Iterator[Size]:
    """Leaves weights as the system gives them, which takes addresses and no memory.

    The device "meta" would do too, and imports torch's compiler first, for seconds.

    Args:
        most: bytes of weights from which building is given up.

    Raises:
        TooLarge: a module has more.
    """
    size = Size(most)
    handle = register_module_parameter_registration_hook(size.add)
    try:
        with _NothingFilled():
            yield size
    finally:
        handle.remove()


class _NothingFilled(TorchFunctionMode):
    """Passes over whatever fills a tensor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the function, or gives the tensor back as it is."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in FILLING:
            found = args[0] if args else kwargs.get("tensor")
            if isinstance(found, torch.Tensor):
                return found
        return func(*args, **kwargs)
