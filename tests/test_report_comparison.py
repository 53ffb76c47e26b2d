"""A comparison in words: the plan before it runs, the table and both answers after."""

import re

import numpy as np
import pytest
from made_up import clear_comparison, comparison, design, drawn, replace, write

from maebench.evaluating import records
from maebench.report import comparison as report
from maebench.report import formats, plan


@pytest.fixture(scope="module")
def clear(tmp_path_factory):
    """A comparison in which one arm differs and one does not."""
    return clear_comparison(tmp_path_factory.mktemp("clear"))


def lines_of(found):
    return report.answers(found)


@pytest.mark.slow
def test_both_questions_are_answered_apart_each_with_interval_and_p(clear):
    lines = lines_of(clear)
    ways = lines.index(next(line for line in lines if line.startswith("Are two ways")))
    models = lines.index(next(line for line in lines if line.startswith("Are two models")))
    assert ways < models
    answered = dict(zip(lines[ways + 1 : models : 2], lines[ways + 2 : models : 2], strict=True))
    different, more = next(pair for pair in answered.items() if "0.75 minus 0.25" in pair[0])
    assert (
        "+32.00 [+30.04, +33.96] points, p <.001, Holm <.001: different, 0.75 is better"
        in different
    )
    assert "sign flip p .062, at least 0.062 over 5 seeds" in more
    same, more = next(pair for pair in answered.items() if "0.5 minus 0.25" in pair[0])
    assert re.search(r"no difference shown \(found with 80 %: [\d.]+ points\)", same)
    assert "equivalent within ±20 points" in more
    assert "equal" not in same
    assert re.search(r"a difference of 0\.5 points needs \d+ seeds", more)
    pairs = next(line for line in lines[models:] if "0.75 minus 0.25" in line)
    assert "5 of 5 pairs of models differ: seed 0 +30.00 [" in pairs


def test_groups_parts_of_the_variance_and_agreement_follow(clear):
    text = "\n".join(lines_of(clear))
    assert "knn: 0.75 | 0.25, 0.5" in text
    assert re.search(r"between seeds of pretraining [\d.]+ \(the probe's part with it\)", text)
    assert "Kendall" not in text, "one evaluation agrees with none"


@pytest.mark.slow
def test_evaluations_that_order_arms_otherwise_are_named(tmp_path):
    asked = design(seeds=2)
    rng = np.random.default_rng(0)
    rising = drawn(rng, {"0.25": 0.3, "0.5": 0.6, "0.75": 0.9}, asked.seeds)
    falling = drawn(rng, {"0.25": 0.9, "0.5": 0.6, "0.75": 0.3}, asked.seeds)
    found = comparison(tmp_path, {"knn": rising, "linear-probe": falling}, asked)
    text = "\n".join(lines_of(found))
    assert "Kendall's tau: knn and linear-probe -1.00" in text
    assert "knn and linear-probe do not: which arm is better depends on the evaluation" in text


def test_a_table_has_a_row_per_arm_and_its_footnotes_name_the_methods(clear):
    table = report.result_table(clear)
    assert table["arm"].tolist() == ["0.25 (baseline)", "0.5", "0.75"]
    assert table["knn top1 (%)"][2] == "82.0 ±1.6 seeds (n=5) ±7.5 images"
    text = "\n".join(report.footnotes(clear))
    for method, source in (
        ("Wilson", "Wilson (1927)"),
        ("paired t test", "Student 1908"),
        ("two one-sided t tests", "Schuirmann 1987"),
        ("Tango score interval", "interval (1998)"),
        ("McNemar exact", "exact (1947)"),
        ("maximal cliques", "Bron and Kerbosch 1973"),
    ):
        assert method in text
        assert source in text
    assert "protocols knn@v1" in text


@pytest.mark.slow
def test_one_seed_says_what_it_can_still_answer(tmp_path):
    asked = design(seeds=1)
    found = comparison(
        tmp_path,
        {"knn": drawn(np.random.default_rng(0), {a: 0.5 for a in ("0.25", "0.5")}, (0,))},
        asked,
    )
    assert any("whether two models differ can be answered" in x for x in plan.plan_lines(found))
    lines = lines_of(found)
    assert "  one seed says nothing about that: add seeds (--seeds 3)" in lines
    assert any("0 of 1 pairs of models differ" in line for line in lines)


@pytest.mark.slow
def test_a_failed_cell_is_a_row_with_its_reason(tmp_path):
    asked = design(seeds=2)
    outcomes = drawn(np.random.default_rng(1), {"0.25": 0.5, "0.5": 0.5}, asked.seeds)
    found = comparison(tmp_path, {"knn": outcomes}, asked)
    table = plan.cells_table(found.cells)
    row = table[table["arm"] == "0.75"].iloc[0].to_dict()
    assert row == {"arm": "0.75", "seeds": "0-1", "state": "failed before", "reason": "made up"}
    assert "failed: 0.75 seed 1: made up" in report.footnotes(found)
    scores = found.scores()
    assert scores[scores["arm"] == "0.75"]["status"].tolist() == ["failed", "failed"]


