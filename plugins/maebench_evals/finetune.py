"""Fine-tuning: how good does the whole encoder get with labels?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import islice
from typing import Any, ClassVar, Literal, Self, cast

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from maebench import (
    ANY_KIND,
    Augment,
    ConfigError,
    EncoderModule,
    Evaluation,
    MaebenchError,
    Metric,
    Model,
    Result,
    learning_rate,
)
from maebench_evals.classifier import (
    Classifier,
    drop_paths,
    layer_groups,
    make_classifier,
    predict,
)
from maebench_evals.distort import make_inputs
from maebench_evals.finetune_recipe import OFF, Recipe, fast_recipe, mae_recipe
from maebench_evals.frozen import Count
from maebench_evals.interrupted import kept_of, restored
from maebench_evals.official_probe import split_batch

LR_BATCH = 256  # lr = base * batch / 256
MAE_SCALE = (0.08, 1.0)  # of crops: timm.data.create_transform's own, which the official code takes
# The official code spares what its encoder names: the positions, and the class token too.
MAE_SPARED = ("cls_token",)
# What is done to pixels, and how it is not.
OF_PIXELS: dict[str, Any] = {"mixup": 0.0, "cutmix": 0.0, "erase": 0.0, "randaugment": OFF}
# What timm reads of such a text; on others it ends on an assert, or reads nothing.
RANDAUGMENT = r"rand(-(m|n|mmax|inc)\d+|-(p|mstd)\d+(\.\d+)?)+"


class Finetune(Evaluation):
    """Top-1 after training the whole encoder with labels, in the manner of the masked autoencoder.

    Mean of the patch tokens after the last block, a norm and a linear head; AdamW with a learning
    rate that decays layer by layer, drop path, mixup, cutmix and label smoothing from timm. The
    data set's crops and flips; no RandAugment.

    `protocol=mae` takes the official settings where an option is none: for encoders of less than
    1024 channels those of ViT-B (100 epochs, rate 5e-4, layer decay 0.65, drop path 0.1), from
    there those of ViT-L (50, 1e-3, 0.75, 0.2), from 1280 those of ViT-H (drop path 0.3); batches
    of 1024 (at most all of train, computed in parts), crops of 8 to 100 % of the area and flips,
    RandAugment, erasing, mixup and cutmix. Source: arXiv 2111.06377, table 9, and FINETUNE.md.
    """

    name: ClassVar[str] = "finetune"
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
    changes_encoder: ClassVar[bool] = True
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric.accuracy(),
        "train_loss": Metric(
            help="mean loss of the last tenth of the steps",
            higher_is_better=False,
            low=0,
            per_example=False,
        ),
    }
    example: ClassVar[dict[str, object]] = {"epochs": 2}

    protocol: Literal["fast", "mae"] = Field(
        default="fast",
        description="what options that are none stand for: fast, or the official settings",
    )
    epochs: Count | None = Field(
        default=None,
        description="passes over train; none: 300,000 images, at least 5 and at most 20 passes, "
        "with mae 100 or 50",
    )
    batch: Count | None = Field(
        default=None,
        multiple_of=2,
        description="images per update, even for mixup; none: 64, with mae 1024 or all of train",
    )
    lr: PositiveFloat | None = Field(
        default=None,
        description="learning rate per 256 images; none: 5e-4 from width 768 up, else 1 / width, "
        "with mae 5e-4 or 1e-3",
    )
    weight_decay: float = Field(default=0.05, ge=0, description="AdamW's decay")
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="learning rate of a layer over the next's; none: 0.75, with mae 0.65 or 0.75",
    )
    drop_path: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="rate of dropped branches in the last block; none: 0.1, with mae up to 0.3",
    )
    mixup: float | None = Field(
        default=None,
        ge=0,
        description="mixup's alpha, 0 for off; none: 0.8 from 50 epochs up or with mae, else off",
    )
    cutmix: float | None = Field(
        default=None,
        ge=0,
        description="cutmix's alpha, 0 for off; none: 1 from 50 epochs up or with mae, else off",
    )
    smoothing: float = Field(default=0.1, ge=0, lt=1, description="label smoothing")
    randaugment: str | None = Field(
        default=None,
        description="timm's RandAugment, such as rand-m9-mstd0.5-inc1 (which mae takes), or off; "
        "none: off in fast",
        examples=["rand-m9-mstd0.5-inc1"],
    )
    erase: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of images that lose a rectangle to noise; none: 0, with mae 0.25",
    )
    warmup: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="share of the steps with a rising rate; none: 0.1, with mae 5 epochs' of the "
        "official number",
    )
    min_lr: float | None = Field(
        default=None,
        ge=0,
        description="rate that the cosine ends on; none: 0, with mae 1e-6",
        examples=[1e-3],
    )

    def model_post_init(self, _: object) -> None:
        """Refuses a RandAugment that timm would not read."""
        if self.randaugment not in (None, OFF) and not re.fullmatch(RANDAUGMENT, self.randaugment):
            raise ValueError(
                f"randaugment: wanted {OFF} or rand with m, n, p, mstd, mmax or inc and a number "
                f"each, such as rand-m9-mstd0.5-inc1, given {self.randaugment!r}"
            )

    def run(self, model: Model) -> Iterator[Result]:
        """Yields top-1 on test and the loss that training ended with."""
        encoder = model.encoder()
        labels, right = model.labels("train"), model.labels("test")
        width = cast(EncoderModule, encoder).width
        recipe = self.suited(model.inputs.kind).recipe(width, len(labels))
        classifier = make_classifier(encoder, len(model.class_names()), recipe.drop_path)
        classifier.to(model.device).train()
        losses, batch = self._train(classifier, model, labels, recipe)
        if not math.isfinite(losses[-1]):
            raise MaebenchError(f"finetune: the loss is {losses[-1]}; try a smaller -o finetune.lr")
        predicted = predict(classifier.eval(), model)
        last = losses[-max(1, len(losses) // 10) :]
        where: dict[str, object] = {}
        if self.protocol == "mae":  # the official settings that the data set may have changed
            where = {"epochs": recipe.epochs, "batch": batch, "chosen": True}
        yield Result("train_loss", sum(last) / len(last), where)
        yield Result("top1", (predicted == right).double(), where)

    def _train(
        self, classifier: Classifier, model: Model, labels: Tensor, recipe: Recipe
    ) -> tuple[list[float], int]:
        """The loss of each update, and how many images each had."""
        official = self.protocol == "mae"
        groups = layer_groups(classifier, recipe.layer_decay, MAE_SPARED if official else ())
        adam = torch.optim.AdamW(groups, weight_decay=self.weight_decay, fused=True)
        inputs = make_inputs(recipe, model, len(model.class_names()), self.smoothing)
        parts, part = split_batch(recipe.batch, multiple=2)  # mixup takes images in pairs
        batch = parts * part
        steps = math.ceil(recipe.epochs * len(labels) / batch)
        augment = Augment(scale=MAE_SCALE) if official else None  # read of images alone
        partial = model.partial()
        losses = restored(classifier, adam, partial.state)
        done = len(losses)
        crops = model.crops("train", part, steps * parts, augment, done=done * parts)
        logits = model.paced(classifier, steps * parts)
        peak = recipe.lr * batch / LR_BATCH
        left = range(done, steps)
        for step in model.progress(left, len(left), f"finetune of {model.kind}"):
            rate = learning_rate(step, steps, peak, recipe.warmup, recipe.min_lr)
            for group in adam.param_groups:
                group["lr"] = group["scale"] * rate
            adam.zero_grad()
            losses.append(torch.zeros((), dtype=torch.float64, device=model.device))
            for crop in islice(crops, parts):
                images, targets = inputs(crop.images, labels[crop.index])
                loss = -(targets * logits(images).log_softmax(1)).sum(1).mean() / parts
                loss.backward()
                losses[-1] += loss.detach()
            adam.step()
            if step == 0:
                check_acts(classifier, adam, recipe, self.weight_decay)
            partial.keep(lambda: kept_of(classifier, adam, losses))
        return torch.stack(losses).tolist(), batch  # read once: a GPU is waited for each time

    def suited(self, kind: str) -> Self:
        """Of what is no images, without what is done to pixels.

        Raises:
            ConfigError: it was asked for.
        """
        if kind == "images":
            return self
        for option, value in OF_PIXELS.items():
            if getattr(self, option) not in (None, value):
                given = f"finetune.{option}={getattr(self, option)}"
                raise ConfigError(f"{given} is of images, and the data set yields {kind}")
        return self.model_copy(update=OF_PIXELS)

    def recipe(self, width: int, num_images: int) -> Recipe:
        """The protocol's settings for this encoder and data, and over them what was asked for."""
        fast = fast_recipe(width, num_images, self.epochs)
        found = fast if self.protocol == "fast" else mae_recipe(width)
        asked = {f.name: getattr(self, f.name) for f in fields(Recipe)}
        found = replace(found, **{key: value for key, value in asked.items() if value is not None})
        if self.protocol == "fast":
            return found
        return replace(found, batch=min(found.batch, num_images))


def check_acts(
    classifier: Classifier, adam: torch.optim.Optimizer, recipe: Recipe, weight_decay: float
) -> None:
    """Whether layer decay, weight decay and drop path are there where they act, not in a plan.

    Raises:
        MaebenchError: says what is without effect.
    """
    rates = {group["lr"] for group in adam.param_groups}
    wanted = classifier.encoder.depth + 2 if recipe.layer_decay < 1 else 1
    if len(rates) != wanted:
        raise MaebenchError(
            f"finetune: {len(rates)} learning rates are in use, layer decay wants {wanted}; "
            "or use -o finetune.layer_decay=1"
        )
    if {group["weight_decay"] for group in adam.param_groups} - {0.0, weight_decay}:
        raise MaebenchError("finetune: a group of parameters has another weight decay than asked")
    if weight_decay and not any(group["weight_decay"] for group in adam.param_groups):
        raise MaebenchError("finetune: no group of parameters is decayed")
    acting = any(module.training for module in drop_paths(classifier))
    if not classifier.training or (recipe.drop_path and not acting):
        raise MaebenchError("finetune: it trains in evaluation mode: drop path does not act")
