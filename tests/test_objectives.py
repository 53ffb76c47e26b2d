"""What `maebench list objectives` and the docs print of each built-in objective."""

from __future__ import annotations

import inspect
import re

import pytest

from maebench.objectives import BUILT_IN


@pytest.mark.parametrize("objective", BUILT_IN, ids=lambda cls: cls.name)
def test_an_objective_is_explained_in_three_sentences_a_formula_and_a_source(objective):
    lines = inspect.cleandoc(vars(objective)["__doc__"]).splitlines()
    assert lines[0].endswith(".") and len(lines[0]) <= 95
    (formula,) = [i for i, line in enumerate(lines) if line.startswith("loss =")]
    (source,) = [i for i, line in enumerate(lines) if line.startswith("Source:")]
    assert not lines[formula - 1], "a blank line lies before the formula"
    assert 1 <= source - formula <= 4
    text = " ".join(filter(None, lines[:formula]))
    sentences = re.split(r"(?<=[.?!]) (?=[A-Z0-9])", text)
    assert len(sentences) == 3 and text.endswith("."), sentences
    told = " ".join(lines[source:])
    assert re.search(r"Source: .+\d{4}", told), "author and year"
    assert "\n".join(lines).isascii()


def test_the_names_of_objectives_are_told_apart():
    names = [cls.name for cls in BUILT_IN if "text" not in cls.takes or "images" in cls.takes]
    assert len(set(names)) == len(names) and names[0] == "mae" and names[-1] == "supervised"
