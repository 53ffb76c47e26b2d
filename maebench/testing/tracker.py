"""Whether a tracker takes what pretraining gives it, and disturbs nothing."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maebench import files
from maebench.config.run import RunConfig
from maebench.outputs import OpenTracker, Tracker
from maebench.plugins import installed
from maebench.rng import isolated
from maebench.testing.contract import Broken, Contract, NotChecked, expect, global_state

Log = Sequence[tuple[int, Mapping[str, float]]]
NUMBERS: Log = [(step, {"loss": 1 / step, "lr": 1e-3 * step}) for step in range(1, 4)]
# a loss that explodes is what one wants to see: the tracker must not go before it
STRANGE = (float("nan"), float("inf"), float("-inf"), 1e-300, 0.0)
# what a run's folder holds while trackers are open; theirs come beside it
OURS = ("config.json", "environment.json", "log.jsonl", "checkpoint/manifest.json")


class TrackerContract(Contract):
    """Checks of a tracker, opened on the folder of a made-up run."""

    kind = "tracker"

    # ---- what it takes

    def test_it_opens_takes_numbers_and_closes(self) -> None:
        """A run asks no more of it; it may explode, or stop before its first step."""
        for log in (NUMBERS, [(i, {"loss": v, "lr": 1.0}) for i, v in enumerate(STRANGE, 1)], ()):
            self._written(log)

    def test_a_run_that_goes_on_may_repeat_steps(self) -> None:
        """After a crash a run begins at its last checkpoint, in the same folder."""
        with place() as folder:
            self._track(folder, NUMBERS)
            self._track(folder, [*NUMBERS[1:], (4, {"loss": 0.1, "lr": 0.1})])
            killed = self._open(folder)
            killed.log(5, {"loss": 0.1, "lr": 0.1})  # and never closed
            self._track(folder, [(5, {"loss": 0.1, "lr": 0.1})])
            with contextlib.suppress(Exception):
                killed.close()

    # ---- what it writes

    def test_going_on_keeps_what_was_there(self) -> None:
        """The curve of a resumed run begins at step 1, not where it was resumed."""
        self._expect_comparable()
        expect(
            self._written(NUMBERS[:2], NUMBERS[2:]) != self._written(NUMBERS[2:]),
            "what was logged before a run was resumed is gone: open() must add to its files",
        )
        # another loss at the first step alone: what comes after it is the same
        one, other = ([(1, {"loss": loss, "lr": 0.1}), *NUMBERS[1:2]] for loss in (0.9, 0.1))
        expect(
            self._written(one, NUMBERS[2:]) != self._written(other, NUMBERS[2:]),
            "its files are the same whatever was logged before the last steps: add to them",
        )

    def test_each_number_makes_a_difference(self) -> None:
        """A tracker that drops numbers in silence is worse than none."""
        self._expect_comparable()
        half, quarter, later = (
            self._written([(step, {"loss": loss})])
            for step, loss in ((1, 0.5), (1, 0.25), (2, 0.5))
        )
        expect(half != quarter, "its files are the same for a loss of 0.5 and one of 0.25")
        expect(half != later, "its files are the same for step 1 and step 2")
        wanted = self._written(NUMBERS)
        for row, name in itertools.product(range(len(NUMBERS)), NUMBERS[0][1]):
            changed = [(step, dict(values)) for step, values in NUMBERS]
            changed[row][1][name] = 7.0
            moved = self._written(changed) != wanted
            expect(moved, f"its files are the same whatever {name} is at step {row + 1}")

    def test_two_runs_at_once_do_not_mix(self) -> None:
        """Several runs in one process, such as a comparison's, have a tracker each."""
        self._expect_comparable()
        for _ in range(2):  # a clock in its files may tick in between once, but not twice
            with place() as first, place() as second:
                one, other = self._open(first), self._open(second)
                for step, values in NUMBERS:
                    one.log(step, values)
                    other.log(step + 100, {"loss": 9.0, "lr": 9.0})
                other.close()
                one.close()
                if theirs(first) == self._written(NUMBERS):
                    return
        raise Broken(
            "a run's files differ when another run is tracked at the same time: keep what belongs "
            "to a run in what open() gives, and nothing in the class"
        )

    # ---- what it leaves alone

    def test_settings_and_numbers_are_left_as_they_were(self) -> None:
        """The next tracker, and the run itself, read the same settings."""
        with place() as folder:
            config, values = settings(), {"loss": 0.5, "lr": 0.1}
            before = copy.deepcopy((config, values))
            opened = self._open(folder, config)
            opened.log(1, values)
            opened.close()
            expect(config == before[0], "open() changes the settings that it is given: copy them")
            expect(values == before[1], f"log() makes {values} of {before[1]}: copy the numbers")

    def test_it_writes_nothing_outside_its_folder(self) -> None:
        """Results can be moved and deleted as one folder, and nothing lies about elsewhere."""
        with place() as folder:
            root = folder.parent.parent
            before = everything(root)
            self._track(folder, NUMBERS)
            after, inside = everything(root), folder.relative_to(root).as_posix() + "/"
        new = sorted(n for n in after.keys() - before.keys() if not n.startswith(inside))
        expect(
            not new,
            f"it writes {', '.join(new[:3])} outside the run's folder: write below the folder that "
            "open() is given",
        )
        lost = sorted(name for name in before if after.get(name) != before[name])
        expect(not lost, f"it changes {', '.join(lost[:3])}, of the run's own: choose other names")

    def test_the_process_is_left_as_it_was(self) -> None:
        """Weights that are drawn next, paths, and the open files of hundreds of runs: untouched."""
        with place() as folder, isolated(0, "tracker"):
            before, here = global_state(), Path.cwd()
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always", ResourceWarning)
                self._track(folder, NUMBERS)
                gc.collect()
            kept, there = global_state() == before, Path.cwd()
            os.chdir(here)
            left = [str(one.message) for one in warned if folder.name in str(one.message)]
            left += open_below(folder)
        expect(
            kept,
            "it changes the global random state of Python, numpy or torch: draw inside "
            "maebench.rng.isolated",
        )
        expect(here == there, f"it changes the working directory to {there}")
        expect(not left, f"close() leaves a file open: {' '.join(left[:1])}")

    # ---- options

    def test_every_option_matters(self) -> None:
        """An option that is never read promises what it does not do."""
        if type(self.made()).model_fields:
            self._expect_comparable()
        self.check_options(
            lambda made: [("files", self._written(NUMBERS, tracker=made))],
            "no file that it writes",
        )

    # ---- how it is asked

    def _open(
        self, folder: Path, config: Mapping[str, Any] | None = None, tracker: Tracker | None = None
    ) -> OpenTracker:
        config = settings() if config is None else config
        opened: OpenTracker = (tracker or self.made()).open(folder, config)
        lacks = [name for name in ("log", "close") if not callable(getattr(opened, name, None))]
        expect(
            not lacks,
            f"open() gives {type(opened).__name__} without {' and '.join(lacks)}: return an "
            "object with log(step, values) and close()",
        )
        return opened

    def _track(self, folder: Path, log: Log, tracker: Tracker | None = None) -> None:
        opened = self._open(folder, tracker=tracker)
        for step, values in log:
            opened.log(step, values)
        opened.close()

    def _written(self, *logs: Log, tracker: Tracker | None = None) -> dict[str, bytes]:
        """What it writes in a run that is opened once for each log."""
        with place() as folder:
            for log in logs:
                self._track(folder, log, tracker)
            return theirs(folder)

    def _expect_comparable(self) -> None:
        """Gives a check up where what is written cannot be compared.

        Raises:
            NotChecked: it writes no file, or never the same twice.
        """
        one, other = self._written(NUMBERS), self._written(NUMBERS)
        if not one:
            raise NotChecked("it writes no file into the run's folder: where numbers go is unseen")
        if one != other:
            raise NotChecked("its files differ from one time to the next with the same numbers")


