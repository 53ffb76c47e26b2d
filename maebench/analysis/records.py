"""All rows of a results folder as one DataFrame, joined with the settings of their runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maebench import files
from maebench.config.overrides import differing
from maebench.errors import DamagedError, RunError
from maebench.evaluating.records import COLUMNS, Row, paths, read, wrong
from maebench.pretraining import runs

if TYPE_CHECKING:
    import pandas as pd

# what pretraining has cost, from a finished run's spent.json
COST = ("steps", "images", "tokens", "flops_encoder", "flops_decoder", "pretraining_seconds")
# what joining a run's config.json adds
FROM_CONFIG = (
    *("encoder", "objective", "masking", "ratio", "realised_ratio", "budget", "batch", "lr"),
    *("run_seed", "limit", "image_size", "schedule", "pretraining_precision", "settings"),
    *("recipe", "overrides"),
    *COST,
)


# columns without which a row of a table says nothing
NEEDED = (
    *("model", "model_kind", "dataset", "dataset_fingerprint", "evaluation", "evaluation_version"),
    *("options", "metric", "where", "main", "status", "seed", "created"),
)


def load_records(results: str | Path | None = None) -> pd.DataFrame:
    """All rows as a tidy DataFrame, joined with the settings of their runs.

    One row is one metric of one evaluation of one model; `where` is a dict, `file` the path of
    the rows' file. The frame is empty, with all columns, where there are no results. What is
    damaged is left out with a warning that names it: a record, or a run whose settings cannot be
    read, for its numbers would then stand for any setting.
    """
    folder = runs.results_folder(results)
    readable, damaged = runs.readable_runs(folder)
    settings: dict[str, Row] = {}
    for found in readable:
        try:
            settings[found.name] = settings_of(found, damaged)
        except RunError as error:
            damaged.append(str(error))
    there = paths(folder)
    of_runs = dict.fromkeys(p.parents[1] for p in there if p.parents[2] == folder / "runs")
    for run in of_runs:
        if not (run / "config.json").exists():
            damaged.append(f"{run / 'config.json'} is missing")
    rows = []
    for path in there:
        if path.parents[1] in of_runs and path.parents[1].name not in settings:
            continue
        try:
            rows += rows_of(path, settings)
        except RunError as error:
            damaged.append(str(error))
    runs.warn_of_damaged(damaged)
    return _frame(rows)


def records_at(paths: Iterable[Path], results: Path | None = None) -> pd.DataFrame:
    """The rows of these files alone, in their order, joined with the settings of their runs.

    Args:
        paths: of `maebench.evaluating.records`.
        results: where their runs lie; where the files do, if left out.

    Raises:
        RunError: one of them is damaged, or its run.
    """
    rows, damaged = list[Row](), list[str]()
    for path in paths:
        found = read(path)
        home = (results or path.parents[3]) / "runs"
        names = {row["run"] for row in found if row["run"] and (home / row["run"]).is_dir()}
        settings = {name: settings_of(runs.read_run(home / name), damaged) for name in names}
        rows += rows_of(path, settings)
    runs.warn_of_damaged(list(dict.fromkeys(damaged)))
    return _frame(rows)


def _frame(rows: list[Row]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=[*COLUMNS, *FROM_CONFIG, "file"])


def rows_of(path: Path, settings: Mapping[str, Row]) -> list[Row]:
    """The rows of a file, joined with the settings of their runs.

    Raises:
        RunError: it is damaged.
    """
    found = []
    for row in read(path):
        if why := wrong(row, NEEDED):
            raise DamagedError(f"{path} is damaged: {why}; evaluate again")
        row = {**row, **settings.get(row.get("run") or "", {}), "file": str(path)}
        if row["model_kind"] != "run":  # an untrained encoder has its run's settings at no cost
            row.update(dict.fromkeys(COST))
        found.append(row)
    return found


def settings_of(run: runs.Run, damaged: list[str]) -> Row:
    """What a run's config.json adds to its rows, and what its pretraining has cost.

    Args:
        run: whose settings.
        damaged: costs that cannot be read are missing, and noted here.

    Raises:
        RunError: config.json is damaged.
    """
    try:
        found = _settings(run)
    # it has the shape that we wrote, or somebody or something has changed it
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{run.folder / 'config.json'} is damaged: {error!r}") from error
    if lists := [name for name, value in found.items() if isinstance(value, list | dict)]:
        raise RunError(f"{run.folder / 'config.json'} is damaged: {lists[0]} is no single value")
    try:
        return found | _spent(run)
    except RunError as error:
        damaged.append(str(error))
        return found


def _spent(run: runs.Run) -> Row:
    """What pretraining has cost; nothing of a run of an earlier version or that is not finished."""
    path = run.folder / runs.SPENT
    spent = files.read_sealed(path, run.name) if path.exists() else {}
    if path.exists() and "steps" not in spent:
        raise DamagedError(f"{path} cannot be read: it has no steps")
    counts = {key: value for key, value in spent.items() if key in COST}
    if wrong := [key for key, value in counts.items() if type(value) not in (int, float)]:
        raise DamagedError(f"{path} cannot be read: {wrong[0]} is no number")
    return counts


def _settings(run: runs.Run) -> Row:
    config, facts = run.content["config"], run.facts
    # options that came later and are at their defaults are not in an identity: one text for all
    whole = config | {"objective": run.content["identity"].get("objective", config["objective"])}
    chosen = {p: written(whole[p]) for p in ("encoder", "objective", "masking") if p in whole}
    recipe = config.get("recipe")  # a run of an earlier version may have none
    return {
        **chosen,
        "ratio": config.get("ratio"),  # an objective that hides nothing has none
        "realised_ratio": facts["realised_ratio"],
        "budget": config["budget"],
        "batch": config["batch"],
        "lr": config["lr"],
        "run_seed": config["seed"],
        "limit": config["limit"],
        "image_size": "x".join(map(str, config.get("image_size") or ())) or None,
        "schedule": _schedule(config.get("schedule")),
        "pretraining_precision": facts.get("precision"),  # evaluations have one of their own
        # what all seeds of one treatment have in common
        "settings": files.short_hash(
            {k: v for k, v in run.content["identity"].items() if k != "seed"}
        ),
        "recipe": recipe and recipe["name"],
        "overrides": recipe and "; ".join(differing(recipe["overrides"])),
    }


def _schedule(schedule: Mapping[str, Any] | None) -> str | None:
    """Where the ratio goes and in how many stages."""
    last, stages = (schedule["ratio"], schedule["stages"]) if schedule else (None, 0)
    return None if last is None else f"to {last:g} in {stages} stages"


def written(part: Mapping[str, Any]) -> str:
    """The name and the options of a part of config.json, as text."""
    options = ", ".join(f"{k}={v}" for k, v in part.items() if k != "name" and v is not None)
    return f"{part['name']}({options})" if options else str(part["name"])
