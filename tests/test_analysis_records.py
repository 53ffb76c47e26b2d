"""All rows of a results folder as one DataFrame."""

from __future__ import annotations

import tiny

from maebench import Block, load_records
from maebench.analysis.records import FROM_CONFIG
from maebench.evaluating import records, suite
from maebench.evaluating.records import COLUMNS
from maebench.report.table import by_model


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
    mine = table[(table["model_kind"] != "pixels") & (table["split"] == "test")].iloc[0]
    expected = {
        "run": plan.run.name,
        "ratio": 0.7,
        "realised_ratio": 11 / 16,
        "budget": "steps=3",
        "batch": 16,
        "run_seed": 3,
        "limit": 60,
        "image_size": "8x8",
        "pretraining_precision": "fp32",
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


def test_rows_of_a_version_that_kept_less_are_read_and_marked_beside_new_ones(tmp_path):
    folder = tmp_path / "models" / "pixels-digits-abc" / "records"
    row = {
        **{"model": "pixels:digits", "model_kind": "pixels", "run": None, "dataset": "digits"},
        **{"dataset_fingerprint": "f1", "evaluation": "knn", "evaluation_version": 3},
        **{"protocol": "knn/majority@v3", "options": "knn", "metric": "top1", "where": {}},
        **{"unit": "%", "main": True, "status": "ok", "seed": 0, "precision": "fp32"},
        **{"value": 0.5, "low": 0.4, "high": 0.6, "created": "2025", "package": "maebench"},
    }
    new = {"weights_hash": "9bc4", "train_examples": 60, "train_fingerprint": "f2", "value": 0.7}
    records.write(folder, "knn-v3-aaaaaaaaaa-s0", [row], {})
    (line,) = by_model(load_records(tmp_path)).to_dict("records")
    assert "differs in" not in line
    records.write(folder, "knn-v3-bbbbbbbbbb-s0", [row | new], {})
    found = by_model(load_records(tmp_path)).set_index("differs in")["knn top1 (%)"]
    assert {mark: cell.value for mark, cell in found.items()} == {"earlier record": 0.5, "": 0.7}
