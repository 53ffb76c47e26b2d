"""What is seen of any module: how its outputs differ, what it trains, what its options change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from maebench.rng import Draws
from maebench.testing.contract import Contract, NotChecked, expect

SHAKE = 0.02  # a ViT's usual deviation of tokens (arXiv 2010.11929): enough to open zeros
# Float32 in another order of sums differs by about 1e-6 of the largest number.
TOLERANCE = 1e-4
STEPS = 4  # a gate that starts at zero opens in the first: what lies behind has its gradient next
STEP = 1e-2  # length of such a step relative to the largest gradient
Trace = dict[str, Tensor]


# ---- how it differs


def copied(tensors: Mapping[str, Tensor]) -> Trace:
    """The tensors as they are now, whatever happens to them in place."""
    return {name: x.clone() for name, x in tensors.items()}


def changed(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that are no longer what they were."""
    return [name for name, x in now.items() if not torch.equal(x, before[name])]


def differs(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether names, shapes or values differ."""
    return set(one) != set(other) or any(not torch.equal(x, other[n]) for n, x in one.items())


def gap(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[float, str]:
    """The largest difference relative to the largest number (or 1), and where it lies."""
    expect(set(one) == set(other), f"it returns {sorted(one)} once and {sorted(other)} then")
    found = [(0.0, "")]
    for name, x in one.items():
        y = other[name]
        same = x.shape == y.shape
        expect(same, f"{name} is {tuple(x.shape)} once and {tuple(y.shape)} then")
        scale = max(1.0, float(y.detach().abs().max()))
        found.append((float(x.sub(y).detach().abs().max()) / scale, name))
    return max(found)


# ---- what it trains


def shake(module: nn.Module) -> Any:
    """Adds a little noise to what is trained: at first gates and biases are 0 and hide errors."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                draws = Draws(0, f"shake {name}", torch.zeros(1, dtype=torch.int64))
                parameter.add_(SHAKE * draws.normal(*parameter.shape)[0])
    return module.eval()


def unreached(module: nn.Module, loss: Any) -> list[str]:
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


# ---- what its options change


def check_options(
    contract: Contract,
    traces: Callable[[Any], Iterator[tuple[str, Trace]]],
    where: str,
    what: str,
) -> None:
    """Each option changes something in one of the settings that components are traced in.

    Args:
        contract: knows the component and the values of its options.
        traces: name of a setting that a component takes, and tensors that it gives there.
        where: places at which a value may be refused, in words.
        what: two things that are traced, in words.
    """
    base = contract.made()
    options = type(base).model_fields
    if not options:
        raise NotChecked("it has no options")
    traced: dict[Any, dict[str, Trace]] = {}

    def default(made: Any, option: str) -> dict[str, Trace]:
        # another option may have been changed with it, for one that is read with that alone
        other = type(made)(**{**dict(made), option: getattr(base, option)})
        if other not in traced:
            traced[other] = dict(traces(other))
        return traced[other]

    for option in options:
        tried = near(base, option, contract.variations(option))
        values = ", ".join(repr(getattr(made, option)) for made in tried)
        moved = (
            differs(trace, default(made, option).get(setting, {}))
            for made in tried
            for setting, trace in traces(made)
        )
        first = next(moved, None)
        expect(
            first is not None,
            f"option {option!r}: each value tried ({values}) is refused {where}; "
            f"give Field(..., examples=[...]) or variants = {{{option!r}: [...]}}",
        )
        expect(first or any(moved), f"option {option!r} changes neither {what}; tried {values}")


def near(base: Any, option: str, changed: list[Any]) -> list[Any]:
    """Components with one option changed, numbers near the base's first: large ones are slow."""
    start = getattr(base, option)

    def far(one: Any) -> float:
        value = getattr(one, option)
        numbers = all(isinstance(n, int | float) for n in (start, value))
        return abs(value - start) if numbers else 0.0

    return sorted(changed, key=far)
