"""Tables at a terminal: what a cell looks like, and what a wide table becomes."""

from __future__ import annotations

import pandas as pd
import pytest

from maebench import Cell
from maebench.report import terminal


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


def test_output_that_is_no_terminal_is_not_cut_off():
    assert terminal.console().width == terminal.WIDE
