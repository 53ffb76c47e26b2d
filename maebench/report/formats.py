"""A table as Markdown, CSV, LaTeX, HTML or Parquet, or by a report."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from maebench.errors import ConfigError, MaebenchError, plain, unknown
from maebench.outputs import FORMATS, Cell, Report

FOOTED = ("markdown", "latex", "html")  # formats that have footnotes below the table
# What a spreadsheet takes for a formula: text that begins with one of these, in full-width and
# small forms too, behind blanks and quotes (OWASP, CSV injection); and behind a semicolon, by which
# spreadsheets of half of Europe part cells.
_FORMULA = re.compile(r"(^|;)([\s'\"]*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b])")
# What begins or ends something in Markdown: marks anywhere, a backslash before a mark, "&amp;", a
# tag's angle, brackets with more in them than numbers or with a target, the first mark of a line.
_MARKDOWN = re.compile(
    r"[`*_|~$]|\\(?=[!-/:-@\[-`{-~]|$)|&(?=#?\w+;)|<(?=[A-Za-z/!?])"
    r"|\[(?![-+\d.,\s]*\])|\](?=[(\[:])|^\s*[#>+=-](?![\d.])"
)
_LATEX = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
}
_LATEX_MARKS = re.compile(r"[&%$#_{}\\~^]")
_AFTER_ROW = re.compile(r"^\s*[\[*]")  # what the \\ at the end of the row before would take


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
        return csv(table)
    if form == "markdown":
        return "\n\n".join([markdown(table), *map(as_markdown, below)])
    if form == "latex":
        # pandas escapes neither footnotes nor what a row's end takes for its own
        text = _filled(escaped(table, as_latex)).to_latex(index=False, escape=False)
        return text + "".join(f"\\\\ {as_latex(line)}\n" for line in below)
    if form == "html":
        with pd.option_context("display.max_colwidth", None):  # a name is shown whole
            text = _filled(escaped(table, plain)).to_html(index=False, escape=True)
        return text + "".join(f"\n<p>{html.escape(plain(line))}</p>" for line in below)
    raise ConfigError(unknown("format", form, FORMATS, "--format"))


def csv(table: pd.DataFrame) -> str:
    """The table as CSV in which no text and no head is a formula."""
    return escaped(table, no_formula).to_csv(index=False)


def markdown(table: pd.DataFrame, index: bool = False) -> str:
    """The table as Markdown in which texts and heads are text.

    Args:
        table: to render.
        index: whether its index stands beside it.
    """
    if index:
        table = table.set_axis([as_markdown(str(name)) for name in table.index], axis=0)
    return _filled(escaped(table, as_markdown)).to_markdown(index=index)


def escaped(table: pd.DataFrame, escape: Callable[[str], str]) -> pd.DataFrame:
    """The table as it is printed, its texts and heads escaped; numbers of ours are not."""
    texts = table.map(lambda cell: escape(str(cell)) if isinstance(cell, str | dict) else cell)
    return printed(texts).set_axis([escape(str(name)) for name in table.columns], axis=1)


def _filled(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an empty text where there is nothing: it is no number."""
    return table.astype(object).where(table.notna(), "")


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


def no_formula(text: str) -> str:
    """Text with a quote before what a spreadsheet would run as a formula."""
    return _FORMULA.sub(r"\1\2'", plain(text))


def as_markdown(text: str) -> str:
    """Text that means nothing to Markdown: no emphasis, link, tag, code, formula, new cell."""

    def escape(found: re.Match[str]) -> str:
        before, mark = found[0][:-1], found[0][-1]
        return f"{before}&amp;" if mark == "&" else f"{before}\\{mark}"

    return _MARKDOWN.sub(escape, plain(text))


def as_latex(text: str) -> str:
    """Text that means nothing to LaTeX."""
    shown = _LATEX_MARKS.sub(lambda found: _LATEX[found[0]], plain(text))
    return _AFTER_ROW.sub(lambda found: f"{{{found[0]}}}", shown)
