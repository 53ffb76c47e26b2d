"""Where a run lies: its folder's name, layout and facts."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maebench import files
from maebench.errors import DamagedError, RunError, unknown

if TYPE_CHECKING:  # `maebench table` reads runs, and imports no torch
    from maebench.config.run import RunConfig

ENVIRONMENT = "MAEBENCH_RESULTS"
ENVIRONMENT_FILE = "environment.json"
SPENT = "spent.json"  # what a finished run has cost
HASHES = "hashes.json"  # of its weights and batches, by which two runs are known to begin alike
FORMAT = 2  # of config.json: 1, of earlier versions, has no hash; a newer one is refused
KEPT = "data"  # the folder of what belongs to its weights and came with its data
NAMED = 3  # damaged files that are named, each in a line, before the others are counted
# what config.json holds, and what of its parts a table needs
CONTENT = {"created": str, "config": dict, "identity": dict, "facts": dict}
FACTS = {
    **{"steps": (int, type(None)), "channels": (int,), "num_classes": (int,)},
    **{"realised_ratio": (int, float), "mean": (list,), "std": (list,)},
}
SETTINGS = ("dataset", "encoder", "objective", "budget", "batch", "lr", "seed", "limit")


@dataclass(frozen=True)
class Run:
    """One pretraining with one config and seed, and its folder.

    Args:
        folder: results/runs/<name>.
        content: what config.json holds: format, name, created, config, identity, facts.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def results(self) -> Path:
        """The folder of results that it lies in."""
        return self.folder.parent.parent

    @property
    def facts(self) -> dict[str, Any]:
        """What was found out before step 0: steps, grid, realised ratio, channel statistics ..."""
        return self.content["facts"]


def results_folder(folder: str | Path | None = None) -> Path:
    """Where results go: this folder, else MAEBENCH_RESULTS, else ./results; ~ is the home folder.

    Raises:
        ConfigError: ~USER, and there is no such user.
    """
    return files.with_home(folder or os.environ.get(ENVIRONMENT) or "results")


def run_name(config: RunConfig, identity: dict[str, Any]) -> str:
    """<dataset>-<encoder>-<objective>-<masking>-<ratio>-s<seed>-<hash of what changes numbers>."""
    parts = [config.dataset.name, config.encoder.name, config.objective.name]
    if config.objective.hides:
        parts += [config.masking.name, config.ratio_text]
    return files.safe_name("-".join([*parts, f"s{config.seed}", files.short_hash(identity)]))


def existing(results: Path, config: RunConfig, identity: dict[str, Any]) -> Run | None:
    """The run of this identity, where it is there.

    Raises:
        RunError: its folder holds another run.
    """
    folder = results / "runs" / run_name(config, identity)
    if not (folder / "config.json").exists():
        return None
    run = read_run(folder)
    if run.content["identity"] != identity:
        raise RunError(f"{folder} holds a run with other settings: move it away")
    return run


def new_run(
    results: Path, config: RunConfig, identity: dict[str, Any], facts: dict[str, Any]
) -> Run:
    """A run of this identity that is not written yet."""
    folder = results / "runs" / run_name(config, identity)
    content = {
        "format": FORMAT,
        "name": folder.name,
        "created": now(),
        "config": config.dump(),
        "identity": identity,
        "facts": facts,
    }
    return Run(folder, content)


def write_run(run: Run, environment: dict[str, Any], kept: Mapping[str, str]) -> None:
    """Makes the folder of a new run.

    Args:
        run: it.
        environment: versions and hardware.
        kept: texts of the data set that belong to the weights, by file name (`SplitInfo.kept`).

    Raises:
        RunError: the folder cannot be written.
    """
    if not (run.folder / ENVIRONMENT_FILE).exists():  # of a run whose config.json is made anew
        files.write_sealed(run.folder / ENVIRONMENT_FILE, environment, run.name)
    for name, text in kept.items():
        files.write_text(run.folder / KEPT / files.safe_name(name), text)
    files.write_sealed(run.folder / "config.json", run.content, run.name)


def rewritten(run: Run, **settings: Any) -> Run:
    """The run with other settings, which are none of its identity, written to its config.json.

    Raises:
        RunError: the file cannot be written.
    """
    content = run.content | {"format": FORMAT, "config": run.content["config"] | settings}
    files.write_sealed(run.folder / "config.json", content, run.name)
    return Run(run.folder, content)


def marks_of(kept: Mapping[str, str]) -> dict[str, str]:
    """A hash of each text that is kept, by file name."""
    return {name: files.short_hash(text) for name, text in sorted(kept.items())}


def read_kept(run: Run) -> dict[str, str]:
    """What was kept of the run's data set, by file name.

    Raises:
        DamagedError: a file is missing, cannot be read, or is not as it was kept: another tokenizer
            would give the model other words.
    """
    found = {}
    marks = run.facts.get("kept", {})
    if not isinstance(marks, dict):
        raise DamagedError(f"{run.folder / 'config.json'} is damaged: kept is no object")
    for name, mark in marks.items():
        path = run.folder / KEPT / files.safe_name(name)
        try:
            found[name] = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise DamagedError(f"{path}, which belongs to the weights: {why}") from error
        if files.short_hash(found[name]) != mark:
            raise DamagedError(f"{path} is not as the run kept it: the weights are of other tokens")
    return found


