"""Low-shot: how good is a linear probe with few labels, and how much does it hang on which?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field, PositiveInt, field_validator
from torch import Tensor

from maebench import (
    ANY_KIND,
    Evaluation,
    Folds,
    MaebenchError,
    Metric,
    Model,
    NotApplicable,
    Result,
    choose,
)
from maebench_evals.frozen import Count, Layer, Penalties, not_empty, pool_for, standardised
from maebench_evals.heads import ITERATIONS, probe
from maebench_evals.interrupted import one_by_one

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
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
    # 2: folds are drawn twice
    # 3: heads are at their optimum
    # 4: penalties are weighed by deviations, as linear-probe's since its version 5
    version: ClassVar[int] = 4
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
        "converged": Metric(
            help="share of the fits that reached their optimum",
            unit="%",
            low=0,
            high=1,
            per_example=False,
        ),
    }

    # few draws: what the contract tries it with
    example: ClassVar[dict[str, object]] = {"shots": ("1", "10%"), "draws": 2}

    shots: Annotated[tuple[str, ...], AfterValidator(not_empty)] = Field(
        default=("1", "5", "10", "1%", "10%"),
        description="labelled images per class, or shares of train such as 1%",
        examples=[("2",)],
    )
    draws: PositiveInt = Field(default=5, le=10**4, description="random subsets per entry of shots")
    l2: Penalties = Field(
        default=tuple(10.0**e for e in range(-4, 1)),
        description="penalties to try",
        examples=[(1.0,), (1e-3, 1.0)],
    )
    iterations: Count = Field(
        default=ITERATIONS, description="most steps to the optimum of a penalty", examples=[1]
    )
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
        classes = len(model.class_names())
        for text in model.progress(self.shots, len(self.shots), f"low-shot of {model.kind}"):
            where: dict[str, object] = {"shots": text, "pool": pool}
            if text not in fitting:
                why = f"shots={text}: the rarest class of train has {counts.min()} images"
                yield Result("top1", None, where, why)
                continue
            hits, l2, converged = [], [], []
            subsets = list(self._subsets(model, labels, text))
            index = subsets[-1][0]

            def fitted(subset: tuple[Tensor, Folds | None]) -> dict[str, Tensor]:
                at, folds = subset
                head = self._head(train[at], labels[at], test, classes, folds)
                numbers = torch.tensor([head.l2, head.converged], dtype=torch.float64)
                return {"predicted": head.predicted, "numbers": numbers}

            for found in one_by_one(model, text, subsets, fitted):
                hits.append((found["predicted"] == right).double())
                l2.append(found["numbers"][0].item())
                converged.append(found["numbers"][1].item())
            hits_RT = torch.stack(hits)
            if text == fitting[-1]:
                where |= {"chosen": True}
            why = "" if self.draws > 1 else "one draw has no spread"
            yield Result("top1", hits_RT.mean(0), where)
            yield Result("spread", None if why else hits_RT.mean(1).std().item(), where, why)
            yield Result("images", float(len(index)), where)
            yield Result("l2", sorted(l2)[len(l2) // 2], where)
            yield Result("converged", sum(converged) / len(converged), where)

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

    def _subsets(
        self, model: Model, labels: Tensor, text: str
    ) -> Iterator[tuple[Tensor, Folds | None]]:
        """Positions in train of each draw's images, int64 (N,), and its folds if it has any.

        A draw puts each class into one order, of which an entry takes the beginning.
        """
        for number in range(self.draws):
            order = model.draws(f"draw {number}").uniform(len(labels))[0].argsort()
            index = torch.cat([taken(order[labels[order] == c], text) for c in labels.unique()])
            try:
                yield index, model.folds(index, f"draw {number}")
            except NotApplicable:  # such as one image per class
                yield index, None

    def _head(
        self, x_ND: Tensor, y_N: Tensor, test: Tensor, num_classes: int, folds: Folds | None
    ) -> Head:
        """The head of a subset, which knows nothing of other images.

        Whoever has ten labelled images need not have others: what the rest of train could say about
        scales would make few labels look better than they are (raw pixels of digits, one image per
        class: by 3 points of 60; encoders: by less than one).
        """
        l2 = sorted(set(self.l2)) if folds else [ONE_SHOT_L2]
        x_ND, test = standardised(x_ND, test)
        y_N = y_N.to(x_ND.device)
        found = probe(x_ND, y_N, test, l2, num_classes, folds, iterations=self.iterations)
        best = choose(found.held_out).index if folds else 0
        return Head(l2[best], found.predicted[best], found.converged)


@dataclass(frozen=True)
class Head:
    """A subset's penalty, the classes that it gives test, and the share of fits that converged."""

    l2: float
    predicted: Tensor
    converged: float


def taken(ordered: Tensor, text: str) -> Tensor:
    """The first images of a class, as many as an entry of shots asks for."""
    if text.endswith("%"):
        return ordered[: max(1, round(float(text[:-1]) / 100 * len(ordered)))]
    return ordered[: int(text)]
