"""All rows of a results folder as one DataFrame, joined with the settings of their runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maebench import files
from maebench.config.overrides import differing
from maebench.evaluating.records import COLUMNS, Row, paths, read
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


def load_records(results: str | Path | None = None) -> pd.DataFrame:
    """All rows as a tidy DataFrame, joined with the settings of their runs.

    One row is one metric of one evaluation of one model; `where` is a dict, `file` the path of
    the rows' file. The frame is empty, with all columns, where there are no results.
    """
    import pandas as pd

    folder = runs.results_folder(results)
    settings = {run.name: _settings(run) for run in runs.all_runs(folder)}
    rows = [
        {**row, **settings.get(row["run"], {}), "file": str(path)}
        for path in paths(folder)
        for row in read(path)
    ]
    for row in rows:
        if row.get("model_kind") != "run":  # an untrained encoder has its run's settings at no cost
            row.update(dict.fromkeys(COST))
    return pd.DataFrame(rows, columns=[*COLUMNS, *FROM_CONFIG, "file"])


def _settings(run: runs.Run) -> Row:
    config, facts = run.content["config"], run.facts
    # options that came later and are at their defaults are not in an identity: one text for all
    whole = config | {"objective": run.content["identity"].get("objective", config["objective"])}
    chosen = {p: written(whole[p]) for p in ("encoder", "objective", "masking") if p in whole}
    spent = run.folder / runs.SPENT
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
        "image_size": "x".join(map(str, config["image_size"])),
        "schedule": _schedule(config.get("schedule")),
        "pretraining_precision": facts.get("precision"),  # evaluations have one of their own
        # what all seeds of one treatment have in common
        "settings": files.short_hash(
            {k: v for k, v in run.content["identity"].items() if k != "seed"}
        ),
        "recipe": recipe and recipe["name"],
        "overrides": recipe and "; ".join(differing(recipe["overrides"])),
        **(files.read_json(spent) if spent.exists() else {}),
    }


def _schedule(schedule: Mapping[str, Any] | None) -> str | None:
    """Where the ratio goes and in how many stages."""
    last, stages = (schedule["ratio"], schedule["stages"]) if schedule else (None, 0)
    return None if last is None else f"to {last:g} in {stages} stages"


def written(part: Mapping[str, Any]) -> str:
    """The name and the options of a part of config.json, as text."""
    options = ", ".join(f"{k}={v}" for k, v in part.items() if k != "name" and v is not None)
    return f"{part['name']}({options})" if options else str(part["name"])
