"""On which parts of train choices are made: rounds of fitting on one and choosing on the rest."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from maebench.errors import NotApplicable
from maebench.rng import key, permutation

# What is chosen on train: results/reference/choices.md has the rules that were tried.
FOLDS = 5
FEW = 2000  # images of train, up to which its folds are drawn twice
MANY = 20_000  # up to which there are folds; a tenth of more is enough to choose on
HOLDOUT = 0.1


@dataclass(frozen=True)
class Folds:
    """Rounds of fitting on one part of train and choosing on the rest of it.

    Args:
        held: which images each round holds out, bool (R, N); the others are fitted on.
    """

    held: Tensor

    @classmethod
    def of(
        cls,
        labels: Tensor,
        seed: int,
        purpose: str = "folds",
        groups: Tensor | None = None,
    ) -> Self:
        """Rounds that fit the number of images: repeated folds of few, one split of many.

        Classes are spread evenly over the folds, and the only image of a class is never held out.
        Images of one group stay together: classes then are spread as evenly as groups allow, and a
        class of one group is held out as a whole.

        Args:
            labels: int64 (N,).
            seed: which images fall into which fold.
            purpose: what they are for; purposes never share folds.
            groups: int64 (N,), images that belong together, or None.

        Raises:
            NotApplicable: there is nothing to hold out.
        """
        repeats, wanted = rounds_for(len(labels))
        largest = int(labels.bincount().max()) if len(labels) else 0
        if largest < 2:
            raise NotApplicable("train has one image per class: there is nothing to choose on")
        one_split = wanted > FOLDS
        # of one split each class need not be in all folds; with groups scikit-learn asks for it
        folds = wanted if one_split and groups is None else min(wanted, largest)
        rounds = []
        for repeat in range(repeats):
            if groups is None:
                fold_N = _folds(labels, folds, seed, purpose, repeat)
            else:
                fold_N = _group_folds(labels, groups, folds, seed, f"{purpose} {repeat}")
            rounds.append(_usable(labels, fold_N, folds, seed, f"{purpose} order", repeat))
        kept = list(itertools.islice(itertools.chain(*rounds), 1 if one_split else None))
        if not kept:
            raise NotApplicable("train has too few groups of images: there is nothing to choose on")
        return cls(torch.stack(kept))

    @property
    def index(self) -> Tensor:
        """Positions of the images that are held out at least once, ascending, int64 (M,)."""
        return self.held.any(0).nonzero()[:, 0]

    def rounds(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions in train to fit on and to choose on, round by round."""
        for held in self.held:
            yield (~held).nonzero()[:, 0], held.nonzero()[:, 0]

    def outcomes(self, score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """What each choice is worth on the images held out, float64 (G, M), for `choose`.

        Args:
            score: called with the positions to fit on and those held out; gives a number per
                choice and held-out image, (G, held), such as whether it was given its class.
        """
        sums: Tensor | None = None
        for fit, held in self.rounds():
            found = score(fit, held).double()
            if sums is None:
                sums = found.new_zeros(len(found), self.held.shape[1])
            sums[:, held] += found
        assert sums is not None, "there is always a round"
        return (sums / self.held.sum(0))[:, self.index]

    def pooled(self, scores: Tensor) -> Tensor:
        """The same of scores that were found for all rounds at once, of `index`: (R, G, M)."""
        held_RM = self.held[:, self.index]
        return (scores.double() * held_RM[:, None]).sum(0) / held_RM.sum(0)


def rounds_for(num_images: int) -> tuple[int, int]:
    """How often train is divided, and into how many folds; above FOLDS one of them is held out."""
    if num_images <= FEW:
        return 2, FOLDS
    return (1, FOLDS) if num_images <= MANY else (1, round(1 / HOLDOUT))


def group_holdout(labels: Tensor, groups: Tensor, share: float, seed: int) -> Tensor:
    """Which images of train are held out once, about a share: whole groups, bool (N,).

    Args:
        labels: int64 (N,), over which the groups are spread as evenly as they allow.
        groups: int64 (N,), images that belong together.
        share: of all images, in 0..1.
        seed: which groups.

    Raises:
        NotApplicable: there are too few groups.
    """
    largest = int(labels.bincount().max()) if len(labels) else 0
    folds = min(max(2, round(1 / share)), largest)  # scikit-learn takes no more
    fold_N = _group_folds(labels, groups, folds, seed, "holdout")
    held = next(_usable(labels, fold_N, folds, seed, "holdout order"), None)
    if held is None:
        raise NotApplicable("train has too few groups of images: none can be held out")
    return held


def _usable(
    labels: Tensor, fold_N: Tensor, folds: int, seed: int, purpose: str, repeat: int = 0
) -> Iterator[Tensor]:
    """The folds that can be held out, bool (N,), in random order.

    Of one split it is any of them, or small classes would always lie on the same side.
    """
    for fold in permutation(folds, seed, purpose, repeat):
        held = fold_N == fold
        if held.any() and _can_fit(labels, ~held):
            yield held


def _folds(labels: Tensor, folds: int, seed: int, purpose: str, repeat: int) -> Tensor:
    """The fold of each image, int64 (N,): each class dealt out in random order; alone it has -1."""
    order = permutation(len(labels), seed, purpose, repeat)
    order = order[labels.bincount()[labels[order]] > 1]
    dealt = order[labels[order].argsort(stable=True)]
    fold = torch.full_like(labels, -1)
    fold[dealt] = torch.arange(len(dealt)) % folds
    return fold


def _group_folds(labels: Tensor, groups: Tensor, folds: int, seed: int, purpose: str) -> Tensor:
    """The fold of each image where images of a group stay together (scikit-learn)."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(folds, len(groups.unique()))
    fold = torch.full_like(labels, -1)
    if folds < 2:
        return fold
    divide = StratifiedGroupKFold(folds, shuffle=True, random_state=key(seed, purpose) % 2**32)
    with warnings.catch_warnings():
        # a class in fewer groups than folds is missing in some: nothing to be done
        warnings.simplefilter("ignore", UserWarning)
        for f, (_, held) in enumerate(divide.split(labels, labels, groups)):
            fold[torch.from_numpy(held)] = f
    return fold


def _can_fit(labels: Tensor, fit: Tensor) -> bool:
    """Whether there is something to learn: images, and of more than one class where train has."""
    return len(labels[fit].unique()) >= min(2, len(labels.unique()))
