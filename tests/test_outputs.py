"""How a number of the table is printed."""

from __future__ import annotations

import pytest

from maebench.outputs import Cell, in_unit


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(0.819, 0.801, 0.836, "%"), "81.9 [80.1, 83.6]"),
        (Cell(0.819, unit="%"), "81.9"),
        (Cell(12.3456, 12.0, 13.0, "dB"), "12.346 [12.000, 13.000]"),
        (Cell(-0.05), "-0.050"),
        (Cell(None, status="failed"), "failed"),
        (Cell(None, unit="%", status="not applicable"), "not applicable"),
        (Cell(0.75, unit="%", num_runs=1), "75.0 (n=1)"),
        (
            Cell(0.75, unit="%", num_runs=2, deviation=0.0707, half_width=0.025),
            "75.0 ±7.1 seeds (n=2) ±2.5 images",
        ),
        (Cell(0.75, num_runs=3, deviation=0.1, over="runs"), "0.750 ±0.100 runs (n=3)"),
        (
            Cell(0.919, 0.887, 0.943, "%", choice_low=0.914, choice_high=0.925),
            "91.9 [88.7, 94.3] choice 91.4-92.5",
        ),
        (Cell(0.9, unit="%", choice_low=0.9, choice_high=0.9), "90.0"),
        (Cell(0.9, unit="%", choice_low=0.9, choice_high=0.90001), "90.0"),
        (Cell(0.1, choice_low=-0.2, choice_high=0.1), "0.100 choice -0.200 to 0.100"),
    ],
)
def test_a_number_is_printed_in_its_unit_with_how_sure_it_is_or_says_why_it_is_missing(cell, text):
    assert str(cell) == text


def test_shares_are_printed_in_per_cent_and_a_sign_where_it_is_asked_for():
    assert (in_unit(0.5, "%"), in_unit(0.5, "dB")) == ("50.0", "0.500")
    assert (in_unit(0.5, "%", "+"), in_unit(-0.5, "", "+")) == ("+50.0", "-0.500")
