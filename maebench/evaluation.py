"""What an evaluation is: it gets a model and yields results; statistics are not its business."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from maebench.component import Component
from maebench.data.augment import Augment, Crops
from maebench.data.images import Images
from maebench.errors import MaebenchError
from maebench.masking.mask import Mask, Masking
from maebench.objectives.objective import ImageGrid, Reconstruction
from maebench.rng import Draws, key, permutation

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
# What is chosen on train: results/reference/choices.md has the rules that were tried.
FOLDS = 5
FEW = 2000  # images of train, up to which its folds are drawn twice
MANY = 20_000  # up to which there are folds; a tenth of more is enough to choose on
HOLDOUT = 0.1
ROUNDING = 1e-9  # two means of the same outcomes in another order


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What one number of an evaluation means.

    Args:
        help: one sentence.
        unit: such as "%" or "dB"; a share in 0..1 with unit "%" is shown times 100.
        higher_is_better: the direction.
        low: smallest possible value, or None.
        high: largest possible value, or None.
        per_example: whether a result holds one number per test example.
        main: whether this is the evaluation's main score; exactly one is.
        guess: what blind guessing scores, where that is not one over the number of classes.
        held_out: whether the examples are the images held out of train, `model.folds().index`, so
            that choices are made by it; which choice a value belongs to says its `where`, the same
            as that of the main metric. Of several the first that is yielded counts as the one.
    """

    help: str
    unit: str = ""
    higher_is_better: bool = True
    low: float | None = None
    high: float | None = None
    per_example: bool = True
    main: bool = False
    guess: float | None = None
    held_out: bool = False

    @classmethod
    def accuracy(
        cls,
        help: str = "share of test images given their class",
        *,
        main: bool = True,
        per_example: bool = True,
        held_out: bool = False,
    ) -> Self:
        """A share of right answers in per cent: one 0 or 1 for each test image.

        Of images held out of train it is one share each, over the rounds that held it out.
        """
        return cls(
            help=help,
            unit="%",
            low=0,
            high=1,
            main=main and not held_out,
            per_example=per_example,
            held_out=held_out,
        )


@dataclass(frozen=True)
class Result:
    """One metric's value.

    Args:
        metric: a name that the evaluation declares.
        value: a 1-D tensor of one number per test example, in the split's order, wherever the
            metric is a mean; a plain float where it is not; None where this metric cannot be had
            of this model, with the reason.
        where: what tells rows of one metric apart, such as {"k": 5}; `chosen=True` marks the
            headline of a grid, `edge=True` beside it a winner on the grid's edge, and
            `baseline` what needs no model.
    """

    metric: str
    value: Tensor | float | None
    where: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Summary:
    """What an evaluation shows of several models below the table.

    Args:
        name: of the picture's file, letters, digits, dots and dashes.
        table: what is printed, texts and numbers; a table wider than the terminal is printed in
            parts, each with the index.
        notes: lines below the table.
        figure: a matplotlib figure, written to pictures/NAME.png in the results; None for none.
    """

    name: str
    table: pd.DataFrame
    notes: Sequence[str] = ()
    figure: Any = None


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


class NotApplicable(MaebenchError):
    """A model cannot do what an evaluation needs; recorded as a row that says why."""


