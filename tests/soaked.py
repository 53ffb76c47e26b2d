"""Commands that are killed again and again at chosen moments until they end: what is left of them."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial as bound
from pathlib import Path

from attempts import Attempt, attempt, processes_of
from same_folders import differences

from maebench import files
from maebench.errors import RunError
from maebench.evaluating import partial
from maebench.pretraining import checkpoints

RESULTS = "results"  # beside the working folder, so that all rounds print the same
TINY = ("-o", "encoder.width=32", "-o", "encoder.depth=2", "-o", "encoder.heads=2")
OFTEN = ("-o", "machine.checkpoint_seconds=0.01", "--device", "cpu")
DATA = ("--limit", "300", "--batch", "32", *TINY, *OFTEN)
RUN = ("run", "--evals", "linear-probe,finetune,knn", "-o", "finetune.epochs=4", *DATA)
COMPARE = (
    *("compare", "--masking", "random,block", "--seeds", "2", "--budget", "steps=30"),
    *("--evals", "knn", "--name", "soak", "-o", "workers=2", *DATA),
)
PHASES = ("start-up", "pretraining", "checkpointing", "evaluation", "compare")
EACH = 5  # interruptions of one phase in a round, so that work is left for all of them
REAL = 0.4  # share of the attempts that end in their start-up and are processes of their own
ORPHAN_SECONDS = 20.0  # in which workers see that their comparison is dead
KEEP_SECONDS = 0.1  # between two keepings of an evaluation; two seconds are longer than these take


def listed(folder: Path, pattern: str) -> list[Path]:
    """What is below a folder in which others remove folders meanwhile."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return list(folder.rglob(pattern))


def keep_often() -> None:
    """In a forked process: evaluations keep often how far they are."""
    partial.SECONDS = KEEP_SECONDS


