"""A GPU that is pretended: tensors say that they lie on cuda:0, and the CPU computes them.

As on a real one, tensors of two devices do not meet, numpy reads none of them, and what waits for
numbers or copies is noticed. Not as on a real one, numbers are a CPU's, and there are no gradients:
torch asks the driver before it computes them, so `backward` gives every parameter one of zeros.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch
from weakref import WeakValueDictionary

import torch
from operations import WAITING
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from maebench.data import resizing

GPU = torch.device("cuda:0")


_THERE: WeakValueDictionary[int, There] = WeakValueDictionary()


class There(Tensor):
    """A tensor that says it lies on the GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        made: There = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
            dispatch_device=True,
        )
        made.inner = inner
        _THERE[id(made)] = made
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {}, Counter())

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.inner})"


class Pretending(TorchDispatchMode):
    """Inside, what is asked of the GPU is computed by the CPU; `waits` counts what is waited for."""

    # while it is on, torch does not ask the driver, as for its own fake tensors
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __init__(self) -> None:
        super().__init__()
        self._mode_key = Pretending._mode_key
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {}, self.waits)


def computed(func: Any, args: Any, kwargs: Any, waits: Counter[str]) -> Any:
    """What an operation gives, on the device on which a GPU's would give it."""
    if func is torch.ops.prim.device.default:
        return GPU if isinstance(args[0], There) else torch.device("cpu")
    name = func.name().removeprefix("aten::")
    known: dict[int, There] = {}
    here = False

    def unwrapped(x: Any) -> Any:
        nonlocal here
        if isinstance(x, There):
            known[id(x.inner)] = x
            return x.inner
        here |= isinstance(x, Tensor) and x.dim() > 0
        return torch.device("cpu") if isinstance(x, torch.device) else x

    asked = kwargs.get("device")
    plain = tree_map(unwrapped, args)
    options = tree_map(unwrapped, {k: v for k, v in kwargs.items() if k != "pin_memory"})
    copies = name.startswith(("_to_copy", "copy_"))
    looks = name.startswith(("index.", "index_put", "_index_put")) and isinstance(args[0], There)
    if known and here and not copies and not looks:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    there = bool(known) if asked is None else torch.device(asked).type == "cuda"
    if name.startswith("copy_"):
        there = isinstance(args[0], There)
    crosses = copies and (bool(known) != there or (known and here))
    blocking = not (kwargs.get("non_blocking") or (name.startswith("copy_") and args[-1] is True))
    waiting = bool(known) and bool({name, name.partition(".")[0]} & WAITING)
    if waiting or (crosses and blocking):
        waits[name] += 1
    if looks and any(isinstance(x, Tensor) and x.dtype == torch.bool for x in args[1]):
        waits[f"{name} of booleans"] += 1

    def wrapped(x: Any) -> Any:
        if not isinstance(x, Tensor) or isinstance(x, There):
            return x
        if id(x) in known:
            return known[id(x)]
        return There(x) if there else x

    return tree_map(wrapped, func(*plain, **options))


_REAL = Tensor.backward


def _backward(loss: Tensor, *arguments: Any, **named: Any) -> None:
    if not isinstance(loss, There):
        _REAL(loss, *arguments, **named)
        return
    for tensor in list(_THERE.values()):
        if tensor.requires_grad and tensor.is_leaf:
            tensor.grad = torch.zeros_like(tensor)


def _pinned(x: Tensor) -> Tensor:
    """A copy with the strides of its original, as torch makes it: it fails where one is 0."""
    return torch.empty_strided(x.size(), x.stride(), dtype=x.dtype).copy_(x)


def _gradients(_: Any, inputs: Any, *__: Any, **___: Any) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(x) for x in ([inputs] if isinstance(inputs, Tensor) else inputs))


@contextmanager
def pretended_gpu(capability: tuple[int, int] = (9, 0)) -> Iterator[Pretending]:
    """One GPU of this compute capability, and what torch says of it."""
    torch._C._ensureCUDADeviceGuardSet()
    mode = Pretending()
    told: dict[str, Any] = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.init": lambda: None,
        "torch.cuda.get_device_name": lambda *_: "Pretended",
        "torch.cuda.get_device_capability": lambda *_: capability,
        "torch.cuda.mem_get_info": lambda *_: (2**33, 2**34),
        "torch.cuda.memory_reserved": lambda *_: 2**30,
        "torch.cuda.memory_allocated": lambda *_: 2**29,
        "torch.cuda.max_memory_allocated": lambda *_: 2**30,
        "torch.cuda.reset_peak_memory_stats": lambda *_: None,
        "torch.cuda.empty_cache": lambda: None,
        "torch.cuda.synchronize": lambda *_: mode.waits.update(["synchronize"]),
        "torch.cuda.get_rng_state": lambda *_: torch.zeros(1),
        "torch.cuda.set_rng_state": lambda *_: None,
        "torch.cuda.manual_seed": lambda *_: None,
        "torch.cuda.current_stream": lambda *_: None,
        "torch.cuda.Event": lambda: _Event(),
        "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "torch.cuda.is_bf16_supported": lambda *_: capability >= (8, 0),
        "torch.Tensor.pin_memory": _pinned,
        "torch.Tensor.backward": _backward,
        "torch.autograd.grad": _gradients,
        "maebench_evals.nearest.ThreadPoolExecutor": _Here,  # in threads nothing is pretended
        "maebench.encoders.attention.prefers_fused": lambda *_: True,  # it would measure
    }
    resizing._table.cache_clear()
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # constants are made on the CPU and copied, then
    with ExitStack() as until:
        until.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        for name, answer in told.items():
            until.enter_context(patch(name, answer))
        until.enter_context(patch("torch.cuda.device", _Current))
        until.enter_context(patch.dict(os.environ))  # a workspace is chosen with the GPU
        until.enter_context(mode)
        yield mode
    resizing._table.cache_clear()


class _Here:
    def __init__(self, *_: Any) -> None:
        self.map = map

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: Any) -> None: ...


class _Event:
    def record(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...


class _Current:
    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...
