"""What an evaluation is: it gets a model and yields results; statistics are not its business."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

from torch import Tensor, nn

from maebench.component import Component
from maebench.data.augment import Augment, Crops
from maebench.data.images import Images
from maebench.data.label_maps import LabelMaps
from maebench.encoders.inputs import IMAGES, Inputs
from maebench.evaluation.folds import Folds
from maebench.masking.mask import Mask, Masking
from maebench.objectives.objective import ImageGrid, Reconstruction
from maebench.rng import Draws

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


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
        reason: why there is no value.
        kept: numbers of any shape that are kept beside the row, for `Evaluation.summary` to read
            by `maebench.kept(row)`; None for none.
    """

    metric: str
    value: Tensor | float | None
    where: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    kept: Tensor | None = None


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


class Partial(Protocol):
    """A part of an evaluation that takes long: its state is kept on the way.

    What global random states were then is put back with it.

    Example:
        part = model.partial("heads")
        weights = dict(part.state)  # empty, or what was kept last
        for l2 in grid[len(weights):]:
            weights[str(l2)] = fit(l2)
            part.keep(lambda: weights)
    """

    @property
    def state(self) -> Mapping[str, Tensor]:
        """What was kept last, on the CPU; empty where this part begins."""

    def keep(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Keeps the state that the function gives; it is asked every few seconds, not each time."""


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
    def inputs(self) -> Inputs:
        """What the model is fed: kind, shape and, of token ids, how many there are."""

    @property
    def ratio(self) -> float:
        """The ratio that it was pretrained with at the end; NotApplicable where there is none."""

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

    def label_maps(self, split: str) -> LabelMaps:
        """The class of each pixel, for a `dense` evaluation; NotApplicable where there is none."""

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
        self,
        split: str,
        batch: int,
        steps: int,
        augment: Augment | None = None,
        index: Tensor | None = None,
        done: int = 0,
    ) -> Iterator[Crops]:
        """Augmented batches on the device, epoch after epoch, in an order that the seed gives.

        `index` has the positions of the images to take where these are not all of the split.
        `augment` replaces the crops and flips that suit the data set; those that a model was
        pretrained with are its own matter. Crops come at the size that the encoder takes. The
        first `done` of the steps are left out, which were made before an interruption.
        """

    def paced(self, module: nn.Module, steps: int) -> Callable[[Tensor], Tensor]:
        """The module, to be called once for each of so many training steps.

        It is the module itself until its pace is known, then compiled where that pays
        (`machine.compile`); in evaluation mode call the module.
        """

    def partial(self, what: str = "") -> Partial:
        """A part of the evaluation that is long, and goes on where it was interrupted.

        `what` tells the parts of one evaluation apart.
        """

    def picture(self, name: str, figure: Any) -> Path:
        """Writes a matplotlib figure among the artifacts as NAME.png."""

    def progress(self, steps: Iterable[T], total: int, what: str) -> Iterator[T]:
        """The same steps, shown as a progress bar."""


class Evaluation(Component):
    """A task that gives a model one or more metrics.

    `metrics` names them, one of them the main score; `splits` says which splits it may touch;
    `test` is the split whose examples the values belong to; `changes_encoder` is True where its
    copy of the encoder is trained; `takes` names the kinds of inputs that it can be made of, of
    others it is not applicable. An evaluation that has more to show of several models than a
    column of the table gives it in `summary`.
    """

    kind: ClassVar[str] = "evaluation"
    metrics: ClassVar[Mapping[str, Metric]] = {}
    splits: ClassVar[Sequence[str]] = ("train", "test")
    test: ClassVar[str] = "test"
    changes_encoder: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = (IMAGES,)
    dense: ClassVar[bool] = False

    def run(self, model: Model) -> Iterator[Result]:
        """Yields results; nothing is recorded until it ends.

        Raises:
            NotApplicable: before the first result, where the model cannot do this.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run(model)")

    def splits_of(self, kind: str) -> Sequence[str]:
        """The splits that it may touch of inputs of a kind: `splits`, if not overridden."""
        return self.splits

    def suited(self, kind: str) -> Self:
        """Itself, with options that are left open filled in for inputs of a kind.

        By what it gives, records are named and found again.

        Raises:
            ConfigError: an option has no meaning there.
        """
        return self

    def changed_on(self, kind: str) -> str:
        """Name and options as `changed`, but for what it would do anyway to inputs of a kind."""
        found, fields = self, type(self).model_fields
        for key in self.changed_options():
            default = fields[key].get_default(call_default_factory=True, validated_data={})
            without = found.model_copy(update={key: default})
            found = without if without.suited(kind) == self.suited(kind) else found
        return found.changed()

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
