"""Layers: after which block, and by which pooling, do features tell the classes best?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from maebench import (
    ANY_KIND,
    Choice,
    Evaluation,
    Folds,
    Metric,
    Model,
    NotApplicable,
    Result,
    choose,
)
from maebench_evals.frozen import Count, Penalties, standardised
from maebench_evals.heads import ITERATIONS, probe
from maebench_evals.interrupted import one_by_one


@dataclass(frozen=True)
class Place:
    """A layer's probe: what was chosen for it on train, and what it is worth on test."""

    layer: int | Literal["last"]
    pool: str
    l2: float
    edge: bool
    validation: Tensor
    hits: Tensor
    converged: float

    @classmethod
    def of(cls, layer: int | Literal["last"], pool: str, kept: Mapping[str, Tensor]) -> Place:
        """The place of what was kept of it."""
        l2, edge, converged = kept["numbers"].tolist()
        return cls(layer, pool, l2, bool(edge), kept["validation"], kept["hits"], converged)


class Layers(Evaluation):
    """Top-1 of a linear probe after every block and pooling, the best of them chosen on train.

    One pass over the images gives all layers; "last" is the end, after the encoder's own norm.
    Layer, pooling and l2 are chosen on folds of train; each layer's probe is `linear-probe`'s,
    fitted again on all of train with its l2. Of equally good poolings the model's preferred one
    counts, of equally good layers the middle one. The picture shows accuracy over depth. An encoder
    of masked images is often best some blocks before its end (SimMIM probes block 8 of 12, arXiv
    2111.09886).
    """

    name: ClassVar[str] = "layers"
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
    # 2: chosen on folds of train instead of a tenth
    # 3: probes are at their optimum, as linear-probe's since its version 4
    # 4: penalties are weighed by deviations, as linear-probe's since its version 5
    version: ClassVar[int] = 4
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric.accuracy(),
        "validation_top1": Metric.accuracy(
            "the same on the images held out of train, by which layer and l2 are chosen",
            held_out=True,
        ),
        "converged": Metric(
            help="share of the fits that reached their optimum",
            unit="%",
            low=0,
            high=1,
            per_example=False,
        ),
    }

    # few penalties: what the contract tries it with
    example: ClassVar[dict[str, object]] = {"l2": (1e-3, 1e-1)}

    pool: Literal["mean", "cls"] | None = Field(
        default=None,
        description="which token is the feature; none: all poolings that the model has",
    )
    l2: Penalties = Field(
        default=tuple(10.0**e for e in range(-5, 1)),
        description="penalties to try",
        examples=[(1e-4, 1e-2), (1.0,)],
    )
    iterations: Count = Field(
        default=ITERATIONS, description="most steps to the optimum of a penalty", examples=[1]
    )

    def run(self, model: Model) -> Iterator[Result]:
        """Yields every layer and pooling, the best on train marked, and draws them."""
        if not model.depth():
            raise NotApplicable(f"{model.name} has no blocks to compare")
        pools = model.pools() if self.pool is None else (self.pool,)
        layers: list[int | None] = [*range(1, model.depth() + 1), None]
        places = [(layer, pool) for pool in pools for layer in layers]
        labels = model.labels("train")
        folds = model.folds()
        shown = model.progress(places, len(places), f"layers of {model.kind}")
        kept = one_by_one(model, "", shown, lambda at: self._probe(model, labels, folds, *at))
        found = [
            Place.of(layer or "last", pool, part)
            for (layer, pool), part in zip(places, kept, strict=True)
        ]
        best = best_place([place.validation.mean().item() for place in found], len(layers))
        choice = Choice(best, found[best].edge)
        draw_picture(model, found, found[choice.index])
        for i, place in enumerate(found):
            where: dict[str, object] = {"layer": place.layer, "pool": place.pool, "l2": place.l2}
            where |= choice.where(i)
            yield Result("validation_top1", place.validation, where)
            yield Result("top1", place.hits, where)
        yield Result("converged", sum(place.converged for place in found) / len(found))

    def _probe(
        self, model: Model, labels: Tensor, folds: Folds, layer: int | None, pool: str
    ) -> dict[str, Tensor]:
        """Chooses l2 for one layer and pooling and fits its probe again on all of train."""
        train, test = model.features("train", layer, pool), model.features("test", layer, pool)
        train, test = standardised(train, test)
        l2 = sorted(set(self.l2))
        found = probe(
            train.to(model.device),
            labels.to(model.device),
            test.to(model.device),
            l2,
            len(model.class_names()),
            folds,
            iterations=self.iterations,
        )
        choice = choose(found.held_out)
        numbers = [l2[choice.index], float(choice.edge), found.converged]
        return {
            "numbers": torch.tensor(numbers, dtype=torch.float64),
            "validation": found.held_out[choice.index],
            "hits": (found.predicted[choice.index] == model.labels("test")).double(),
        }


def best_place(scores: list[float], num_layers: int) -> int:
    """Which layer and pooling is best on train: scores of all layers, pooling after pooling."""
    # a model names its poolings with the preferred one first
    start = scores.index(max(scores)) // num_layers * num_layers
    # first and last layer are no edges of a grid: there are no others
    return start + choose(scores[start : start + num_layers], [False] * num_layers).index


def draw_picture(model: Model, found: list[Place], chosen: Place) -> None:
    """Writes accuracy over depth as a PNG, one line per pooling, the choice marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    names = [str(place.layer) for place in found if place.pool == found[0].pool]
    for number, pool in enumerate(dict.fromkeys(place.pool for place in found)):
        mine = [place for place in found if place.pool == pool]
        test = [100 * place.hits.mean().item() for place in mine]
        colour = f"C{number}"
        axes.plot(names, test, "o-", color=colour, label=f"{pool}, test")
        axes.plot(
            names,
            [100 * place.validation.mean().item() for place in mine],
            "--",
            color=colour,
            alpha=0.5,
            label=f"{pool}, held out of train",
        )
    axes.plot(
        [str(chosen.layer)],
        [100 * chosen.hits.mean().item()],
        "o",
        markersize=14,
        markerfacecolor="none",
        color="black",
        label=f"chosen on train: {chosen.layer}, {chosen.pool}",
    )
    axes.set(xlabel="block (last: after the norm)", ylabel="top-1 (%)", title=model.name)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    model.picture("layers", figure)
