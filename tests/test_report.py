"""Tables, differences and pictures of results."""

from __future__ import annotations

import io
import sys
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image
from tiny import evaluation

from maebench import ConfigError, MaebenchError, Report, Result, hookimpl
from maebench.analysis.records import FROM_CONFIG, load_records
from maebench.analysis.run import models_of
from maebench.analysis.stats import paired_difference
from maebench.cli.table import chosen_format
from maebench.evaluating import records, suite
from maebench.report import plots, table
from maebench.report.run import print_run

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


def frame(*changes):
    return pd.DataFrame([{**ROW, **change} for change in changes], columns=COLUMNS)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "81.9 [80.1, 83.6]"),
        ({"low": None, "high": None}, "81.9"),
        ({"unit": "dB", "value": 12.3456, "low": 12, "high": 13}, "12.346 [12.000, 13.000]"),
        ({"unit": "", "value": -0.05, "low": np.nan, "high": np.nan}, "-0.050"),
        ({"status": "failed", "value": None}, "failed"),
        ({"status": "not applicable", "value": None}, "not applicable"),
    ],
)
def test_a_number_is_shown_in_its_unit_with_its_interval_or_says_why_it_is_missing(change, text):
    assert table.number({**ROW, **change}) == text


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
    assert found.to_dict("records") == [
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
    assert found.loc["b", "knn k=1 validation (%)"] == "81.9 [80.1, 83.6]"
    assert len(table.headlines(rows, "validation")) == 4
    with pytest.raises(ConfigError, match=r"unknown metric 'top'\. .*There is: knn/validation"):
        table.headlines(rows, "top")


def test_settings_show_the_mean_over_runs_its_spread_and_that_of_images():
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
    assert found.to_dict("records") == [
        {"masking": "block", "dataset": "digits", "knn top1 (%)": "81.9 (n=1) ±1.8 images"},
        {
            "masking": "random",
            "dataset": "digits",
            "knn top1 (%)": "75.0 ±7.1 seeds (n=2) ±2.5 images",
        },
    ]
    by_kind = table.by_settings(rows, ["masking", "model_kind"])
    assert len(by_kind) == 3
    for key in ("maskin", "where"):
        with pytest.raises(ConfigError, match=f"--by: unknown column '{key}'"):
            table.by_settings(rows, [key])


def test_differences_are_paired_by_image_and_left_out_where_there_is_nothing_to_pair(tmp_path):
    rng = np.random.default_rng(0)
    mine, theirs = (rng.random(50) for _ in range(2))
    changes = []
    for model, values in (("a", mine), ("b", theirs)):
        path = records.write(tmp_path, model, [], {"ids": np.arange(50), "top1[]": values})
        changes += [
            {"model": model, "file": str(path)},
            {"model": model, "file": str(path), "options": "plain", "metric": "loss"},
            {"model": model, "options": "failed", "status": "failed" if model == "b" else "ok"},
        ]
    changes.append({"model": "a", "options": "alone"})
    found = table.differences(frame(*changes), "a", "b")
    expected = paired_difference(np.arange(50), mine, np.arange(50), theirs)
    assert found == [("knn top1 (%)", expected, "%")]


def test_what_cannot_be_compared_is_noted():
    assert table.mixed(frame({}, {"evaluation": "other", "evaluation_version": 2})) == []
    notes = table.mixed(frame({}, {"evaluation_version": 2}, {"dataset_fingerprint": "f2"}))
    assert notes == [
        "knn: evaluation version 1, 2 are not comparable",
        "digits: dataset fingerprint f1, f2 are not comparable",
    ]


def test_errors_in_different_spaces_are_noted_and_not_paired():
    of = {"evaluation": "reconstruction", "metric": "r2", "options": "reconstruction"}
    mae = {**of, "where": {"space": "normalised-pixels", "chosen": True}}
    hog = {**of, "model": "b", "where": {"space": "hog", "chosen": True}}
    assert table.mixed(frame(mae, {**mae, "model": "b"}, {})) == []
    assert table.mixed(frame(mae, hog)) == [
        "reconstruction r2: errors in hog, normalised-pixels are not comparable; psnr is, where "
        "there are pixels"
    ]
    assert table.differences(frame(mae, hog), "a", "b") == []


# ---- formats


def test_every_format_holds_every_cell():
    shown = table.by_model(frame({}, {"model": "b_2"}))
    for form in ("markdown", "csv", "latex", "html"):
        text = table.render(shown, form)
        assert text.count("81.9 [80.1, 83.6]") == 2, form
    assert table.render(shown, "markdown").startswith("| model")
    assert r"b\_2" in table.render(shown, "latex")
    again = pd.read_csv(io.StringIO(table.render(shown, "csv")))
    assert again.to_dict("list") == shown.to_dict("list")


def test_text_from_a_result_cannot_become_a_formula_or_markup():
    shown = table.by_model(frame(*({"model": m} for m in ("=1+1", "@x", "+x", "<b>&", "ok"))))
    csv = table.render(shown, "csv").splitlines()
    assert [line.split(",")[0] for line in csv[1:]] == ["'=1+1", "'@x", "'+x", "<b>&", "ok"]
    assert "&lt;b&gt;&amp;" in table.render(shown, "html")
    below = table.by_model(frame({"unit": "", "value": -0.101, "low": -0.106, "high": -0.096}))
    assert '"-0.101 [-0.106, -0.096]"' in table.render(below, "csv")  # a number of ours is none


class Org(Report):
    """Tables for Emacs."""

    name: ClassVar[str] = "org"

    def render(self, table):
        return f"|{len(table)}|"


class Reports:
    @hookimpl
    def register_reports(self):
        return [Org]


def test_a_plugins_report_is_a_format_and_an_unknown_one_is_refused(monkeypatch):
    from fakes import names

    shown = table.by_model(frame({}))
    assert table.render(shown, Org()) == "|1|"
    monkeypatch.setattr("maebench.plugins.installed", lambda: names(Reports()))
    assert isinstance(chosen_format("org"), Org) and chosen_format("csv") == "csv"
    for choose in (chosen_format, lambda form: table.render(shown, form)):
        with pytest.raises(ConfigError, match=r"unknown format 'orgg' in --format"):
            choose("orgg")
    with pytest.raises(ConfigError, match="Did you mean 'org'"):
        chosen_format("orgg")


def test_a_parquet_file_holds_the_tidy_rows(tmp_path):
    pytest.importorskip("pyarrow")
    rows = frame({"where": {"k": 5, "chosen": True}}, {})
    table.parquet(rows, tmp_path / "rows.parquet")
    again = pd.read_parquet(tmp_path / "rows.parquet")
    assert again["value"].tolist() == [0.819, 0.819]
    assert again["where"].tolist() == ["{'k': 5, 'chosen': True}", "{}"]
    assert isinstance(rows["where"][0], dict)


def test_parquet_without_pyarrow_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MaebenchError, match=r"pip install 'maebench\[parquet\]'"):
        table.parquet(frame({}), tmp_path / "rows.parquet")


