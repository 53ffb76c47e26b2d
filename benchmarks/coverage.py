"""How often 95 % intervals of right-or-wrong metrics hold the truth, exactly and simulated.

    python benchmarks/coverage.py

Exactly: the coverage of each possible outcome (a count of right images, or of images that only one
of two models has right) times its probability. Simulated: images are drawn, and intervals asked
for as a table does. Half a minute on one core; the table is in results/reference/coverage.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.stats import binom, multinomial

from maebench.analysis.stats import score_excess, tango
from maebench.evaluating.intervals import Interval, bootstrap_interval, wilson

SIMULATIONS = 20_000  # two Monte Carlo errors at .95: .003
SHARES = (0.5, 0.9, 0.99)
IMAGES = (100, 360)  # 360: the test images of digits
DIFFERENCES = (0.0, 0.02, 0.05)
CORRELATION = 0.3  # of two models' outcomes on the same image


def main() -> None:
    """Prints both tables."""
    print("| share | images | Wilson, exact | Wilson, simulated | bootstrap, exact |")
    print("| --- | --- | --- | --- | --- |")
    for num in IMAGES:
        for share in SHARES:
            found = [*covers_share(wilson, share, num), covers_share(bootstrap, share, num)[0]]
            print(f"| {share:g} | {num} | {' | '.join(f'{x:.3f}' for x in found)} |")
    print("\n| share | difference | images | Tango, exact | Tango, simulated |")
    print("| --- | --- | --- | --- | --- |")
    for num in IMAGES:
        for share in SHARES:
            for difference in DIFFERENCES:
                exact, simulated = covers_difference(share, difference, num)
                print(f"| {share:g} | {difference:g} | {num} | {exact:.3f} | {simulated:.3f} |")


def bootstrap(num_right: int, num: int) -> Interval:
    """The percentile bootstrap of as many right and wrong images."""
    return bootstrap_interval(np.repeat([1.0, 0.0], [num_right, num - num_right]))


def covers_share(
    interval: Callable[[int, int], Interval], share: float, num: int
) -> tuple[float, float]:
    """How often an interval holds a share of right images: exactly, and simulated."""
    found = [interval(right, num) for right in range(num + 1)]
    covers = np.array([i.low <= share <= i.high for i in found])
    rng = np.random.default_rng(0)
    drawn = [int((rng.random(num) < share).sum()) for _ in range(SIMULATIONS)]
    return float(binom.pmf(np.arange(num + 1), num, share) @ covers), float(covers[drawn].mean())


def covers_difference(share: float, difference: float, num: int) -> tuple[float, float]:
    """How often Tango's interval holds the difference of two models: exactly, and simulated.

    The first model has a share right, the second less by the difference; images that are easy
    for one are easy for the other.
    """
    other = share - difference
    both = share * other
    both += CORRELATION * math.sqrt(share * (1 - share) * other * (1 - other))
    only, only_other = share - both, other - both
    counts = np.array([(b, c) for b in range(num + 1) for c in range(num + 1 - b)])
    held = score_excess(difference, *counts.T, num) <= 0
    outcomes = np.column_stack([counts, num - counts.sum(axis=1)])
    exact = multinomial.pmf(outcomes, num, [only, only_other, 1 - only - only_other]) @ held

    @cache
    def holds(b: int, c: int) -> bool:
        found = tango(b, c, num)
        return found.low <= difference <= found.high

    rng, times = np.random.default_rng(0), 0
    for _ in range(SIMULATIONS):
        image = rng.random(num)
        mine = int((image < only).sum())
        times += holds(mine, int((image < only + only_other).sum()) - mine)
    return float(exact), times / SIMULATIONS


if __name__ == "__main__":
    main()
