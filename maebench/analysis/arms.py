"""Which of several ways cannot be told apart, and do evaluations agree on their order.

No ranking is made: neighbours in a ranking are mostly noise, and a line under "equal" ranks
joins ways that do differ. A matrix of pairs says what was shown.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maebench.analysis.seeds import SIGNIFICANCE, holm, over_seeds

if TYPE_CHECKING:
    import pandas as pd

LEAST_ARMS = 3  # of two, an order agrees or is turned round: that is no measure of agreement


def pairwise_p(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """The p-values of paired t tests of all pairs, adjusted for all of them (Holm 1979).

    Args:
        scores: one per way and seed, (A, S), NaN where a way has none: each pair is compared over
            the seeds that both have.

    Returns:
        A symmetric matrix (A, A) with 1 on its diagonal, and NaN where there is no p-value.
    """
    pairs = list(combinations(range(len(scores)), 2))
    found = np.ones((len(scores), len(scores)))
    differences = (scores[a] - scores[b] for a, b in pairs)
    shared = [difference[np.isfinite(difference)] for difference in differences]
    adjusted = holm([over_seeds(each).p if len(each) else float("nan") for each in shared])
    for (a, b), p in zip(pairs, adjusted, strict=True):
        found[a, b] = found[b, a] = p
    return found


def groups_of(p_matrix: NDArray[np.floating], level: float = SIGNIFICANCE) -> list[tuple[int, ...]]:
    """The largest groups of ways of which no two were told apart, each a tuple of indices.

    They are the maximal cliques of the graph that joins each pair that is not rejected (Bron and
    Kerbosch 1973), so they may overlap, need not be neighbours in the order of their means, and
    hold every way at least once. A pair without a p-value was not told apart.
    """
    import networkx as nx  # type: ignore[import-untyped, unused-ignore]

    rejected = np.asarray(p_matrix) <= level
    graph = nx.Graph()
    graph.add_nodes_from(range(len(rejected)))
    graph.add_edges_from(
        (a, b) for a, b in combinations(range(len(rejected)), 2) if not rejected[a, b]
    )
    return sorted(tuple(sorted(group)) for group in nx.find_cliques(graph))


def agreement(means: pd.DataFrame) -> pd.DataFrame:
    """How far each two evaluations order the ways alike: Kendall's tau-b (Kendall 1945).

    1 is the same order, 0 none in common, -1 the reverse. NaN where fewer than three ways have
    both values, or all values of one evaluation are the same.

    Args:
        means: one row per way, one column per evaluation, higher is better in all of them.
    """
    return means.corr(method="kendall", min_periods=LEAST_ARMS)


def disagreements(tau: pd.DataFrame) -> list[tuple[str, str, float]]:
    """The pairs of evaluations that do not order the ways alike: their tau is 0 or below."""
    names, values = [str(name) for name in tau.columns], tau.to_numpy(dtype=np.float64)
    pairs = combinations(range(len(names)), 2)
    return [(names[a], names[b], float(values[a, b])) for a, b in pairs if values[a, b] <= 0]
