"""All rows of a results folder as one DataFrame."""

from __future__ import annotations

import tiny

from maebench import Block, load_records
from maebench.analysis.records import FROM_CONFIG
from maebench.evaluating import suite
from maebench.evaluating.records import COLUMNS


def test_without_results_the_table_is_empty_and_has_all_columns(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        table = load_records(folder)
        assert table.empty
        assert list(table.columns) == [*COLUMNS, *FROM_CONFIG, "file"]


def test_rows_of_a_run_carry_its_settings(tmp_path):
    changes = {"masking": Block(aspect=0.5), "ratio": 0.7, "seed": 3}
    plan = tiny.plan(tmp_path, **changes)
    evaluation = plan.config.evals[2]
    assert evaluation.name == "knn"
    for spec in ("", "untrained:", "pixels:"):
        path = suite.evaluate(tiny.load(tmp_path, spec), evaluation)
    table = load_records(tmp_path)
    assert list(table.columns) == [*COLUMNS, *FROM_CONFIG, "file"]
    counts = table["model_kind"].value_counts()
    assert set(counts.index) == {"run", "untrained", "pixels"}
    assert counts.nunique() == 1
    assert counts.iloc[0] >= 2 * 5  # of each k at least top1 and what it was chosen by
    mine = table[table["model_kind"] != "pixels"].iloc[0]
    expected = {
        "run": plan.run.name,
        "ratio": 0.7,
        "realised_ratio": 11 / 16,
        "budget": "steps=3",
        "batch": 16,
        "run_seed": 3,
        "limit": 60,
        "image_size": "8x8",
        "objective": "mae(target=normalised-pixels)",
        "dataset": "digits",
        "split": "test",
        "skipped": 0,
        "status": "ok",
        "package": "maebench",
        "examples": len(plan.config.splits().load("test")),
    }
    assert {key: mine[key] for key in expected} == expected
    assert "block(" in mine["masking"]
    assert "aspect=0.5" in mine["masking"]
    assert all(isinstance(where, dict) for where in table["where"])
    pixels = table[table["file"] == str(path)]
    assert pixels["run"].isna().all()
    assert pixels["masking"].isna().all()
