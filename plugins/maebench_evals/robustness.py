"""Robustness: how much of a linear probe's accuracy is left when test images are corrupted?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor

from maebench import (
    ConfigError,
    Draws,
    Evaluation,
    Metric,
    Model,
    NotApplicable,
    Result,
    choose,
    unknown,
)
from maebench_evals import mistakes
from maebench_evals.corruptions import OF_IMAGES
from maebench_evals.frozen import Layer, Penalties, pool_for, scaling
from maebench_evals.heads import head, probe
from maebench_evals.interrupted import one_by_one
from maebench_evals.linear_probe import L2
from maebench_evals.mistakes import OF_TEXT

BATCH = 256
KNOWN = {"images": tuple(OF_IMAGES), "text": tuple(OF_TEXT)}


class Robustness(Evaluation):
    """A linear probe fitted on clean train, asked about corrupted test images or windows of text.

    The penalty is chosen on clean train. top1 is the share of corruptions and severities under
    which an image is given its class, corrupted_top1 the same of one corruption, and clean_top1
    that of the images as they are. drop is the share of the clean accuracy above guessing that is
    lost, more than all of it where less is known than guessing. Corruptions are drawn by image and
    seed, the same for every model. Of text they are typing errors, dropped and swapped words.
    Source: Hendrycks and Dietterich 2019, arXiv 1903.12261.
    """

    name: ClassVar[str] = "robustness"
    takes: ClassVar[tuple[str, ...]] = tuple(KNOWN)
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric.accuracy("share of corruptions under which an image is given its class"),
        "clean_top1": Metric.accuracy(main=False),
        "corrupted_top1": Metric.accuracy("the same of one corruption", main=False),
        "drop": Metric(
            help="share of the clean accuracy above guessing that is lost",
            unit="%",
            higher_is_better=False,
            per_example=False,
        ),
        "validation_top1": Metric.accuracy("of the images held out of train", held_out=True),
    }

    l2: Penalties = Field(default=L2, description="penalties to try", examples=[(1e-3,)])
    corruptions: tuple[str, ...] | None = Field(
        default=None,
        description="which; none: all of the kind of inputs",
        examples=[("contrast",), ("dropped-words",)],
    )
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = Field(
        default=(1, 2, 3, 4, 5), description="which of the five", examples=[(3,)]
    )
    layer: Layer = None
    pool: Literal["mean", "cls"] | None = Field(
        default=None, description="pooling; none: mean of the patches"
    )

    @field_validator("corruptions")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        known = [name for names in KNOWN.values() for name in names]
        wrong = [name for name in value if name not in known]
        if wrong:
            raise ValueError(unknown("corruption", wrong[0], known))
        if not value or len(set(value)) < len(value):
            raise ValueError("at least one is wanted, each once")
        return value

    @field_validator("severities")
    @classmethod
    def _each_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("at least one is wanted, each once")
        return value

    def suited(self, kind: str) -> Self:
        """With all corruptions of this kind of inputs, where they are left open.

        Raises:
            ConfigError: a corruption is of another kind.
        """
        there = KNOWN.get(kind, ())
        if wrong := [
            name for name in self.corruptions or () if kind in KNOWN and name not in there
        ]:
            raise ConfigError(f"robustness of {kind}: {unknown('corruption', wrong[0], there)}")
        return self.model_copy(update={"corruptions": self.corruptions or tuple(there)})

    def run(self, model: Model) -> Iterator[Result]:
        """Yields accuracies per image, of all corruptions together and of each."""
        labels, right = model.labels("train"), model.labels("test")
        pool = pool_for(model, self.pool, "mean")
        train, clean = (model.features(s, self.layer, pool) for s in ("train", "test"))
        scale = scaling(train)
        x, y, classes = scale(train).to(model.device), labels.to(model.device), model.class_names()
        l2 = sorted(set(self.l2))
        found = probe(x, y, scale(clean).to(model.device), l2, len(classes), model.folds())
        choice = choose(found.held_out)
        chosen, mark = choice.index, choice.where(choice.index)
        where: dict[str, object] = {"l2": l2[chosen], "pool": pool}
        classify = head(x, y, l2[chosen], len(classes))
        yield Result("validation_top1", found.held_out[chosen], where | mark)
        before = self._right(classify, scale, clean, right, model)
        yield Result("clean_top1", before, where)
        means = []
        names = self.suited(model.inputs.kind).corruptions or ()

        def corrupted(name: str) -> dict[str, Tensor]:
            return {"right": self._corrupted(model, name, classify, scale, right, pool)}

        for name, kept in zip(names, one_by_one(model, "", names, corrupted), strict=True):
            means.append(kept["right"])
            yield Result("corrupted_top1", means[-1], where | {"corruption": name})
        whole = torch.stack(means).mean(0)
        guess = 1 / len(classes)
        known = float(before.mean()) - guess
        if known > 0:
            lost = 1 - (float(whole.mean()) - guess) / known
            yield Result("drop", lost, where)
        else:
            yield Result("drop", None, where, "on clean images it does not know more than guessing")
        yield Result("top1", whole, where | mark)

    def _right(
        self,
        classify: Callable[[Tensor], Tensor],
        scale: Callable[[Tensor], Tensor],
        features: Tensor,
        right: Tensor,
        model: Model,
    ) -> Tensor:
        return (classify(scale(features).to(model.device)).cpu() == right).double()

    def _corrupted(
        self,
        model: Model,
        name: str,
        classify: Callable[[Tensor], Tensor],
        scale: Callable[[Tensor], Tensor],
        right: Tensor,
        pool: str,
    ) -> Tensor:
        """The share of severities under which each image is right, float64 (N,)."""
        images, corrupt = model.images("test"), corruption(model, name)
        steps, done = -(-len(images) // BATCH), 0
        parts = []
        for batch in model.progress(images.whole(BATCH), steps, f"{name} of {model.kind}"):
            ids = images.info.ids[done : done + len(batch)]
            truth = right[done : done + len(batch)]
            total = torch.zeros(len(batch), dtype=torch.float64)
            for severity in self.severities:
                draws = model.draws(f"corruption {name} {severity}", ids)
                features = model.encode(corrupt(batch, severity, draws), self.layer, pool)
                total += self._right(classify, scale, features, truth, model)
            parts.append(total / len(self.severities))
            done += len(batch)
        if not parts:
            raise NotApplicable("test is empty")
        return torch.cat(parts)


def corruption(model: Model, name: str) -> Callable[[Tensor, int, Draws], Tensor]:
    """What turns a batch as it is loaded into one of a severity, on the model's device."""
    if name in OF_TEXT:
        tokenizer = mistakes.reader(model.images("test").info.kept)
        return lambda ids, severity, draws: mistakes.changed(
            ids, tokenizer, OF_TEXT[name], severity, draws
        )

    def of_images(pixels: Tensor, severity: int, draws: Draws) -> Tensor:
        made = OF_IMAGES[name](pixels.to(model.device).float() / 255, severity, draws)
        return (made.clamp(0, 1) * 255).round()  # kept in eight bits, as a file would be

    return of_images
