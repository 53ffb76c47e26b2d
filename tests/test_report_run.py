"""What `maebench run` ends with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from made_up import write
from tiny import evaluation

from maebench import MaebenchError, Result
from maebench.analysis.records import load_records
from maebench.analysis.run import models_of
from maebench.evaluating import records, suite
from maebench.report.run import print_run, said_of_differences

FACTS = {
    **{"model_kind": "run", "dataset": "digits", "dataset_fingerprint": "f", "package": "maebench"},
    **{"evaluation_version": 1, "weights_hash": "w", "precision": "fp32", "created": "2026"},
}


def shown(folder, outcomes, groups=None, **how):
    """What is said of the difference of two models with these outcomes on test."""
    rows = []
    for model, values in outcomes.items():
        path = write(folder, model, values, model=model, **FACTS, **how)
        found = [{**row, "num_groups": groups and len(set(groups))} for row in records.read(path)]
        if groups:
            values = dict(np.load(path.with_suffix(".npz"))) | {"groups": np.array(groups)}
            records.write(folder, model, found, values)
        rows += [{**row, "file": str(path)} for row in found]
    for line in said_of_differences(pd.DataFrame(rows), *outcomes):
        line.show()


@pytest.mark.parametrize(("other", "says"), [(5, "p = .064: no difference"), (4, "p = .031\n")])
def test_the_test_decides_whether_a_difference_is_shown(tmp_path, capsys, other, says):
    """Fourteen against five: Tango's interval leaves 0 out, and McNemar's test does not."""
    image = np.arange(500)
    shown(tmp_path, {"RUN": image < 14, "FLOOR": image >= 500 - other})
    text = capsys.readouterr().out
    assert " [+0." in text and says in text


def test_one_group_of_images_has_no_interval(tmp_path, capsys):
    right = np.arange(10) < 6
    grid = {"held_out": np.eye(2), "tests": np.stack([right, ~right])}
    shown(tmp_path, {"RUN": right, "FLOOR": ~right}, groups=[0] * 10, **grid)
    text = " ".join(capsys.readouterr().out.split())
    assert "nan" not in text
    assert " +0.0 no interval: one group of images (choices made again: no interval: one" in text


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
    assert "some score (%): +50.0 [+44.9, +55.1], p <.001\n" in text
    # two models that agree on every image may still differ on others
    assert "same score (%): +0.0 [-1.1, +1.1], p = 1: no difference shown\n" in text
    assert "Values are means over test images with 95 % intervals: Wilson.\n" in text
    assert "Paired differences: Tango score interval and McNemar exact test.\n" in text
    assert "differs in" not in text
    assert "some of raw pixels: failed: no eyes" in text
    assert text.count("lies on the edge of the grid") == 2
    assert str(plan.run.folder) in text.replace("\n", "")


def test_digits_are_spoken_of_where_images_are_like_them(tmp_path, capsys):
    def right(model):
        yield Result("score", torch.ones(360).double())

    plan = tiny.plan(tmp_path)
    for model in models_of(plan, tiny.names()):
        suite.evaluate(model, evaluation(right, "right"))
    rows = load_records(tmp_path)
    print_run(rows, plan)
    assert "without an encoder: small centred pictures such as digits" in capsys.readouterr().out
    plan.run.content["facts"]["channels"] = 3
    print_run(rows, plan)
    text = capsys.readouterr().out
    assert "Raw pixels are the control without an encoder; what pretraining taught" in text
    assert "such as digits" not in text
