"""What is seen of any module: how its outputs differ, and what it trains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from maebench.rng import Draws
from maebench.testing.contract import expect

SHAKE = 0.02  # a ViT's usual deviation of tokens (arXiv 2010.11929): enough to open zeros
# Float32 in another order of sums differs by about 1e-6 of the largest number.
TOLERANCE = 1e-4
STEPS = 4  # a gate that starts at zero opens in the first: what lies behind has its gradient next
STEP = 1e-2  # length of such a step relative to the largest gradient
Trace = dict[str, Tensor]


def copied(tensors: Mapping[str, Tensor]) -> Trace:
    """The tensors as they are now, whatever happens to them in place."""
    return {name: x.clone() for name, x in tensors.items()}


@contextlib.contextmanager
def untouched(what: str, lent: Mapping[str, Tensor | None]) -> Iterator[None]:
    """Fails the check where a tensor is changed in place meanwhile."""
    there = {name: x for name, x in lent.items() if x is not None}
    before = copied(there)
    yield
    wrong = [name for name, x in there.items() if not torch.equal(x, before[name])]
    expect(not wrong, f"{what} changes {', '.join(wrong)} in place; clone what you change")


def gap(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[float, str]:
    """The largest difference relative to the largest number (or 1), and where it lies."""
    expect(set(one) == set(other), f"it returns {sorted(one)} once and {sorted(other)} then")
    found = [(0.0, "")]
    for name, x in one.items():
        y = other[name]
        alike = x.shape == y.shape
        expect(alike, f"{name} is {tuple(x.shape)} once and {tuple(y.shape)} then")
        scale = max(1.0, float(y.detach().abs().max()))
        found.append((float(x.sub(y).detach().abs().max()) / scale, name))
    return max(found)


def expect_close(what: str, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Fails the check where outputs differ by more than rounding."""
    far, where = gap(one, other)
    expect(far <= TOLERANCE, f"{what}: {where} differs by up to {far:.2g} of its largest number")


def rows(outputs: Mapping[str, Tensor], index: Any) -> Trace:
    """Some images of a batch of outputs."""
    return {name: x[index] for name, x in outputs.items()}


def shake(module: nn.Module) -> Any:
    """Adds a little noise to what is trained: at first gates and biases are 0 and hide errors."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                draws = Draws(0, f"shake {name}", torch.zeros(1, dtype=torch.int64))
                parameter.add_(SHAKE * draws.normal(*parameter.shape)[0])
    return module.eval()


def names_of(module: nn.Module) -> set[str]:
    """The names of its parameters."""
    return {name for name, _ in module.named_parameters()}


def not_finite(module: nn.Module) -> list[str]:
    """Parameters that hold NaN or infinite numbers, themselves or in their gradients."""
    return [
        name
        for name, p in module.named_parameters()
        if not bool(p.isfinite().all()) or (p.grad is not None and not p.grad.isfinite().all())
    ]


def reached(total: Tensor, module: nn.Module) -> set[str]:
    """The parameters that a number depends on."""
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(total, list(named.values()), retain_graph=True, allow_unused=True)
    return {n for n, g in zip(named, slopes, strict=True) if g is not None and bool(g.any())}


def unreached(module: nn.Module, loss: Callable[[], Tensor]) -> list[str]:
    """Trainable parameters that get no gradient from `loss()` in a few steps from the start."""
    left = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for _ in range(STEPS):
        module.zero_grad()
        loss().backward()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if parameter.grad is None or not bool(parameter.grad.any()):
                    continue
                finite = bool(parameter.grad.isfinite().all())
                expect(finite, f"the gradient of parameter {name!r} is not finite")
                left.pop(name, None)
                parameter.sub_(STEP * parameter.grad / parameter.grad.abs().max())
    return sorted(left)
