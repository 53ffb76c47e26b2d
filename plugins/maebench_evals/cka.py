"""Linear CKA: how alike two models see the same images, whatever the axes of their features.

N samples, D and E the widths of two models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from maebench import ANY_KIND, Evaluation, MaebenchError, Metric, Model, Result, Summary, kept
from maebench_evals.frozen import Layer, pool_for

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = 2000  # of 64 float32 half a megabyte of each model; CKA of few samples is too high


class CKA(Evaluation):
    """Linear centred kernel alignment of features of the same test images.

    1 is the same up to rotation and one factor, 0 is nothing in common. cka is that of the model
    and of its raw input: pixels, or how often each token is in a window. Of several models
    `maebench eval cka MODEL MODEL` shows each beside each, on the same images alone. Few samples
    make it larger, so compare at equal numbers, which `where` states. Source: Kornblith, Norouzi,
    Lee and Hinton 2019, arXiv 1905.00414, section 3.
    """

    name: ClassVar[str] = "cka"
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
    splits: ClassVar[tuple[str, ...]] = ("test",)
    metrics: ClassVar[dict[str, Metric]] = {
        "cka": Metric(
            help="likeness to the raw input", low=0, high=1, per_example=False, main=True
        ),
    }

    samples: PositiveInt = Field(
        default=SAMPLES, ge=2, description="test images, the first of an order by the seed"
    )
    layer: Layer = None
    pool: Literal["mean", "cls"] | None = Field(
        default=None, description="pooling; none: mean of the patches"
    )

    def run(self, model: Model) -> Iterator[Result]:
        """Yields the likeness to raw input, and keeps the features."""
        pool = pool_for(model, self.pool, "mean")
        features = model.features("test", self.layer, pool)
        images = model.images("test")
        order = model.draws("samples", images.info.ids).uniform().argsort()[: self.samples]
        chosen = order.sort().values
        raw = raw_input(images.pick(chosen.tolist()), model.inputs.vocabulary)
        found = features[chosen]
        where = {"samples": len(found), "pool": pool, "chosen": True}
        value = linear_cka(found, raw)
        if value is None:
            why = "features, or raw inputs, are the same of all samples"
            yield Result("cka", None, where, why)
        else:
            yield Result("cka", value, where, kept=narrow(found))

    def summary(self, rows: pd.DataFrame) -> Iterator[Summary]:
        """Yields each model beside each, where there are several.

        Raises:
            MaebenchError: they were not fed the same images.
        """
        import pandas as pd

        newest = rows[rows["status"] == "ok"].sort_values("created", kind="stable")
        newest = newest.drop_duplicates("model", keep="last")
        if len(newest) < 2:
            return
        rows_of = newest.to_dict("records")
        same_images(rows_of)
        features = [torch.from_numpy(of_row(row)) for row in rows_of]
        values = np.ones((len(features), len(features)))
        for i, x in enumerate(features):
            for j, y in enumerate(features[:i]):
                values[i, j] = values[j, i] = linear_cka(x, y)
        names = [row["model"] for row in rows_of]
        table = pd.DataFrame(
            [[f"{v:.3f}" for v in line] for line in values], index=names, columns=names
        )
        table.index.name = "model"
        note = f"linear CKA of {len(features[0]):,} test {rows_of[0]['inputs']}"
        yield Summary("cka", table, (note,), heat_map(names, values))


def of_row(row: dict[Any, Any]) -> NDArray[Any]:
    """The features that were kept beside a row.

    Raises:
        MaebenchError: there are none.
    """
    found = kept(row)
    if found is None:
        raise MaebenchError(f"cka: no features beside {row['file']}; delete it and evaluate again")
    return found


def same_images(rows: list[dict[Any, Any]]) -> None:
    """Refuses models of other images: their samples do not belong together.

    Raises:
        MaebenchError: names two, and what differs.
    """
    first = rows[0]
    for row in rows[1:]:
        for what, a, b in (
            ("data set", first["dataset"], row["dataset"]),
            ("images", first["dataset_fingerprint"], row["dataset_fingerprint"]),
            ("samples", first["where"]["samples"], row["where"]["samples"]),
        ):
            if a != b:
                raise MaebenchError(
                    f"cka: not the same {what}: {first['model']} has {a}, {row['model']} {b}; "
                    "compare models on the same test images at one size (--dataset, --image-size)"
                )


def raw_input(examples: Tensor, vocabulary: int) -> Tensor:
    """Pixels in one line, or how often each token is in a window, float32 (N, D)."""
    if not vocabulary:
        return examples.flatten(1).float()
    found = torch.zeros(len(examples), vocabulary)
    return found.scatter_add_(1, examples, torch.ones(examples.shape))


def narrow(x_ND: Tensor) -> Tensor:
    """The features; wider ones as a number for each sample that has the same centred products."""
    if x_ND.shape[1] <= len(x_ND):
        return x_ND
    x = x_ND - x_ND.mean(0)
    values, vectors = torch.linalg.eigh(x.double() @ x.double().T)
    return (vectors * values.clamp(min=0).sqrt()).float()


def linear_cka(x_ND: Tensor, y_NE: Tensor) -> float | None:
    """|Y'X|^2 / (|X'X| |Y'Y|) of centred features, in float64; None where one does not vary."""
    N = len(x_ND)
    x, y = (z.double() - z.double().mean(0) for z in (x_ND, y_NE))
    if max(x.shape[1], y.shape[1]) > N:  # the same by products of samples, which are fewer
        a, b = x @ x.T, y @ y.T
        shared, own = (a * b).sum(), a.norm() * b.norm()
    else:
        shared, own = (y.T @ x).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    if float(own) <= 0 or not bool(own.isfinite()):
        return None
    return float((shared / own).clamp(0, 1))


def heat_map(names: list[str], values: NDArray[Any]) -> Any:
    """Each model beside each as a figure."""
    from matplotlib.figure import Figure

    size = 1.5 + 0.5 * len(names)
    beside = 0.075 * max(map(len, names)) + 0.5  # inches of the longest name
    figure = Figure(figsize=(size + beside, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, vmin=0, vmax=1, cmap="viridis")
    for (row, column), value in np.ndenumerate(values):
        # the middle of the scale parts what white and what black can be read on
        colour = "w" if value < 0.5 else "k"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7)
    # a name once, and its number: along both sides names would take more room than the numbers
    axes.set_xticks(range(len(names)), [str(n + 1) for n in range(len(names))], fontsize=7)
    axes.set_yticks(range(len(names)), [f"{n}  {m}" for n, m in enumerate(names, 1)], fontsize=7)
    axes.set_title("linear CKA", fontsize=9)
    return figure
