"""Messages that a user can act on."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maebench import errors
from maebench.errors import MaebenchError, unknown

words = st.text("abcdefgh-", min_size=1, max_size=12)


def test_every_error_of_ours_is_a_maebench_error():
    classes = [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    ]
    assert len(classes) >= 5
    assert all(issubclass(c, MaebenchError) and c.__doc__ for c in classes)


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all():
    message = unknown("masking", "blok", ["random", "grid", "block"], "--masking")
    assert message == (
        "unknown masking 'blok' in --masking. Did you mean 'block'? There is: block, grid, random"
    )


def test_nothing_is_suggested_where_nothing_is_near():
    assert "Did you mean" not in unknown("masking", "zzz", ["random"])
    assert unknown("tracker", "x", []).endswith("There is: nothing")


def test_a_name_is_suggested_without_the_package_it_comes_from():
    message = unknown("masking", "checkerbord", ["checkerboard (maebench-checkerboard)"])
    assert "Did you mean 'checkerboard'?" in message
    assert message.endswith("There is: checkerboard (maebench-checkerboard)")


@given(words, st.sets(words, max_size=6))
def test_the_message_is_one_line_that_holds_what_was_given_and_every_choice(given_name, allowed):
    message = unknown("thing", given_name, allowed)
    assert "\n" not in message and repr(given_name) in message
    listing = message.split("There is: ")[1]
    assert listing == (", ".join(sorted(allowed)) or "nothing")


@pytest.mark.parametrize("near", ["random", "Random", "randon", "rndom"])
def test_a_typing_error_finds_its_name(near):
    assert "Did you mean 'random'?" in unknown("masking", near, ["random", "grid", "centred"])
