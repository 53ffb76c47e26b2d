"""A step of pretraining as a run does it, on images of noise; for benchmarks that time it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

import maebench
from maebench import Batch, Dataset, Draws, Images, Request, RunConfig
from maebench.data.preprocess import Normaliser
from maebench.pretraining.batches import batches, make_mask
from maebench.pretraining.loop import forward_and_backward
from maebench.pretraining.plan import Plan, prepare
from maebench.pretraining.state import begin

TEST = 16  # images of the test split, which pretraining only searches for copies


class Noise(Dataset):
    """Images of noise."""

    name: ClassVar[str] = "noise"

    number: int = Field(description="images of train")
    side: int = Field(description="pixels of a side")
    channels: int = Field(default=3, description="channels")

    def load(self, request: Request) -> Images:
        """One split; no two images are alike."""
        number, seed = (self.number, 0) if request.split == "train" else (TEST, 1)
        shape = (number, self.channels, self.side, self.side)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")
        return maebench.from_arrays(pixels, None, (), None)

    def preset(self) -> dict[str, Any]:
        """Whole images, as they are."""
        crops = {"scale": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": False}
        return {"image_size": (self.side, self.side), "augment": crops}


def noise_plan(number: int, side: int, channels: int = 3, **settings: Any) -> Plan:
    """A run on so many images of noise, in a folder of its own."""
    dataset = Noise(number=number, side=side, channels=channels)
    config = RunConfig(dataset=dataset, device="cpu", budget="steps=1000000", **settings)
    return prepare(config, Path(tempfile.mkdtemp(prefix="maebench-benchmark-")))


class Step:
    """Steps of a run on its first batch again and again: mask, forward, backward and update.

    Args:
        plan: the run.
        masks: whether each step draws a mask, as those of other libraries do; else all have one.
    """

    def __init__(self, plan: Plan, masks: bool = True) -> None:
        self.plan, self.state, self.number = plan, begin(plan), 0
        config, facts = plan.config, plan.run.facts
        order = batches(len(plan.images), config.batch, config.seed, 0, 1)
        self.crop = next(iter(plan.images.crops(order, config.augment, config.seed, plan.device)))
        self.pixels = Normaliser(facts["mean"], facts["std"], plan.device)(self.crop.images)
        self.module = self.state.module
        self.module.train()
        self.compiled = torch.compile(self.module, dynamic=False)  # when it is first called
        self.batch = None if masks else self.drawn()

    def drawn(self) -> Batch:
        """The batch with a mask of its own for every step."""
        config, crop, facts = self.plan.config, self.crop, self.plan.run.facts
        crop = replace(crop, epoch=torch.full_like(crop.epoch, self.number))
        asked = self.state.asked
        mask = make_mask(config, asked, crop, self.pixels, 0.5, facts["precision"])
        ids, epoch = (each.to(self.plan.device) for each in (crop.ids, crop.epoch))
        return Batch(self.pixels, ids, Draws(config.seed, "objective", ids, epoch), mask)

    def __call__(self, precision: str = "", compiled: bool = False) -> None:
        """One step, in the run's own precision where none is given."""
        self.number += 1
        batch = self.batch or self.drawn()
        forward_and_backward(
            self.plan.config,
            replace(self.state, module=self.compiled) if compiled else self.state,
            batch,
            (self.number,),
            precision or self.plan.run.facts["precision"],
        )
        self.state.update(None)
        self.state.after_update(self.number, 0.5)
