"""How far an evaluation is: parts that are kept one by one, and training that goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from maebench import Model

T = TypeVar("T")


def one_by_one(
    model: Model, what: str, items: Iterable[T], make: Callable[[T], Mapping[str, Tensor]]
) -> Iterator[Mapping[str, Tensor]]:
    """What `make` gives of each item, in order; of those that were done before what was kept.

    Args:
        model: that is evaluated.
        what: which part of the evaluation.
        items: in an order that is the same each time.
        make: gives named tensors, at least one.
    """
    partial = model.partial(what)
    state = dict(partial.state)
    for number, item in enumerate(items):
        prefix = f"{number}/"
        names = [name for name in state if name.startswith(prefix)]
        found: Mapping[str, Tensor] = {name.removeprefix(prefix): state[name] for name in names}
        if not found:
            found = make(item)
            state |= {f"{prefix}{name}": part for name, part in found.items()}
            partial.keep(state.copy)
        yield found


def kept_of(
    module: nn.Module, optimiser: torch.optim.Optimizer, losses: Sequence[Tensor]
) -> dict[str, Tensor]:
    """All that training goes on from, by name; the losses say how many updates were made."""
    found = {f"module.{name}": part for name, part in module.state_dict().items()}
    for number, values in optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{number}.{name}": value for name, value in values.items()}
    return {**found, "losses": torch.stack(list(losses))}


def restored(
    module: nn.Module, optimiser: torch.optim.Optimizer, kept: Mapping[str, Tensor]
) -> list[Tensor]:
    """Puts back what `kept_of` gave, and gives the loss of each update that was made."""
    if not kept:
        return []
    prefix = "module."
    own = {name.removeprefix(prefix): t for name, t in kept.items() if name.startswith(prefix)}
    module.load_state_dict(own)
    content = optimiser.state_dict()
    for name, value in kept.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".")
            content["state"].setdefault(int(number), {})[key] = value
    optimiser.load_state_dict(content)
    return [*kept["losses"].to(next(module.parameters()).device)]
