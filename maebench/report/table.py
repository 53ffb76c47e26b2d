"""The table: one row per model, one column per evaluation, every number with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from maebench.analysis.records import COST, FROM_CONFIG
from maebench.analysis.stats import paired_difference
from maebench.errors import ConfigError, MaebenchError, unknown
from maebench.evaluating import records
from maebench.evaluating.intervals import Interval
from maebench.outputs import FORMATS, Cell, Report

# How a kind of model is called in the table that `maebench run` prints.
LABELS = {"run": "pretrained", "untrained": "untrained", "pixels": "raw pixels"}


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
    picked = chosen["where"].map(lambda w: bool(w.get("chosen")))
    grids = chosen.groupby(["model", "evaluation", "options"])["where"].transform(
        lambda w: any(x.get("chosen") for x in w)
    )
    return chosen[picked | ~grids.astype(bool)]


def cell_of(row: Mapping[Any, Any]) -> Cell:
    """The number of a row with its interval, or why there is none."""
    if row["status"] != "ok":
        return Cell(None, unit=row["unit"], status=str(row["status"]))
    low, high = (None if pd.isna(row[end]) else float(row[end]) for end in ("low", "high"))
    return Cell(float(row["value"]), low, high, row["unit"])


def column(row: Mapping[Any, Any], all_metrics: bool) -> str:
    """An evaluation's column: its name, options that are not default, metric and unit."""
    where = ", ".join(f"{k}={v}" for k, v in row["where"].items() if k not in ("chosen", "edge"))
    name = row["options"] + (f" {where}" if all_metrics and where else "")
    return f"{name} {row['metric']}" + (f" ({row['unit']})" if row["unit"] else "")


def by_model(rows: pd.DataFrame, metric: str | None = None) -> pd.DataFrame:
    """One row per model and data set, one column per evaluation, the newest number of each."""
    shown = headlines(rows, metric).sort_values("created", kind="stable")
    cells: dict[tuple[str, str], dict[str, Cell]] = {}
    for row in shown.to_dict("records"):
        line = cells.setdefault((row["model"], row["dataset"]), {})
        line[column(row, metric is not None)] = cell_of(row)
    table = pd.DataFrame([{"model": m, "dataset": d, **c} for (m, d), c in cells.items()])
    return table.fillna("")


