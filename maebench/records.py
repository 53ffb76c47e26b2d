"""Rows on disk and back: one JSON file per evaluation of a model, per-example values beside it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maebench import files, runs
from maebench.config import short_hash
from maebench.recipes import differing

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

FORMAT = 1
COLUMNS = (
    *(
        "model",
        "model_kind",
        "run",
        "weights",
        "dataset",
        "dataset_fingerprint",
        "split",
        "examples",
    ),
    *(
        "skipped",
        "evaluation",
        "evaluation_version",
        "protocol",
        "options",
        "metric",
        "where",
        "value",
        "low",
        "high",
    ),
    *("unit", "higher_is_better", "main", "status", "reason", "seed", "seconds", "device"),
    *("precision", "source", "package", "package_version", "maebench_version", "created"),
)
# what pretraining has cost, from a finished run's spent.json
COST = ("steps", "images", "tokens", "flops_encoder", "flops_decoder", "pretraining_seconds")
# what joining a run's config.json adds
FROM_CONFIG = (
    *("encoder", "objective", "masking", "ratio", "realised_ratio", "budget", "batch", "lr"),
    *("run_seed", "limit", "image_size", "schedule", "settings", "recipe", "overrides"),
    *COST,
)
Row = dict[str, Any]


def write(folder: Path, name: str, rows: Sequence[Row], values: Mapping[str, NDArray[Any]]) -> Path:
    """Writes the per-example values, then the rows: rows that are there are complete."""
    import numpy as np

    path = folder / f"{files.safe_name(name)}.json"
    packed = io.BytesIO()
    np.savez_compressed(packed, **values)  # type: ignore[arg-type]
    files.write(path.with_suffix(".npz"), lambda beside: _write_bytes(beside, packed.getvalue()))
    files.write_json(path, {"format": FORMAT, "rows": list(rows)})
    return path


def read(path: Path) -> list[Row]:
    """The rows of one file."""
    return list(files.read_json(path)["rows"])


def values(
    path: Path, row: Mapping[Any, Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Image ids and per-example values of a row; None where its metric has none."""
    import numpy as np

    with np.load(path.with_suffix(".npz"), allow_pickle=False) as packed:
        name = value_name(row)
        return (packed["ids"], packed[name]) if name in packed else None


def value_name(row: Mapping[Any, Any]) -> str:
    """The name of a row's values in the .npz: the metric and what tells its rows apart."""
    where = ",".join(f"{k}={v}" for k, v in sorted(row["where"].items()) if k != "chosen")
    return f"{row['metric']}[{where}]"


def paths(results: Path) -> list[Path]:
    """Every file of rows under a results folder; half-written ones have another name."""
    found = [*results.glob("runs/*/records/*.json"), *results.glob("models/*/records/*.json")]
    return sorted(p for p in found if not p.name.startswith(files.BESIDE))


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
    recipe = config.get("recipe")  # runs of before there were recipes have none
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
        # what all seeds of one treatment have in common
        "settings": short_hash({k: v for k, v in run.content["identity"].items() if k != "seed"}),
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


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
