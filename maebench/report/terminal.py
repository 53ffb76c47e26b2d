"""The table as a person at a terminal reads it."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table

from maebench.pretraining.plan import Plan
from maebench.report.table import LABELS, column, differences, headlines, mixed, number

PIXELS = (
    "Raw pixels are the control without an encoder: small centred pictures such as digits lie so "
    "close together in pixels that they are hard to beat; what pretraining taught the encoder is "
    "its distance to the untrained one."
)
WIDE = 200  # columns where the output is no terminal: nothing is cut off


def console() -> Console:
    """Standard output, wide where it is a file or a pipe."""
    # a name with [brackets] is a name and no markup
    out = Console(highlight=False, markup=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, width=WIDE)


def print_table(table: pd.DataFrame) -> None:
    """Prints a table of texts."""
    shown = Table()
    for name in table.columns:
        shown.add_column(str(name), overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*(_readable(cell) for cell in row))
    console().print(shown)


def _readable(cell: object) -> str:
    """Text as it is; a number with commas and six digits, nothing for one that is not there."""
    if isinstance(cell, str):
        return cell
    if pd.isna(cell):  # type: ignore[call-overload]
        return ""
    return f"{cell:,.6g}" if isinstance(cell, float) else f"{cell:,}"


def print_run(rows: pd.DataFrame, plan: Plan) -> None:
    """Prints what `maebench run` ends with: table, differences, how to read it, what is next."""
    config, say = plan.config, console().print
    models = list(dict.fromkeys(rows["model"]))
    main = headlines(rows)
    parts = [config.dataset.changed(), config.encoder.changed(), config.objective.changed()]
    if config.objective.hides:
        moved = config.schedule.ratio is not None
        ratio = config.ratio_text if moved else f"{plan.run.facts['realised_ratio']:.4g}"
        parts.append(f"{config.masking.changed()} {ratio}")
    say(", ".join([*parts, f"seed {config.seed}"]), style="bold")
    lines = [
        {
            "model": LABELS[mine[0]["model_kind"]],
            **{column(row, False): number(row) for row in mine},
        }
        for mine in (main[main["model"] == model].to_dict("records") for model in models)
        if mine
    ]
    if lines:
        print_table(pd.DataFrame(lines).fillna(""))
        say("Values are means over test images with 95 % bootstrap intervals.")
        say_differences(rows, models[0], models[1])
        if ((main["model_kind"] == "pixels") & (main["status"] == "ok")).any():
            say(PIXELS)
    say_gaps(rows)
    for line in [*edges(rows), *(f"note: {note}" for note in mixed(rows))]:
        say(f"  {line}")
    for row in rows[rows["skipped"] > 0].drop_duplicates("dataset").to_dict("records"):
        say(f"  {row['skipped']} unreadable images were left out: see skipped in config.json")
    say(protocols(rows))
    say(f"results   {plan.run.folder}")
    say("pictures  " + str(plan.run.folder / "pictures"))
    other = "--masking block" if config.objective.hides else "--objective mae"
    say(f"next      maebench table    maebench eval linear-probe    maebench run {other}")


def say_differences(rows: pd.DataFrame, model: str, other: str) -> None:
    """Prints the paired difference of each main metric, pretrained minus untrained."""
    for name, interval, unit in differences(rows, model, other):
        scale, digits = (100, 1) if unit == "%" else (1, 3)
        value, low, high = (v * scale for v in (interval.value, interval.low, interval.high))
        verdict = "" if low > 0 or high < 0 else ": no difference shown"
        console().print(
            f"  pretrained - untrained, {name}: {value:+.{digits}f} "
            f"[{low:+.{digits}f}, {high:+.{digits}f}] paired{verdict}"
        )


def say_gaps(rows: pd.DataFrame) -> None:
    """Prints which numbers are missing and why, equal reasons together."""
    gaps = rows[rows["status"] != "ok"]
    for (evaluation, status, reason), group in gaps.groupby(
        ["evaluation", "status", "reason"], sort=False
    ):
        kinds = ", ".join(LABELS.get(kind, kind) for kind in group["model_kind"].unique())
        # where the main metric is there, only some of the others are missing
        some = "" if group["main"].any() else " " + ", ".join(group["metric"].unique())
        console().print(f"  {evaluation}{some} of {kinds}: {status}: {reason}")


def protocols(rows: pd.DataFrame) -> str:
    """Which protocols and versions the numbers are of, in the order of their columns."""
    said = rows["protocol"].dropna() if "protocol" in rows else pd.Series(dtype=str)
    return "protocols " + ", ".join(dict.fromkeys(said))


def edges(rows: pd.DataFrame) -> list[str]:
    """A warning for each winner that lies on the edge of its grid."""
    found = []
    for row in rows[rows["main"].astype(bool)].to_dict("records"):
        if row["where"].get("edge"):
            at = ", ".join(
                f"{k}={v}" for k, v in row["where"].items() if k not in ("chosen", "edge")
            )
            found.append(
                f"warning: {row['evaluation']} of {row['model']}: the choice made on train, {at}, "
                "lies on the edge of the grid that was tried: widen it with -o"
            )
    return found