@dataclass
class Soak:
    """A run and a comparison under signals.

    Args:
        folder: for all of it.
        kills: how many times kill -9.
        terms: how many times SIGTERM.
        seed: of the moments.
        steps: of the run.
    """

    folder: Path
    kills: int
    terms: int
    seed: int = 0
    steps: int = 600
    fell: Counter[tuple[str, str]] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.folder = self.folder.absolute()
        self.run = (*RUN, "--budget", f"steps={self.steps}", "--results", RESULTS)
        self.compare = (*COMPARE, "--results", RESULTS)
        phases = itertools.cycle(PHASES)
        self.wanted = [(signal.SIGKILL, next(phases)) for _ in range(self.kills)]
        self.wanted += [(signal.SIGTERM, next(phases)) for _ in range(self.terms)]
        self.in_round: list[tuple[signal.Signals, str]] = []
        self.numbers = itertools.count()

    # ---- the work

    def go(self) -> None:
        """All of it."""
        self.undisturbed()
        for number in itertools.count():
            if not self.wanted:
                return
            before = len(self.wanted)
            self.round(self.folder / f"round-{number}")
            assert len(self.wanted) < before or number < 3, "no moment is found"

    def start(self, arguments: tuple[str, ...], place: Path, real: bool = False) -> Attempt:
        number = next(self.numbers)
        cache = {"MAEBENCH_CACHE": str(self.folder / "cache")}  # the same kernels for all
        made = attempt(arguments, place, f"attempt-{number}", real, cache, keep_often)
        self.counts["attempts"] += 1
        return made

    def undisturbed(self) -> None:
        """The results that all others have to equal, and how long the parts take."""
        place = self.folder / "undisturbed"
        run = self.start(self.run, place, real=True)
        results = place / RESULTS
        run.until(lambda: any(results.glob(f"runs/*/{files.OWNER}")))
        self.start_seconds = {True: run.age, False: 0.5}
        (found,) = results.glob("runs/*")
        self.name = found.name
        run.until(lambda: self.is_whole(place))
        trained = run.age
        assert run.wait() == 0, run.said
        of_run = self.num_records(place)
        compare = self.start(self.compare, place)
        assert compare.wait() == 0, compare.said
        self.seconds = {"evaluation": run.age - trained, "compare": compare.age}
        self.records = {"evaluation": (0, of_run), "compare": (of_run, self.num_records(place))}
        self.printed = self.printed_again(place)

    def printed_again(self, place: Path) -> str:
        """What both commands print when all is done."""
        text = ""
        for arguments in (self.run, self.compare):
            made = self.start(arguments, place)
            code = made.wait()
            if code != 0:
                self.problems.append(f"{place.name}: a finished command ended with {code}")
            text += made.printed
        return text

    def round(self, place: Path) -> None:
        """A run and a comparison that are interrupted some times each, and what is left."""
        self.in_round = []
        for phase in PHASES:
            mine = [each for each in self.wanted if each[1] == phase]
            self.random.shuffle(mine)
            self.in_round += mine[:EACH]
        for each in self.in_round:
            self.wanted.remove(each)
        self.interrupted(self.run, place, PHASES[:-1])
        self.interrupted(self.compare, place, PHASES[-1:])
        self.wanted += self.in_round  # of which no moment came
        self.counts["rounds"] += 1
        found = differences(place / RESULTS, self.folder / "undisturbed" / RESULTS)
        if self.printed_again(place) != self.printed:
            found.append("other: what is printed")
        self.problems += [f"{place.name}: {line}" for line in found]
        if not found:
            shutil.rmtree(place)

    def interrupted(self, arguments: tuple[str, ...], place: Path, phases: tuple[str, ...]) -> None:
        """One command, started again after each interruption until it ends by itself."""
        while True:
            chosen = self.choose(place, phases)
            real = chosen is not None and chosen[1] == PHASES[0] and self.random.random() < REAL
            made = self.start(arguments, place, real)
            if chosen is None or not self.moment(made, place, chosen[1]):
                code = made.wait()
                self.check_said(made, place)
                if code == 0:
                    return
                self.problems.append(f"{place.name}: ended with {code}: {made.said[-500:]}")
                self.counts["failed attempts"] += 1
                assert self.counts["failed attempts"] < 10, self.problems
                continue
            self.interrupt(made, place, chosen)

    def choose(self, place: Path, phases: tuple[str, ...]) -> tuple[signal.Signals, str] | None:
        """An interruption that may come now; None: the command may end."""
        if self.is_whole(place):
            phases = tuple(phase for phase in phases if phase in PHASES[3:])
        early = [each for each in self.in_round if each[1] in phases and each[1] in PHASES[:3]]
        late = [each for each in self.in_round if each[1] in phases]
        return self.random.choice(early or late) if early or late else None

    # ---- moments

    def moment(self, made: Attempt, place: Path, phase: str) -> bool:
        """Waits for a moment of the phase; False where the process ended before."""
        if phase == "start-up":
            return self.sleep(made, self.start_seconds[made.real])
        if phase in self.seconds:
            return self.working(made, place, phase)
        if not made.until(bound(self.holds, made, place)):
            return False
        self.start_seconds[False] = (self.start_seconds[False] + made.age) / 2
        if phase == "pretraining":
            return self.sleep(made, 0.6)
        seen: set[str] = set()
        wanted = self.random.randint(1, 4)  # not always the first one, so that it gets on
        return made.until(
            lambda: len(seen.update(self.half_written(made, place)) or seen) >= wanted
        )

    def working(self, made: Attempt, place: Path, phase: str) -> bool:
        """Sleeps for a random part of the time that is left of an evaluation or a comparison."""
        if phase == "evaluation" and not made.until(lambda: self.is_whole(place)):
            return False
        began, (before, whole) = made.age, self.records[phase]
        left = max(0.1, (whole - self.num_records(place)) / (whole - before))
        if self.sleep(made, left * self.seconds[phase]):
            return True
        self.seconds[phase] = (made.age - began) / left  # as long as it took now
        return False

    def num_records(self, place: Path) -> int:
        return len(listed(place / RESULTS, "records/*.json"))

    def sleep(self, made: Attempt, seconds: float) -> bool:
        """Sleeps for a random part of these seconds; False where the process ends meanwhile."""
        end = time.monotonic() + self.random.uniform(0, seconds)
        return made.until(lambda: time.monotonic() >= end)

    def is_whole(self, place: Path) -> bool:
        last = checkpoints.folder_name(self.steps)
        return self.folder_of(place).joinpath("checkpoint", last).exists()

    def folder_of(self, place: Path) -> Path:
        return place / RESULTS / "runs" / getattr(self, "name", "")

    def holds(self, made: Attempt, place: Path) -> bool:
        """Whether the process has the run's lock."""
        with contextlib.suppress(RunError):
            return files.read_object(self.folder_of(place) / files.OWNER).get("pid") == made.pid
        return False

    def half_written(self, made: Attempt, place: Path) -> list[str]:
        """The checkpoints that this process is writing; others' may lie beside them."""
        found = (self.folder_of(place) / "checkpoint").glob(f"{files.BESIDE}*-{made.pid}-*")
        return [path.name for path in found]

    def phase_of(self, made: Attempt, place: Path) -> str:
        """Where a process is, or was when it was killed, by what lies in its folder."""
        if self.half_written(made, place):
            return "checkpointing"
        if self.is_whole(place):
            return "evaluation"
        return "pretraining" if self.holds(made, place) else "start-up"

    # ---- interruptions

    def interrupt(self, made: Attempt, place: Path, chosen: tuple[signal.Signals, str]) -> None:
        """Sends the signal and looks at what it leaves."""
        number, wanted = chosen
        where = "compare" if wanted == "compare" else self.phase_of(made, place)
        working = bool(made.started())
        began = time.monotonic()
        made.send(number)
        code = made.wait()
        if code == 0:  # it ended before the signal came
            return
        if number == signal.SIGKILL and wanted != "compare":
            where = self.phase_of(made, place)
        name = number.name
        self.fell[where, name] += 1
        self.counts["real"] += made.real
        self.counts["compare with workers"] += working
        if where == wanted:  # else another moment is looked for
            self.in_round.remove(chosen)
        half = listed(place / RESULTS, f"{files.BESIDE}*-{made.pid}-*")
        self.counts[f"{name} left something half-written"] += bool(half)
        if number == signal.SIGTERM:
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.check_stopped(made, place, where, code, half)
        elif code != -number:
            self.problems.append(f"{place.name}: killed, and ended with {code}")
        self.check_said(made, place)
        self.check_alone(made, place, number)

    def check_stopped(
        self, made: Attempt, place: Path, where: str, code: int, half: list[Path]
    ) -> None:
        """SIGTERM: its exit code, the line that goes on, and that no step is lost."""
        said = f"{place.name}: SIGTERM in {where}: "
        # where a run has its last step, the start-up of a command looks as its evaluation does
        early = ("start-up", "evaluation", "compare")
        if code == -signal.SIGTERM and where in early and not made.said:
            self.counts["SIGTERM before a command listens"] += 1
            return
        if code != 128 + signal.SIGTERM or f"goes on by: {made.again}" not in made.said:
            self.problems.append(f"{said}ended with {code}: {made.said[-500:]}")
        if half:
            self.problems.append(f"{said}left {[path.name for path in half]}")
        folders = (place / RESULTS / "runs").glob("*")
        for folder in folders if where in ("pretraining", "checkpointing", "compare") else ():
            log = folder / "log.jsonl"
            if not log.exists() or log.stat().st_mtime < made.at:
                continue  # of an attempt that was killed before
            rows = files.read_lines(log, "step", of=folder.name)
            last = checkpoints.newest(folder / "checkpoint")
            done, kept = rows[-1]["step"] if rows else 0, last["step"] if last else 0
            # a run that was killed before and that nobody works on may have more in its log
            if done != kept and where != "compare":
                self.problems.append(f"{said}stopped at step {done}, kept {kept}")
            self.counts["steps lost by SIGTERM"] += (done - kept) * (where != "compare")

    def check_said(self, made: Attempt, place: Path) -> None:
        """No traceback, and nothing damaged."""
        for word in ("Traceback", "damaged"):
            if word in made.said:
                self.problems.append(f"{place.name}: {word}: {made.said[-1500:]}")

    def check_alone(self, made: Attempt, place: Path, number: int) -> None:
        """No worker lives on: none at all after SIGTERM, none for long after kill -9."""
        left = processes_of(made.mark)
        if left and number == signal.SIGTERM:
            self.problems.append(f"{place.name}: SIGTERM left processes {left}")
        end = time.monotonic() + ORPHAN_SECONDS
        while processes_of(made.mark):
            if time.monotonic() > end:
                self.problems.append(f"{place.name}: processes {left} live on")
                self.counts["orphans"] += 1
                return
            time.sleep(0.02)

    # ---- what is said of it

    def table(self) -> str:
        """How many fell where, and what was found."""
        lines = ["| where | kill -9 | SIGTERM |", "|---|---:|---:|"]
        for phase in PHASES:
            kill, term = (self.fell[phase, name] for name in ("SIGKILL", "SIGTERM"))
            lines.append(f"| {phase} | {kill} | {term} |")
        kill, term = (sum(self.fell[p, n] for p in PHASES) for n in ("SIGKILL", "SIGTERM"))
        lines += [f"| all | {kill} | {term} |", ""]
        facts = {
            "rounds of a run and a comparison": self.counts["rounds"],
            "attempts": self.counts["attempts"],
            "interrupted as processes of their own, imports included": self.counts["real"],
            "fell while a comparison's workers were there": self.counts["compare with workers"],
            "kill -9 left something half-written": self.counts[
                "SIGKILL left something half-written"
            ],
            "SIGTERM before a command listens": self.counts["SIGTERM before a command listens"],
            "slowest end after SIGTERM, seconds": f"{self.slowest:.2f}",
            "steps lost by SIGTERM": self.counts["steps lost by SIGTERM"],
            "orphans": self.counts["orphans"],
        }
        for word in ("lost:", "doubled", "left over:", "other:", "added:"):
            facts[f"{word.rstrip(':')} against undisturbed"] = sum(
                f": {word}" in problem for problem in self.problems
            )
        facts["problems in all"] = len(self.problems)
        lines += [f"- {what}: {number}" for what, number in facts.items()]
        return "\n".join([*lines, *self.problems])
