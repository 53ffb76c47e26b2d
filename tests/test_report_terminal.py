"""Tables at a terminal: what a cell looks like, and what a wide table becomes."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from rich.console import Console

from maebench import Cell
from maebench.report import printed, terminal


def test_a_cell_is_text_a_number_or_nothing(capsys):
    table = pd.DataFrame(
        {
            "a": ["[x]", Cell(0.5, unit="%", choice_low=0.48, choice_high=0.51)],
            "b": [1234567.0, None],
            "c": [1234, 0],
        }
    )
    table["where"] = [{"k": 5}, {}]
    terminal.print_table(table)
    out = capsys.readouterr().out
    for text in ("[x]", "50.0 choice 48.0-51.0", "1.23457e+06", "1,234", "{'k': 5}"):
        assert f" {text} " in out
    assert "nan" not in out and "None" not in out


@pytest.mark.parametrize(("width", "bands"), [(200, 1), (60, 2), (10, 2)])
def test_a_narrow_terminal_has_a_wide_table_in_parts_and_all_of_it(width, bands):
    columns = {f"inverse-block {at / 10}": [f"{at / 10:.3f}*"] for at in range(1, 7)}
    table = pd.DataFrame({"model": ["a"], "trained with": ["random 0.75"], **columns})
    found = list(terminal.bands(table.set_index(["model", "trained with"]), width))
    assert len(found) == bands
    assert {tuple(band.columns[:2]) for band in found} == {("model", "trained with")}
    heads = [f"inverse-\nblock\n{at / 10}" for at in range(1, 7)]
    assert [c for band in found for c in band.columns[2:]] == heads
    cells = [cell for band in found for cell in band.iloc[0, 2:]]
    assert cells == [f"{at / 10:.3f}*" for at in range(1, 7)]


def test_a_table_without_an_index_is_one_too():
    (band,) = terminal.bands(pd.DataFrame({"a b": [0.5], "c": [Cell(0.5)]}), 80)
    assert list(band.columns) == ["a\nb", "c"]


def narrow(monkeypatch, columns):
    """What is printed goes to a terminal of so many columns."""
    console = Console(width=columns, highlight=False, markup=False, force_terminal=False)
    monkeypatch.setattr(printed, "console", lambda: console)


TABLE = pd.DataFrame(
    {
        "model": ["digits-vit-nano-mae-random-0.75-s0-a1b2c3d4e5", "pixels:folder:birds"],
        "linear-probe top1 (%)": [Cell(0.911, 0.902, 0.92, "%"), Cell(None, status="failed")],
        "reconstruction r2": [Cell(-0.5, -0.625, 0.25), Cell(0.8125, 0.75, 0.875)],
        "steps": [1234567, 3],
        "lr": [1e-05, 0.00123456],
    }
)
NUMBERS = ("91.1", "90.2", "92.0", "-0.500", "-0.625", "0.812", "1,234,567", "1e-05", "0.00123456")


@pytest.mark.parametrize("columns", [200, 120, 100, 80, 60, 40, 30])
def test_no_number_is_broken_however_narrow_the_terminal_is(monkeypatch, capsys, columns):
    narrow(monkeypatch, columns)
    terminal.print_table(TABLE)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= columns
    words = {word.strip("[],") for word in re.split(r"[\s│]+", out)}
    assert set(NUMBERS) <= words
    # nothing is left out
    plain = re.sub(r"[^A-Za-z0-9.]", "", out)
    assert "failed" in plain and "s0" in plain


def test_a_terminal_that_is_too_narrow_for_a_table_has_it_row_by_row(monkeypatch, capsys):
    narrow(monkeypatch, 40)
    terminal.print_table(TABLE)
    assert capsys.readouterr().out.splitlines()[:10] == [
        "model                 digits-vit-nano-",
        "                      mae-random-0.75-",
        "                      s0-a1b2c3d4e5",
        "linear-probe top1     91.1 [90.2, 92.0]",
        "(%)",
        "reconstruction r2     -0.500 [-0.625,",
        "                      0.250]",
        "steps                 1,234,567",
        "lr                    1e-05",
        "",
    ]
