"""How fast pretraining is here, and which part of a step takes how long.

Steps are those of a run: the same batches, masks, weights and update, at the beginning of the
schedule. Some are watched, with a reading of the clock between phases and hooks around the
encoder; as many in between are not, and how long a step takes is read off these.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maebench.config.run import RunConfig
from maebench.plugins import contained
from maebench.pretraining.ahead import steps_together
from maebench.pretraining.cost import Cost
from maebench.pretraining.hardware import processor
from maebench.pretraining.plan import Plan, prepare
from maebench.pretraining.watched import PHASES, Laps, now, updates

PURE = ("encoder", "decoder", "forward", "backward", "optimiser")  # what no run can leave out
# Without --steps: seconds of measuring, and groups of each way at least and at most, where steps
# are slow or quick.
SECONDS, LEAST, MOST = 4.0, 4, 200
WARM_UP = 5  # steps of each way beside the first: allocations and what torch picks once
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# A GPU is waited for at the ends of so many steps: it works while the next step is prepared.
GROUP = {"cpu": 1, "cuda": 8}
# Of the square matrices whose product is taken for the peak: large enough for all cores, and few
# enough FLOPs for a measurement to take a second or two.
SIDE = {"cpu": 2048, "cuda": 8192}
PRODUCTS, PEAK_SECONDS = 10, 3.0  # the best of so many, or of what fits into the seconds


@dataclass(frozen=True)
class Spread:
    """How long a step takes, in seconds.

    Args:
        median: over groups of steps.
        low: the 10th percentile.
        high: the 90th.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """That of these measurements."""
        low, middle, high = np.percentile(seconds, [10, 50, 90]).tolist()
        return cls(middle, low, high)


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Args:
        config: the settings that it holds for.
        environment: device, precision, processor, threads and versions.
        steps: how many were measured of each way, watched and unwatched.
        group: steps that are one measurement: their batches are made together.
        cost: tokens and FLOPs of one image.
        step: seconds of an unwatched step.
        watched: median seconds of a watched one.
        phases: median seconds of each phase in a watched step. Where the step is compiled, encoder
            and decoder cannot be told apart and are "forward".
        pure: median share of a watched step that is encoder, decoder, backward and optimiser.
        peak: FLOPs per second of a large matrix product here.
        memory: bytes; of a GPU what torch held at most while steps were done, on a CPU the most
            that the process held until then.
        startup: seconds from the start of the process to the first step; None where the system
            does not say. It means something in a process that does nothing else.
        first: seconds of the first step, which allocates, and compiles where that is asked for.
        notes: what was found out on the way.
    """

    config: RunConfig
    environment: dict[str, Any]
    steps: int
    group: int
    cost: Cost
    step: Spread
    watched: float
    phases: dict[str, float]
    pure: float
    peak: float
    memory: int
    startup: float | None
    first: float
    notes: tuple[str, ...] = ()

    @property
    def images_per_second(self) -> float:
        """Images that are learnt from."""
        return self.config.batch / self.step.median

    @property
    def tokens_per_second(self) -> float:
        """Patches that the encoder sees."""
        return self.cost.tokens * self.images_per_second

    @property
    def flops_per_second(self) -> float:
        """FLOPs of encoder and decoder, forward and backward."""
        return self.cost.flops * self.images_per_second

    @property
    def share_of_peak(self) -> float:
        """How much of what a large matrix product reaches here."""
        return self.flops_per_second / self.peak

    def dump(self) -> dict[str, Any]:
        """Every number as a JSON value, unrounded."""
        step, to_ms = self.step, 1e3
        return {
            "config": self.config.dump(),
            "environment": self.environment,
            "steps": self.steps,
            "group": self.group,
            "images_per_second": self.images_per_second,
            "tokens_per_second": self.tokens_per_second,
            "gflops_per_second": self.flops_per_second / 1e9,
            "peak_gflops_per_second": self.peak / 1e9,
            "share_of_peak": self.share_of_peak,
            "tokens_per_image": self.cost.tokens,
            "flops_per_image": {"encoder": self.cost.encoder, "decoder": self.cost.decoder},
            "step_ms": {n: to_ms * getattr(step, n) for n in ("median", "low", "high")},
            "watched_step_ms": to_ms * self.watched,
            "phases_ms": {name: to_ms * seconds for name, seconds in self.phases.items()},
            "pure_share": self.pure,
            "peak_memory_bytes": self.memory,
            "startup_seconds": self.startup,
            "first_step_seconds": self.first,
            "notes": list(self.notes),
        }


# ---- the measurement


def measure(
    config: RunConfig,
    steps: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Speed:
    """Measures pretraining with these settings; nothing is written into the results.

    Args:
        config: what would be run; budget and learning rate change nothing.
        steps: how many are measured, watched and unwatched each, up to a whole group; None for as
            many as fit into a few seconds.
        progress: called with (done, total) while images are decoded.

    Raises:
        MaebenchError: anything that would stop a run before it has begun.
    """
    with contained(), tempfile.TemporaryDirectory() as folder:
        # in an empty folder, so that a run that is there already is not gone on with
        plan = prepare(config, Path(folder), progress, write=False)
        laps, notes = Laps(plan.device), list[str]()
        group = _group(plan)
        if torch.device(plan.device).type == "cuda":
            torch.cuda.reset_peak_memory_stats(plan.device)
        with contextlib.closing(updates(plan, Path(folder) / "log.jsonl", laps, notes)) as going:
            next(going)
            startup = process_seconds()
            first, _ = _measured(going, laps, 1, False)
            watched, plain = _in_turn(going, laps, group, steps)
        memory = peak_memory(plan.device)  # before what follows takes any
        precision = plan.run.facts["precision"]
        return Speed(
            config=config,
            environment=_environment(plan.device, precision),
            steps=len(plain) * group,
            group=group,
            cost=plan.costs[0],
            step=Spread.of(plain),
            watched=statistics.median(whole for whole, _ in watched),
            phases=_medians([phases for _, phases in watched]),
            pure=statistics.median(
                sum(phases.get(name, 0.0) for name in PURE) / whole for whole, phases in watched
            ),
            peak=matmul_peak(plan.device, precision),
            memory=memory,
            startup=startup,
            first=first,
            notes=tuple(notes),
        )


def _in_turn(
    going: Iterator[None], laps: Laps, group: int, steps: int | None
) -> tuple[list[tuple[float, dict[str, float]]], list[float]]:
    """Watched groups, seconds of a step and of its phases; and seconds of a step of as many others.

    Args:
        going: the steps.
        laps: their clock.
        group: how many are one measurement.
        steps: how many are measured of each way, up to a whole group; None for a few seconds.
    """
    _measured(going, laps, WARM_UP, True)
    usual, _ = _measured(going, laps, WARM_UP, False)
    count = math.ceil(steps / group) if steps else _how_many(usual * group)
    watched, plain = [], []
    for number in range(count):
        # each way is first in turn: batches of two workers come by turns too
        for watching in (True, False) if number % 2 else (False, True):
            whole, phases = _measured(going, laps, group, watching)
            if watching:
                watched.append((whole, phases))
            else:
                plain.append(whole)
    return watched, plain


def _group(plan: Plan) -> int:
    """How many steps are one measurement: those whose batches are made together, or a multiple."""
    together = steps_together(plan.images, plan.config.batch, plan.device)
    return together * math.ceil(GROUP.get(torch.device(plan.device).type, 1) / together)


def _how_many(seconds: float) -> int:
    """How many groups of each way are measured where one takes so long."""
    return min(MOST, max(LEAST, int(SECONDS / (2 * seconds))))


def _measured(
    going: Iterator[None], laps: Laps, count: int, watching: bool
) -> tuple[float, dict[str, float]]:
    """Seconds of a step, as a mean over so many, and of each of its phases."""
    laps.begin(watching)
    for _ in range(count):
        next(going)
    whole = laps.stop()
    return whole / count, {phase: seconds / count for phase, seconds in laps.seconds.items()}


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    """The median of each phase that there is, in the order of a step."""
    there = [name for name in PHASES if any(name in phases for phases in found)]
    return {name: statistics.median(p.get(name, 0.0) for p in found) for name in there}


# ---- the machine


def matmul_peak(device: str, precision: str) -> float:
    """FLOPs per second of a product of large square matrices: the best of several.

    Args:
        device: where to multiply.
        precision: "fp32", "bf16" or "fp16"; threads and torch's settings are those that a run has.
    """
    kind = torch.device(device).type
    side = SIDE.get(kind, SIDE["cpu"])
    generator = torch.Generator(device)  # not the global one; zeros would take a GPU less power
    shape, dtype = (side, side), DTYPES[precision]
    a, b = (torch.randn(shape, generator=generator, device=device).to(dtype) for _ in "ab")
    made = torch.empty_like(a)
    best, began = math.inf, now(device)
    for number in range(PRODUCTS + 1):
        start = now(device)
        torch.matmul(a, b, out=made)
        ended = now(device)
        if number:  # the first loads and picks what the others use
            best = min(best, ended - start)
            if ended - began > PEAK_SECONDS:
                break
    return 2 * side**3 / best


def peak_memory(device: str) -> int:
    """Bytes: the most that torch held on a GPU, or that this process held on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # bytes there, KiB elsewhere


def process_seconds() -> float | None:
    """How old this process is, to a hundredth; None where the system does not say."""
    try:
        # the name may hold spaces and brackets; the start is field 22 of all, 20 after the name
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):  # no /proc, or no such clock, as on macOS
        return None
    return now - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _environment(device: str, precision: str) -> dict[str, Any]:
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": device,
        "precision": precision,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
