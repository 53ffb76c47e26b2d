"""`maebench table`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maebench.cli.flags import option, results_option
from maebench.cli.values import OUT, Several, TableFormat
from maebench.errors import plain

if TYPE_CHECKING:
    import pandas as pd

    from maebench.outputs import Report


@click.command("table")
@click.argument("models", nargs=-1, metavar="[RUN]...")
@option("--dataset", metavar="NAME", help="rows of this data set, such as folder:birds")
@option(
    "--evaluation", type=Several(example="knn"), metavar="NAMES", help="rows of these evaluations"
)
@option(
    *("--format", "form"),
    type=TableFormat(),
    metavar="NAME",
    help="markdown, csv, latex, parquet, html or a plugin's",
    shown="for reading",
)
@option(
    "--by", type=Several(), metavar="COLUMNS", help="group runs by settings, such as masking,ratio"
)
@option("--metric", metavar="NAME", help="another than the main metric, such as knn/top1")
@option("--cost", is_flag=True, help="steps, tokens, FLOPs and seconds of pretraining beside")
@option("--tidy", is_flag=True, help="one row per metric with every column")
@option("--out", type=OUT, metavar="FILE", help="write to a file (parquet needs one)")
@results_option
def table_command(
    models: tuple[str, ...],
    dataset: str | None,
    evaluation: tuple[str, ...] | None,
    form: str | Report | None,
    by: tuple[str, ...] | None,
    metric: str | None,
    cost: bool,
    tidy: bool,
    out: Path | None,
    results: Path | None,
) -> None:
    """Print results as one table.

    A row is a model, a column an evaluation's main metric with its 95 % interval. With --by a row
    is a setting: the mean over its runs, their deviation, and the interval over test images. What
    differs in anything that can change a number, such as the train images, stands apart. RUN is a
    run's or another model's name, as the table has it, or its folder; all where none is named.

    \b
    Examples:
      maebench table
      maebench table RUN untrained:RUN --evaluation knn,linear-probe
      maebench table --dataset folder:birds --by masking,ratio
    """  # noqa: D301 - click wants the character \b itself
    from maebench.errors import ConfigError
    from maebench.pretraining import runs
    from maebench.report.notes import mixed
    from maebench.report.selection import selected
    from maebench.report.terminal import print_table, protocols, say

    if form == "parquet" and out is None:
        raise ConfigError("--format parquet writes a file: add --out FILE")
    folder = runs.results_folder(results)
    rows = rows_below(folder, models)
    if rows.empty:
        raise ConfigError(f"no results in {folder}: start with `maebench run`, or name --results")
    rows = selected(rows, models, dataset, evaluation)
    table, notes, below = (rows, [], []) if tidy else arranged(rows, by, metric, cost)
    for note in [*mixed(rows), *notes]:
        click.echo(plain(f"note: {note}"), err=True)
    if form is not None or out is not None:
        write(table, form or "markdown", out, below)
    else:
        print_table(table)
        for line in [*below, protocols(rows)]:
            say(line)


def rows_below(results: Path, models: Sequence[str]) -> pd.DataFrame:
    """All rows of a results folder, and of those that models lie in that are named by theirs."""
    import pandas as pd

    from maebench.analysis.records import load_records
    from maebench.files import with_home

    named = [with_home(name).resolve() for name in models]
    homes = [path.parents[1] for path in named if path.is_dir() and len(path.parts) > 2]
    others = [home for home in dict.fromkeys(homes) if home != results.resolve()]
    found = [load_records(place) for place in (results, *others)]
    return pd.concat([rows for rows in found if not rows.empty] or found[:1], ignore_index=True)


def arranged(
    rows: pd.DataFrame, by: tuple[str, ...] | None, metric: str | None, cost: bool
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """The table by models or by settings, notes on what it leaves out or mixes, its footnotes."""
    from maebench.report.footnotes import footnotes
    from maebench.report.notes import left_out, several_settings
    from maebench.report.table import by_model, by_settings, headlines

    if by:
        table = by_settings(rows, by, metric, cost)
        notes = [*left_out(rows, metric), *several_settings(rows, by, metric)]
    else:
        table = by_model(rows, metric, cost)
        notes = left_out(rows, metric, by=False)
    return table, notes, footnotes(headlines(rows, metric), table)


def write(table: pd.DataFrame, form: str | Report, out: Path | None, below: Sequence[str]) -> None:
    """Writes the table in a format, into a file or to standard output.

    Footnotes stand below what a person reads; beside data, and a report's text, they are notes.
    """
    from maebench import files
    from maebench.report.formats import FOOTED, parquet, render

    if form not in FOOTED:
        for line in below:
            click.echo(plain(f"note: {line}"), err=True)
    if form == "parquet" and out is not None:
        files.write(out, lambda beside: parquet(table, beside))
        return
    text = render(table, form, below).rstrip("\n")
    if out is not None:
        files.write_text(out, text + "\n")
    else:
        click.echo(text)
