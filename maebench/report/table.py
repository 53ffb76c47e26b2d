"""The table: one row per model, one column per evaluation, every number with its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from maebench.analysis.records import COST, FROM_CONFIG
from maebench.errors import ConfigError, unknown
from maebench.evaluating import records
from maebench.outputs import Cell
from maebench.report.apart import MARK, told_apart

Row = Mapping[Any, Any]
Key = tuple[Any, ...]
# How a kind of model is called in the table that `maebench run` prints.
LABELS = {"run": "pretrained", "untrained": "untrained", **records.CONTROLS}
# what rows of one grid have in common; `file` alone would say it, where rows have one
GRID = (
    *("model", "dataset", "dataset_fingerprint", "train_fingerprint", "weights_hash", "precision"),
    *("evaluation", "evaluation_version", "protocol", "package", "options", "seed", "file"),
)


def headlines(rows: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """The rows to show: main metrics, or another one by `metric` or `evaluation/metric`.

    Raises:
        ConfigError: no row has this metric.
    """
    if metric is None:
        return rows[rows["main"].astype(bool)]
    evaluation, slash, name = metric.rpartition("/")
    chosen = rows[rows["metric"] == (name or metric)]
    if slash:
        chosen = chosen[chosen["evaluation"] == evaluation]
    if chosen.empty:
        there = sorted({f"{r.evaluation}/{r.metric}" for r in rows.itertuples()})
        raise ConfigError(unknown("metric", metric, there))
    # of a grid, what was chosen on train; where nothing was chosen, all that there is
    picked = [bool(where.get("chosen")) for where in chosen["where"]]
    grids = list(zip(*(chosen[name].map(str) for name in GRID), strict=True))
    choosing = {grid for grid, was in zip(grids, picked, strict=True) if was}
    return chosen[[was or g not in choosing for was, g in zip(picked, grids, strict=True)]]


def cell_of(row: Mapping[Any, Any]) -> Cell:
    """The number of a row with its interval, or why there is none."""
    if row["status"] != "ok":
        return Cell(None, unit=row["unit"], status=str(row["status"]))
    names = ("low", "high", "choice_low", "choice_high")
    low, high, below, above = (None if pd.isna(row.get(n)) else float(row[n]) for n in names)
    value = float(row["value"])
    return Cell(value, low, high, row["unit"], "ok", *OF_ONE, choice_low=below, choice_high=above)


NUMBERS = ("value", "low", "high", "choice_low", "choice_high")
OF_ONE = (None, None, "seeds", None)  # what a cell says of a mean, where it is none


def by_model(rows: pd.DataFrame, metric: str | None = None, cost: bool = False) -> pd.DataFrame:
    """One row per model and data set, one column per evaluation.

    Rows that differ in anything that can change a number are apart: a column MARK says in what
    (`maebench.report.apart`). Several seeds of an evaluation are averaged, and the cell says of how
    many: `91.1 ±0.3 evaluation seeds (n=3) ±2.9 images`. Of rows equal in all the newest is shown.

    Args:
        rows: of `load_records`.
        metric: another than the main metric.
        cost: whether what pretraining has cost stands beside.
    """
    apart = told_apart(headlines(rows, metric), all_metrics=metric is not None)
    table: list[dict[str, Any]] = []
    for ours in grouped(apart, ("model", "dataset")).values():  # lines of a model stand together
        for key, group in grouped(ours, names := ("model", "dataset", MARK)).items():
            table.append(_line(names, key, group, _of_model, cost))
    return _made(table, cost)


def by_settings(
    rows: pd.DataFrame, keys: Sequence[str], metric: str | None = None, cost: bool = False
) -> pd.DataFrame:
    """One row per setting: the mean over runs, their deviation, and how sure each of them is.

    A cell reads `81.9 ±0.8 seeds (n=3) ±1.7 images`: the standard deviation over runs and the mean
    half width of their 95 % intervals. Where runs differ in more than their seed it says runs, and
    `several_settings` says in what. Models of other kinds than runs have no settings to group.
    Data sets are never mixed: their name is always a key; neither is what differs in anything else
    that can change a number, as in `by_model`. `left_out` counts what is not in it.

    Args:
        rows: of `load_records`.
        keys: columns whose values a row stands for.
        metric: another than the main metric.
        cost: whether what pretraining has cost stands beside, the mean over runs.

    Raises:
        ConfigError: a key that is no column.
    """
    names = (*with_dataset(keys), MARK)
    found = lines_by(rows, keys, metric).items()
    return _made([_line(names, key, group, _of_models, cost) for key, group in found], cost)


def lines_by(
    rows: pd.DataFrame, keys: Sequence[str], metric: str | None = None
) -> dict[Key, list[Row]]:
    """The rows of each line of `by_settings`, in the order of what the lines stand for."""
    allowed = [c for c in (*records.COLUMNS, *FROM_CONFIG) if c != "where"]  # dicts
    for key in keys:
        if key not in allowed:
            raise ConfigError("--by: " + unknown("column", key, allowed))
    keys = with_dataset(keys)
    found = headlines(rows, metric)
    found = found[found["status"] == "ok"]
    if not {"model", "model_kind"} & set(keys):
        found = found[found["model_kind"] == "run"]
    lines = grouped(told_apart(found, keys, metric is not None), (*keys, MARK))
    return dict(sorted(lines.items(), key=lambda line: [_order(value) for value in line[0]]))


def with_dataset(keys: Sequence[str]) -> list[str]:
    """The keys, of which the data set is always one."""
    return [*keys, *({"dataset"} - set(keys))]


def grouped(rows: Iterable[Row], names: Sequence[str]) -> dict[Key, list[Row]]:
    """The rows by their values in these columns; what is missing is None."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        key = tuple(None if pd.isna(row[name]) else row[name] for name in names)
        found.setdefault(key, []).append(row)
    return found


