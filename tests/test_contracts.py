"""Components unlike the built-in ones go the whole way: pretrain, evaluate, table."""

from __future__ import annotations

import pytest
from fakes import names

from maebench import RunConfig
from maebench.analysis.records import load_records
from maebench.analysis.run import models_of
from maebench.evaluating import records, suite
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

EVALUATIONS = ("linear-probe", "finetune", "knn", "reconstruction")
QUICK = {"linear-probe": {"iterations": 5}, "finetune": {"epochs": 1, "drop_path": 0}}
SETTINGS = {
    "a masking that asks the teacher's loss": {"masking": "worst"},
    "a masking that asks the teacher's attention": {"masking": "attended"},
    "an encoder that keeps all positions and ends coarser": {"encoder": "dense"},
    "an objective with labels that hides nothing": {"objective": "labelled"},
    "both": {"objective": "labelled", "encoder": "dense"},
}


@pytest.mark.slow
@pytest.mark.parametrize("what", SETTINGS)
def test_a_stranger_goes_the_whole_way(what, tmp_path):
    found = names()
    evals = [{"name": name, **QUICK.get(name, {})} for name in EVALUATIONS]
    config = RunConfig(found, budget="steps=2", limit=200, evals=evals, **SETTINGS[what])
    plan = prepare(config, tmp_path)
    assert len(list(pretrain(plan))) == 2
    trained, untrained, _ = models_of(plan, found)
    for model in (trained, untrained):
        for evaluation in config.evals:
            path = suite.evaluate(model, evaluation, names=found)
            headline = next(row for row in records.read(path) if row["main"])
            reconstructs = config.objective.name == "mae"
            if evaluation.name == "reconstruction" and not reconstructs:
                assert headline["status"] == "not applicable"
                assert headline["reason"] == "objective 'labelled' does not reconstruct"
            else:
                assert (headline["status"], headline["reason"]) == ("ok", "")
    table = load_records(tmp_path)
    assert set(table["evaluation"]) == set(EVALUATIONS)
    assert table["ratio"].notna().all() == config.objective.hides
    mine = table["model_kind"] == "run"
    assert (table[mine]["steps"] == 2).all() and table[~mine]["steps"].isna().all()
