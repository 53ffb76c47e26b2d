"""Tables of results, what they note, and their formats."""

from __future__ import annotations

import io
import sys
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from maebench import Cell, ConfigError, MaebenchError, Report
from maebench.analysis.records import FROM_CONFIG
from maebench.analysis.stats import paired_difference
from maebench.evaluating import records
from maebench.report import differences, formats, notes, table

# a row that chose nothing: what is paired lies beside it
STORED = [{"metric": "top1", "where": {}, "main": False, "status": "ok", "value": 0.5}]

COLUMNS = [*records.COLUMNS, *FROM_CONFIG, "file"]
ROW = {
    "model": "a",
    "model_kind": "run",
    "run": "a",
    "dataset": "digits",
    "dataset_fingerprint": "f1",
    "evaluation": "knn",
    "evaluation_version": 1,
    "options": "knn",
    "metric": "top1",
    "where": {},
    "value": 0.819,
    "low": 0.801,
    "high": 0.836,
    "unit": "%",
    "main": True,
    "status": "ok",
    "reason": "",
    "seed": 0,
    "created": "2026-01-01",
    "masking": "random",
    "ratio": 0.75,
}


def texts(table):
    """The rows as they are printed."""
    return table.map(lambda cell: str(cell) if isinstance(cell, Cell) else cell).to_dict("records")


def frame(*changes):
    return pd.DataFrame([{**ROW, **change} for change in changes], columns=COLUMNS)


@pytest.mark.parametrize(
    ("change", "cell"),
    [
        ({}, Cell(0.819, 0.801, 0.836, "%")),
        ({"low": None, "high": None}, Cell(0.819, unit="%")),
        ({"unit": "", "value": -0.05, "low": np.nan, "high": np.nan}, Cell(-0.05)),
        ({"status": "failed", "value": None}, Cell(None, unit="%", status="failed")),
    ],
)
def test_the_numbers_of_a_row_stay_numbers(change, cell):
    assert table.cell_of({**ROW, **change}) == cell


def test_the_table_has_a_row_per_model_and_data_set_and_the_newest_number_of_each_evaluation():
    rows = frame(
        {"value": 0.9, "created": "2026-01-03"},
        {"value": 0.1, "created": "2026-01-02"},
        {"metric": "validation_top1", "main": False},
        {"model": "b", "options": "knn(k=5)", "unit": "", "status": "failed"},
        {"dataset": "other", "value": 0.5},
    )
    found = table.by_model(rows)
    found = found.sort_values(["model", "dataset"])[
        ["model", "dataset", *sorted(found.columns[2:])]
    ]
    assert texts(found) == [
        {
            "model": "a",
            "dataset": "digits",
            "knn top1 (%)": "90.0 [80.1, 83.6]",
            "knn(k=5) top1": "",
        },
        {
            "model": "a",
            "dataset": "other",
            "knn top1 (%)": "50.0 [80.1, 83.6]",
            "knn(k=5) top1": "",
        },
        {"model": "b", "dataset": "digits", "knn top1 (%)": "", "knn(k=5) top1": "failed"},
    ]


def test_another_metric_shows_what_was_chosen_or_all_where_nothing_was():
    rows = frame(
        {"metric": "validation", "where": {"k": 1}, "main": False},
        {"metric": "validation", "where": {"k": 5, "chosen": True, "edge": True}, "main": False},
        {"metric": "validation", "where": {"k": 1}, "main": False, "model": "b"},
        {"metric": "validation", "where": {"k": 5}, "main": False, "model": "b"},
        {
            "metric": "validation",
            "where": {},
            "evaluation": "other",
            "options": "other",
            "main": False,
        },
    )
    found = table.by_model(rows, "knn/validation").set_index("model")
    assert list(found.columns) == [
        "dataset",
        "knn k=5 validation (%)",
        "knn k=1 validation (%)",
    ]
    assert found.loc["a", "knn k=1 validation (%)"] == ""
    assert str(found.loc["b", "knn k=1 validation (%)"]) == "81.9 [80.1, 83.6]"
    assert len(table.headlines(rows, "validation")) == 4
    with pytest.raises(ConfigError, match=r"unknown metric 'top'\. .*There is: knn/validation"):
        table.headlines(rows, "top")


def test_settings_show_the_mean_over_runs_its_deviation_and_how_sure_each_run_is():
    rows = frame(
        *[
            {"model": f"r{i}", "value": v, "low": v - 0.02, "high": v + 0.03}
            for i, v in enumerate((0.7, 0.8))
        ],
        {"model": "r1", "value": 0.0, "created": "2025-12-31"},  # an older number of a run
        {"model": "block", "masking": "block", "low": 0.8},
        {"model": "untrained:a", "model_kind": "untrained", "value": 0.1},
    )
    found = table.by_settings(rows, ["masking"])
    assert texts(found) == [
        {"masking": "block", "dataset": "digits", "knn top1 (%)": "81.9 (n=1) ±1.8 images"},
        {
            "masking": "random",
            "dataset": "digits",
            "knn top1 (%)": "75.0 ±7.1 seeds (n=2) ±2.5 images",
        },
    ]
    by_kind = table.by_settings(rows, ["masking", "model_kind"])
    assert len(by_kind) == 3
    mean = found["knn top1 (%)"][1]
    assert (mean.num_runs, mean.over) == (2, "seeds")
    assert [mean.value, mean.deviation, mean.half_width] == pytest.approx(
        [0.75, 0.0707, 0.025], abs=1e-4
    )
    for key in ("maskin", "where"):
        with pytest.raises(ConfigError, match=f"--by: unknown column '{key}'"):
            table.by_settings(rows, [key])


