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

NUMBERS: Sequence[tuple[int, Mapping[str, float]]] = [
    (step, {"loss": 1 / step, "lr": 1e-3 * step}) for step in range(1, 4)
]
# what a run's folder holds while trackers are open; theirs come beside it
OURS = ("config.json", "environment.json", "log.jsonl", "checkpoint/manifest.json")
Log = Sequence[tuple[int, Mapping[str, float]]]


def open_below(folder: Path) -> list[str]:
    """The files below a folder that this process has open, where the system tells."""
    handles = Path("/proc/self/fd")
    found = []
    for handle in handles.iterdir() if handles.exists() else ():
        with contextlib.suppress(OSError):  # the handle that lists them is gone by now
            found.append(handle.readlink())
    return [path.name for path in found if path.is_relative_to(folder.resolve())]


class TrackerContract(Contract):
    """Checks of a tracker, opened on the folder of a made-up run."""

    kind = "tracker"

    def test_it_opens_takes_numbers_and_closes(self) -> None:
        """This is all that a run asks of it."""
        with place() as folder:
            opened = self._open(folder)
            for step, values in NUMBERS:
                opened.log(step, values)
            opened.close()

    def test_numbers_that_are_not_finite_are_taken(self) -> None:
        """A loss that explodes is what one wants to see: the tracker must not go before it."""
        with place() as folder:
            strange = [float("nan"), float("inf"), float("-inf"), 1e-300, 0.0]
            self._track(folder, [(i, {"loss": v, "lr": 1.0}) for i, v in enumerate(strange, 1)])

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

    def test_going_on_keeps_what_was_there(self) -> None:
        """The curve of a resumed run begins at step 1, not where it was resumed."""
        self._expect_comparable()
        with place() as folder, place() as fresh:
            self._track(folder, NUMBERS[:2])
            self._track(folder, NUMBERS[2:])
            self._track(fresh, NUMBERS[2:])
            expect(
                theirs(folder) != theirs(fresh),
                "what was logged before a run was resumed is gone: open() must add to its files",
            )
        told = []
        for loss in (0.9, 0.1):  # of the first step: what comes after it is the same
            with place() as folder:
                self._track(folder, [(1, {"loss": loss, "lr": 0.1}), *NUMBERS[1:2]])
                self._track(folder, NUMBERS[2:])
                told.append(theirs(folder))
        expect(
            told[0] != told[1],
            "its files are the same whatever was logged before the last steps: add to them",
        )

    def test_closing_without_a_number_works(self) -> None:
        """A run may stop before its first step."""
        with place() as folder:
            self._open(folder).close()

    def test_each_number_makes_a_difference(self) -> None:
        """A tracker that drops numbers in silence is worse than none."""
        self._expect_comparable()
        told = []
        for step, values in ((1, {"loss": 0.5}), (1, {"loss": 0.25}), (2, {"loss": 0.5})):
            with place() as folder:
                self._track(folder, [(step, values)])
                told.append(theirs(folder))
        expect(told[0] != told[1], "its files are the same for a loss of 0.5 and one of 0.25")
        expect(told[0] != told[2], "its files are the same for step 1 and step 2")
        with place() as folder:
            self._track(folder, NUMBERS)
            wanted = theirs(folder)
        for row, name in itertools.product(range(len(NUMBERS)), NUMBERS[0][1]):
            changed = [(step, dict(values)) for step, values in NUMBERS]
            changed[row][1][name] = 7.0
            with place() as folder:
                self._track(folder, changed)
                expect(
                    theirs(folder) != wanted,
                    f"its files are the same whatever {name} is at step {row + 1}",
                )

    def test_two_runs_at_once_do_not_mix(self) -> None:
        """Several runs in one process, such as a comparison's, have a tracker each."""
        self._expect_comparable()
        for _ in range(2):  # a clock in its files may tick in between once, but not twice
            with place() as first, place() as second, place() as alone:
                one, other = self._open(first), self._open(second)
                for step, values in NUMBERS:
                    one.log(step, values)
                    other.log(step + 100, {"loss": 9.0, "lr": 9.0})
                other.close()
                one.close()
                self._track(alone, NUMBERS)
                if theirs(first) == theirs(alone):
                    return
        raise Broken(
            "a run's files differ when another run is tracked at the same time: keep what belongs "
            "to a run in what open() gives, and nothing in the class"
        )

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
            before = everything(folder.parent.parent)
            self._track(folder, NUMBERS)
            after = everything(folder.parent.parent)
            inside = folder.relative_to(folder.parent.parent).as_posix() + "/"
            ours = {inside + name for name in OURS}
            new = [name for name in after.keys() - before.keys() if not name.startswith(inside)]
            expect(
                not new,
                f"it writes {', '.join(sorted(new)[:3])} outside the run's folder: write below "
                "the folder that open() is given",
            )
            lost = [name for name in before if after.get(name) != before[name]]
            expect(
                not set(lost) & ours,
                f"it changes {', '.join(sorted(lost)[:3])}, which are the run's own: "
                "choose other names",
            )
            expect(not lost, f"it changes {', '.join(sorted(lost)[:3])}")

    def test_the_process_is_left_as_it_was(self) -> None:
        """A tracker must not change the weights that are drawn next, nor where paths lead."""
        with place() as folder, isolated(0, "tracker"):
            before, here = global_state(), Path.cwd()
            self._track(folder, NUMBERS)
            moved, there = global_state() != before, Path.cwd()
            os.chdir(here)
            expect(
                not moved,
                "it changes the global random state of Python, numpy or torch: draw inside "
                "maebench.rng.isolated",
            )
            expect(here == there, f"it changes the working directory to {there}")

    def test_files_are_closed(self) -> None:
        """Hundreds of runs in one process would run out of open files."""
        with place() as folder, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", ResourceWarning)
            self._track(folder, NUMBERS)
            gc.collect()
            left = [str(one.message) for one in told if folder.name in str(one.message)]
            left += open_below(folder)
        expect(not left, f"close() leaves a file open: {' '.join(left[:1])}")

    def test_every_option_matters(self) -> None:
        """An option that is never read promises what it does not do."""
        base = self.made()
        options = list(type(base).model_fields)
        if not options:
            raise NotChecked("it has no options")
        self._expect_comparable()
        with place() as folder:
            self._track(folder, NUMBERS, base)
            wanted = theirs(folder)
        for option in options:
            tried = self.variations(option)
            found = []
            for changed in tried:
                with place() as folder:
                    self._track(folder, NUMBERS, changed)
                    found.append(theirs(folder))
            expect(
                any(one != wanted for one in found),
                f"option {option!r} changes no file that it writes "
                f"({', '.join(str(getattr(one, option)) for one in tried)} were tried)",
            )

    def _open(self, folder: Path, config: Mapping[str, Any] | None = None) -> OpenTracker:
        opened = self.made().open(folder, settings() if config is None else config)
        lacks = [name for name in ("log", "close") if not callable(getattr(opened, name, None))]
        expect(
            not lacks,
            f"open() gives {type(opened).__name__} without {' and '.join(lacks)}: return an "
            "object with log(step, values) and close()",
        )
        return opened

    def _expect_comparable(self) -> None:
        """Gives a check up where what is written cannot be told apart by comparing files.

        Raises:
            NotChecked: it writes no file, or never the same twice.
        """
        told = []
        for _ in range(2):
            with place() as folder:
                self._track(folder, NUMBERS)
                told.append(theirs(folder))
        if not told[0]:
            raise NotChecked("it writes no file into the run's folder: where numbers go is unseen")
        if told[0] != told[1]:
            raise NotChecked("its files differ from one time to the next with the same numbers")

    def _track(self, folder: Path, log: Log, tracker: Tracker | None = None) -> None:
        opened = tracker.open(folder, settings()) if tracker else self._open(folder)
        for step, values in log:
            opened.log(step, values)
        opened.close()


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
    found = everything(folder)
    root = str(folder.parent.parent).encode()
    return {
        name: content.replace(root, b"").replace(folder.name.encode(), b"")
        for name, content in found.items()
        if name not in OURS
    }