def settings() -> dict[str, Any]:
    """What a run gives its trackers: the content of its config.json."""
    config = copy.deepcopy(_config())
    return {"name": "a-run", "config": config, "facts": {"steps": 4, "mean": [0.5], "grid": [4, 4]}}


@functools.cache
def _config() -> dict[str, Any]:
    return RunConfig(installed(), evals=[], budget="steps=4").dump()


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """The folder of a run in a place of its own, with another one as working directory and home."""
    home = os.environ.get("HOME")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = root / "runs" / f"run-{root.name}"
        for one in OURS:
            files.write_text(folder / one, "{}\n")
        with contextlib.chdir(files.make_folder(root / "here")):
            os.environ["HOME"] = str(files.make_folder(root / "home"))
            try:
                yield folder
            finally:
                os.environ.pop("HOME", None)
                os.environ.update({} if home is None else {"HOME": home})


def everything(folder: Path) -> dict[str, bytes]:
    """The files below a folder with what they hold."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def theirs(folder: Path) -> dict[str, bytes]:
    """What a tracker wrote into the folder of a run, its name and temporary place left out."""
    root = str(folder.parent.parent).encode()
    return {
        name: content.replace(root, b"").replace(folder.name.encode(), b"")
        for name, content in everything(folder).items()
        if name not in OURS
    }


def open_below(folder: Path) -> list[str]:
    """The files below a folder that this process has open, where the system lists them."""
    handles = Path("/proc/self/fd")
    found = []
    for handle in handles.iterdir() if handles.exists() else ():
        with contextlib.suppress(OSError):  # the handle that lists them is gone by now
            found.append(handle.readlink())
    return [path.name for path in found if path.is_relative_to(folder.resolve())]