def with_cost(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The table with what the pretraining of each row has cost, the mean where it is several runs.

    Steps, tokens that the encoder saw, FLOPs of encoder and decoder, and seconds; empty for what
    is no run, and for runs of versions that recorded no costs.
    """
    runs = rows[rows["model_kind"] == "run"].drop_duplicates("run")
    keys = [name for name in table.columns if name in runs.columns]
    # the table has empty texts where a setting is not set
    texts = {k: runs[k].astype(object).where(runs[k].notna(), "") for k in keys}
    numbers = {name: pd.to_numeric(runs[name]) for name in COST}
    means = runs.assign(**texts, **numbers).groupby(keys)[list(COST)].mean()
    found = table.astype(dict.fromkeys(keys, object)).merge(
        means.reset_index().astype(dict.fromkeys(keys, object)), on=keys, how="left"
    )
    exact = {name: found[name].convert_dtypes() for name in COST}  # whole where they are
    return found.assign(**exact).rename(columns={n: n.replace("_", " ") for n in COST})


def by_settings(rows: pd.DataFrame, keys: Sequence[str], metric: str | None = None) -> pd.DataFrame:
    """One row per setting: the mean over runs, their deviation, and how sure each of them is.

    A cell reads `81.9 ±0.8 seeds (n=3) ±1.7 images`: the standard deviation over runs and the mean
    half width of their 95 % intervals. Where runs differ in more than their seed it says runs, and
    `several_settings` says in what. Models of other kinds than runs have no settings to group.
    Data sets are never mixed: their name is always a key. `left_out` counts what is not in it.

    Raises:
        ConfigError: a key that is no column.
    """
    allowed = [c for c in (*records.COLUMNS, *FROM_CONFIG) if c != "where"]  # dicts
    for key in keys:
        if key not in allowed:
            raise ConfigError("--by: " + unknown("column", key, allowed))
    keys = [*keys, *({"dataset"} - set(keys))]
    runs = headlines(rows, metric)
    runs = runs[runs["status"] == "ok"]
    if not {"model", "model_kind"} & set(keys):
        runs = runs[runs["model_kind"] == "run"]
    table = []
    for values, group in runs.groupby(list(keys), dropna=False):
        line: dict[str, Any] = dict(zip(keys, values, strict=True))
        named = group.apply(lambda r: column(r, metric is not None), axis=1)
        for name, cell in group.groupby(named):
            newest = cell.sort_values("created").drop_duplicates("model", keep="last")
            line[str(name)] = _mean(newest)
        table.append(line)
    return pd.DataFrame(table).fillna("")


def several_settings(rows: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """A note for each group of `by_settings` whose runs differ in more than their seed."""
    keys = [*keys, *({"dataset"} - set(keys))]
    notes = []
    for values, group in rows[rows["model_kind"] == "run"].groupby(keys, dropna=False):
        if group["settings"].nunique() > 1:
            # neither what follows from others nor where settings come from is a difference
            names = set(FROM_CONFIG) - {"run_seed", "settings", "realised_ratio"}
            names -= {"recipe", "overrides", *COST}
            what = sorted(c for c in names if group[c].nunique(dropna=False) > 1)
            what = what or ["settings that are no column: see their config.json"]
            name = ", ".join("none" if v != v else str(v) for v in values)  # NaN is not itself
            notes.append(f"{name}: its runs differ in {', '.join(what)}")
    return notes


def left_out(rows: pd.DataFrame, metric: str | None = None) -> list[str]:
    """A note for each evaluation whose rows without a value `by_settings` cannot average."""
    shown = headlines(rows, metric)
    missing = shown[(shown["status"] != "ok") & (shown["model_kind"] == "run")]
    return [
        f"{name}: {len(group)} runs have no value ({', '.join(sorted(group['status'].unique()))})"
        for name, group in missing.groupby("evaluation")
    ]


def _mean(runs: pd.DataFrame) -> Cell:
    """The mean over runs, of one row each."""
    several = len(runs) > 1
    half = (runs["high"] - runs["low"]).mean() / 2
    return Cell(
        float(runs["value"].mean()),
        unit=runs["unit"].iloc[0],
        num_runs=len(runs),
        deviation=float(runs["value"].std()) if several else None,
        over="seeds" if runs["settings"].nunique() <= 1 else "runs",
        half_width=None if pd.isna(half) else float(half),
    )


def differences(rows: pd.DataFrame, model: str, other: str) -> list[tuple[str, Interval, str]]:
    """Paired differences of the main metrics, model minus other: (column, interval, unit)."""
    main = headlines(rows)
    found = []
    for row in main[main["model"] == model].to_dict("records"):
        same = main[(main["model"] == other) & (main["options"] == row["options"])]
        if same.empty or row["status"] != "ok" or same.iloc[0]["status"] != "ok":
            continue
        if row["where"].get("space") != same.iloc[0]["where"].get("space"):
            continue  # `mixed` says so
        mine, theirs = (records.values(Path(r["file"]), r) for r in (row, same.iloc[0].to_dict()))
        if mine is not None and theirs is not None:
            found.append((column(row, False), paired_difference(*mine, *theirs), row["unit"]))
    return found


def mixed(rows: pd.DataFrame) -> list[str]:
    """What a table would mix: several versions of an evaluation, or contents of a data set."""
    notes = []
    for what, key in (("evaluation_version", "evaluation"), ("dataset_fingerprint", "dataset")):
        for name, group in rows.groupby(key):
            if group[what].nunique() > 1:
                several = ", ".join(map(str, sorted(group[what].unique())))
                notes.append(f"{name}: {what.replace('_', ' ')} {several} are not comparable")
    main = rows[rows["main"].astype(bool) & (rows["status"] == "ok")]
    for (who, metric), group in main.groupby(["evaluation", "metric"]):
        spaces = sorted({str(w["space"]) for w in group["where"] if "space" in w})
        if len(spaces) > 1:
            notes.append(
                f"{who} {metric}: errors in {', '.join(spaces)} are not comparable; psnr is, "
                "where there are pixels"
            )
    return notes


def render(table: pd.DataFrame, form: str | Report) -> str:
    """The table as text, in one of FORMATS or by a report.

    Raises:
        ConfigError: no such format.
    """
    if isinstance(form, Report):
        return str(form.render(table))
    if form == "csv":
        return printed(table.map(_no_formula)).to_csv(index=False)
    table = printed(table)
    table = table.astype(object).where(table.notna(), "")  # what is not there is no number
    if form == "markdown":
        return table.to_markdown(index=False)
    if form == "latex":
        return table.to_latex(index=False, escape=True)
    if form == "html":
        return table.to_html(index=False, escape=True)
    raise ConfigError(unknown("format", form, FORMATS, "--format"))


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the printed form of each cell; other columns stay as they are."""
    texts = {
        name: [str(cell) if isinstance(cell, Cell) else cell for cell in table[name]]
        for name in table.columns
        if table[name].map(lambda cell: isinstance(cell, Cell)).any()
    }
    return table.assign(**texts)


def parquet(table: pd.DataFrame, path: Path) -> None:
    """The table as a Parquet file.

    Raises:
        MaebenchError: pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MaebenchError("parquet needs pyarrow: pip install 'maebench[parquet]'") from error
    # a column of dicts is no type Parquet knows: they go as text
    texts = {c: table[c].map(str) for c in table.columns if c == "where"}
    printed(table).assign(**texts).to_parquet(path)


def _no_formula(cell: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets a quote before it; no number does."""
    formula = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@"))
    return f"'{cell}" if formula else cell
