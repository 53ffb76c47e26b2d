"""Which penalties of a grid are fitted, and what the next one begins with: kept on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Pairs = tuple[tuple[Tensor, Tensor], ...]  # steps of all rounds, and what they changed of gradients


@dataclass
class Chain:
    """What a penalty begins with: the heads of the last two, and what the last one's steps met."""

    before: list[tuple[float, Tensor]] = field(default_factory=list)
    pairs: Pairs = ()


@dataclass
class Done:
    """The penalties of a grid that are fitted, from large to small."""

    held_out: list[Tensor] = field(default_factory=list)
    predicted: list[Tensor] = field(default_factory=list)
    converged: list[Tensor] = field(default_factory=list)
    chain: Chain = field(default_factory=Chain)

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name."""
        found = {"predicted": torch.cat(self.predicted), "converged": torch.stack(self.converged)}
        if self.held_out:
            found["held_out"] = torch.cat(self.held_out)
        for number, (penalty, weight) in enumerate(self.chain.before):
            found[f"penalty {number}"] = torch.tensor(penalty, dtype=torch.float64)
            found[f"weight {number}"] = weight
        for number, (step, change) in enumerate(self.chain.pairs):
            found |= {f"step {number}": step, f"change {number}": change}
        return found

    @classmethod
    def of(cls, kept: Mapping[str, Tensor], device: torch.device) -> Done:
        """What `tensors` gave; nothing is done of nothing."""
        if not kept:
            return cls()
        held_out, predicted = (
            [*kept[name].split(1)] if name in kept else [] for name in ("held_out", "predicted")
        )
        numbers = range(sum(name.startswith("penalty ") for name in kept))
        before = [(kept[f"penalty {n}"].item(), kept[f"weight {n}"].to(device)) for n in numbers]
        steps = range(sum(name.startswith("step ") for name in kept))
        pairs = ((kept[f"step {n}"].to(device), kept[f"change {n}"].to(device)) for n in steps)
        return cls(held_out, predicted, [*kept["converged"]], Chain(before, tuple(pairs)))
