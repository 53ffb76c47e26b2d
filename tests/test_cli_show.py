"""`maebench list`: objectives are explained whole, all else in a sentence."""

from __future__ import annotations

import inspect
import textwrap

import pytest
from test_cli import call

from maebench.objectives import BUILT_IN


@pytest.mark.parametrize("objective", BUILT_IN, ids=lambda cls: cls.name)
def test_objectives_alone_are_listed_with_their_whole_explanation_and_then_options(objective):
    shown = call("list", "objectives").out
    text = textwrap.indent(inspect.cleandoc(objective.__doc__), " " * 6)
    options = [f"-o objective.{key}=" for key in objective.model_fields]
    begin = shown.index(f"  {objective.name}\n{text}\n")
    for option in options:
        assert begin < shown.index(option, begin)
        begin = shown.index(option, begin)


def test_a_list_of_everything_has_one_sentence_of_each():
    shown = call("list").out
    assert "loss =" not in shown and "Source:" not in shown
    for objective in BUILT_IN:
        assert f"  {objective.name}\n      {objective.help()}\n" in shown


@pytest.mark.parametrize("kind", ["maskings", "evaluations", "encoders"])
def test_other_kinds_are_listed_as_they_are_in_the_list_of_everything(kind):
    assert call("list", kind).out in call("list").out
