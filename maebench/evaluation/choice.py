"""Which entry of a grid is chosen by its scores on train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

ROUNDING = 1e-9  # two means of the same outcomes in another order


@dataclass(frozen=True)
class Choice:
    """Which entry of a grid was chosen on train.

    Args:
        index: of the entry.
        edge: whether it lies on the edge of the grid, so that a wider one might be better.
    """

    index: int
    edge: bool

    def where(self, index: int) -> dict[str, bool]:
        """What marks the chosen entry's results: add it to the `where` of each entry's."""
        if index != self.index:
            return {}
        return {"chosen": True, "edge": True} if self.edge else {"chosen": True}


def choose(scores: Sequence[float] | Tensor, edges: Sequence[bool] | None = None) -> Choice:
    """The best entry of a grid by its score on train, of equally good ones the middle one.

    Args:
        scores: one per entry, or the outcomes of `Folds` (G, M), whose means count; higher is
            better, in the order of the grid.
        edges: which entries lie on the edge of a grid of several axes, so that of equally good
            ones another is taken; by default the first and the last of more than one are edges.
    """
    if isinstance(scores, Tensor):
        scores = (scores if scores.ndim == 1 else scores.double().mean(1)).tolist()
    best = [i for i, score in enumerate(scores) if score >= max(scores) - ROUNDING]
    if edges is not None:
        best = [i for i in best if not edges[i]] or best
    index = best[len(best) // 2]
    on_edge = len(scores) > 1 and index in (0, len(scores) - 1)
    return Choice(index, on_edge if edges is None else edges[index])
