"""Whatever a name holds, a terminal is told nothing by it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import pty
import sys
import threading
import types
import unicodedata
import warnings

import click
import pytest
from hostile import NAMES, TEXTS
from hypothesis import given
from test_cli import call

from maebench import cli
from maebench.cli import progress
from maebench.errors import plain
from maebench.report import printed
from maebench.report.printed import Line, Sheet
from maebench.report.streams import Plain, as_text, as_written, raw

# Cc: controls, Cf: what turns text around or is not seen, Cs: halves, Zl and Zp: other line ends
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
VISIBLE = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")  # Arabic signs


def unseen(text):
    """The characters of a text that a terminal obeys or does not show."""
    return {c for c in text if unicodedata.category(c) in UNSEEN} - {"\n", "\t"}


def through(text, **settings):
    """What a text has become behind the standard output of a command."""
    file = io.StringIO(**settings)
    Plain(file).write(text)
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_seen_whole(name):
    shown = through(name)
    assert unseen(shown) == set()
    # nothing is lost: what is seen is the name, its other characters by their numbers
    assert shown == "".join(c if not unseen(c) else ascii(c)[1:-1] for c in name)


@given(TEXTS)
def test_of_any_text_nothing_unseen_reaches_a_terminal(text):
    left = {c for c in unseen(through(text)) if ord(c) < 0x10000} - VISIBLE
    assert left <= {c for c in text if 0xFFF9 <= ord(c) <= 0xFFFB} - {*"\ufff9\ufffa\ufffb"}
    assert plain(plain(text)) == plain(text)
    assert len(plain(text).splitlines()) <= 1


def test_what_an_encoding_lacks_is_shown_by_its_number():
    bytes_ = io.BytesIO()
    with io.TextIOWrapper(bytes_, encoding="latin-1") as file:
        Plain(file).write("caf\xe9 \u732b\n")
        file.flush()
        assert bytes_.getvalue() == b"caf\xe9 \\u732b\n"


def test_streams_are_as_they_were_afterwards():
    before = sys.stdout, sys.stderr
    with as_text():
        assert isinstance(sys.stdout, Plain) and raw(sys.stdout) is before[0]
        with as_text(), as_written():
            assert sys.stdout is before[0]
        assert isinstance(sys.stdout, Plain)
    assert (sys.stdout, sys.stderr) == before


# --- of the command line


@contextlib.contextmanager
def terminal(monkeypatch, name="stderr"):
    """A terminal in place of a standard stream; gives what has been written to it."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("NO_COLOR", raising=False)
    ours, theirs = pty.openpty()
    found = bytearray()

    def read():
        with contextlib.suppress(OSError):  # it is closed
            while part := os.read(ours, 65536):
                found.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8", buffering=1) as stream:
        monkeypatch.setattr(sys, name, stream)
        yield lambda: found.decode()
        monkeypatch.undo()
    reader.join(10)
    os.close(ours)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "n" * 300])
def test_a_mistake_with_a_name_in_it_is_one_line_of_text(name):
    with warnings.catch_warnings():
        ran = call("list", name)
    assert (ran.code, ran.out, unseen(ran.err)) == (1, "", set())
    assert ran.err.count("\n") == 1 and ran.err.startswith("Error: ")


def colourful():
    """A command of another package."""

    @click.command("colourful")
    def command():
        click.secho("green", fg="green", color=True)
        warnings.warn("\x1b[31mred", stacklevel=1)

    return command


def test_a_command_of_another_package_keeps_its_colours_and_its_warnings_are_text(monkeypatch):
    entry = types.SimpleNamespace(name="colourful", load=colourful, dist=None)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        ran = call("colourful")
    assert ran.out == "\x1b[32mgreen\x1b[0m\n"
    assert ran.err == "Warning: \\x1b[31mred\n"


def test_click_cuts_nothing_out_of_a_line_of_ours(monkeypatch):
    @click.command("list")
    def command():
        click.echo("a \x1b[31mred\x1b[0m bird")

    monkeypatch.setattr(cli.Lazy, "get_command", lambda *_: command)
    assert call("list").out == "a \\x1b[31mred\\x1b[0m bird\n"


# --- of rich


@pytest.mark.parametrize("name", NAMES)
def test_a_line_and_a_table_show_a_name_as_it_is(name, capsys, monkeypatch):
    monkeypatch.setattr(printed, "WIDE", 1000)
    with as_text():
        Line(name, style="bold").show()
        Sheet([name], [[name]], [True]).show()
    line, *rows = capsys.readouterr().out.splitlines()
    assert line.rstrip() == plain(name).rstrip()
    shown = [row.strip("\u2502\u2503 ") for row in rows]
    assert plain(name).strip() in shown
    assert unseen("".join([line, *rows])) == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_gets_our_styles_and_no_name_s(name, monkeypatch):
    with terminal(monkeypatch, "stdout") as written, as_text():
        Line(name, style="bold").show()
        Sheet(["head"], [[name]], [True]).show()
    left = written().replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\r\n", "\n")
    assert written().count("\x1b[1m") >= 2  # the line, and the head
    assert unseen(left) == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_bar_shows_a_name_as_it_is_and_so_does_what_is_written_above_it(name, monkeypatch):
    with terminal(monkeypatch) as written, as_text():
        with progress.bar(name, 2) as show:
            show.say(name)
            click.echo(name, err=True, color=True)
            show(1)
            show(2)
    text = written()
    for part in (f"8;;https://example.org{chr(27)}", "\x9b", "\u202e", "\b", "\x1b[31mred"):
        assert part not in text
    said = plain(name, lines=True).split("\n")[0].strip()
    assert text.count(said[:100]) >= 3  # beside the bar, and in both lines above it
    assert "\x1b[" in text  # the bar's own sequences work


def test_a_bar_takes_its_place_of_the_streams_away_again(monkeypatch):
    with terminal(monkeypatch):
        before = sys.stdout, sys.stderr
        with progress.bar("x", 2) as show:
            show(1)
        assert (sys.stdout, sys.stderr) == before
