"""The batches of a run: images in their order, their masks and labels; and a sample of masks.

E epochs, B images, L = h * w patches.
"""

from __future__ import annotations

import statistics as plain
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maebench import masking
from maebench.config.run import RunConfig
from maebench.data.augment import Crops
from maebench.data.images import Images
from maebench.data.preprocess import Normaliser
from maebench.data.split_info import digest
from maebench.masking.mask import Mask, moved
from maebench.masking.statistics import IMAGES, Sample
from maebench.objectives.objective import Batch
from maebench.pretraining.teacher import answers
from maebench.rng import Draws, permutation

EPOCHS = 4  # with 256 images, a position's hiding rate has a standard error below 1.6 %


def batches(
    num_images: int, batch: int, seed: int, done: int, steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions and epochs of every batch: epoch after epoch, each a permutation."""
    epoch_of, order = -1, torch.empty(0, dtype=torch.int64)
    for step in range(done, steps):
        place = torch.arange(step * batch, (step + 1) * batch)
        epochs, within = place // num_images, place % num_images
        index = torch.empty_like(place)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            if epoch != epoch_of:
                epoch_of, order = epoch, permutation(num_images, seed, "order", epoch)
            here = epochs == epoch
            index[here] = order[within[here]]
        yield index, epochs


@dataclass(frozen=True)
class Ready:
    """What a step, or a part of it, needs beside the model.

    Args:
        crop: the images of the batch.
        pixels: the same as the encoder gets them, float32 (B, C, H, W).
        ids: of the images, int64 (B,); as what follows on the device of the pixels.
        epoch: of each, int64 (B,).
        labels: of each, int64 (B,), or None.
        mask: which patches are hidden; None where it can only be drawn in its own step, or where
            nothing is hidden.
    """

    crop: Crops
    pixels: Tensor
    ids: Tensor
    epoch: Tensor
    labels: Tensor | None
    mask: Mask | None = None


def make_batch(
    config: RunConfig, asked: Any, made: Ready, progress: float, precision: str
) -> Batch:
    """What the objective gets: normalised crops, their mask, labels and random numbers.

    Args:
        config: the run's.
        asked: the objective around its encoder, which a masking asks, or its EMA teacher.
        made: the batch's crops, and its mask where it could be drawn before.
        progress: 0 to 1.
        precision: of what the masking asks: "fp32", "bf16" or "fp16".
    """
    mask = made.mask
    if mask is None and config.objective.hides:
        mask = make_mask(config, asked, made.crop, made.pixels, progress, precision)
    return Batch(
        images=made.pixels,
        ids=made.ids,
        draws=Draws(config.seed, "objective", made.ids, made.epoch),
        mask=mask,
        labels=made.labels,
        progress=progress,
    )


def batch_hash(parts: Sequence[Crops]) -> str:
    """Stands for images, their order and their crops, to the last bit, whatever the parts."""
    whole = Crops.stack([part.on_cpu() for part in parts])
    return digest(
        *(each.contiguous().numpy().tobytes() for each in (whole.ids, whole.epoch, whole.images))
    )


def make_mask(
    config: RunConfig, asked: Any, crop: Crops, images: Tensor, progress: float, precision: str
) -> Mask:
    """The mask of a batch by the config's strategy and ratio, on the device of its images.

    Where the strategy looks at nothing that is computed there it is drawn on the CPU: the same to
    the last bit whatever trains, and without hundreds of small kernels before the model's.

    Args:
        config: the run's.
        asked: the objective around its encoder, or its EMA teacher: gives grid and patch, and
            answers what the strategy asks.
        crop: ids, epochs, boxes and flips of the batch.
        images: its crops as the encoder gets them, float32 (B, C, H, W).
        progress: 0 to 1.
        precision: of the answers: "fp32", "bf16" or "fp16".
    """
    device = str(images.device)
    alone = type(config.masking).drawn_ahead()
    there = "cpu" if alone else device
    drawn = (crop.ids, crop.epoch, crop.boxes, crop.flips, crop.sizes)
    ids, epoch, boxes, flips, sizes = (moved(x, there) for x in drawn)
    asks = {} if alone else answers(asked, images, ids, config.seed, epoch, precision)
    mask = masking.draw(
        config.masking,
        config.ratio_at(progress),
        asked.encoder.grid,
        asked.encoder.patch,
        ids=ids,
        draws=Draws(config.seed, "masking", ids, epoch),
        progress=progress,
        images=None if alone else images,
        boxes=boxes,
        flips=flips,
        sizes=sizes,
        answers={what: ask for what, ask in asks.items() if what in config.masking.needs},
    )
    return mask.to(device) if alone else mask


def sample(
    config: RunConfig,
    asked: Any,
    images: Images,
    normalise: Normaliser,
    device: str,
    progress: float = 1.0,
    precision: str = "fp32",
    epochs: int = EPOCHS,
    index: Tensor | None = None,
) -> Sample:
    """The masks that pretraining would draw for the first 256 images, or those at `index`.

    Args:
        config: strategy, ratio, crops and seed.
        asked: the objective around its encoder; a strategy that asks a model asks this one.
        images: the training split.
        normalise: pixels to the encoder's input.
        device: where masks are made.
        progress: how far pretraining is, 0 to 1.
        precision: of what the model is asked: "fp32", "bf16" or "fp16".
        epochs: how many masks each image gets.
        index: positions in `images`.
    """
    index = torch.arange(min(IMAGES, len(images))) if index is None else index
    pieces = index.split(config.batch)  # no more at a time than fits while pretraining
    # the first is drawn twice: its first time pays for what is loaded and allocated once
    plan = [(p, torch.full_like(p, epoch)) for epoch in (0, *range(epochs)) for p in pieces]
    shown: list[Tensor] = []
    hidden, seconds = [], []
    for crop in images.crops(plan, config.augment, config.seed, device):
        pixels = normalise(crop.images)
        began = _now(device)
        mask = make_mask(config, asked, crop, pixels, progress, precision)
        seconds.append(_now(device) - began)
        hidden.append(mask.hidden.cpu())
        if len(shown) < len(pieces):
            shown.append(crop.images.cpu())
    took = torch.tensor(seconds).view(1 + epochs, len(pieces)).sum(1)[1:]
    return Sample(
        torch.cat(hidden).view(1 + epochs, len(index), -1)[1:],
        asked.encoder.grid,
        torch.cat(shown),
        plain.median(took.tolist()) * 1000 * IMAGES / len(index),
    )


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()
