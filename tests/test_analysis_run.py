"""A run whole: pretrained, and evaluated beside its floor and raw pixels."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tiny
import torch
from tiny import evaluation

from maebench import ConfigError, MaebenchError, Result
from maebench.analysis.run import evaluate_run, models_of, run


def score(model):
    yield Result("score", torch.ones(360, dtype=torch.float64))


def fails(model):
    raise MaebenchError("no")


GOOD, BAD = evaluation(score, "good"), evaluation(fails, "bad")


def test_run_pretrains_evaluates_and_gives_its_rows_alone(tmp_path):
    table = run(tiny.config(evals=(BAD, GOOD)), tmp_path)
    assert list(zip(table["model_kind"], table["evaluation"], table["status"], strict=True)) == [
        (kind, *rest)
        for kind in ("run", "untrained", "pixels")  # the order of the printed table
        for rest in (("bad", "failed"), ("good", "ok"))
    ]
    again = run(tiny.config(evals=(GOOD,)), tmp_path)
    assert set(again["evaluation"]) == {"good"}
    assert set(again["created"]) < set(table["created"]), "what is done is not done again"


def test_a_run_of_python_is_the_run_of_the_command_line(tmp_path):
    config = tiny.config(evals=(GOOD,))
    table = run(config, tmp_path)
    plan = tiny.plan(tmp_path, evals=(GOOD,))
    assert set(table["run"].dropna()) == {plan.run.name}
    assert evaluate_run(plan).equals(table)


def test_the_models_of_a_run_see_the_same_images(tmp_path):
    models = models_of(tiny.plan(tmp_path), tiny.names())
    assert [model.kind for model in models] == ["run", "untrained", "pixels"]
    assert len({id(model.splits) for model in models}) == 1


def test_the_steps_of_an_evaluation_are_shown_where_that_is_asked_for(tmp_path):
    shown = []

    def steps(model):
        for _ in model.progress(range(2), 2, "two steps"):
            pass
        yield from score(model)

    def progress(steps, total, what):
        shown.append((total, what))
        return steps

    evaluate_run(tiny.plan(tmp_path, evals=(evaluation(steps, "steps"),)), progress)
    assert shown == [(2, "two steps")] * 3


def test_a_setting_that_does_not_fit_stops_a_run_before_it_begins(tmp_path):
    with pytest.raises(ConfigError):
        run(tiny.config(masking="units", ratio=0.99), tmp_path)
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.slow  # four evaluations in a process of their own
def test_the_default_run_never_imports_timm_or_torchvision(tmp_path):
    code = """
import sys
import maebench
config = maebench.RunConfig(budget="steps=2", limit=100, device="cpu")
config = config.model_copy(update={"evals": tuple(
    e.model_copy(update={"epochs": 1}) if e.name == "finetune" else e for e in config.evals
)})
rows = maebench.run(config, sys.argv[1])
assert set(rows["status"]) <= {"ok", "not applicable"}, rows[["evaluation", "reason"]]
print(*sorted({"timm", "torchvision", "transformers"} & sys.modules.keys()))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == ""
