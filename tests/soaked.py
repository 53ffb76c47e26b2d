"""A command that is killed again and again at chosen moments, until it ends: what is left of it.

A process that has imported everything forks a child for each attempt, so that one starts in
milliseconds; a share of them are started anew, imports included.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from maebench import files
from maebench.cli import main
from maebench.evaluating import records
from maebench.pretraining import checkpoints

TINY = ("-o", "encoder.width=32", "-o", "encoder.depth=2", "-o", "encoder.heads=2")
OFTEN = ("-o", "machine.checkpoint_seconds=0.01", "--device", "cpu")
DATA = ("--limit", "200", "--batch", "32", *TINY, *OFTEN)
RUN = (
    *("run", "--budget", "steps=80", "--evals", "linear-probe,finetune,knn"),
    *("-o", "finetune.epochs=4", *DATA),
)
COMPARE = (
    *("compare", "--masking", "random,block", "--seeds", "2", "--budget", "steps=30"),
    *("--evals", "knn", "--name", "soak", *DATA),
)
PHASES = ("start-up", "pretraining", "checkpointing", "evaluation", "compare")
POLL = 0.0005  # seconds between two looks
LIMIT = 300.0  # seconds of an attempt, beyond which it hangs


@dataclass
class Attempt:
    """A process at work on a command.

    Args:
        pid: its number.
        log: the file of what it says.
        began: when.
        code: what it ended with; None while it works.
    """

    pid: int
    log: Path
    began: float = field(default_factory=time.monotonic)
    code: int | None = None

    def ended(self) -> bool:
        """Whether it has."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def stop(self, number: int) -> int:
        """Sends a signal and gives the code that it ends with."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        until = time.monotonic() + LIMIT
        while not self.ended():
            assert time.monotonic() < until, f"hangs: {self.log.read_text()}"
            time.sleep(POLL)
        assert self.code is not None
        return self.code


def forked(arguments: list[str], log: Path) -> Attempt:
    """An attempt by a fork of this process."""
    pid = os.fork()
    if pid:
        return Attempt(pid, log)
    code = 1
    try:  # nothing of the parent's may run in the child: it ends by os._exit
        os.setsid()
        with log.open("ab", buffering=0) as out:
            for stream in (1, 2):
                os.dup2(out.fileno(), stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def started(arguments: list[str], log: Path) -> Attempt:
    """An attempt by a process of its own."""
    with log.open("ab") as out:
        command = [sys.executable, "-m", "maebench", *arguments]
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    process.returncode = 0  # it is waited for by its number, and not by this object
    return Attempt(process.pid, log)


def run_folder(results: Path) -> Path | None:
    return next((path.parent for path in results.glob("runs/*/config.json")), None)


def phase(results: Path) -> str:
    """Where a `maebench run` is, by what lies in its folder."""
    folder = run_folder(results)
    if folder is None:
        return "start-up"
    if (folder / "masks.json").exists():
        return "evaluation"
    if not (folder / files.OWNER).exists():
        return "start-up"
    if any((folder / "checkpoint").glob(f"{files.BESIDE}*")):
        return "checkpointing"
    return "pretraining"


@dataclass
class Soak:
    """A command under signals, and how many fell where.

    Args:
        folder: for all results.
        arguments: of the command, without --results.
        seed: of the moments.
    """

    folder: Path
    arguments: tuple[str, ...]
    seed: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    cycles: int = 0
    lost_steps: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log.txt"

    def command(self, results: Path) -> list[str]:
        return [*self.arguments, "--results", str(results)]

    def undisturbed(self) -> tuple[Path, float]:
        """The results that all others have to equal, and the seconds that they took."""
        results = self.folder / "undisturbed"
        attempt = forked(self.command(results), self.log)
        while not attempt.ended():
            time.sleep(POLL)
        assert attempt.code == 0, self.log.read_text()
        return results, time.monotonic() - attempt.began

    def disturbed(
        self, signals: list[tuple[int, str]], again: Callable[[Path], None], fresh: float = 0.0
    ) -> Iterator[Path]:
        """Results of cycles of attempts, each ended by a signal but the last one of a cycle.

        Args:
            signals: which, and the phase that each should fall into.
            again: is given the results of each cycle that has ended.
            fresh: share of start-ups that are processes of their own.
        """
        left = list(signals)
        while left:
            results = self.folder / f"cycle-{self.cycles}"
            self.cycles += 1
            while True:
                own = bool(left) and left[0][1] == "start-up" and self.random.random() < fresh
                attempt = (started if own else forked)(self.command(results), self.log)
                if left and self._waited(attempt, results, left, own):
                    continue
                while not attempt.ended():
                    assert time.monotonic() - attempt.began < LIMIT, "hangs"
                    time.sleep(POLL)
                assert attempt.code == 0, self.log.read_text()[-3000:]
                break
            again(results)
            yield results

    def _waited(
        self, attempt: Attempt, results: Path, left: list[tuple[int, str]], own: bool
    ) -> bool:
        """Waits for a moment of the wanted phase and sends the signal; False if there is none."""
        number, wanted = left[0]
        if wanted == "compare":
            self._sleep(attempt, self.random.uniform(0, 14))
        elif wanted == "start-up":
            self._sleep(attempt, self.random.uniform(0, 5 if own else 0.4))
        else:
            until = self.random.uniform(0, 0.3 if wanted == "pretraining" else 0)
            since = None
            while not attempt.ended():
                now = time.monotonic()
                assert now - attempt.began < LIMIT, "hangs"
                if phase(results) == wanted:
                    since = since or now
                    if wanted == "evaluation" and until == 0:
                        until = self.random.uniform(0.01, 1.5)
                    if now - since >= until:
                        break
                time.sleep(POLL)
        if attempt.ended():
            # it was through before the moment came: the next cycle begins
            return False
        where = "compare" if wanted == "compare" else phase(results)
        if number == signal.SIGKILL:
            attempt.stop(number)
        else:
            self._terminated(attempt, results, number, where)
        left.pop(0)
        self.counts[signal.Signals(number).name, where] += 1
        return True

    def _sleep(self, attempt: Attempt, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not attempt.ended():
            time.sleep(POLL)

    def _terminated(self, attempt: Attempt, results: Path, number: int, where: str) -> None:
        """Ends an attempt by a signal that it can answer; counts steps that it lost."""
        code = attempt.stop(number)
        # before its handler is set, and after it is gone, the system ends it; or it was through
        assert code in (128 + number, -number, 0), (code, self.log.read_text()[-3000:])
        folder = run_folder(results)
        if where in ("pretraining", "checkpointing") and folder is not None:
            rows = files.read_lines(folder / "log.jsonl", "step", of=folder.name)
            last = checkpoints.newest(folder / "checkpoint")
            made = max((row["step"] for row in rows), default=0)
            self.lost_steps += int(made) - (last["step"] if last else 0)


# ---- what is left


def differences(results: Path, expected: Path) -> list[str]:
    """What two results folders differ in: weights, logs, records, values, features; leftovers."""
    found = []
    theirs = {p.relative_to(expected) for p in expected.rglob("*") if p.is_file()}
    ours = {p.relative_to(results) for p in results.rglob("*") if p.is_file()}
    for path in sorted(ours ^ theirs):
        if "checkpoint" in path.parts and path.parts[-2] not in _last(expected, path):
            continue  # which earlier one is kept beside the last depends on the clock
        if path.parts[0] == "comparisons" and path.suffix in (".log", ".png"):
            continue
        if path.name in (".lock", "lock", "kernels.json", "failed.json"):
            continue
        if path.parent.name == "printed":  # its name holds the folder of the results
            continue
        found.append(f"{'left over' if path in ours else 'lost'}: {path}")
    for path in sorted(ours & theirs):
        if why := _differs(results / path, expected / path):
            found.append(f"{path}: {why}")
    return found


def _last(expected: Path, path: Path) -> list[str]:
    return [p.name for p in checkpoints.steps(expected.joinpath(*path.parts[:3]))[-1:]]


def _differs(ours: Path, theirs: Path) -> str:
    if ours.name == "manifest.json":
        one, two = (checkpoints.read_manifest(path.parent) for path in (ours, theirs))
        return "" if one["sha256"] == two["sha256"] else "other weights"
    if ours.name == "log.jsonl":
        one_log, two_log = (
            files.read_lines(path, "step", of=path.parent.name) for path in (ours, theirs)
        )
        steps = [row["step"] for row in one_log]
        if len(set(steps)) != len(steps):
            return "doubled steps"
        return "" if one_log == two_log else "other numbers"
    if ours.parent.name == "records" and ours.suffix == ".json":
        one_rows, two_rows = (_timeless(records.whole(path)) for path in (ours, theirs))
        return "" if one_rows == two_rows else "other rows"
    if ours.suffix == ".npz":
        with np.load(ours) as one_npz, np.load(theirs) as two_npz:
            same = one_npz.files == two_npz.files
            same = same and all(np.array_equal(one_npz[n], two_npz[n]) for n in one_npz.files)
        return "" if same else "other values"
    if ours.parent.name == "features":
        one_t, two_t = load_file(ours), load_file(theirs)
        same = one_t.keys() == two_t.keys() and all(one_t[n].equal(two_t[n]) for n in one_t)
        return "" if same else "other features"
    if ours.name == "hashes.json":
        one_h, two_h = (json.loads(path.read_text()) for path in (ours, theirs))
        return "" if one_h == two_h else "other hashes"
    return ""


def _timeless(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "created")} for row in rows]
