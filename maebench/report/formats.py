"""A table as Markdown, CSV, LaTeX, HTML or Parquet, or by a report."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from maebench.errors import ConfigError, MaebenchError, unknown
from maebench.outputs import FORMATS, Cell, Report

FOOTED = ("markdown", "latex", "html")  # formats that have footnotes below the table


def render(table: pd.DataFrame, form: str | Report, below: Sequence[str] = ()) -> str:
    """The table as text, in one of FORMATS or by a report.

    Args:
        table: to render.
        form: one of FORMATS but parquet, or a report.
        below: footnotes, for the formats in FOOTED.

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
        return "\n\n".join([table.to_markdown(index=False), *map(_plain_markdown, below)])
    if form == "latex":
        text = table.to_latex(index=False, escape=True)
        return text + "".join(f"\\\\ {_latex(line)}\n" for line in below)
    if form == "html":
        text = table.to_html(index=False, escape=True)
        return text + "".join(f"\n<p>{html.escape(line)}</p>" for line in below)
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


def _plain_markdown(line: str) -> str:
    """A line in which a name's underscore or star is no emphasis."""
    return re.sub(r"([_*<\[\]`])", r"\\\1", line)


def _latex(line: str) -> str:
    """A line whose special characters are escaped as pandas escapes those of cells."""
    return re.sub(r"([&%$#_{}])", r"\\\1", line)