def _order(value: Any) -> tuple[bool, bool, Any]:
    """Numbers before texts, what is missing last."""
    return value is None, isinstance(value, str), 0 if value is None else value


def _line(
    names: Sequence[str],
    key: Key,
    group: Sequence[Row],
    cell: Callable[[list[Row]], Cell],
    cost: bool,
) -> dict[str, Any]:
    """A line of the table: what it stands for, its cells, and what its runs have cost."""
    line = dict(zip(names, key, strict=True))
    line |= {str(name): cell(rows) for (name,), rows in grouped(group, ("column",)).items()}
    return line | (_cost(group) if cost else {})


def _made(lines: list[dict[str, Any]], cost: bool) -> pd.DataFrame:
    """The lines as a table; the column of marks only where there are any."""
    table = pd.DataFrame(lines)
    if not any(line[MARK] for line in lines):
        table = table.drop(columns=MARK, errors="ignore")
    costs = {n: table.pop(n) for n in COST if cost and n in table}
    exact = {n.replace("_", " "): c.convert_dtypes() for n, c in costs.items()}  # whole if they are
    return table.fillna("").assign(**exact)


def _cost(group: Sequence[Row]) -> dict[str, float]:
    """What the pretraining of these runs has cost, the mean where they are several.

    Steps, tokens that the encoder saw, FLOPs of encoder and decoder, and seconds; nothing for what
    is no run, and for runs of versions that recorded no costs.
    """
    runs = {row["run"]: row for row in group if row["model_kind"] == "run"}.values()
    return {name: mean_of(row[name] for row in runs) for name in COST}


# ---- cells


def newest(rows: Iterable[Row], names: Sequence[str] = ("model", "seed")) -> list[Row]:
    """The newest row of each model and evaluation seed, of rows that are equal in all else.

    One without a value takes no other's place.

    Args:
        rows: oldest first.
        names: the columns in which they may differ.
    """
    found = []
    for same in grouped(rows, names).values():
        done = [row for row in same if row["status"] == "ok"]
        found.append((done or same)[-1])
    return found


def _of_model(rows: Sequence[Row]) -> Cell:
    """The number of a model, the mean over seeds of the evaluation where there are several."""
    rows = newest(rows)
    done = [row for row in rows if row["status"] == "ok"]
    if len(rows) == 1 or not done:
        return cell_of(rows[-1])
    if len(done) == 1:
        return replace(cell_of(done[0]), num_runs=1)
    return _mean(done, "evaluation seeds")


def _of_models(rows: Sequence[Row]) -> Cell:
    """The mean over models, of which each counts once however often it was evaluated."""
    of_model = grouped(newest(rows), ("model",)).values()
    means = [{n: mean_of(row[n] for row in seeds) for n in NUMBERS} for seeds in of_model]
    several = len({row["settings"] for row in rows if not pd.isna(row["settings"])}) > 1
    unit = {"unit": rows[0]["unit"]}
    return _mean([unit | mean for mean in means], "runs" if several else "seeds")


def _mean(rows: Sequence[Row], over: str) -> Cell:
    """The mean over rows."""
    half, low, high = (
        mean_of(found)
        for found in (
            [(row["high"] - row["low"]) / 2 for row in rows if not pd.isna(row["low"])],
            [row["choice_low"] for row in rows],
            [row["choice_high"] for row in rows],
        )
    )
    values = [float(row["value"]) for row in rows]
    return Cell(
        statistics.fmean(values),
        unit=rows[0]["unit"],
        num_runs=len(rows),
        deviation=statistics.stdev(values) if len(rows) > 1 else None,
        over=over,
        half_width=None if pd.isna(half) else half,
        choice_low=None if pd.isna(low) else low,
        choice_high=None if pd.isna(high) else high,
        examples=records.examples_of(row.get("inputs") for row in rows),
    )


def mean_of(numbers: Iterable[Any]) -> float:
    """The mean of those that are there; NaN where none is."""
    found = [float(number) for number in numbers if not pd.isna(number)]
    return statistics.fmean(found) if found else math.nan
