"""What torch is asked to do: which operations, how many, and what waits for a GPU or copies to it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# What a GPU's results are waited for in; `index` and `index_put_` with booleans look for them first.
WAITING = {
    *("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "allclose"),
    *("_unique2", "unique_dim", "unique_consecutive", "_linalg_check_errors", "bincount"),
    *("histc", "linalg_eigh", "repeat_interleave.Tensor"),
}


class Operations(TorchDispatchMode):
    """Counts what is done inside, in forward and backward passes; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.copies: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::")
        if func.namespace == "aten" and not _is_view(func):
            self.kernels[name.partition(".")[0]] += 1
        if {name, name.partition(".")[0]} & WAITING or _looks_for_places(name, args):
            self.waits[name] += 1
        before = {each.device.type for each in args if isinstance(each, Tensor) and each.dim()}
        after = {made.device.type} if isinstance(made, Tensor) else set()
        if name.startswith(("_to_copy", "copy_")) and len(before | after) > 1:
            self.copies.append(f"{name}: {before} to {after}")
        return made


def _is_view(func: Any) -> bool:
    given = [each.alias_info for each in func._schema.returns]
    return any(each is not None and not each.is_write for each in given)


def _looks_for_places(name: str, args: Any) -> bool:
    if not name.startswith(("index.", "index_put", "_index_put")):
        return False
    return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
