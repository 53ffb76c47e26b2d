"""What a waiting person sees, at a terminal and in a file."""

from __future__ import annotations

import itertools
import sys

import pytest

from maebench.cli import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by some seconds whenever it is asked."""

    def of(seconds):
        times = itertools.count(0, seconds)
        monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))

    return of


def test_decoding_into_a_file_is_a_whole_line_now_and_then(capsys, clock):
    clock(1 / 128)  # per image
    for split in (3_000, 2_000):
        for done in range(1, split + 1):
            progress.decoding(done, split)
    err = capsys.readouterr().err
    assert "\r" not in err
    assert err.splitlines() == [
        *("decoding 1,281/3,000 images", "decoding 2,561/3,000 images"),
        *("decoding 3,000/3,000 images", "decoding 1,281/2,000 images"),
        "decoding 2,000/2,000 images",
    ]


def test_decoding_at_a_terminal_is_one_line_that_others_may_follow(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for done in range(1, 2501):
        progress.decoding(done, 2500)
    assert capsys.readouterr().err == (
        "decoding 1,000/2,500 images\rdecoding 2,000/2,500 images\rdecoding 2,500/2,500 images\n"
    )


def test_a_few_images_are_not_worth_a_line(capsys):
    for done in range(1, 1000):
        progress.decoding(done, 999)
    assert capsys.readouterr().err == ""


def test_a_bar_in_a_file_is_a_line_every_ten_seconds_whatever_is_said_of_colours(
    capsys, clock, monkeypatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    clock(0.5)
    with progress.bar("pretraining", 100) as show:
        for done in range(1, 101):
            show(done, loss=0.5, rate=1234.5)
    err = capsys.readouterr().err
    assert "\r" not in err and "\x1b" not in err
    lines = err.splitlines()
    assert len(lines) == 5
    assert lines[0] == "pretraining: 20/100, loss 0.5, images/s 1,234, 40 s left"
