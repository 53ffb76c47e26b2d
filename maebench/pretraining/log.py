"""The numbers of each step: read off the device and written a second's worth at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maebench import files
from maebench.outputs import Tracking

# Reading a number off a GPU waits for all that was asked of it; a file is opened for each writing.
SECONDS = 1.0


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

    def add(self, number: int, logged: Mapping[str, float | Tensor], lr: float) -> None:
        """Takes the numbers of a step: plain ones, or scalars on the device."""
        self._rows.append((number, dict(logged), lr))
        if isinstance(logged["loss"], float):
            self.loss = logged["loss"]

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
            if bad is None and not math.isfinite(logged["loss"]):
                bad = number, logged["loss"]
        if plain:
            self.loss = plain[-1][1]["loss"]
        good = [row for row in plain if bad is None or row[0][0] < bad[0]]
        files.append_lines(
            self._path,
            [{"step": n, **logged} | {"step": n, "lr": lr} for (n, _, lr), logged in good],
        )
        for (number, _, lr), logged in good:
            self._trackers.log(number, {**logged, "lr": lr})
        return bad


def _read(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The rows with plain numbers, all that is on a device read at once."""
    there = [value for row in rows for value in row.values() if isinstance(value, Tensor)]
    read = iter(torch.stack([v.detach().double() for v in there]).tolist() if there else ())
    return [
        {key: next(read) if isinstance(value, Tensor) else value for key, value in row.items()}
        for row in rows
    ]
