"""Which attention kernel is faster here: measured once per machine and shape, then kept.

The fused kernel wins on long sequences and on GPUs; two matmuls and a softmax win on the short
ones that a masked encoder sees on a CPU (benchmarks/attention.py). Where the two meet differs from
processor to processor, so that it is measured and not written down.

Shape suffixes: B images, N tokens, D width, G heads, E width of a head.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maebench import files
from maebench.errors import DamagedError, MaebenchError

# What explicit attention keeps for the backward pass of one block; beyond it memory decides, which
# the fused kernel does not need: 256 MiB is a block of ViT-B at 224 pixels with 128 images.
MOST_SCORES = 2**28
# Scores of a measurement: enough to fill caches as a batch does, few enough for milliseconds.
MEASURED_SCORES = 2**20
ROUNDS, SECONDS = 7, 0.3  # pairs of a measurement, and when fewer have to do
# A kernel is preferred to the fused one from 5 % on: what differs by less is noise, and which of
# the two is taken changes the last bits of all that follows.
MARGIN = 1.05

_FOUND: dict[str, bool] = {}  # in this process
_USED: ContextVar[dict[str, bool] | bool | None] = ContextVar("attention", default=None)


@contextlib.contextmanager
def using(choices: dict[str, bool] | bool) -> Iterator[None]:
    """Takes these choices instead of the machine's own, while it is entered.

    Args:
        choices: whether the fused kernel is used, by what `key` gives; what is not in it yet is
            added. Or one answer for all.
    """
    token = _USED.set(choices)
    try:
        yield
    finally:
        _USED.reset(token)


def attention_of_class(attn: Any, x_BND: Tensor) -> Tensor:
    """What the first token attends to, mean over heads, (B, N); `attn` is a block's attention."""
    B, N, _ = x_BND.shape
    q_BGNE, k_BGNE, _ = (
        attn.qkv(x_BND).view(B, N, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    )
    scores_BGN = (q_BGNE[:, :, :1] * attn.scale @ k_BGNE.transpose(-2, -1)).softmax(-1)[:, :, 0]
    return scores_BGN.mean(1)


def choose_attention(blocks: Any, x_BND: Tensor) -> None:
    """Sets fused or explicit attention, whichever is faster for these tokens on this machine."""
    if not len(blocks):
        return
    kind = x_BND.device.type
    mixed = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if mixed else x_BND.dtype
    B, N, D = x_BND.shape
    heads = blocks[0].attn.num_heads
    fused = prefers_fused(
        str(x_BND.device), str(dtype), B, N, heads, D // heads, torch.is_grad_enabled()
    )
    for block in blocks:
        if block.attn.fused_attn != fused:
            block.attn.fused_attn = fused


def prefers_fused(
    device: str, dtype: str, batch: int, tokens: int, heads: int, width: int, trains: bool
) -> bool:
    """Whether the fused kernel is the one to take.

    Args:
        device: such as "cpu" or "cuda:0".
        dtype: such as "torch.bfloat16".
        batch: B; it decides by memory alone.
        tokens: N.
        heads: G.
        width: E.
        trains: whether a backward pass follows.
    """
    used = _USED.get()
    if isinstance(used, bool):
        return used
    kind = torch.device(device).type
    size = torch.empty(0, dtype=getattr(torch, dtype.removeprefix("torch."))).element_size()
    if kind not in ("cpu", "cuda") or batch * heads * tokens**2 * size > MOST_SCORES:
        return True
    name = key(device, dtype, tokens, heads, width, trains)
    if used is not None and name in used:
        return used[name]
    if name not in _FOUND:
        _FOUND.update(_read() | _FOUND)
    if name not in _FOUND:
        _FOUND[name] = _is_fused_faster(device, dtype, tokens, heads, width, trains)
        _write(name, _FOUND[name])
    if used is not None:
        used[name] = _FOUND[name]
    return _FOUND[name]


# What torch.compiler.assume_constant_result sets. It imports the compiler to set it: 1.2 s, as long
# as torch's own import, in every command.
prefers_fused._dynamo_marked_constant = True  # type: ignore[attr-defined]


def key(device: str, dtype: str, tokens: int, heads: int, width: int, trains: bool) -> str:
    """What a measurement holds for: hardware, torch's version, precision and shape."""
    kind = torch.device(device).type
    if kind == "cpu":
        where = torch.backends.cpu.get_cpu_capability()
    else:
        where = torch.cuda.get_device_name(device)
    way = "forward and backward" if trains else "forward"
    return f"{where}, torch {torch.__version__}, {dtype}, {tokens} x {heads} x {width}, {way}"


def attend(q_BGNE: Tensor, k_BGNE: Tensor, v_BGNE: Tensor, fused: bool) -> Tensor:
    """What each token reads off all others, (B, G, N, E)."""
    if fused:
        return F.scaled_dot_product_attention(q_BGNE, k_BGNE, v_BGNE)
    scores_BGNN = (q_BGNE * q_BGNE.shape[-1] ** -0.5) @ k_BGNE.transpose(-2, -1)
    return scores_BGNN.softmax(-1) @ v_BGNE


def _is_fused_faster(
    device: str, dtype: str, tokens: int, heads: int, width: int, trains: bool
) -> bool:
    """Runs both in turn; the least time of each.

    On a CPU on one thread and by its own seconds, which other processes hardly disturb: both
    kernels give their threads whole heads, so that more of them help both.
    """
    batch = max(1, min(64, MEASURED_SCORES // (heads * tokens**2)))
    plain = torch.linspace(-1, 1, batch * tokens * 3 * heads * width, device=device)
    kind = plain.device.type
    least = {True: float("inf"), False: float("inf")}
    with torch.autocast(kind, enabled=False), torch.inference_mode(False), _one_thread():
        x = plain.to(getattr(torch, dtype.removeprefix("torch."))).requires_grad_(trains)
        # as a block hands them over: views of one projection
        qkv = x.view(batch, tokens, 3, heads, width).permute(2, 0, 3, 1, 4)
        began = time.perf_counter()
        for number in range(ROUNDS + 1):
            for fused in (True, False):
                took = _seconds(qkv, fused, trains)
                if number:  # the first pair pays for what is loaded and allocated once
                    least[fused] = min(least[fused], took)
            if number and time.perf_counter() - began > SECONDS:
                break
    return least[True] <= MARGIN * least[False]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(qkv: Tensor, fused: bool, trains: bool) -> float:
    began = _now(qkv.device)
    with torch.set_grad_enabled(trains):
        q, k, v = qkv.unbind(0)
        read = attend(q, k, v, fused)
        if trains:
            torch.autograd.grad(read, qkv, torch.ones_like(read))
    return _now(qkv.device) - began


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize(device)  # another one is no matter
    return time.perf_counter()


def _path() -> Path:
    return files.cache_folder() / "attention.json"


def _read() -> dict[str, bool]:
    """What was measured before on this machine; a damaged file is said, and as good as none."""
    path = _path()
    try:
        kept = files.read_sealed(path, path.stem) if path.exists() else {}
        if wrong := [name for name, value in kept.items() if not isinstance(value, bool)]:
            raise DamagedError(
                f"{path} is damaged: {files.shortened(wrong[0])} is no true or false"
            )
        return kept
    except MaebenchError as error:
        warnings.warn(f"{error}: it is measured again which attention is faster", stacklevel=2)
        return {}


def _write(name: str, fused: bool) -> None:
    """Keeps a measurement; where nothing can be written the next process measures again."""
    with contextlib.suppress(MaebenchError, OSError):
        files.make_folder(_path().parent)
        files.write_sealed(_path(), {**_read(), name: fused}, _path().stem)
