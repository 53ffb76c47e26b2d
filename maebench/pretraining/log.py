"""The numbers of each step: read off the device and written a second's worth at a time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maebench import files
from maebench.outputs import Tracking

SKIPPED = "skipped"  # in a row: there was no update
# Reading a number off a GPU waits for all that was asked of it; a file is opened for each writing.
SECONDS = 1.0
# A loss is a spike from six deviations above the mean of the hundred before it, and from a fifth
# above that mean: the losses of a run that is nearly still deviate by little.
WINDOW, LEAST, DEVIATIONS, SHARE = 100, 20, 6.0, 1.2


class Log:
    """What is logged of each step, kept until a second is over, a checkpoint is due or the end.

    Args:
        path: of log.jsonl.
        trackers: where numbers go beside it, step by step in their order.
    """

    def __init__(self, path: Path, trackers: Tracking) -> None:
        self._path, self._trackers = path, trackers
        self._rows: list[tuple[int, dict[str, Any], float]] = []
        self._written = time.monotonic()
        self.loss = math.nan  # the newest that is known
        self.note = ""  # of a spike, until somebody has said it
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._quiet_until = 0  # step up to which further spikes are not said

    def add(self, number: int, logged: Mapping[str, float | Tensor], lr: float) -> None:
        """Takes the numbers of a step: plain ones, or scalars on the device."""
        self._rows.append((number, dict(logged), lr))
        if isinstance(logged["loss"], float):
            self.loss = logged["loss"]

    def add_skipped(self, number: int, lr: float) -> None:
        """Takes a step without an update, whose numbers are none."""
        self._rows.append((number, {SKIPPED: 1.0}, lr))

    @property
    def due(self) -> bool:
        """Whether a second is over."""
        return time.monotonic() - self._written > SECONDS

    def write(self) -> tuple[int, float] | None:
        """Writes what was taken; gives step and loss of the first whose loss is not finite."""
        rows, self._rows, self._written = self._rows, [], time.monotonic()
        bad = None
        plain = list(zip(rows, _read([logged for _, logged, _ in rows]), strict=True))
        for (number, _, _), logged in plain:
            if SKIPPED in logged:
                continue
            if not math.isfinite(logged["loss"]):
                bad = number, logged["loss"]
                break
            self._watch(number, logged["loss"])
            self.loss = logged["loss"]
        good = [row for row in plain if bad is None or row[0][0] < bad[0]]
        files.append_lines(
            self._path,
            [{"step": n, **logged} | {"step": n, "lr": lr} for (n, _, lr), logged in good],
            self._path.parent.name,
        )
        for (number, _, lr), logged in good:
            self._trackers.log(number, {**logged, "lr": lr})
        return bad

    def _watch(self, number: int, loss: float) -> None:
        """Notes a spike, one in a hundred steps."""
        recent = self._recent
        if len(recent) >= LEAST and number > self._quiet_until:
            mean = sum(recent) / len(recent)
            deviation = math.sqrt(sum((x - mean) ** 2 for x in recent) / len(recent))
            if loss > max(mean + DEVIATIONS * deviation, SHARE * mean):
                self._quiet_until = number + WINDOW
                self.note = (
                    f"the loss of step {number:,} is {loss:.4g}, that of the {len(recent)} steps "
                    f"before {mean:.4g} in the mean"
                )
        recent.append(loss)


def _read(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The rows with plain numbers, all that is on a device read at once."""
    there = [value for row in rows for value in row.values() if isinstance(value, Tensor)]
    read = iter(torch.stack([v.detach().double() for v in there]).tolist() if there else ())
    return [
        {key: next(read) if isinstance(value, Tensor) else value for key, value in row.items()}
        for row in rows
    ]
