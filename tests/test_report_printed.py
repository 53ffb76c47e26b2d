"""How a terminal shows lines and tables."""

from __future__ import annotations

import json
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from maebench.report import printed
from maebench.report.printed import Line, Sheet


def test_output_that_is_no_terminal_is_not_cut_off():
    assert printed.console().width == printed.WIDE


@given(st.text("ab -/_:=.0129e", max_size=60), st.integers(12, 40))
def test_folded_text_is_the_same_text_and_no_word_that_fits_is_broken(text, width):
    folded = printed._folded(text, width, anywhere=False)
    assert folded.split() == text.split()
    folded = printed._folded(text, width, anywhere=True)
    assert "".join(folded.split()) == "".join(text.split())
    assert all(len(line) <= width for line in folded.split("\n"))


def test_a_line_is_whole_in_a_file_and_broken_between_words_at_a_terminal(monkeypatch, capsys):
    text = "means over images with 95 % intervals: " * 8
    Line(text).show()
    assert capsys.readouterr().out.rstrip() == text.rstrip()
    narrow = Console(width=40, highlight=False, markup=False, force_terminal=False)
    monkeypatch.setattr(printed, "console", lambda: narrow)
    monkeypatch.setattr(printed.sys.stdout, "isatty", lambda: True, raising=False)
    Line(text).show()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40 and " ".join(lines).split() == text.split()
    Line("results   /" + "a" * 60, whole=True).show()
    assert capsys.readouterr().out == "results   /" + "a" * 60 + "\n"


def test_what_was_kept_as_json_is_shown_alike(capsys):
    sheet = Sheet(["model", "top1 (%)"], [["a-b", "81.9 [80.1, 83.6]"]], [True, False])
    for part in (Line("digits, [x]", style="bold", whole=True), sheet):
        part.show()
        first = capsys.readouterr().out
        type(part)(**json.loads(json.dumps(asdict(part)))).show()
        assert capsys.readouterr().out == first != ""