def test_what_is_not_applicable_is_said_below_the_table(tmp_path):
    asked = design(seeds=2)
    outcomes = drawn(np.random.default_rng(1), {"0.25": 0.5, "0.5": 0.5}, asked.seeds)
    how = {"status": "not applicable", "reason": "no decoder"}
    found = comparison(tmp_path, {"reconstruction": outcomes}, asked, **how)
    said = "reconstruction of 0.25, seeds 0-1: not applicable: no decoder"
    assert said in report.footnotes(found)
    assert report.answers(found) == ["no cell has a result yet"]


@pytest.mark.parametrize(
    "numbers, text", [([0, 1, 2, 5], "0-2, 5"), ([3], "3"), ([2, 0], "0, 2"), ([4, 3], "3-4")]
)
def test_seeds_are_written_as_ranges(numbers, text):
    assert report.ranges(numbers) == text


@pytest.mark.parametrize(
    "p, text",
    [(0.0004, "<.001"), (0.031, ".031"), (0.5, ".5"), (1.0, "1"), (float("nan"), "unknown")],
)
def test_p_values_have_two_digits(p, text):
    assert report.p_text(p) == text


@pytest.mark.slow
def test_tables_pictures_and_one_page_are_written(clear):
    written = report.write(clear)
    for name in ("table.csv", "pairs.csv", "models.csv", "matrix-knn.csv", "ratio.png"):
        assert name in written
        assert (clear.folder / name).stat().st_size > 50
    page = (clear.folder / "comparison.md").read_text()
    assert page.startswith("# made-up")
    assert "![ratio](ratio.png)" in page
    assert "| 0.75" in page
    for line in lines_of(clear):
        assert formats.as_markdown(line.strip()) in page


@pytest.mark.slow
def test_the_same_difference_in_every_seed_is_said_and_tests_nothing(tmp_path):
    asked = design(ratios=(0.25, 0.5, 0.75), seeds=4, target=0.5, margin=1.0)
    half, more = (np.r_[np.ones(n), np.zeros(100 - n)] for n in (50, 60))
    outcomes = {arm: dict.fromkeys(asked.seeds, half) for arm in ("0.25", "0.5")}
    outcomes["0.75"] = dict.fromkeys(asked.seeds, more)
    lines = lines_of(comparison(tmp_path, {"knn": outcomes}, asked))
    for arm, value in (("0.5", "+0.00"), ("0.75", "+10.00")):
        line = next(line for line in lines if f"knn, {arm} minus 0.25: " in line)
        assert f"{value} points for each of 4 seeds: without a spread nothing can be" in line
    assert "nan" not in "\n".join(lines)


@pytest.mark.slow
def test_an_arm_without_a_number_has_its_row_and_is_named_beside_the_groups(tmp_path):
    asked = design(seeds=2)
    outcomes = drawn(np.random.default_rng(1), {"0.25": 0.5, "0.5": 0.5}, asked.seeds)
    found = comparison(tmp_path, {"knn": outcomes}, asked)
    found = replace(found, cells=tuple(replace(c, reason="two\n  lines") for c in found.cells))
    table = report.result_table(found).set_index("arm")
    assert table.loc["0.75", "knn top1 (%)"] == "failed before"
    assert "failed: 0.75 seed 0: two lines" in report.footnotes(found)
    assert any(line.endswith("(without 0.75)") for line in lines_of(found))
    assert "seed 0 has no number" in "\n".join(lines_of(found))


@pytest.mark.slow
def test_floors_of_several_arms_are_told_apart(tmp_path):
    asked = design(seeds=2)
    outcomes = drawn(np.random.default_rng(1), dict.fromkeys(asked.names, 0.5), asked.seeds)
    found = comparison(tmp_path, {"knn": outcomes}, asked)
    cells = list(found.cells)
    for i, arm in enumerate(("0.25", "0.5")):
        path = write(tmp_path, f"floor-{i}", np.r_[np.ones(10 + i), np.zeros(10 - i)])
        cells.append(replace(cells[0], arm=arm, kind="untrained", records=(path,)))
    path = write(tmp_path, "pixels", np.ones(20), status="not applicable", reason="no decoder")
    cells.append(replace(cells[0], kind="pixels", records=(path,)))
    found = replace(found, cells=tuple(cells))
    table = report.result_table(found).set_index("arm")["knn top1 (%)"]
    assert table["untrained as 0.25"].startswith("50.0")
    assert table["untrained as 0.5"].startswith("55.0")
    assert table["raw pixels"] == "not applicable"
    assert "knn of raw pixels, seed 0: not applicable: no decoder" in report.footnotes(found)
    assert list(plan.cells_table(found.cells)["arm"])[-3:] == [
        *("untrained as 0.25", "untrained as 0.5", "raw pixels")
    ]


@pytest.mark.slow
def test_options_of_any_length_make_names_of_files(tmp_path):
    asked = design(seeds=2)
    outcomes = drawn(np.random.default_rng(1), dict.fromkeys(asked.names, 0.5), asked.seeds)
    found = comparison(tmp_path, {"knn": outcomes}, asked)
    long = f"logistic(C=({', '.join(str(10.0**i) for i in range(-30, 30))}))"
    for cell in found.cells:
        rows = [row | {"options": long} for row in records.read(cell.records[0])]
        with np.load(cell.records[0].with_suffix(".npz")) as values:
            records.write(cell.records[0].parent, cell.records[0].stem, rows, dict(values))
    assert "comparison.md" in report.write(found)
    assert any(name.startswith("matrix-logistic") for name in report.write(found))
