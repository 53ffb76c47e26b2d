"""`maebench table`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maebench.cli.flags import option, results_option
from maebench.cli.values import OUT, Several, TableFormat

if TYPE_CHECKING:
    import pandas as pd

    from maebench.outputs import Report


@click.command("table")
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
    differs in anything that can change a number, such as the train images, stands apart.
    """
    from maebench.analysis.records import load_records
    from maebench.errors import ConfigError
    from maebench.pretraining import runs
    from maebench.report.notes import mixed
    from maebench.report.terminal import print_table, protocols

    if form == "parquet" and out is None:
        raise ConfigError("--format parquet writes a file: add --out FILE")
    folder = runs.results_folder(results)
    rows = load_records(folder)
    if rows.empty:
        raise ConfigError(f"no results in {folder}: start with `maebench run`, or name --results")
    table, notes, below = (rows, [], []) if tidy else arranged(rows, by, metric, cost)
    for note in [*mixed(rows), *notes]:
        click.echo(f"note: {note}", err=True)
    if form is not None or out is not None:
        write(table, form or "markdown", out, below)
    else:
        print_table(table)
        for line in [*below, protocols(rows)]:
            click.echo(line)


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
            click.echo(f"note: {line}", err=True)
    if form == "parquet" and out is not None:
        files.write(out, lambda beside: parquet(table, beside))
        return
    text = render(table, form, below).rstrip("\n")
    if out is not None:
        files.write_text(out, text + "\n")
    else:
        click.echo(text)
