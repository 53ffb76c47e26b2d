"""How long a run is: what a budget buys, and how much of it is gone."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from maebench.config.length import Budget
from maebench.errors import ConfigError
from maebench.pretraining.cost import NOTHING, Cost


@dataclass(frozen=True)
class Length:
    """How long a run is: so many updates, or so long by the clock.

    Args:
        steps: updates in all; None where the clock decides.
        seconds: of updates and of waiting for images, where the clock decides.
    """

    steps: int | None
    seconds: float = math.inf

    @property
    def total(self) -> float:
        """Updates, or milliseconds."""
        return self.steps or 1e3 * self.seconds

    def gone(self, updates: int, seconds: float) -> float:
        """How much of the total is gone after so many updates, which took so long."""
        return updates if self.steps else min(self.total, 1e3 * seconds)

    def share(self, updates: int, seconds: float) -> float:
        """The same as a share from 0 to 1."""
        return self.gone(updates, seconds) / self.total

    def last(self, updates: int, seconds: float) -> int:
        """The number of the last update, as far as it is known after so many.

        By the clock there is none, but a budget that is spent has none that follows.
        """
        return self.steps or (sys.maxsize if seconds < self.seconds else updates)

    def left(self, updates: int, seconds: float) -> float:
        """How many updates are left after so many; by the clock as many as fit at their pace."""
        if self.steps:
            return self.steps - updates
        return updates * max(0.0, self.seconds / max(seconds, 1e-9) - 1)


def stage_steps(stages: int, steps: int) -> list[int]:
    """How many of the steps lie in each of equal stages."""
    starts = [-(-i * steps // stages) for i in range(stages)]
    return [end - start for start, end in zip(starts, [*starts[1:], steps], strict=True)]


def total(costs: Sequence[Cost], steps: int, batch: int) -> Cost:
    """What so many steps cost, stage by stage."""
    parts = zip(costs, stage_steps(len(costs), steps), strict=True)
    return sum((cost.times(n * batch) for cost, n in parts), NOTHING)


def num_steps(budget: Budget, num_images: int, batch: int, costs: Sequence[Cost]) -> int | None:
    """How many updates a budget buys; None where time alone decides.

    An epoch's last batch is filled from the next epoch. Tokens and FLOPs are never exceeded.

    Raises:
        ConfigError: it does not buy one step.
    """
    if budget.unit == "seconds":
        return None
    if budget.unit == "steps":
        return int(budget.amount)
    if budget.unit == "epochs":
        return max(1, math.ceil(budget.amount * num_images / batch))
    unit = budget.unit

    def spent(steps: int) -> int:
        cost = total(costs, steps, batch)
        return cost.tokens if unit == "tokens" else cost.flops

    steps = int(budget.amount * len(costs) // max(1, spent(len(costs))))
    while steps > 0 and spent(steps) > budget.amount:
        steps -= 1
    while spent(steps + 1) <= budget.amount:
        steps += 1
    if steps < 1:
        raise ConfigError(
            f"budget {budget}: one step of {batch} images costs {unit}={spent(1):,}; give at least "
            "that, or a smaller --batch"
        )
    return steps
