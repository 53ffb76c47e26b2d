"""`maebench table`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from maebench.cli.flags import results_option

if TYPE_CHECKING:
    import pandas as pd

    from maebench.outputs import Report


@click.command("table")
@click.option(
    "--format",
    "form",
    metavar="NAME",
    help="markdown, csv, latex, parquet, html or a plugin's  [default: for reading]",
)
@click.option("--by", metavar="COLUMNS", help="group runs by settings, such as masking,ratio")
@click.option("--metric", metavar="NAME", help="another than the main metric, such as knn/top1")
@click.option("--cost", is_flag=True, help="steps, tokens, FLOPs and seconds of pretraining beside")
@click.option("--tidy", is_flag=True, help="one row per metric with every column")
@click.option("--out", metavar="FILE", help="write to a file (parquet needs one)")
@results_option
def table_command(
    form: str | None,
    by: str | None,
    metric: str | None,
    cost: bool,
    tidy: bool,
    out: str | None,
    results: str | None,
) -> None:
    """Print results as one table.

    A row is a model, a column an evaluation's main metric with its 95 % interval. With --by a row
    is a setting: the mean over its runs, the spread over seeds and over test images.
    """
    from maebench.analysis.records import load_records
    from maebench.errors import ConfigError
    from maebench.pretraining import runs
    from maebench.report.table import (
        by_model,
        by_settings,
        left_out,
        mixed,
        several_settings,
        with_cost,
    )

    chosen = None if form is None else chosen_format(form)
    if form == "parquet" and out is None:
        raise ConfigError("--format parquet writes a file: add --out FILE")
    folder = runs.results_folder(results)
    rows = load_records(folder)
    if rows.empty:
        raise ConfigError(f"no results in {folder}: start with `maebench run`, or name --results")
    notes = mixed(rows)
    if tidy:
        table = rows
    elif by:
        keys = [key.strip() for key in by.split(",")]
        table = by_settings(rows, keys, metric)
        notes += [*left_out(rows, metric), *several_settings(rows, keys)]
    else:
        table = by_model(rows, metric)
    if cost and not tidy:  # a tidy table has every column
        table = with_cost(table, rows)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if chosen is not None or out is not None:
        write(table, chosen or "markdown", out)
    else:
        from maebench.report.terminal import print_table, protocols

        print_table(table)
        click.echo(protocols(rows))


def chosen_format(form: str) -> str | Report:
    """A built-in format's name, or the report of a plugin, for which alone plugins are loaded.

    Raises:
        ConfigError: no such format.
    """
    from maebench.errors import ConfigError, unknown
    from maebench.outputs import FORMATS, Report

    if form in FORMATS:
        return form
    from maebench.component import parse
    from maebench.plugins import installed

    names = installed()
    if form not in names.table["report"]:
        raise ConfigError(unknown("format", form, [*FORMATS, *names.table["report"]], "--format"))
    report: Report = parse(Report, form, names.context(), "--format")
    return report


def write(table: pd.DataFrame, form: str | Report, out: str | None) -> None:
    """Writes the table in a format, into a file or to standard output."""
    from maebench import files
    from maebench.report.table import parquet, render

    if form == "parquet" and out is not None:
        files.write(Path(out), lambda beside: parquet(table, beside))
        return
    text = render(table, form).rstrip("\n")
    if out is not None:
        files.write_text(Path(out), text + "\n")
    else:
        click.echo(text)
