"""Randomness as a function of (seed, purpose, epoch, sample id), the same everywhere.

A number drawn for an image does not depend on the batch it sits in, on the worker, the rank or
the device: it is a hash of what it is for. So nothing has to be saved to resume, and two runs
that differ only in masking see the same images with the same crops.

The hash is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014): state = key + n * GAMMA, output = mix(state).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, from the paper
_MIX1, _MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # variant 13 of Stafford's mixers
FEW_WORDS = 64  # of 32 bits: dozens of libraries with a number each
_CALL = 1 << 32  # counters of one call; a call may draw that many numbers per sample


def _signed(value: int) -> int:
    """The 64 bits of `value` as torch's int64, which has no unsigned multiplication."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(_MIX1)
    x = (x ^ _shift(x, 27)) * _signed(_MIX2)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """A logical right shift: torch's own repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def key(seed: int, purpose: str) -> int:
    """A 64-bit number that names a stream: equal only for equal seed and purpose."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest())


class Draws:
    """Random numbers for a batch of samples; every call gives new ones.

    Args:
        seed: the run's seed.
        purpose: what the numbers are for, such as "masking"; purposes never share numbers.
        ids: sample ids, int64 (B,); their device is where numbers are made.
        epoch: one int for all, or int64 (B,).
    """

    def __init__(self, seed: int, purpose: str, ids: Tensor, epoch: int | Tensor = 0) -> None:
        self.ids = ids
        self._key = _signed(key(seed, purpose))
        self._epoch = epoch
        self._made: Tensor | None = None
        self._calls = 0

    @property
    def device(self) -> torch.device:
        """Where the numbers are made."""
        return self.ids.device

    @property
    def _state(self) -> Tensor:
        """One number per sample, made when the first is drawn: many a batch needs none."""
        if self._made is None:
            self._made = _mix(_mix(self.ids + self._key) + self._epoch)
        return self._made

    def at(self, part: slice) -> Draws:
        """The same numbers for a part of the batch."""
        piece = copy.copy(self)
        piece.ids, piece._made = self.ids[part], self._state[part]
        return piece

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        count = math.prod(shape)
        counter = torch.arange(1, count + 1, device=self.device) + self._calls * _CALL
        self._calls += 1
        bits = _mix(self._state[:, None] + counter * _signed(_GAMMA))
        return bits.view(len(self.ids), *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), float32 (B, *shape): multiples of 2^-24, so that none is 1."""
        return _shift(self._bits(shape), 40).float() * 2.0**-24

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32 (B, *shape), by Box and Muller in float64."""
        first = (_shift(self._bits(shape), 11).double() + 1.0) * 2.0**-53  # (0, 1]: log is finite
        second = _shift(self._bits(shape), 11).double() * 2.0**-53
        return ((-2.0 * first.log()).sqrt() * torch.cos(2 * math.pi * second)).float()

    def integers(self, below: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to below - 1, int64 (B, *shape); bias under below / 2^32."""
        return (_shift(self._bits(shape), 32) * below) >> 32


def permutation(n: int, seed: int, purpose: str, epoch: int = 0) -> Tensor:
    """The numbers 0..n-1 in random order, int64 (n,), on the CPU."""
    draws = Draws(seed, purpose, torch.arange(n), epoch)
    return torch.argsort(_shift(draws._bits(()), 1), stable=True)


@contextlib.contextmanager
def isolated(
    seed: int, *purpose: object, only_torch: bool = False, device: str = "cpu"
) -> Iterator[None]:
    """Sets Python's, numpy's and torch's global state, and puts it back as it was found.

    For code that cannot take `draws`: timm's drop path and mixup, layer initialisation,
    scikit-learn without random_state.

    Args:
        seed: of the run.
        *purpose: what the numbers are for.
        only_torch: for code that is known to draw from torch alone: numpy's state alone takes ten
            times as long to keep and to put back.
        device: where the code computes: other GPUs are left alone.
    """
    number = key(seed, "/".join(map(str, purpose)))
    gpus = [torch.device(device)] if torch.device(device).type == "cuda" else []
    if gpus:
        torch.cuda.init()  # one that starts inside would not be seeded
    others = contextlib.nullcontext() if only_torch else _others_isolated(number)
    with others, torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(number % 2**63)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(number % 2**63)
        yield


@contextlib.contextmanager
def _others_isolated(number: int) -> Iterator[None]:
    python, array = random.getstate(), np.random.get_state()
    random.seed(number)
    np.random.seed(number % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


def few_drawn(before: Any, after: Any) -> bool:
    """Whether Python's random state is another one after a few draws, and was not seeded anew.

    Libraries draw while they are imported: rich one number, which scikit-learn's import pays.
    """
    stream = random.Random()
    stream.setstate(before)
    for _ in range(FEW_WORDS):
        stream.getrandbits(32)
        if stream.getstate() == after:
            return True
    return False


def _numpy_state() -> tuple[Any, ...]:
    """Numpy's global random state with its array as bytes, so that two can be compared."""
    state: Any = np.random.get_state()
    name, words, *rest = state
    return name, words.tobytes(), *rest


def _set_numpy_state(state: tuple[Any, ...]) -> None:
    name, words, *rest = state
    np.random.set_state((name, np.frombuffer(words, np.uint32), *rest))


def _torch_state() -> bytes:
    return torch.random.get_rng_state().numpy().tobytes()


def _set_torch_state(state: bytes) -> None:
    torch.random.set_rng_state(torch.from_numpy(np.frombuffer(state, np.uint8).copy()))


PYTHON_STATE = "Python's random state"
# whose global random state -> how it is read, as something to compare, and put back
GLOBAL_STATES: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    PYTHON_STATE: (random.getstate, random.setstate),
    "numpy's random state": (_numpy_state, _set_numpy_state),
    "torch's random state": (_torch_state, _set_torch_state),
}


def global_state(device: str = "cpu") -> dict[str, Any]:
    """The global random states as JSON values, for work that is interrupted and goes on.

    Args:
        device: whose state is among them, where it is a GPU.
    """
    version, words, gauss = random.getstate()
    name, bits, *rest = _numpy_state()
    found: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, bits.hex(), *rest],
        "torch": _torch_state().hex(),
    }
    if torch.device(device).type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device).numpy().tobytes().hex()
    return found


def put_global_state(state: dict[str, Any], device: str = "cpu") -> None:
    """Sets what `global_state` gave; inside of `isolated`, which puts back what was before."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, bits, *rest = state["numpy"]
    _set_numpy_state((name, bytes.fromhex(bits), *rest))
    _set_torch_state(bytes.fromhex(state["torch"]))
    if "cuda" in state and torch.device(device).type == "cuda":
        raw = np.frombuffer(bytes.fromhex(state["cuda"]), np.uint8).copy()
        torch.cuda.set_rng_state(torch.from_numpy(raw), device)
