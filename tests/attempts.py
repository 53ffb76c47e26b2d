"""A command as a process that starts in milliseconds, because it is forked by one that has imported all."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# All that the commands import sooner or later. Nothing of it computes or starts a thread.
PRELOADED = [
    *("maebench.cli.run", "maebench.cli.compare", "maebench.cli.evaluate", "maebench.cli.again"),
    *("maebench.analysis.run", "maebench.analysis.compare", "maebench.pretraining.loop"),
    *("maebench.report.run", "maebench.report.comparison", "maebench.report.plan"),
    *("maebench.report.plots", "maebench.analysis.pictures", "maebench.report.terminal"),
    *("maebench_evals.linear_probe", "maebench_evals.finetune", "maebench_evals.knn"),
    *("matplotlib.pyplot", "scipy.stats", "scipy.special", "sklearn.datasets", "torch._dynamo"),
    *("pandas", "rich.progress", "rich.table", "pytest"),
]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# So that tables are as wide whoever prints them.
SURROUNDINGS = {**ONE_THREAD, "MPLBACKEND": "Agg", "COLUMNS": "200"}
MARK = "SOAK_MARK"  # a variable by which processes are known that a command has started
LIMIT = 300.0  # seconds beyond which a command hangs
POLL = 0.0002  # seconds between two looks
DEFAULT = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(PRELOADED)


@dataclass
class Attempt:
    """A process at work on a command.

    Args:
        arguments: of the command.
        process: it.
        out: the file of what it prints.
        errors: the file of what it says on its standard error.
        mark: of the processes that it starts.
        real: whether it is `python -m maebench`, its imports included.
    """

    arguments: Sequence[str]
    process: Any
    out: Path
    errors: Path
    mark: str
    real: bool
    began: float = field(default_factory=time.monotonic)
    at: float = field(default_factory=time.time)  # as files are stamped

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    @property
    def code(self) -> int | None:
        """What it ended with, below 0 by a signal; None while it works."""
        return self.process.poll() if self.real else self.process.exitcode

    @property
    def age(self) -> float:
        return time.monotonic() - self.began

    @property
    def again(self) -> str:
        """The command as a user types it."""
        return shlex.join(["maebench", *self.arguments])

    def send(self, number: int) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, limit: float = LIMIT) -> int:
        """Waits for its end."""
        until = time.monotonic() + limit
        while (code := self.code) is None:
            if time.monotonic() > until:
                self.send(signal.SIGKILL)
                raise AssertionError(f"{self.again} hangs: {self.said}")
            time.sleep(5 * POLL)
        return code

    def until(self, happens: Callable[[], object], limit: float = LIMIT) -> bool:
        """Waits for something; False where the process ended before."""
        end = time.monotonic() + limit
        while not happens():
            if self.code is not None:
                return False
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                raise AssertionError(f"{self.again} hangs: {self.said}")
            time.sleep(POLL)
        return True

    @property
    def printed(self) -> str:
        return self.out.read_text()

    @property
    def said(self) -> str:
        return self.errors.read_text()

    def started(self) -> list[int]:
        """Processes that it has started and that are there, such as a comparison's workers."""
        return processes_of(self.mark, but=self.pid)


def attempt(
    arguments: Sequence[str],
    folder: Path,
    name: str = "command",
    real: bool = False,
    environment: Mapping[str, str] | None = None,
    first: Callable[[], None] | None = None,
) -> Attempt:
    """Starts a command.

    Args:
        arguments: of the command.
        folder: in which it works.
        name: of the files that hold what it says.
        real: whether as `python -m maebench`, imports included, instead of by a fork.
        environment: variables of it.
        first: is called in the forked process before the command: a function that can be imported.
    """
    folder.mkdir(parents=True, exist_ok=True)
    out, errors = folder / f"{name}.out", folder / f"{name}.errors"
    for path in (out, errors):
        path.touch()  # it may be killed before it opens them
    mark = f"{folder}-{name}"
    variables = {**SURROUNDINGS, MARK: mark, **(environment or {})}
    if real:
        with out.open("wb") as one, errors.open("wb") as two:
            process: Any = subprocess.Popen(
                [sys.executable, "-m", "maebench", *arguments],
                cwd=folder,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=one,
                stderr=two,
                start_new_session=True,
            )
        return Attempt(arguments, process, out, errors, mark, real)
    before = {key: os.environ.get(key) for key in SURROUNDINGS}
    os.environ.update(SURROUNDINGS)  # of the process that forks, when it is started the first time
    try:
        process = _CONTEXT.Process(
            target=_command, args=(list(arguments), folder, out, errors, variables, first)
        )
        process.daemon = True  # it ends with the tests
        process.start()
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
    return Attempt(arguments, process, out, errors, mark, real)


def _command(
    arguments: list[str],
    folder: Path,
    out: Path,
    errors: Path,
    variables: dict[str, str],
    first: Callable[[], None] | None,
) -> None:
    """In the forked process: the command, as if it were one of its own."""
    os.setsid()
    os.chdir(folder)
    os.environ.update(variables)
    for stream, path in ((1, out), (2, errors)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in DEFAULT:
        signal.signal(number, signal.SIG_DFL)
    if first is not None:
        first()
    from maebench.cli import main

    main(arguments)


def processes_of(mark: str, but: int = 0) -> list[int]:
    """Processes, their number apart, that were started with this mark; dead ones left out."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) not in (but, os.getpid()):
            with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found
