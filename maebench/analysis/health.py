"""What of a results folder is not as it was written: what is lost, and what can be made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from maebench import files
from maebench.analysis.state import FAILED, STATE, read_failed, read_state
from maebench.errors import DamagedError, MaebenchError, RunError
from maebench.evaluating import partial, records
from maebench.evaluating.tensors import read_tensors
from maebench.pretraining import checkpoints, finite, kernels, runs

# What is said of damage, by what is damaged. Who reads such a file makes it again, or goes without.
COMMAND = "the command that started the run writes it anew"
GOES_ON = "the command that started the run goes on from {}"
WITHOUT = "nobody needs it; it is made again when it is missed"
LOST = "lost"
PICTURES = ".png"
LINES = "log.jsonl"


@dataclass(frozen=True)
class Damage:
    """A file or folder that is not as it was written.

    Args:
        path: it.
        problem: what is wrong, in words.
        remedy: how what it held is made again, or that it is lost.
        repair: does what can be done at once; None where nothing can.
        lost: whether what it held cannot be made again.
    """

    path: Path
    problem: str
    remedy: str
    repair: Callable[[], None] | None = None
    lost: bool = False

    @property
    def home(self) -> Path:
        """The folder of the run, model or comparison that it is in."""
        for place in (self.path, *self.path.parents):
            if place.parent.name in ("runs", "models", "comparisons"):
                return place
        return self.path.parent

    def line(self) -> str:
        """What a person reads."""
        problem = self.problem.replace(f"{self.path} ", "").replace("is damaged: ", "")
        return f"{self.path}: {problem}; {self.remedy}"


def damage_below(place: Path, seen: Callable[[Path], None] = lambda path: None) -> Iterator[Damage]:
    """All damage of a results folder, or of one run or other model in it.

    Args:
        place: the folder.
        seen: called with each file that is looked at.
    """
    if (place / "config.json").exists() or place.parent.name == "runs":
        yield from of_run(place, seen)
        return
    if place.parent.name == "models":
        yield from of_model(place, seen)
        return
    if place.parent.name == "comparisons":
        yield from of_comparison(place, seen)
        return
    for kind, look in (("runs", of_run), ("models", of_model), ("comparisons", of_comparison)):
        for folder in sorted(path for path in (place / kind).glob("*") if path.is_dir()):
            if not folder.name.startswith(files.BESIDE):
                yield from look(folder, seen)


def of_run(folder: Path, seen: Callable[[Path], None]) -> Iterator[Damage]:
    """Damage of a run's folder."""
    path = folder / "config.json"
    seen(path)
    try:
        run = runs.read_run(folder)
    except RunError as error:
        yield Damage(path, str(error), COMMAND)  # which keeps the old one
        run = None
    for name in (runs.ENVIRONMENT_FILE, runs.HASHES, "masks.json", kernels.FILE, finite.REPORT):
        remedy = COMMAND if name == "masks.json" else LOST
        yield from _sealed(folder / name, folder.name, remedy, seen)
    yield from _spent(folder, seen)
    yield from _log(folder / LINES, seen)
    if run is not None:
        try:
            runs.read_kept(run)
        except RunError as error:
            yield Damage(folder / runs.KEPT, str(error), LOST, lost=True)
    yield from _checkpoints(folder / "checkpoint", seen)
    for path in sorted(folder.glob("printed/*.json")):
        yield from _sealed(path, f"{folder.name}/{path.stem}", WITHOUT, seen, remove=True)
    yield from of_evaluations(folder, seen)


def of_model(folder: Path, seen: Callable[[Path], None]) -> Iterator[Damage]:
    """Damage of the folder of a model that is no run."""
    yield from _sealed(folder / "model.json", folder.name, WITHOUT, seen)
    yield from of_evaluations(folder, seen)