class Model(Protocol):
    """What an evaluation gets; members are only ever added.

    Splits that the evaluation did not declare cannot be reached.
    """

    @property
    def name(self) -> str:
        """The model's name, as in tables."""

    @property
    def kind(self) -> str:
        """Such as "run", "untrained", "pixels"."""

    @property
    def device(self) -> str:
        """Where the model lies."""

    @property
    def artifacts(self) -> Path:
        """A folder for pictures."""

    def depth(self) -> int:
        """The number of blocks whose features can be asked for; 0 where there are none."""

    def features(self, split: str, layer: int | None = None, pool: str = "mean") -> Tensor:
        """Frozen features, float32 (N, D), on the CPU, cached; `layer=None` is after the last norm.

        `pool` is "cls", "mean" (of patch tokens) or "flat" where the model has them.
        """

    def pools(self) -> tuple[str, ...]:
        """The poolings this model has, the one to prefer first."""

    def labels(self, split: str) -> Tensor:
        """Labels, int64 (N,); a data set without labels raises NotApplicable."""

    def images(self, split: str) -> Images:
        """The split's images."""

    def class_names(self) -> tuple[str, ...]:
        """One name per class."""

    def encode(self, images: Tensor, layer: int | None = None, pool: str = "mean") -> Tensor:
        """The same features of any images, such as crops: pixels (B, C, H, W) in 0..255."""

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels (B, C, H, W) in 0..255 as the encoder takes them, float32 on the device."""

    def pixels(self, normalised: Tensor) -> Tensor:
        """The inverse of `normalise`, in 0..1 and not clipped; channels are the second axis."""

    def encoder(self) -> nn.Module:
        """A copy of the encoder that may be trained; NotApplicable where there is none."""

    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """The model's guess at hidden patches; NotApplicable without a decoder."""

    def pictures(self, images: Tensor, draws: Draws) -> Mapping[str, ImageGrid]:
        """The objective's own pictures by name, in the range of normalised images.

        They are made from a few normalised images; empty where the objective has none.
        """

    def masks(self, ids: Tensor, masking: Masking | None = None, ratio: float = 0.75) -> Mask:
        """The common held-out masks: fixed by image id, the same for every model."""

    def draws(self, purpose: str, ids: Tensor | None = None, epoch: int = 0) -> Draws:
        """Random numbers for the evaluation's seed."""

    def folds(self, index: Tensor | None = None, purpose: str = "folds") -> Folds:
        """Rounds of fitting on one part of train and choosing on the rest, drawn by the seed.

        Whatever an evaluation chooses on train it chooses by them: `choose(folds.outcomes(...))`.
        `index` has the images to divide where these are not all of train. NotApplicable where
        nothing can be held out.
        """

    def holdout(self, share: float = 0.1) -> tuple[Tensor, Tensor]:
        """Positions in train to fit on and to watch: class-balanced, disjoint, seeded.

        One split, for what is too dear to fit in every round of `folds`. Images of a group stay
        together.
        """

    def tokens(self, split: str, index: Tensor, layer: int | None = None) -> Tensor:
        """Frozen patch tokens of the images at these positions, float32 (B, N, D), on the CPU.

        Kept in memory where a split's fit; else encoded each time. A model without tokens, such
        as raw pixels, raises NotApplicable.
        """

    def crops(
        self, split: str, batch: int, steps: int, augment: Augment | None = None
    ) -> Iterator[Crops]:
        """Augmented batches on the device, epoch after epoch, in an order that the seed gives.

        `augment` replaces the crops and flips that suit the data set; those that a model was
        pretrained with are its own matter. Crops come at the size that the encoder takes.
        """

    def picture(self, name: str, figure: Any) -> Path:
        """Writes a matplotlib figure among the artifacts as NAME.png."""

    def progress(self, steps: Iterable[T], total: int, what: str) -> Iterator[T]:
        """The same steps, shown as a progress bar."""


class Evaluation(Component):
    """A task that gives a model one or more metrics.

    `metrics` names them, one of them the main score; `splits` says which splits it may touch;
    `test` is the split whose examples the values belong to; `changes_encoder` is True where its
    copy of the encoder is trained. An evaluation that has more to show of several models than a
    column of the table gives it in `summary`.
    """

    kind: ClassVar[str] = "evaluation"
    metrics: ClassVar[Mapping[str, Metric]] = {}
    splits: ClassVar[Sequence[str]] = ("train", "test")
    test: ClassVar[str] = "test"
    changes_encoder: ClassVar[bool] = False

    def run(self, model: Model) -> Iterator[Result]:
        """Yields results; nothing is recorded until it ends.

        Raises:
            NotApplicable: before the first result, where the model cannot do this.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run(model)")

    def summary(self, rows: pd.DataFrame) -> Iterator[Summary]:
        """Yields what `maebench eval` shows of its models below the table; nothing by default.

        Args:
            rows: this evaluation's of all its models, as `load_records` gives them.

        Raises:
            MaebenchError: the models cannot be shown beside each other.
        """
        yield from ()

    @property
    def protocol_name(self) -> str:
        """Name, protocol where there are several, and version, such as `linear-probe/mae@v3`."""
        chosen = getattr(self, "protocol", None)
        return f"{self.name}{f'/{chosen}' if chosen else ''}@v{self.version}"

    @classmethod
    def main(cls) -> str:
        """The name of the main metric."""
        return next(name for name, metric in cls.metrics.items() if metric.main)
