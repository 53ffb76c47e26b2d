"""What a table leaves out, averages over, or could be taken to compare although it may not be."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from maebench.analysis.records import COST, FROM_CONFIG
from maebench.evaluating.records import CONTROLS
from maebench.report.apart import MARK, told_apart
from maebench.report.table import grouped, headlines, lines_by, newest


def several_settings(
    rows: pd.DataFrame, keys: Sequence[str], metric: str | None = None
) -> list[str]:
    """A note for each group of `by_settings` whose runs differ in more than their seed."""
    notes = []
    # neither what follows from others nor where settings come from is a difference
    names = set(FROM_CONFIG) - {"run_seed", "settings", "realised_ratio"}
    names -= {"recipe", "overrides", *COST}
    for values, group in lines_by(rows, keys, metric).items():
        runs = [row for row in group if row["model_kind"] == "run"]
        if len(grouped(runs, ("settings",)).keys() - {(None,)}) > 1:
            what = sorted(name for name in names if len(grouped(runs, (name,))) > 1)
            what = what or ["settings that are no column: see their config.json"]
            # a line without a mark has an empty one
            name = ", ".join("none" if v is None else str(v) for v in values if v != "")
            notes.append(f"{name}: its runs differ in {', '.join(what)}")
    return notes


def left_out(rows: pd.DataFrame, metric: str | None = None, by: bool = True) -> list[str]:
    """A note for each evaluation whose rows without a value a mean leaves out.

    A run without any value in a column is counted; of others their seeds without one are named.

    Args:
        rows: of `load_records`.
        metric: another than the main metric.
        by: whether the mean is over runs, of `by_settings`, or over seeds of the evaluation of one
            model, of `by_model`.
    """
    shown = headlines(rows, metric)
    told = told_apart(shown, all_metrics=metric is not None)
    apart = newest(told, ["model", "dataset", MARK, "column", "seed"])
    if by:
        apart = [row for row in apart if row["model_kind"] == "run"]
    seeds_of, missing = [], []
    for (model, column, *_), group in grouped(apart, ("model", "column", "dataset", MARK)).items():
        bad = [row for row in group if row["status"] != "ok"]
        if len(bad) == len(group):
            missing += bad
        elif bad:
            seeds = ", ".join(str(row["seed"]) for row in bad)
            seeds_of.append(f"{column} of {model}: evaluation seed {seeds} has no value")
    notes = []
    for (name,), group in sorted(grouped(missing, ("evaluation",)).items()):
        states = ", ".join(sorted({row["status"] for row in group}))
        count = len({row["model"] for row in group})
        who = "1 run has" if count == 1 else f"{count} runs have"
        notes.append(f"{name}: {who} no value ({states})")
    return [*(notes if by else []), *seeds_of]


def mixed(rows: pd.DataFrame) -> list[str]:
    """What is not comparable: versions of an evaluation, contents of a data set, weights."""
    notes = []
    columns = (
        ("evaluation_version", ["evaluation"]),
        ("dataset_fingerprint", ["dataset"]),
        ("train_examples", ["dataset"]),
        ("train_fingerprint", ["dataset", "train_examples"]),
        ("precision", ["dataset"]),
        ("weights_hash", ["model"]),
    )
    for what, keys in columns:
        of = rows[~rows["model_kind"].isin(CONTROLS)] if what == "weights_hash" else rows
        for names, group in of.groupby(keys):
            found = group[what].dropna().unique()
            if len(found) > 1:
                several = ", ".join(
                    f"{v:.0f}" if isinstance(v, float) else str(v) for v in sorted(found)
                )
                notes.append(f"{names[0]}: {what.replace('_', ' ')} {several} are not comparable")
    for name, group in rows.groupby("dataset"):
        earlier = group["weights_hash"].isna()
        if earlier.any() and not earlier.all():
            files = list(dict.fromkeys(str(file) for file in group["file"][earlier]))
            others = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
            # a new record has another name: the earlier one would stay beside it
            notes.append(
                f"{name}: records of earlier versions do not say of which train images and weights "
                "they are; evaluate again by `maebench eval NAME MODEL`, then delete the earlier "
                f"{files[0]}{others}"
            )
    main = rows[rows["main"].astype(bool) & (rows["status"] == "ok")]
    for (who, metric), group in main.groupby(["evaluation", "metric"]):
        spaces = sorted({str(w["space"]) for w in group["where"] if "space" in w})
        if len(spaces) > 1:
            notes.append(
                f"{who} {metric}: errors in {', '.join(spaces)} are not comparable; psnr is, "
                "where there are pixels"
            )
    return notes
