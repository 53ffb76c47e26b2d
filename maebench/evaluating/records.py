"""Rows on disk and back: one JSON file per evaluation of a model, per-example values beside it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maebench import files

FORMAT = 1
HELD_OUT = "held out of train"  # the split of values by which choices are made
COLUMNS = (
    *("model", "model_kind", "run", "weights", "weights_hash", "dataset", "dataset_fingerprint"),
    *("train_examples", "train_fingerprint", "split", "examples", "num_groups", "skipped"),
    *("evaluation", "evaluation_version", "protocol", "options", "metric", "where"),
    *("value", "low", "high", "interval", "choice_low", "choice_high", "choices"),
    *("choices_alike", "unit", "higher_is_better", "main", "status", "reason", "seed", "seconds"),
    *("device", "precision", "source", "package", "package_version", "maebench_version"),
    *("created",),
)
Row = dict[str, Any]


def write(folder: Path, name: str, rows: Sequence[Row], values: Mapping[str, NDArray[Any]]) -> Path:
    """Writes the per-example values, then the rows: rows that are there are complete."""
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
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as packed:
        name = value_name(row)
        ids = "held_out_ids" if row.get("split") == HELD_OUT else "ids"
        return (packed[ids], packed[name]) if name in packed else None


def groups(path: Path, held_out: bool = False) -> NDArray[np.int64] | None:
    """The group of each test image, in the order of the ids; None where each stands for itself.

    Or that of each image held out of train, in the order of theirs.
    """
    name = "held_out_groups" if held_out else "groups"
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as packed:
        return packed[name] if name in packed else None


def place_key(row: Mapping[Any, Any]) -> str:
    """What tells rows of one metric apart, as a key: `where` without what was chosen of it."""
    where = {k: v for k, v in row["where"].items() if k not in ("chosen", "edge")}
    return json.dumps(where, sort_keys=True)


def value_name(row: Mapping[Any, Any]) -> str:
    """The name of a row's values in the .npz: the metric and what tells its rows apart."""
    where = ",".join(f"{k}={v}" for k, v in sorted(row["where"].items()) if k != "chosen")
    return f"{row['metric']}[{where}]"


def paths(results: Path) -> list[Path]:
    """Every file of rows under a results folder; half-written ones have another name."""
    found = [*results.glob("runs/*/records/*.json"), *results.glob("models/*/records/*.json")]
    return sorted(p for p in found if not p.name.startswith(files.BESIDE))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