# ---- what a run ends with


def test_a_run_ends_with_its_table_its_differences_and_its_gaps(tmp_path, capsys):
    def some(model):
        if model.kind == "pixels":
            raise MaebenchError("no eyes")
        share = {"run": 0.75, "untrained": 0.25}[model.kind]
        yield Result(
            "score",
            (torch.arange(360) < 360 * share).double(),
            {"k": 1, "chosen": True, "edge": True},
        )

    def same(model):
        yield Result("score", (torch.arange(360) % 2).double())

    plan = tiny.plan(tmp_path)
    family = models_of(plan, tiny.names())
    fakes = [evaluation(some, "some"), evaluation(same, "same")]
    files = [str(suite.evaluate(model, fake)) for model in family for fake in fakes]
    rows = load_records(tmp_path)
    assert set(rows["file"]) == set(files)
    print_run(rows, plan)
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert "random 0.75, seed 0" in lines[0]
    cells = {line.split("│")[1].strip(): line for line in lines if line.startswith("│")}
    assert "75.0 [" in cells["pretrained"]
    assert "25.0 [" in cells["untrained"]
    assert "failed" in cells["raw pixels"]
    assert "pretrained - untrained, some score (%): +50.0 [+4" in text
    assert (
        "pretrained - untrained, same score (%): +0.0 [+0.0, +0.0] paired: no difference shown"
        in text
    )
    assert "some of raw pixels: failed: no eyes" in text
    assert text.count("lies on the edge of the grid") == 2
    assert str(plan.run.folder) in text.replace("\n", "")


def test_the_loss_curve_is_a_picture_that_can_be_read(tmp_path):
    plan = tiny.plan(tmp_path)
    plots.loss_curve(plan.run, tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        picture.load()
        assert (picture.format, picture.width > 400) == ("PNG", True)
        assert len(picture.convert("L").getcolors()) > 10


def test_a_run_of_one_step_has_a_loss_curve_too(tmp_path):
    plan = tiny.plan(tmp_path, budget="steps=1")
    plots.loss_curve(plan.run, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_runs_on_different_data_are_never_averaged():
    rows = frame({}, {"model": "b", "dataset": "mnist", "value": 0.5})
    found = table.by_settings(rows, ["masking"])
    assert sorted(found["dataset"]) == ["digits", "mnist"]
    assert all("(n=1)" in cell for cell in found["knn top1 (%)"])


def test_a_run_that_was_evaluated_with_two_seeds_counts_once():
    found = table.by_settings(frame({}, {"seed": 1, "created": "2026-01-02"}), ["masking"])
    assert "(n=1)" in found["knn top1 (%)"][0]


def test_what_a_mean_over_runs_leaves_out_is_told():
    rows = frame({}, {"model": "b", "status": "failed", "value": None})
    assert table.left_out(rows) == ["knn: 1 runs have no value (failed)"]