def note_hashes(run: Run, **hashes: str) -> None:
    """Adds to what is kept of a run's weights and batches, so that arms can be checked."""
    files.write_sealed(run.folder / HASHES, read_hashes(run) | hashes, run.name)


def read_hashes(run: Run) -> dict[str, str]:
    """Hashes of the encoder, module, first and last batch; none of a run of an earlier version.

    Raises:
        RunError: the file is damaged.
    """
    path = run.folder / HASHES
    found = _read_beside(run, HASHES)
    if wrong := [name for name, value in found.items() if not isinstance(value, str)]:
        raise DamagedError(f"{path} cannot be read: {files.shortened(wrong[0])} is no text")
    return found


def said_beside(run: Run, name: str) -> dict[str, Any]:
    """What a file beside a run's config.json holds, such as spent.json; nothing where it is not.

    One that is damaged is warned of and holds nothing.
    """
    try:
        return _read_beside(run, name)
    except RunError as error:
        warn_of_damaged([str(error)])
        return {}


def _read_beside(run: Run, name: str) -> dict[str, Any]:
    """What a file of the run holds; nothing where it is not there.

    Raises:
        RunError: it is damaged.
    """
    path = run.folder / name
    found = files.read_sealed(path, run.name) if path.exists() else {}
    if path.exists() and not found:
        raise DamagedError(f"{path} is damaged: it holds nothing")
    return found


def read_log(log: Path, done: int | None) -> list[dict[str, Any]]:
    """What was logged of each step; steps that are missing are warned of.

    Args:
        log: the file.
        done: the last step that is wanted, all those before it are there; None: nobody knows.
    """
    rows = files.read_lines(log, "step", of=log.parent.name)
    rows = [row for row in rows if done is None or row["step"] <= done]
    if done is not None and (lost := done - len({row["step"] for row in rows})) > 0:
        warnings.warn(
            f"{log} lacks {lost:,} of {done:,} steps: the curve of the loss is without them",
            stacklevel=3,
        )
    return rows


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        DamagedError: its config.json is not as it was written.
        RunError: it holds none, or one of a newer format.
    """
    path = folder / "config.json"
    if not path.exists():
        raise RunError(f"{folder} holds no run: config.json is missing")
    content = files.read_sealed(path, folder.resolve().name, hashed=(FORMAT,))
    number = content.get("format")
    if type(number) is not int:
        raise DamagedError(f"{path} is no run's config: it has no format")
    if number > FORMAT:
        raise RunError(f"{path} was written by a newer maebench (format {number})")
    for name, kind in CONTENT.items():
        if not isinstance(content.get(name), kind):
            raise DamagedError(f"{path} is no run's config: {name} is missing or damaged")
    missing = [name for name in SETTINGS if name not in content["config"]]
    facts = content["facts"]
    missing += [n for n, kinds in FACTS.items() if n not in facts or type(facts[n]) not in kinds]
    if missing:
        raise DamagedError(f"{path} is damaged: {', '.join(missing)} missing or of another kind")
    return Run(folder, content)


def all_runs(results: Path) -> list[Run]:
    """Every run under a results folder that can be read, the newest last.

    One that cannot be read is warned of.
    """
    found, damaged = readable_runs(results)
    warn_of_damaged(damaged)
    return found


def readable_runs(results: Path) -> tuple[list[Run], list[str]]:
    """Every run that can be read, the newest last; and of the others what is wrong with them."""
    found, damaged = [], []
    for path in sorted((results / "runs").glob("*/config.json")):
        try:
            found.append(read_run(path.parent))
        except RunError as error:
            damaged.append(str(error))
    return sorted(found, key=lambda run: (run.content["created"], run.name)), damaged


def warn_of_damaged(problems: Sequence[str]) -> None:
    """Warns of files that are left out: of the first ones by name, of the others how many."""
    for problem in problems[:NAMED]:
        warnings.warn(f"left out: {problem}", stacklevel=3)
    if (more := len(problems) - NAMED) > 0:
        noun = "file" if more == 1 else "files"
        warnings.warn(f"left out: {more} more damaged {noun}", stacklevel=3)


def find_run(results: Path, name: str) -> Run:
    """A run by name or folder; the newest one where the name is empty.

    Raises:
        RunError: there is none, or it is damaged; names the nearest.
    """
    if not name:
        if found := all_runs(results):
            return found[-1]
        raise RunError(f"no run in {results}: start one with `maebench run`")
    with contextlib.suppress(OSError):  # a name too long for a path is no folder either
        for folder in (results / "runs" / name, files.with_home(name)):
            if (folder / "config.json").exists():
                return read_run(folder)
    names = [path.parent.name for path in (results / "runs").glob("*/config.json")]
    raise RunError(unknown("run", name, names, str(results)))


def now() -> str:
    """The time in UTC to the microsecond, which sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
