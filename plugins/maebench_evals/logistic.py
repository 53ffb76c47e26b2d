"""Logistic regression with scikit-learn's penalty C, and as DINOv2 fits it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, PositiveFloat
from torch import Tensor

from maebench import ANY_KIND, Evaluation, Metric, Model, NotApplicable, Result, choose
from maebench_evals.frozen import Count, Layer, not_empty, pool_for, standardised
from maebench_evals.heads import ITERATIONS, probe

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# fast: wide, as winners sit on edges: 100 on 600 digits, and what weighs is C times the number of
# images, so that large sets want a small C. dinov2: eval/log_regression.py of the official code.
GRIDS = {"fast": (-5.0, 4.0, 10), "dinov2": (-6.0, 5.0, 45)}  # powers of ten: first, last, number
TOLERANCE = 1e-12  # of dinov2: the official code's
MAX_ITER = {"fast": ITERATIONS, "dinov2": 1000}  # the official code's


class Logistic(Evaluation):
    """Top-1 of logistic regression on frozen features, its inverse penalty C chosen on train.

    L-BFGS on the sum of cross entropies + |W|^2 / (2 C): by the mean over N images the penalty is
    l2 / 2 * |W|^2 with l2 = 1 / (C * N). fast: standardised features, ten C, fitted as the heads of
    linear-probe are, to the optimum that scikit-learn would reach. dinov2: scikit-learn, the class
    token as it is, 45 C from 1e-6 to 1e5, each from zero. C is chosen on folds of train and fitted
    again on all of it; in dinov2 that of the choice alone, as there.
    """

    name: ClassVar[str] = "logistic"
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
    # 2: C is chosen on folds of train instead of a tenth
    # 3: fast is nearer to the optimum, where scikit-learn had stopped before it
    version: ClassVar[int] = 3
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric.accuracy(),
        "validation_top1": Metric.accuracy(
            "the same on the images held out of train, by which C is chosen", held_out=True
        ),
        "converged": Metric(
            help="share of the fits that reached their optimum",
            unit="%",
            low=0,
            high=1,
            per_example=False,
        ),
    }

    # a few iterations: what the contract tries it with
    example: ClassVar[dict[str, object]] = {"max_iter": 20, "C": (1e-3, 1e-1)}

    protocol: Literal["fast", "dinov2"] = Field(
        default="fast", description="dinov2: features as they are, its own grid and tolerance"
    )
    C: Annotated[tuple[PositiveFloat, ...] | None, AfterValidator(not_empty)] = Field(
        default=None,
        description="inverse penalties to try; none: the protocol's own grid",
        examples=[(1e-4, 1.0), (10.0,)],
    )
    max_iter: Count | None = Field(
        default=None,
        description=f"most iterations of a fit; none: {MAX_ITER['fast']}, with dinov2 "
        f"{MAX_ITER['dinov2']}",
        examples=[1],
    )
    pool: Literal["mean", "cls"] | None = Field(
        default=None,
        description="which token is the feature; none: mean of the patches, dinov2's class token",
    )
    layer: Layer = None

    def run(self, model: Model) -> Iterator[Result]:
        """Yields the whole grid of C, the one chosen on train marked."""
        labels, right = model.labels("train"), model.labels("test")
        if len(labels.unique()) < 2:
            raise NotApplicable("train has one class: there is nothing to tell apart")
        grid = self._grid()
        if self.protocol == "fast":
            yield from self._fast(model, grid, labels, right)
        else:
            yield from self._dinov2(model, grid, labels, right)

    def _fast(
        self, model: Model, grid: list[float], labels: Tensor, right: Tensor
    ) -> Iterator[Result]:
        pool = pool_for(model, self.pool, "mean")
        train = model.features("train", self.layer, pool)
        train, test = standardised(train, model.features("test", self.layer, pool))
        found = probe(
            train.to(model.device),
            labels.to(model.device),
            test.to(model.device),
            [1 / (C * len(labels)) for C in reversed(grid)],
            len(model.class_names()),
            model.folds(),
            iterations=self.max_iter or MAX_ITER["fast"],
            show=lambda l2: model.progress(l2, len(l2), f"logistic of {model.kind}"),
            partial=model.partial(),
            power=0,  # what scikit-learn minimises
            per_round=False,
        )
        held_out, predicted = found.held_out.flip(0), found.predicted.flip(0)
        choice = choose(held_out)
        for i, C in enumerate(grid):
            where: dict[str, object] = {"C": C, "pool": pool, **choice.where(i)}
            yield Result("validation_top1", held_out[i], where)
            yield Result("top1", (predicted[i] == right).double(), where)
        yield Result("converged", found.converged)

    def _dinov2(
        self, model: Model, grid: list[float], labels: Tensor, right: Tensor
    ) -> Iterator[Result]:
        pool = pool_for(model, self.pool, "cls")
        train = model.features("train", self.layer, pool)
        test = model.features("test", self.layer, pool)
        done: list[bool] = []

        def right_of(fit: Tensor, held: Tensor) -> Tensor:
            shown = model.progress(grid, len(grid), f"logistic of {model.kind}")
            held_out, converged = self._predict(train[fit], labels[fit], train[held], shown)
            done.extend(converged)
            return held_out == labels[held]

        validation = model.folds().outcomes(right_of)
        choice = choose(validation)
        (predicted,), more = self._predict(train, labels, test, [grid[choice.index]])
        done += more
        for i, C in enumerate(grid):
            where: dict[str, object] = {"C": C, "pool": pool, **choice.where(i)}
            yield Result("validation_top1", validation[i], where)
            if i == choice.index:
                yield Result("top1", (predicted == right).double(), where)
        yield Result("converged", sum(done) / len(done))

    def _grid(self) -> list[float]:
        """The values of C in ascending order, each once."""
        return sorted(
            set(np.logspace(*GRIDS[self.protocol]).tolist() if self.C is None else self.C)
        )

    def _predict(
        self, x_ND: Tensor, y_N: Tensor, test: Tensor, grid: Iterable[float]
    ) -> tuple[Tensor, list[bool]]:
        """The class that each C predicts for each test image, (C, N), and which fits converged."""
        from sklearn.linear_model import LogisticRegression

        classifier = LogisticRegression(tol=TOLERANCE, max_iter=self.max_iter or MAX_ITER["dinov2"])
        x, y, other = x_ND.double().numpy(), y_N.numpy(), test.double().numpy()
        predicted, done = [], []
        for C in grid:
            done.append(converges(classifier.set_params(C=C), x, y))
            predicted.append(torch.from_numpy(classifier.predict(other)))
        return torch.stack(predicted), done


def converges(classifier: LogisticRegression, x: NDArray[np.float64], y: NDArray[np.int64]) -> bool:
    """Fits, and says whether the optimum was reached; other warnings are passed on."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        classifier.fit(x, y)
    for warning in found:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in found)
