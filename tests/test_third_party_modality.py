"""A modality of somebody else's, one-dimensional signals, goes the whole way: data to table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from installed_beside import beside

SOURCE = Path(__file__).parent / "packages" / "maebench-signals"


@pytest.fixture(scope="module")
def maebench(tmp_path_factory):
    return beside(SOURCE, tmp_path_factory.mktemp("signals"))


def test_data_encoder_and_objective_are_at_most_120_lines_in_one_module():
    (module,) = SOURCE.rglob("*.py")
    lines = module.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 120


@pytest.mark.slow
def test_they_keep_to_their_contracts(maebench):
    shown = maebench("plugins", "check", "maebench-signals")
    for what in ("dataset waves", "encoder signal-nano", "objective signal-mae"):
        assert f"{what}: " in shown
    assert shown.count(", 0 failed, ") == 3


@pytest.mark.slow
def test_signals_are_pretrained_probed_and_compared_with_their_raw_values(maebench):
    how = ("--budget", "steps=400", "--masking", "block", "--ratio", "0.5")
    shown = maebench("run", "--dataset", "waves", *how, "--evals", "knn,linear-probe")
    assert "waves, signal-nano, signal-mae, block 0.5, seed 0" in shown
    found = [json.loads(path.read_text()) for path in maebench.results.rglob("records/knn*.json")]
    top1 = {row["model_kind"]: row["value"] for one in found for row in one["rows"] if row["main"]}
    assert set(top1) == {"run", "untrained", "raw"}
    assert top1["run"] > top1["untrained"] + 0.05  # 200 signals of test, four classes
    assert "raw values" in shown


@pytest.mark.slow
def test_what_does_not_fit_signals_is_refused_in_one_line(maebench):
    line = maebench("run", "--dataset", "waves", "--encoder", "vit-nano", fails=True)
    assert line == (
        "Error: encoder 'vit-nano' takes images, and dataset 'waves' yields signals; what takes "
        "signals: signal-nano\n"
    )
    *uses, line = maebench(
        "run", "--dataset", "waves", "--masking", "multi-block", fails=True
    ).splitlines()
    assert all(before.startswith("uses ") for before in uses)
    assert line.startswith(
        "Error: masking 'multi-block' needs rows and columns of patches, and dataset 'waves' "
        "yields signals on a line of 16: take one such as random, "
    )
    line = maebench("run", "--dataset", "waves", "--image-size", "8", fails=True)
    assert line == (
        "Error: image_size: dataset 'waves' yields signals; image_size and augment are read with "
        "images alone\n"
    )
