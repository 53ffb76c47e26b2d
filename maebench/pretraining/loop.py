"""Pretraining: one story, read from top to bottom."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from maebench import files
from maebench.config.run import RunConfig
from maebench.data.augment import Crops
from maebench.data.preprocess import Normaliser
from maebench.encoders import attention
from maebench.errors import RunError
from maebench.masking.mask import Check, checked_later, read_checks
from maebench.masking.statistics import describe
from maebench.objectives.objective import Batch
from maebench.outputs import Tracking
from maebench.plugins import contained_steps
from maebench.pretraining import checkpoints, cost, memory, runs, stopping
from maebench.pretraining.ahead import ready
from maebench.pretraining.batches import Ready, batch_hash, make_batch, sample
from maebench.pretraining.finite import Finite
from maebench.pretraining.hardware import all_deterministic, deterministic, mixed
from maebench.pretraining.kernels import Kernels, plain_logged, shape_of
from maebench.pretraining.log import Log
from maebench.pretraining.mixture import MACHINES, machines
from maebench.pretraining.optimiser import learning_rate
from maebench.pretraining.plan import Plan, prepare
from maebench.pretraining.state import State, begin
from maebench.rng import isolated

# MAE, official code, main_pretrain.py: lr = blr * effective batch / 256
LR_BATCH = 256
# Whose modules draw from torch's global state, if at all; of others nothing is known.
TORCH_ALONE = {"torch", "timm", "maebench"}
# Writing checkpoints may take a twentieth of the time, however large the model.
CHECKPOINT_SHARE = 20


@dataclass(frozen=True)
class Step:
    """What one update did.

    Args:
        number: updates done so far, 1 to total.
        total: updates in all; None where the clock decides.
        loss: of this step's batch, before the update; on a GPU the newest that was read.
        lr: learning rate of this update.
        seconds: since the step before ended.
        images: images in the batch.
        done: share of the budget that is spent.
        note: what is to be said of the run at this step, or nothing.
    """

    number: int
    total: int | None
    loss: float
    lr: float
    seconds: float
    images: int
    done: float
    note: str = ""


@dataclass(frozen=True)
class Keeping:
    """How the checkpoints of a run are kept.

    Args:
        store: writes one.
        finite: watches losses and weights.
        held: the run's folder, which this process holds.
        facts: what each manifest holds beside what changes from step to step.
    """

    store: checkpoints.Store
    finite: Finite
    held: files.Held
    facts: Mapping[str, Any]


@contained_steps
def pretrain(plan: Plan | RunConfig, results: Path | None = None) -> Generator[Step]:
    """Pretrains, one yielded step at a time; goes on from the newest checkpoint.

    Raises:
        RunError: the loss is not finite, or another process works on this run.
    """
    if isinstance(plan, RunConfig):
        plan = prepare(plan, results)
    run = plan.run
    with files.lock(run.folder) as held, contextlib.ExitStack() as at_end:
        if plan.whole:
            return

        # What is trained, and where to go on.
        state = begin(plan)
        done, spent, manifest = state.restore(plan.checkpoints)
        with_what = machines(plan, manifest, done)
        finite = Finite(plan, state, skipped=manifest.get("skipped", 0))
        cut_log(plan.log, done)
        if not done:
            runs.note_hashes(run, **state.hashes())
        trackers = Tracking(plan.config.machine.trackers, run.folder, run.content)
        at_end.enter_context(trackers)
        log = Log(plan.log, trackers)
        at_end.callback(lambda: held.is_there() and log.write())

        fits = memory.said(
            f"run {run.name}", plan.device, plan.config, partial(try_part, plan, state)
        )
        with stopping.steps(), fits, checkpoints.storing(plan.device) as store:
            keeping = Keeping(store, finite, held, {MACHINES: with_what})
            yield from _updates(plan, state, log, keeping, done, spent)

        # What the masks were like in the end, when the weights are safe.
        if plan.config.objective.hides:
            describe_masks(plan, state)


def _updates(
    plan: Plan,
    state: State,
    log: Log,
    keeping: Keeping,
    done: int,
    spent: cost.Spent,
) -> Generator[Step]:
    """Every update that is left, with checkpoints of them."""
    config, run, length, finite = plan.config, plan.run, plan.length, keeping.finite
    shape = shape_of(config, run.facts)
    kernels = Kernels(run.folder, config.machine.compile, plan.device, shape, done)

    # The images, in an order and with crops that depend on the seed alone.
    last = length.last(done, spent.seconds)
    normalise = Normaliser(run.facts["mean"], run.facts["std"], plan.device)
    steps = ready(config, state.asked, plan.images, normalise, plan.device, done, last)
    checks: list[Check] = []  # of masks, read with the log
    crops: list[Crops] = []  # of the first batch and of the last, to be hashed
    how = run.facts["precision"], kernels, draws_from_torch_alone(state.module)
    state.module.train()
    ended = resumed = saved = time.monotonic()
    pause, exactly = config.machine.checkpoint_seconds, config.machine.deterministic

    for number, parts in enumerate(all_deterministic(steps, exactly), done + 1):
        # How far it is, in updates or by the clock.
        progress = length.share(number - 1, spent.seconds)
        lr = set_rate(state, config, length.gone(number - 1, spent.seconds), length.total)

        # Forward and backward, the update, and what follows it.
        with attention.using(kernels.attention), checked_later(checks), deterministic(exactly):
            logged, seen = gradients(plan, state, number, parts, progress, *how)
        finite.saw(number, seen)
        crops += [kept for crop in seen for kept in noted(plan, number, crop)]
        updated = finite.update(number, logged, log.loss)
        seconds = spent.seconds + time.monotonic() - resumed
        if updated:
            state.after_update(number, length.share(number, seconds))

        # What is kept.
        now = time.monotonic()
        spent = spent.after(config.batch, now - resumed, plan.cost_at(progress))
        share, left = length.share(number, spent.seconds), length.left(number, spent.seconds)
        ends = share == 1
        note_batch(plan, number, ends, crops)
        log.add(number, logged, lr) if updated else log.add_skipped(number, lr)
        stops = stopping.ending()  # asked once: a signal after this line ends the next step
        due = ends or now - saved > pause or stopping.asked()
        if due or number == 1 or log.due:
            keeping.held.check()
            read_numbers(log, checks, finite)
        kernels.took(number, now - ended, left)
        if due:
            kernels.keep(number, left)
            pause = keep(plan, keeping, number, log.loss, spent, ends)
            saved = time.monotonic()
        note = said(kernels, log)
        yield Step(number, plan.steps, log.loss, lr, now - ended, config.batch, share, note)
        if ends or stops:
            return
        ended, resumed = now, time.monotonic()


def said(kernels: Kernels, log: Log) -> str:
    """What is to be said at a step, once."""
    note = "; ".join(filter(None, (kernels.note, log.note)))
    kernels.note = log.note = ""
    return note


def gradients(
    plan: Plan,
    state: State,
    number: int,
    parts: Iterable[Ready],
    progress: float,
    precision: str,
    kernels: Kernels,
    only_torch: bool,
) -> tuple[dict[str, float | Tensor], list[Crops]]:
    """Adds up the gradients of a step's parts; gives what they log, and their crops."""
    config, logged, seen = plan.config, dict[str, float | Tensor](), list[Crops]()
    for part, made in enumerate(parts):
        batch = make_batch(config, state.asked, made, progress, precision)
        step = (number, part) if part else (number,)
        found = forward_and_backward(config, state, batch, step, precision, kernels, only_torch)
        add_up(logged, found)
        seen.append(made.crop)
    return logged, seen


