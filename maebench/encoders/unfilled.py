"""How large a module would be: it is built with shapes alone, and nothing is written to memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from inspect import isfunction
from typing import Any

import torch
from torch import nn
from torch.nn import init
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

# The methods of tensors that initialise weights where that is not left to torch.nn.init.
FILLING = {"uniform_", "normal_", "fill_", "zero_", "erfinv_", "clamp_", "mul_", "add_"}
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
    # Whole functions, those too that the public ones call: one draws until nothing lies outside of
    # its bounds, and of numbers that are never drawn it would do so without end.
    filling = {name: f for name, f in vars(init).items() if name.endswith("_") and isfunction(f)}
    handle = register_module_parameter_registration_hook(size.add)
    try:
        for name in filling:
            setattr(init, name, _as_it_is)
        with _NothingFilled():
            yield size
    finally:
        for name, function in filling.items():
            setattr(init, name, function)
        handle.remove()


def _as_it_is(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """In the place of a function of torch.nn.init."""
    return tensor


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
