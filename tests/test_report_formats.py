"""A name in a table, in whatever format, is text: no formula, no markup, no other cell."""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from html.parser import HTMLParser

import pandas as pd
import pytest
from hostile import NAMES, TEXTS
from hypothesis import given
from markdown_it import MarkdownIt

from maebench.errors import plain
from maebench.outputs import Cell
from maebench.report import formats

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NUMBER = Cell(-0.101, -0.106, -0.096)


def table(name):
    """A name as text of a cell, as a head and in what an evaluation says of its rows."""
    return pd.DataFrame({"model": [name, "b"], name: [NUMBER, 1.5], "where": [{"k": name}, {}]})


NAMES = [name for name in NAMES if "\udce9" not in name]  # pandas holds no halves of surrogates


def rows(name, form, below=()):
    return formats.render(table(name), form, below)


# --- CSV


# "=", "+", "-", "@", in full-width and small forms too
BEGINS = {
    c
    for c in map(chr, range(0x10000))
    if re.match("^(<wide>|<small>) 00(3D|2B|2D|40)$", unicodedata.decomposition(c)) or c in "=+-@"
}


def starts_a_formula(text):
    """Whether a spreadsheet may take a text for a formula, by whatever it parts cells with."""
    for part in re.split("[;\t\r\n]", text):
        left = part.lstrip("'\"" + "".join(c for c in part if c.isspace()))
        if left[:1] in BEGINS and not part[: len(part) - len(left)].endswith("'"):
            return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_no_text_of_a_csv_file_is_a_formula(name):
    head, first, second = csv.reader(io.StringIO(rows(name, "csv")))
    assert not any(map(starts_a_formula, (*head, first[0], first[2])))
    assert first[1] == str(NUMBER) and second[:2] == ["b", "1.5"]
    assert first[0].replace("'", "") == plain(name).replace("'", "")  # and nothing is lost


@given(TEXTS)
def test_of_any_text_no_part_is_a_formula_and_it_is_one_cell(text):
    shown = formats.no_formula(text)
    assert not starts_a_formula(shown)
    file = io.StringIO(formats.csv(pd.DataFrame({"a": [plain(text)], "b": ["x"]})))
    assert list(csv.reader(file)) == [["a", "b"], [shown, "x"]]


def test_a_number_of_ours_is_no_formula():
    found = formats.csv(pd.DataFrame({"a": [-1, 2], "b": [-0.5, None], "c": [NUMBER, NUMBER]}))
    assert found.splitlines()[1] == '-1,-0.5,"-0.101 [-0.106, -0.096]"'


# --- Markdown


def cells(text):
    """The cells of a table in Markdown, in rows; and what else stands in it than text."""
    found, others = [], []
    for token in READER.parse(text):
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline":
            others += [t.type for t in token.children if t.type not in ("text", "text_special")]
            found[-1].append("".join(t.content for t in token.children))
        elif not token.type.startswith(("table", "thead", "tbody", "tr", "th", "td")):
            others.append(token.type)
    return found, others


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_of_one_cell_in_markdown(name):
    found, others = cells(rows(name, "markdown"))
    assert others == []
    head, first, _ = found
    assert len(head) == len(first) == 3
    assert first[0] == head[1] == plain(name).strip()
    assert first[1] == str(NUMBER)


@given(TEXTS)
def test_any_text_is_text_of_one_cell_and_of_one_line_in_markdown(text):
    shown = formats.as_markdown(text)
    (head, row), others = cells(f"| a | b |\n| --- | --- |\n| x{shown}x | c |")
    assert (head, others) == (["a", "b"], []) and len(row) == 2
    assert row[0] == f"x{plain(text)}x"
    # as a line
    tokens = READER.parse(f"**{shown or 'x'}:**\n\n{shown}\n\nend")
    kinds = {t.type for t in tokens} | {c.type for t in tokens for c in t.children or ()}
    assert kinds <= {
        *("paragraph_open", "paragraph_close", "inline", "text", "text_special"),
        *("strong_open", "strong_close"),
    }


def test_numbers_in_brackets_stay_as_they_are_in_markdown():
    line = "knn, a minus b: +1.20 [+0.41, +1.99] points, p .003, Holm <.001: 5-7, b is better"
    assert formats.as_markdown(line) == line
    assert formats.as_markdown("[1](x)") == "[1\\](x)"


# --- LaTeX


def is_text(latex):
    """Whether a text in LaTeX has no command, group, comment, formula or cell of its own."""
    for command in (
        r"\\[&%$#_{}]",
        r"\\text(backslash|asciitilde|asciicircum)\{\}",
        r"^\{\s*[\[*]\}",
    ):
        latex = re.sub(command, "", latex)
    return not re.search(r"[\\{}$&#^_~%]", latex) and not re.match(r"\s*[\[*]", latex)


@given(TEXTS)
def test_any_text_is_text_in_latex(text):
    assert is_text(formats.as_latex(text))
    assert "\n" not in formats.as_latex(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_of_one_cell_in_latex(name):
    said = rows(name, "latex", [name])
    body = said[said.index("\\toprule") : said.index("\\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith("\\\\")]
    assert len(lines) == 3
    split = [re.split(r"(?<!\\)&", line.removesuffix("\\\\")) for line in lines]
    assert {len(cells) for cells in split} == {3}
    assert all(is_text(cell.strip()) for cells in split for cell in cells)
    assert is_text(said.rstrip("\n").rpartition("\n")[2].removeprefix("\\\\ "))


# --- HTML


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags |= {tag, *(name for name, _ in attrs)}

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_in_html_and_whole(name):
    found = Tags(rows(name, "html", [name]))
    assert found.tags <= {*("table", "thead", "tbody", "tr", "th", "td", "p")} | {
        *("border", "class", "style")
    }
    said = "".join(found.texts)
    assert said.count(plain(name)) >= 3  # head, cell and footnote
    assert html.escape(plain(name)) in rows(name, "html", [name])
