"""Where a run lies: its folder's name, layout and facts."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maebench import files
from maebench.errors import RunError, unknown

if TYPE_CHECKING:  # `maebench table` reads runs, and imports no torch
    from maebench.config.run import RunConfig

ENVIRONMENT = "MAEBENCH_RESULTS"
SPENT = "spent.json"  # what a finished run has cost
HASHES = "hashes.json"  # of its weights and batches, by which two runs are known to begin alike
FORMAT = 1  # of config.json; a newer one is refused


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
    """Where results go: this folder, else MAEBENCH_RESULTS, else ./results."""
    return Path(folder or os.environ.get(ENVIRONMENT) or "results")


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


def write_run(run: Run, environment: dict[str, Any]) -> None:
    """Makes the folder of a new run.

    Raises:
        RunError: the folder cannot be written.
    """
    files.write_json(run.folder / "environment.json", environment)
    files.write_json(run.folder / "config.json", run.content)


def rewritten(run: Run, **settings: Any) -> Run:
    """The run with other settings, which are none of its identity, written to its config.json.

    Raises:
        RunError: the file cannot be written.
    """
    content = run.content | {"config": run.content["config"] | settings}
    files.write_json(run.folder / "config.json", content)
    return Run(run.folder, content)


def note_hashes(run: Run, **hashes: str) -> None:
    """Adds to what is kept of a run's weights and batches, so that arms can be checked."""
    files.write_json(run.folder / HASHES, read_hashes(run) | hashes)


def read_hashes(run: Run) -> dict[str, str]:
    """Hashes of the encoder, module, first and last batch; none of a run of an earlier version."""
    path = run.folder / HASHES
    return dict(files.read_json(path)) if path.exists() else {}


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        RunError: it holds none, or one of a newer format.
    """
    if not (folder / "config.json").exists():
        raise RunError(f"{folder} holds no run: config.json is missing")
    content = files.read_json(folder / "config.json")
    if (
        not isinstance(content, dict)
        or not {"format", "created", "config", "identity", "facts"} <= content.keys()
        or not isinstance(content["format"], int)
    ):
        raise RunError(f"{folder / 'config.json'} is no run's config")
    if content["format"] > FORMAT:
        raise RunError(f"{folder} was written by a newer maebench (format {content['format']})")
    return Run(folder, content)


def all_runs(results: Path) -> list[Run]:
    """Every run under a results folder, the newest last."""
    folders = sorted((results / "runs").glob("*/config.json"))
    return sorted(
        (read_run(f.parent) for f in folders), key=lambda r: (r.content["created"], r.name)
    )


def find_run(results: Path, name: str) -> Run:
    """A run by name or folder; the newest one where the name is empty.

    Raises:
        RunError: there is none; names the nearest.
    """
    runs = all_runs(results)
    if not name:
        if not runs:
            raise RunError(f"no run in {results}: start one with `maebench run`")
        return runs[-1]
    for run in runs:
        if run.name == name:
            return run
    with contextlib.suppress(OSError):  # a name too long for a path is no folder either
        if (Path(name) / "config.json").exists():
            return read_run(Path(name))
    raise RunError(unknown("run", name, [r.name for r in runs], str(results)))


def now() -> str:
    """The time in UTC to the microsecond, which sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