def of_evaluations(folder: Path, seen: Callable[[Path], None]) -> Iterator[Damage]:
    """Damage of a model's records, features and pictures."""
    for path in sorted(folder.glob("records/*.json")):
        if path.name.startswith((files.BESIDE, files.ASIDE)):
            continue
        seen(path)
        try:
            records.whole(path)
        except DamagedError as error:
            name = path.stem.partition("-v")[0]
            problem = str(error).removesuffix(f"; {records.AGAIN}")
            remedy = f"`maebench run` or `maebench eval {name}` makes it again"
            yield Damage(path, problem, remedy, _aside(path, path.with_suffix(".npz")))
        except RunError as error:
            yield Damage(path, str(error), "update maebench, or move it away")
    for kind in ("features", partial.FOLDER):
        for path in sorted(folder.glob(f"{kind}/*.safetensors")):
            if path.name.startswith(files.BESIDE):
                continue
            seen(path)
            if why := _tensors(path, of_features=kind == "features"):
                yield Damage(path, why, WITHOUT, _gone(path))
    for path in sorted(folder.glob(f"pictures/*{PICTURES}")):
        if path.name.startswith(files.BESIDE):
            continue
        seen(path)
        if why := _picture(path):
            yield Damage(path, why, "`maebench eval NAME --again` draws it anew", _gone(path))


def of_comparison(folder: Path, seen: Callable[[Path], None]) -> Iterator[Damage]:
    """Damage of a comparison's folder; its tables are made anew each time."""
    for name, read in ((STATE, read_state), (FAILED, read_failed)):
        if not (folder / name).exists():
            continue
        seen(folder / name)
        try:
            files.read_sealed(folder / name, folder.name)
            read(folder)
        except MaebenchError as error:
            remedy = "which seeds had been looked at is lost; `maebench compare` begins it anew"
            if name == FAILED:
                remedy = WITHOUT
            yield Damage(folder / name, str(error), remedy, _aside(folder / name), name == STATE)


def _sealed(
    path: Path, of: str, remedy: str, seen: Callable[[Path], None], remove: bool = False
) -> Iterator[Damage]:
    if not path.exists():
        return
    seen(path)
    try:
        files.read_sealed(path, of)
    except RunError as error:
        lost = remedy == LOST
        yield Damage(path, str(error), remedy, _gone(path) if remove else _aside(path), lost)


def _spent(folder: Path, seen: Callable[[Path], None]) -> Iterator[Damage]:
    """Damage of what a run has cost, which the last checkpoint says too."""
    path = folder / runs.SPENT
    if not path.exists():
        return
    seen(path)
    try:
        files.read_sealed(path, folder.name)
    except RunError as error:
        last = checkpoints.newest(folder / "checkpoint") or {}
        if not last.get("spent"):
            yield Damage(path, str(error), LOST, _aside(path), lost=True)
            return
        content = {"steps": last["step"], **last["spent"]}

        def again() -> None:
            files.write_sealed(path, content, folder.name)

        yield Damage(path, str(error), "the last checkpoint says the same", again)


def _log(path: Path, seen: Callable[[Path], None]) -> Iterator[Damage]:
    """Damage of lines of the log; a torn last one is what a crash leaves, and no damage."""
    if not path.exists():
        return
    seen(path)
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    whole = files.read_lines(path, "step", of=path.parent.name)
    if (lost := sum(map(bool, lines)) - len(whole)) > 0:
        text = f"{lost} of {len(lines)} lines are not as they were written"

        def cut() -> None:
            files.write_text(path, files.as_lines(whole, path.parent.name))

        yield Damage(path, text, "the numbers of these steps are lost", cut, lost=True)


def _checkpoints(folder: Path, seen: Callable[[Path], None]) -> Iterator[Damage]:
    """Damage of checkpoints, of which the newest that is whole is gone on from."""
    there = checkpoints.steps(folder)
    good = [path for path in there if checkpoints.is_whole(path)]
    for path in there:
        seen(path)
        if path in good:
            continue
        remedy = GOES_ON.format(good[-1].name if good else "its beginning")
        if good and path < good[-1]:
            remedy = f"{good[-1].name} is newer, and whole"
        problem = "its bytes are not those that were written"
        yield Damage(path, problem, remedy, _aside(path))


def _tensors(path: Path, of_features: bool) -> str:
    """What is wrong with a file of tensors; empty where nothing is."""
    try:
        if of_features:
            read_tensors(path, path.stem)
        else:
            read_tensors(path, None)
    except DamagedError as error:
        return str(error)
    return ""


def _picture(path: Path) -> str:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.verify()  # PNG has check sums of its own
    except Exception as error:  # of a file that may hold anything
        return f"it is no whole picture ({type(error).__name__})"
    return ""


def _aside(*paths: Path) -> Callable[[], None]:
    def move() -> None:
        for path in paths:
            if path.exists():
                files.move_aside(path)

    return move


def _gone(path: Path) -> Callable[[], None]:
    return lambda: files.remove(path)
