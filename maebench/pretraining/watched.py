"""A step of pretraining with the clock read between its phases."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maebench.data.preprocess import Normaliser
from maebench.encoders import attention
from maebench.masking.mask import Check, checked_later
from maebench.outputs import Tracking
from maebench.pretraining.ahead import ready
from maebench.pretraining.batches import make_batch
from maebench.pretraining.hardware import all_deterministic, deterministic
from maebench.pretraining.kernels import Kernels, shape_of
from maebench.pretraining.log import Log
from maebench.pretraining.loop import (
    add_up,
    draws_from_torch_alone,
    forward_and_backward,
    read_numbers,
    set_rate,
)
from maebench.pretraining.plan import Plan
from maebench.pretraining.state import begin

PHASES = (
    *("data", "masking", "encoder", "decoder", "forward", "backward", "optimiser", "log"),
    "other",  # setting the rate, and seeding what reads torch's global random state
)


class Laps:
    """A stop-watch: the time since its last reading goes to the phase that has ended."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.watching = False
        self.seconds: dict[str, float] = {}

    def begin(self, watching: bool) -> None:
        """Starts; where nothing is watched, phases are not read and only the whole is."""
        self.watching, self.seconds = watching, {}
        self._began = self._last = now(self._device)

    def end(self, phase: str) -> None:
        """Gives the time since the last reading to this phase."""
        if not self.watching:
            return
        at = now(self._device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + at - self._last
        self._last = at

    def stop(self) -> float:
        """Seconds since it was started."""
        self.end("other")
        return (self._last if self.watching else now(self._device)) - self._began


class Timed(Kernels):
    """The way a run computes its steps, with the clock read around the forward pass."""

    laps: Laps
    before = "other"  # the phase that ends where the next forward pass begins

    def forward(self, module: Any, part: Any, number: int) -> Any:
        """What the objective gives for a batch."""
        if not self.laps.watching:
            return super().forward(module, part, number)
        self.laps.end(self.before)
        # hooks inside of what is compiled would change it
        compiled = self.module(module, number) is not module
        with contextlib.nullcontext() if compiled else _encoder_apart(module, self.laps):
            made = super().forward(module, part, number)
        self.laps.end("forward" if compiled else "decoder")
        made["loss"].register_hook(lambda _: self.laps.end("other"))  # when its backward begins
        self.before = "backward"  # of this part, where the batch is computed in several
        return made


@contextlib.contextmanager
def _encoder_apart(module: Any, laps: Laps) -> Iterator[None]:
    """Reads the clock whenever the encoder begins and ends, however often it is asked."""
    handles = [
        module.encoder.register_forward_pre_hook(lambda *_: laps.end("decoder")),
        module.encoder.register_forward_hook(lambda *_: laps.end("encoder")),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def updates(plan: Plan, path: Path, laps: Laps, notes: list[str]) -> Generator[None]:
    """Does what `pretrain` does, an update at a time, and reads the clock between phases.

    Stops once before the first, when all that it needs is there. The ratio and the rate stay those
    of the beginning; no checkpoint is written, no tracker asked.

    Args:
        plan: what to run.
        path: where the log goes.
        laps: the clock.
        notes: gets what the run would say on the way.

    Raises:
        MaebenchError: losses or masks are not finite.
    """
    config, facts = plan.config, plan.run.facts
    state = begin(plan)
    log = Log(path, Tracking((), path.parent, {}))
    shape = shape_of(config, facts)
    kernels = Timed(path.parent, config.machine.compile, plan.device, shape, 0)
    kernels.laps = laps
    checks: list[Check] = []  # of masks, read with the log
    normalise = _then(Normaliser(facts["mean"], facts["std"], plan.device), laps)
    steps = ready(config, state.asked, plan.images, normalise, plan.device, 0, sys.maxsize)
    only_torch = draws_from_torch_alone(state.module)
    state.module.train()
    drawn = "masking" if config.objective.hides else "data"
    exactly = config.machine.deterministic
    yield
    for number, parts in enumerate(all_deterministic(steps, exactly), 1):
        logged: dict[str, float | Tensor] = {}
        for part, made in enumerate(parts):
            laps.end("data" if made.mask is None else drawn)  # masks made ahead follow the pixels
            lr = set_rate(state, config, 0, plan.length.total)
            laps.end("other")
            with attention.using(kernels.attention), checked_later(checks), deterministic(exactly):
                batch = make_batch(config, state.asked, made, 0.0, facts["precision"])
                laps.end(drawn)
                kernels.before = "other"
                step = (number, part) if part else (number,)
                found = forward_and_backward(
                    config, state, batch, step, facts["precision"], kernels, only_torch
                )
                add_up(logged, found)
                laps.end("backward")
        state.update(config.optimiser.clip)
        state.after_update(number, 0.0)
        laps.end("optimiser")
        log.add(number, logged, lr)
        if number == 1 or log.due:
            read_numbers(log, checks)
        laps.end("log")
        if kernels.note:
            notes.append(kernels.note)
            kernels.note = ""
        yield


def _then(normaliser: Normaliser, laps: Laps) -> Any:
    """The normaliser, after which images are ready and what follows is the masking's."""

    def normalise(images: Tensor) -> Tensor:
        pixels = normaliser(images)
        laps.end("data")
        return pixels

    return normalise


def now(device: str) -> float:
    """Seconds; on a GPU after all that was asked of it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
