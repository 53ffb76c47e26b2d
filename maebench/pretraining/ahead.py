"""Crops and masks of the next steps, made together before they are needed.

A small batch costs its calls more than its numbers: crops of sixteen batches of 64 digits take
hardly longer than those of one. What a step gets does not depend on it, for every random number
belongs to its sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from maebench.config.run import RunConfig
from maebench.data.augment import Augment, Crops
from maebench.data.images import Images, InMemory
from maebench.data.preprocess import Normaliser
from maebench.data.rows import Rows
from maebench.masking.mask import moved
from maebench.pretraining.batches import Ready, batches, make_mask

# Crops that are made together stay in a core's cache, or close to it; a GPU's memory is its own.
MOST_BYTES = {"cpu": 2**21, "cuda": 2**26}
# Beyond it a step's share is so small that more only delays the first (benchmarks/ahead.py)
MOST_STEPS = 16


def ready(
    config: RunConfig,
    asked: Any,
    images: Images,
    normalise: Normaliser,
    device: str,
    done: int,
    last: int,
) -> Iterator[Iterator[Ready]]:
    """What each step needs, from the first that is not done to the last, in the step's parts.

    Steps are put together at the same places whatever was done before, so that a run that goes on
    gets the last bit of each crop as one that was never interrupted. Where a batch is computed in
    parts each is made when it is asked for, before the next step: memory is what asks for parts.

    Args:
        config: the run's.
        asked: the objective around its encoder, or its EMA teacher: gives grid and patch.
        images: the training split.
        normalise: pixels to the encoder's input.
        device: where crops and masks are made.
        done: steps that are done.
        last: steps in all.
    """
    part = -(-config.batch // config.optimiser.accumulate)
    together = steps_together(images, part, device) if part == config.batch else 1
    masked = config.objective.hides and type(config.masking).drawn_ahead()
    masked &= len(config.ratios) == 1  # else the ratio is known when the step begins
    start = done // together * together
    order = batches(len(images), config.batch, config.seed, start, last)
    if part < config.batch:
        order = (
            each for whole in order for each in zip(*(x.split(part) for x in whole), strict=True)
        )
    crops = images.crops(_joined(order, together), config.augment, config.seed, device)
    made = _made(config, asked, images.info.labels, crops, normalise, part, masked)
    made = islice(made, done - start, None)
    for first in made:
        yield chain([first], islice(made, -(-config.batch // part) - 1))


def _made(
    config: RunConfig,
    asked: Any,
    labels: Tensor | None,
    crops: Iterator[Crops],
    normalise: Normaliser,
    part: int,
    masked: bool,
) -> Iterator[Ready]:
    """Parts of `part` images, of crops of one or of several."""
    for crop in crops:
        pixels = normalise(crop.images)
        device, count = str(pixels.device), -(-len(crop.ids) // part)
        mask = make_mask(config, asked, crop, pixels, 0.0, "fp32") if masked else None
        masks = [None] * count if mask is None else mask.split(part)
        right = None if labels is None else moved(labels[crop.index], device).split(part)
        drawn = (moved(each, device).split(part) for each in (crop.ids, crop.epoch))
        parts = (split(crop, part), pixels.split(part), *drawn, right or [None] * count, masks)
        for each in zip(*parts, strict=True):
            yield Ready(*each)


def crops_ahead(
    images: Images,
    order: Iterator[tuple[Tensor, Tensor]],
    batch: int,
    augment: Augment,
    seed: int,
    device: str,
) -> Iterator[Crops]:
    """The crops of each batch, those of several made together.

    Args:
        images: to crop.
        order: positions (B,) and epochs (B,) of each batch.
        batch: B.
        augment: how they are cropped and mirrored.
        seed: of the crops.
        device: where they are made.
    """
    joined = _joined(order, steps_together(images, batch, device))
    for crop in images.crops(joined, augment, seed, device):
        yield from split(crop, batch)


def steps_together(images: Images, batch: int, device: str) -> int:
    """How many steps' crops are made at once; one where images are decoded from files."""
    if not isinstance(images, InMemory | Rows):
        return 1
    one = batch * images.info.inputs.numbers * torch.float32.itemsize
    most = MOST_BYTES.get(torch.device(device).type, 0) // one
    return min(MOST_STEPS, max(1, most))


def split(crop: Crops, batch: int) -> Iterator[Crops]:
    """The crops of several batches, batch by batch."""
    names = [f.name for f in fields(Crops)]
    for part in zip(*(getattr(crop, name).split(batch) for name in names), strict=True):
        yield Crops(**dict(zip(names, part, strict=True)))


def _joined(
    order: Iterator[tuple[Tensor, Tensor]], together: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions and epochs of several batches at a time."""
    while some := list(islice(order, together)):
        index, epoch = zip(*some, strict=True)
        yield (torch.cat(index), torch.cat(epoch)) if len(some) > 1 else some[0]
