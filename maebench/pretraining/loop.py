"""Pretraining: one story, read from top to bottom."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maebench import files
from maebench.config.run import RunConfig
from maebench.data.augment import Crops
from maebench.data.images import Images
from maebench.data.preprocess import Normaliser
from maebench.errors import RunError
from maebench.masking.statistics import describe
from maebench.objectives.ema import follow, make_teacher
from maebench.objectives.objective import Batch
from maebench.outputs import Tracking
from maebench.pretraining import checkpoints, cost
from maebench.pretraining.checkpoints import restore, state
from maebench.pretraining.masks import make_mask, sample
from maebench.pretraining.optimiser import learning_rate, parameter_groups
from maebench.pretraining.plan import Plan, build, has_teacher, inputs_of, prepare
from maebench.pretraining.teacher import TEACHER_DECAY
from maebench.rng import Draws, isolated, permutation

# MAE, official code, main_pretrain.py: lr = blr * effective batch / 256
LR_BATCH = 256
# Writing checkpoints may take a twentieth of the time, however large the model.
CHECKPOINT_SHARE = 20


@dataclass(frozen=True)
class Step:
    """What one update did.

    Args:
        number: updates done so far, 1 to total.
        total: updates in all; None where the clock decides.
        loss: of this step's batch, before the update.
        lr: learning rate of this update.
        seconds: since the step before ended.
        images: images in the batch.
        done: share of the budget that is spent.
    """

    number: int
    total: int | None
    loss: float
    lr: float
    seconds: float
    images: int
    done: float


def pretrain(plan: Plan | RunConfig, results: Path | None = None) -> Iterator[Step]:
    """Pretrains, one yielded step at a time; goes on from the newest checkpoint.

    Raises:
        RunError: the loss is not finite, or another process works on this run.
    """
    if isinstance(plan, RunConfig):
        plan = prepare(plan, results)
    config, device, steps = plan.config, plan.device, plan.steps
    seconds = config.budget.seconds or math.inf
    folder = plan.run.folder / "checkpoint"
    with files.lock(plan.run.folder), contextlib.ExitStack() as at_end:
        if plan.finished:
            return

        # What is trained. The same seed gives the same weights whatever the masking.
        model = build(config, inputs_of(config, plan.run.facts)).to(device)
        teacher = make_teacher(model) if has_teacher(config) else None
        groups, names = parameter_groups(model, config.optimiser.weight_decay)
        adam = torch.optim.AdamW(
            groups, betas=(config.optimiser.beta1, config.optimiser.beta2), fused=True
        )

        # Where to go on.
        done, spent = restore(folder, model, teacher, adam, names)
        # a run that began before costs were counted has none
        costs = [cost.Cost(**each) for each in plan.run.facts.get("cost", ())]
        log = plan.run.folder / "log.jsonl"
        kept = [row for row in files.read_lines(log) if row["step"] <= done]
        files.write_text(log, "".join(_line(row) for row in kept))
        trackers = at_end.enter_context(
            Tracking(config.machine.trackers, plan.run.folder, plan.run.content)
        )

        # The images, in an order and with crops that depend on the seed alone.
        # by the clock there is no last step, but a budget that is spent has none that follows
        end = steps or (sys.maxsize if spent.seconds < seconds else done)
        order = batches(len(plan.images), config.batch, config.seed, done, end)
        crops = plan.images.crops(order, config.augment, config.seed, device)
        normalise = Normaliser(plan.run.facts["mean"], plan.run.facts["std"], device)
        precision = plan.run.facts["precision"]
        autocast = torch.autocast(torch.device(device).type, torch.bfloat16, precision == "bf16")
        model.train()
        started = resumed = saved = time.monotonic()
        pause = config.machine.checkpoint_seconds

        for number, crop in enumerate(crops, done + 1):
            # How far it is: in steps, or in milliseconds of its budget.
            gone, whole = (number - 1, steps) if steps else (1e3 * spent.seconds, 1e3 * seconds)
            progress = gone / whole
            optimiser = config.optimiser
            lr = learning_rate(gone, whole, config.lr, optimiser.warmup, optimiser.min_lr)
            lr *= config.batch / LR_BATCH
            for group in adam.param_groups:
                group["lr"] = lr

            # Forward and backward, in parts where the batch is accumulated.
            batch = make_batch(
                config, model, teacher, plan.images, crop, normalise, progress, precision
            )
            told = forward_and_backward(config, model, batch, number, autocast)
            loss = told["loss"]
            if not math.isfinite(loss):
                raise RunError(_not_finite(plan.run.name, loss, number, folder))

            # The update.
            if config.optimiser.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.clip)
            adam.step()
            adam.zero_grad()
            if teacher is not None:
                follow(teacher, model, TEACHER_DECAY, number)
            if hasattr(model, "after_step"):
                took = spent.seconds + time.monotonic() - resumed
                model.after_step(number / steps if steps else min(1.0, took / seconds))

            # What is kept.
            now = time.monotonic()
            each = costs[config.stage_at(progress)] if costs else cost.NOTHING
            spent = spent.after(len(batch.ids), now - resumed, each)
            share = number / steps if steps else min(1.0, spent.seconds / seconds)
            ends = share >= 1
            step = Step(number, steps, loss, lr, now - started, len(batch.ids), share)
            started = now
            files.append_line(log, {"step": number, **told} | {"step": number, "lr": lr})
            trackers.log(number, {**told, "lr": lr})
            if ends or now - saved > pause:
                check_finite(model, plan.run.name, number, folder)
                if ends and costs:
                    files.write_json(plan.spent, {"steps": number, **spent.dump()})
                checkpoints.save(
                    folder,
                    number,
                    state(model, teacher, adam, names),
                    {"loss": loss, "total": number if ends else steps, "spent": spent.dump()},
                )
                saved = time.monotonic()
                pause = max(config.machine.checkpoint_seconds, CHECKPOINT_SHARE * (saved - now))
            yield step
            if ends:
                break
            resumed = time.monotonic()

        # What the masks were like in the end, when the weights are safe.
        if config.objective.hides:
            asked = model if teacher is None else teacher
            last = sample(config, asked, plan.images, normalise, device, precision=precision)
            at = {"progress": 1.0, "ratio": config.ratio_at(1.0)}
            files.write_json(plan.masks, at | describe(last))


def forward_and_backward(
    config: RunConfig, model: Any, batch: Batch, number: int, autocast: torch.autocast
) -> dict[str, float]:
    """Adds the gradients of a batch, part by part; gives the loss and what else is told."""
    told: dict[str, float] = {}
    for piece in batch.split(-(-config.batch // config.optimiser.accumulate)):
        share = len(piece.ids) / len(batch.ids)
        # Stochastic layers of plugins use the global state: the same whoever resumes.
        with isolated(config.seed, "step", number), autocast:
            made = model(piece)
            part = made["loss"] * share
        part.backward()
        for key, value in made.items():
            plain = value.detach() if isinstance(value, Tensor) else value
            told[key] = told.get(key, 0.0) + float(plain * share)
    return told


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


def make_batch(
    config: RunConfig,
    model: Any,
    teacher: Any | None,
    images: Images,
    crop: Crops,
    normalise: Normaliser,
    progress: float,
    precision: str,
) -> Batch:
    """What the objective gets: normalised crops, their mask, labels and random numbers."""
    pixels = normalise(crop.images)
    mask = None
    if config.objective.hides:
        asked = model if teacher is None else teacher
        mask = make_mask(config, asked, crop, pixels, progress, precision)
    labels = images.info.labels
    return Batch(
        images=pixels,
        ids=crop.ids,
        draws=Draws(config.seed, "objective", crop.ids, crop.epoch),
        mask=mask,
        labels=None if labels is None else labels[crop.index].to(pixels.device),
        progress=progress,
    )


def check_finite(model: nn.Module, name: str, number: int, folder: Path) -> None:
    """Refuses to keep weights that an update made infinite although its loss was not.

    Raises:
        RunError: names the step and the last good checkpoint.
    """
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise RunError(_not_finite(name, float("nan"), number, folder))


def _not_finite(name: str, loss: float, number: int, folder: Path) -> str:
    last = checkpoints.steps(folder)
    where = f"the last good checkpoint is {last[-1]}" if last else "no checkpoint was written yet"
    return (
        f"run {name}: the loss is {loss} at step {number}; {where}. "
        "Try a smaller --lr, or -o optimiser.clip=1"
    )


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