def test_differences_are_paired_by_image_and_left_out_where_there_is_nothing_to_pair(tmp_path):
    rng = np.random.default_rng(0)
    mine, theirs = (rng.random(50) for _ in range(2))
    changes = []
    for model, values in (("a", mine), ("b", theirs)):
        path = records.write(tmp_path, model, STORED, {"ids": np.arange(50), "top1[]": values})
        changes += [
            {"model": model, "file": str(path)},
            {"model": model, "file": str(path), "options": "plain", "metric": "loss"},
            {"model": model, "options": "failed", "status": "failed" if model == "b" else "ok"},
        ]
    changes.append({"model": "a", "options": "alone"})
    found = differences.differences(frame(*changes), "a", "b")
    expected = paired_difference(np.arange(50), mine, np.arange(50), theirs)
    assert found == [("knn top1 (%)", expected, "%")]
    why = [("plain", "it has no number per image")]
    assert differences.unpaired(frame(*changes), "a", "b") == why


def test_what_cannot_be_compared_is_noted():
    assert notes.mixed(frame({}, {"evaluation": "other", "evaluation_version": 2})) == []
    found = notes.mixed(frame({}, {"evaluation_version": 2}, {"dataset_fingerprint": "f2"}))
    assert found == [
        "knn: evaluation version 1, 2 are not comparable",
        "digits: dataset fingerprint f1, f2 are not comparable",
    ]


def test_errors_in_different_spaces_are_noted_and_not_paired():
    of = {"evaluation": "reconstruction", "metric": "r2", "options": "reconstruction"}
    mae = {**of, "where": {"space": "normalised-pixels", "chosen": True}}
    hog = {**of, "model": "b", "where": {"space": "hog", "chosen": True}}
    assert notes.mixed(frame(mae, {**mae, "model": "b"}, {})) == []
    assert notes.mixed(frame(mae, hog)) == [
        "reconstruction r2: errors in hog, normalised-pixels are not comparable; psnr is, where "
        "there are pixels"
    ]
    assert differences.differences(frame(mae, hog), "a", "b") == []


def test_runs_on_different_data_are_never_averaged():
    rows = frame({}, {"model": "b", "dataset": "mnist", "value": 0.5})
    found = table.by_settings(rows, ["masking"])
    assert sorted(found["dataset"]) == ["digits", "mnist"]
    assert all("(n=1)" in str(cell) for cell in found["knn top1 (%)"])


def test_a_run_that_was_evaluated_with_two_seeds_counts_once():
    found = table.by_settings(frame({}, {"seed": 1, "created": "2026-01-02"}), ["masking"])
    assert found["knn top1 (%)"][0].num_runs == 1


def test_what_a_mean_over_runs_leaves_out_is_noted():
    rows = frame({}, {"model": "b", "status": "failed", "value": None})
    assert notes.left_out(rows) == ["knn: 1 run has no value (failed)"]
    again = frame({}, {"model": "b", "status": "failed"}, {"model": "c", "status": "failed"})
    assert notes.left_out(again) == ["knn: 2 runs have no value (failed)"]


def test_a_run_with_a_value_of_another_evaluation_seed_is_not_left_out():
    rows = frame({}, {"model": "b"}, {"model": "b", "seed": 1, "status": "failed", "value": None})
    assert notes.left_out(rows) == ["knn top1 (%) of b: evaluation seed 1 has no value"]


# ---- formats


def test_every_format_holds_every_cell():
    shown = table.by_model(frame({}, {"model": "b_2"}))
    for form in ("markdown", "csv", "latex", "html"):
        text = formats.render(shown, form)
        assert text.count("81.9 [80.1, 83.6]") == 2, form
    assert formats.render(shown, "markdown").startswith("| model")
    assert r"b\_2" in formats.render(shown, "latex")
    again = pd.read_csv(io.StringIO(formats.render(shown, "csv")))
    assert again.to_dict("records") == texts(shown)


def test_text_from_a_result_cannot_become_a_formula_or_markup():
    shown = table.by_model(frame(*({"model": m} for m in ("=1+1", "@x", "+x", "<b>&", "ok"))))
    csv = formats.render(shown, "csv").splitlines()
    assert [line.split(",")[0] for line in csv[1:]] == ["'=1+1", "'@x", "'+x", "<b>&", "ok"]
    assert "&lt;b&gt;&amp;" in formats.render(shown, "html")
    below = table.by_model(frame({"unit": "", "value": -0.101, "low": -0.106, "high": -0.096}))
    assert '"-0.101 [-0.106, -0.096]"' in formats.render(below, "csv")  # a number of ours is none


class Org(Report):
    """Tables for Emacs."""

    name: ClassVar[str] = "org"

    def render(self, table):
        return f"|{table.iloc[0, -1]}|"


def test_a_report_of_a_plugin_renders_the_table_and_an_unknown_format_is_refused():
    shown = table.by_model(frame({}))
    assert formats.render(shown, Org()) == "|81.9 [80.1, 83.6]|"
    with pytest.raises(ConfigError, match=r"unknown format 'orgg' in --format"):
        formats.render(shown, "orgg")


def test_a_parquet_file_holds_the_tidy_rows(tmp_path):
    pytest.importorskip("pyarrow")
    rows = frame({"where": {"k": 5, "chosen": True}}, {})
    formats.parquet(rows, tmp_path / "rows.parquet")
    again = pd.read_parquet(tmp_path / "rows.parquet")
    assert again["value"].tolist() == [0.819, 0.819]
    assert again["where"].tolist() == ["{'k': 5, 'chosen': True}", "{}"]
    assert isinstance(rows["where"][0], dict)


def test_parquet_without_pyarrow_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MaebenchError, match=r"pip install 'maebench\[parquet\]'"):
        formats.parquet(frame({}), tmp_path / "rows.parquet")