def noted(plan: Plan, number: int, crop: Crops) -> list[Crops]:
    """A part of a batch whose hash may be kept.

    A device may not hold all parts, so they come to the CPU, and by the clock, where any step may
    be the last, there is no hash of them.
    """
    if plan.config.optimiser.accumulate == 1:
        return [crop]
    return [crop.on_cpu()] if number in (1, plan.steps) else []


def note_batch(plan: Plan, number: int, ends: bool, crops: list[Crops]) -> None:
    """Keeps what stands for the images of the first batch and of the last."""
    if crops and (number == 1 or ends):
        which = "first_batch" if number == 1 else "last_batch"
        runs.note_hashes(plan.run, **{which: batch_hash(crops)})
    crops.clear()


def describe_masks(plan: Plan, state: State) -> None:
    """Writes what the masks of the last step are like."""
    config, facts = plan.config, plan.run.facts
    normalise = Normaliser(facts["mean"], facts["std"], plan.device)
    masks = sample(
        config, state.asked, plan.images, normalise, plan.device, precision=facts["precision"]
    )
    at = {"progress": 1.0, "ratio": config.ratio_at(1.0)}
    files.write_sealed(plan.masks, at | describe(masks), plan.run.name)


def try_part(plan: Plan, state: State, accumulate: int) -> None:
    """Computes a part of a step, and the update, as with so many parts: whether it fits.

    The weights are no run's any more.
    """
    optimiser = plan.config.optimiser.model_copy(update={"accumulate": accumulate})
    config = plan.config.model_copy(update={"optimiser": optimiser})
    facts = plan.run.facts
    normalise = Normaliser(facts["mean"], facts["std"], plan.device)
    state.optimiser.zero_grad()
    steps = ready(config, state.asked, plan.images, normalise, plan.device, 0, 1)
    made = next(next(steps))
    batch = make_batch(config, state.asked, made, 0.0, facts["precision"])
    forward_and_backward(config, state, batch, (1,), facts["precision"])
    state.update(config.optimiser.clip)


