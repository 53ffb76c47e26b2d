"""How far an evaluation was when it was interrupted, so that it goes on from there."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from maebench import files
from maebench.errors import DamagedError, RunError
from maebench.evaluating.tensors import read_tensors, write_tensors
from maebench.pretraining import stopping
from maebench.rng import global_state, put_global_state

FOLDER = "partial"  # in a model's folder; empty but while an evaluation runs, or was interrupted
# Seconds between two writings: what an interrupted evaluation loses at most. A large state is
# written less often, so that it takes a twentieth of the time, as checkpoints do.
SECONDS, SHARE = 2.0, 20


class Kept:
    """A part of an evaluation whose state is kept every few seconds (`maebench.Partial`).

    Args:
        path: of the file; None keeps nothing.
        of: whose it is: the record's name and the part.
        device: whose random state is kept too, where it is a GPU.
    """

    def __init__(self, path: Path | None, of: str, device: str) -> None:
        self._path, self._of, self._device = path, of, device
        self._began = self._written = time.monotonic()
        self._pause = SECONDS
        # what is removed meanwhile is not made there anew
        self._home = path.parents[1] if path is not None and path.parents[1].exists() else None
        self.seconds = 0.0  # that it took before it was interrupted
        self.state = self._read()

    def _read(self) -> Mapping[str, Tensor]:
        """What was kept, its random states put back; nothing of a file that is damaged."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            state, said = read_tensors(self._path, self._of)
            self.seconds = _put(said, self._device, self._path)
            return state
        except DamagedError as error:
            stopping.check()
            warnings.warn(f"{error}: {self._of} begins anew", stacklevel=4)
            return {}

    def keep(self, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Keeps the state that the function gives, if it is time for it.

        Raises:
            RunError: the model's folder was removed meanwhile.
            Stopped: a signal has asked for the end, and somebody took it for an error of his own.
        """
        stopping.check()
        now = time.monotonic()
        if self._path is None or now - self._written < self._pause:
            return
        if self._home is not None and not self._home.exists():
            raise RunError(f"{self._home} was removed while it was evaluated: nothing is kept")
        tensors = {name: part.detach().cpu().contiguous() for name, part in state().items()}
        took = self.seconds + now - self._began
        try:
            said = {"random": global_state(self._device), "seconds": took}
            write_tensors(self._path, self._of, tensors, said)
        except RunError as error:  # without it an interrupted evaluation begins anew, no more
            warnings.warn(f"how far {self._of} is is not kept: {error}", stacklevel=3)
            self._path = None
        self._written = time.monotonic()
        self._pause = max(SECONDS, SHARE * (self._written - now))


def _put(said: Any, device: str, path: Path) -> float:
    """Sets the random states that were kept, or none of them; gives the seconds before.

    Raises:
        DamagedError: they are no such states.
    """
    before = global_state(device)
    try:
        put_global_state(said["random"], device)
        return float(said["seconds"])
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        put_global_state(before, device)
        raise DamagedError(f"{path} is damaged: {error}") from error


def part_of(folder: Path, record: str, what: str, device: str) -> Kept:
    """A part of the evaluation that a record is to be made of.

    Args:
        folder: of the model.
        record: the record's name; empty where none is made, and nothing is kept.
        what: which part.
        device: of the work.
    """
    if not record:
        return Kept(None, what, device)
    name = files.safe_name(f"{record[-150:]}-{files.short_hash([record, what])}")
    return Kept(folder / FOLDER / f"{name}.safetensors", f"{record} {what}", device)


def clear(folder: Path, record: str) -> None:
    """Removes what was kept of an evaluation that has ended."""
    for path in (folder / FOLDER).glob(f"{record[-150:]}-*.safetensors"):
        files.remove(path)
