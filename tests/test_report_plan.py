"""What is printed before a comparison runs: cells, tests, what they can detect, the time."""

import re

import pytest
from made_up import clear_comparison

from maebench.analysis.cells import Estimate
from maebench.analysis.seeds import detectable
from maebench.report import plan


@pytest.fixture(scope="module")
def clear(tmp_path_factory):
    """A comparison in which one arm differs and one does not."""
    return clear_comparison(tmp_path_factory.mktemp("clear"))


def test_the_plan_names_the_family_and_what_it_can_detect(clear):
    text = "\n".join(plan.plan_lines(clear))
    assert "tests: 2 against 0.25 for each evaluation (0.5; 0.75); Holm over these 2" in text
    assert f"5 seeds find a difference of {detectable(1.0, 5, 2):.1f} times the standard" in text
    assert "cannot fall below p = 0.0625; it can be significant from 7 seeds on" in text
    assert re.search(r"knn: by the seeds that are done these are [\d.]+ points", text)
    assert "15 cells: 15 done" in text


def test_the_time_is_told_by_arm_and_in_all(clear):
    cells = [type(c)(**{**vars(c), "missing": 1}) for c in clear.cells]
    unknown = Estimate({"0.25": 0.02}, 600.0, 40.0, None)
    lines = plan.time_lines(unknown, cells, 2)
    assert lines[0] == "  0.25: 20 ms per update"
    assert "about 5 min on 2 worker(s); how long evaluations take is known when" in lines[1]
    assert (
        "evaluations about 60 s" in plan.time_lines(Estimate({}, 600.0, 40.0, 120.0), cells, 2)[0]
    )
    assert plan.time_lines(unknown, clear.cells, 2) == []


def test_fewer_cells_than_workers_take_as_long_as_the_longest(clear):
    cells = [type(c)(**{**vars(c), "missing": int(c.seed == 0)}) for c in clear.cells]
    assert (
        "about 4 min on 3 worker(s)"
        in plan.time_lines(Estimate({}, 600.0, 240.0, None), cells, 16)[0]
    )
