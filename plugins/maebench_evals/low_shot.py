"""Low-shot: how good is a linear probe with few labels, and how much does it hang on which?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field, PositiveInt, field_validator
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from maebench import Evaluation, MaebenchError, Metric, Model, NotApplicable, Result
from maebench_evals.frozen import Layer, Penalties, not_empty, pool_for
from maebench_evals.linear_probe import BATCH, together
from maebench_evals.subset_heads import Fitting, Subsets

# Shape suffixes: R draws, N images of a subset, F rounds of its folds.
SHOTS = re.compile(r"[1-9]\d*|\d+(\.\d+)?%")
# One image per class leaves none to choose on. On digits, of encoders and of pixels, any l2 from
# 0.01 to 1 gives the same accuracy within one point.
ONE_SHOT_L2 = 0.1


class LowShot(Evaluation):
    """Top-1 of a linear probe on few labelled images, as the mean over random draws of them.

    An entry of shots is a number of images per class, or a share of each class (at least one
    image). The smaller subsets of a draw lie in its larger ones. Multinomial logistic regression on
    features standardised by the subset; l2 is chosen on folds of the subset alone; with one image
    per class it is 0.1. The headline is the last entry.
    """

    name: ClassVar[str] = "low-shot"
    version: ClassVar[int] = 2  # 2: folds are drawn twice
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric.accuracy("share of the draws that gave an image its class"),
        "spread": Metric(
            help="deviation of the accuracy over draws",
            unit="%",
            higher_is_better=False,
            low=0,
            high=1,
            per_example=False,
        ),
        "images": Metric(
            help="number of labelled images", higher_is_better=False, low=1, per_example=False
        ),
        "l2": Metric(
            help="median over draws of the penalty",
            higher_is_better=False,
            low=0,
            per_example=False,
        ),
    }

    # few draws and steps: what the contract tries it with
    example: ClassVar[dict[str, object]] = {"shots": ("1", "10%"), "draws": 2, "steps": 20}

    shots: Annotated[tuple[str, ...], AfterValidator(not_empty)] = Field(
        default=("1", "5", "10", "1%", "10%"),
        description="labelled images per class, or shares of train such as 1%",
        examples=[("2",)],
    )
    draws: PositiveInt = Field(default=5, description="random subsets per entry of shots")
    l2: Penalties = Field(
        default=tuple(10.0**e for e in range(-4, 1)),
        description="penalties to try",
        examples=[(1.0,), (1e-3, 1.0)],
    )
    # on digits 1,000 steps move the accuracy by less than half its deviation over draws
    steps: PositiveInt = Field(default=300, description="least number of updates")
    pool: Literal["mean", "cls"] | None = Field(
        default=None, description="which token is the feature; none: the mean of the patches"
    )
    layer: Layer = None

    @field_validator("shots", mode="before")
    @classmethod
    def _whole_numbers_too(cls, value: object) -> object:
        """In YAML and in Python 5 means the same as "5"."""
        if not isinstance(value, list | tuple):
            return value
        return tuple(str(entry) if type(entry) is int else entry for entry in value)

    @field_validator("shots")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not SHOTS.fullmatch(text) or ("%" in text and not 0 < float(text[:-1]) <= 100):
                raise ValueError(
                    f"{text!r} is neither a number of images per class such as 5, nor a share of "
                    "train above 0% and up to 100%"
                )
        if len(set(value)) < len(value):
            raise ValueError(f"{','.join(value)} names an entry twice")
        return value

    def run(self, model: Model) -> Iterator[Result]:
        """Yields accuracy, its deviation over draws and what was used for each entry of shots."""
        labels, right = model.labels("train"), model.labels("test")
        counts = labels.bincount()[labels.unique()]
        if len(counts) < 2:
            raise NotApplicable("train has one class: there is nothing to tell apart")
        fitting = self._fitting(int(counts.min()), model.name)
        pool = pool_for(model, self.pool, "mean")
        train = model.features("train", self.layer, pool).to(model.device)
        test = model.features("test", self.layer, pool).to(model.device)
        y, fit = labels.to(model.device), self._fit(model)
        for text in model.progress(self.shots, len(self.shots), f"low-shot of {model.kind}"):
            where: dict[str, object] = {"shots": text, "pool": pool}
            if text not in fitting:
                why = f"shots={text}: the rarest class of train has {counts.min()} images"
                yield Result("top1", None, where, why)
                continue
            index_RN, held_RFN = self._subsets(model, labels, text)
            predicted, l2 = self._predict(train, y, test, index_RN, held_RFN, fit)
            hits = (predicted == right).double()
            if text == fitting[-1]:
                where |= {"chosen": True}
            why = "" if self.draws > 1 else "one draw has no spread"
            yield Result("top1", hits.mean(0), where)
            yield Result("spread", None if why else hits.mean(1).std().item(), where, why)
            yield Result("images", float(index_RN.shape[1]), where)
            yield Result("l2", sorted(l2)[len(l2) // 2], where)

    def _fitting(self, rarest: int, name: str) -> list[str]:
        """The entries that train has enough images for.

        Raises:
            MaebenchError: there is none.
        """
        found = [text for text in self.shots if "%" in text or int(text) <= rarest]
        if not found:
            raise MaebenchError(
                f"-o low-shot.shots={','.join(self.shots)} for {name}: the rarest class of train "
                f"has {rarest} images"
            )
        return found

    def _fit(self, model: Model) -> Fitting:
        return Fitting(len(model.class_names()), self.steps, model.draws("order"))

    def _subsets(self, model: Model, labels: Tensor, text: str) -> tuple[Tensor, Tensor]:
        """Positions in train of each draw's images, int64 (R, N), and its folds, bool (R, F, N).

        A draw puts each class into one order, of which an entry takes the beginning. Where fewer
        rounds can be made of a draw than of another, or none, the missing ones hold out nothing.
        """
        draws, folds = [], []
        for number in range(self.draws):
            order = model.draws(f"draw {number}").uniform(len(labels))[0].argsort()
            index = torch.cat([taken(order[labels[order] == c], text) for c in labels.unique()])
            draws.append(index)
            try:
                folds.append(model.folds(index, f"draw {number}").held)
            except NotApplicable:  # such as one image per class
                folds.append(torch.zeros(1, len(index), dtype=torch.bool))
        return torch.stack(draws), pad_sequence(folds, batch_first=True)

    def _predict(
        self,
        train: Tensor,
        labels: Tensor,
        test: Tensor,
        index_RN: Tensor,
        held_RFN: Tensor,
        fit: Fitting,
    ) -> tuple[Tensor, list[float]]:
        """The class that each draw predicts for each test image, (R, test), and its penalty."""
        l2 = sorted(set(self.l2))
        heads = held_RFN.shape[1] * len(l2)
        step = together(min(index_RN.shape[1], BATCH) * heads * fit.num_classes)
        predicted: list[Tensor] = []
        chosen: list[float] = []
        for at in torch.arange(len(index_RN)).split(step):
            data = Subsets.of(train, labels, index_RN[at].to(train.device))
            found = fit.choose(data, held_RFN[at].to(train.device), l2, ONE_SHOT_L2)
            predicted.append(fit.predict(data, found, test).cpu())
            chosen += found
        return torch.cat(predicted), chosen


def taken(ordered: Tensor, text: str) -> Tensor:
    """The first images of a class, as many as an entry of shots asks for."""
    if text.endswith("%"):
        return ordered[: max(1, round(float(text[:-1]) / 100 * len(ordered)))]
    return ordered[: int(text)]
