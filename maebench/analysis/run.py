"""One run whole: pretrained, evaluated beside its controls, its rows in one DataFrame."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from maebench.analysis.records import records_at
from maebench.config.run import RunConfig
from maebench.errors import DeviceError
from maebench.evaluating.model import Progress, no_progress
from maebench.evaluating.suite import evaluate
from maebench.models.control import control_of
from maebench.models.load import trained_model, untrained_model
from maebench.models.model import LoadedModel
from maebench.plugins import Names, contained, installed
from maebench.pretraining import runs
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import Plan, prepare

if TYPE_CHECKING:
    import pandas as pd


@contained()
def run(config: RunConfig, results: str | Path | None = None) -> pd.DataFrame:
    """Pretrains and evaluates as `maebench run` does; returns the rows as a DataFrame.

    Raises:
        MaebenchError: a setting, the data or the folder is wrong; evaluations that fail are rows.
    """
    plan = prepare(config, runs.results_folder(results))
    for _ in pretrain(plan):
        pass
    return evaluate_run(plan)


@contained()
def evaluate_run(plan: Plan, progress: Progress = no_progress) -> pd.DataFrame:
    """The rows of a pretrained run, its untrained floor and raw pixels, in the order of --evals.

    An evaluation that is done is not run again.
    """
    names = installed()
    paths: list[Path] = []
    try:
        for model in models_of(plan, names):
            for evaluation in plan.config.evals:
                seed = plan.config.seed
                paths.append(evaluate(model, evaluation, seed, names=names, progress=progress))
    except DeviceError as error:
        if not paths:
            raise
        warnings.warn(str(error), stacklevel=2)  # and a table of what there is
    return records_at(paths)


def models_of(plan: Plan, names: Names) -> list[LoadedModel]:
    """The models of a run's table on its images: the run, its untrained floor, raw pixels."""
    trained = trained_model(plan.run, plan.device, names, plan.config, plan.splits)
    return [trained, *floors_of(plan, names)]


def floors_of(plan: Plan, names: Names) -> list[LoadedModel]:
    """What a run is compared with in its table, for which its weights need not be there."""
    run, config, device, results = plan.run, plan.config, plan.device, plan.run.results
    return [
        untrained_model(run, results, device, names, config, plan.splits),
        control_of(config, run.facts, results, device, plan.splits),
    ]