def cut_log(log: Path, done: int) -> None:
    """Leaves out of the log what was written after the checkpoint to go on from."""
    files.write_text(log, files.as_lines(runs.read_log(log, done), log.parent.name))


def read_numbers(log: Log, checks: list[Check], finite: Finite | None = None) -> None:
    """Writes what was logged, and stops where masks or losses of these steps are not finite.

    Args:
        log: where it goes.
        checks: of masks.
        finite: says what broke a loss; None where no run is made.

    Raises:
        MaebenchError: what a mask was made of is not as it has to be, such as scores with NaN.
        RunError: a loss is not finite.
    """
    read_checks(checks)
    if bad := log.write():
        if finite is None:
            raise RunError(f"the loss is {bad[1]} at step {bad[0]}")
        raise finite.error(*bad, log.loss)


def set_rate(state: State, config: RunConfig, gone: float, total: float) -> float:
    """Sets the learning rate of the next update and gives it."""
    schedule = config.optimiser
    rate = learning_rate(gone, total, config.lr, schedule.warmup, schedule.min_lr)
    rate *= config.batch / LR_BATCH
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    return rate


def forward_and_backward(
    config: RunConfig,
    state: State,
    batch: Batch,
    step: tuple[int, ...],
    precision: str,
    kernels: Kernels | None = None,
    only_torch: bool = False,
) -> dict[str, float | Tensor]:
    """Adds the gradients of a batch, or of a part of it.

    Args:
        config: the run's.
        state: whose gradients.
        batch: images, masks and what else the objective gets.
        step: its number from 1, and that of the part from the second on.
        precision: "fp32", "bf16" or "fp16".
        kernels: how it is computed; as it is written where left out.
        only_torch: whether the module draws from torch's global state at most.

    Returns:
        What the loss and whatever else the objective logs add to their means over the whole batch:
        plain numbers, or scalars on a GPU, which would wait for them to be read.
    """
    device, share = str(batch.images.device), len(batch.ids) / config.batch
    # Stochastic layers of plugins use the global state: the same whoever resumes.
    own = isolated(config.seed, "step", *step, only_torch=only_torch, device=device)
    with own, mixed(device, precision):
        module = state.module
        made = module(batch) if kernels is None else kernels.forward(module, batch, step[0])
        loss = made["loss"] * share
    state.scaler.scale(loss).backward()
    return plain_logged(made, share, batch.images.device.type)


def add_up(logged: dict[str, float | Tensor], more: Mapping[str, float | Tensor]) -> None:
    """Adds what a part of the batch logs."""
    for key, value in more.items():
        logged[key] = logged.get(key, 0.0) + value


def draws_from_torch_alone(module: nn.Module) -> bool:
    """Whether all parts of a module are of packages that take random numbers from torch alone."""
    return all(type(part).__module__.split(".")[0] in TORCH_ALONE for part in module.modules())


def keep(
    plan: Plan, keeping: Keeping, number: int, loss: float, spent: cost.Spent, last: bool
) -> float:
    """Writes the checkpoint of a step, and at the last one what the run has cost.

    Returns:
        The least seconds to the next one, by what one took, this or the one before.

    Raises:
        RunError: the update made weights infinite although its loss was not.
    """
    finite = keeping.finite
    finite.check_weights(number, loss)
    if last and plan.costs:
        files.write_sealed(plan.spent, {"steps": number, **spent.dump()}, plan.run.name)
    total = number if last else plan.steps
    facts = {"loss": loss if math.isfinite(loss) else None, "total": total, "spent": spent.dump()}
    facts |= {"skipped": finite.skipped, **keeping.facts}
    took = keeping.store(plan.checkpoints, number, finite.state.tensors(), facts)
    return max(plan.config.machine.checkpoint_seconds, CHECKPOINT_SHARE * took)
