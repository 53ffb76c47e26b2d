"""Records that were moved aside because they were damaged, made again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from maebench.analysis.run import floors_of, models_of
from maebench.errors import MaebenchError
from maebench.evaluating.model import Progress, no_progress
from maebench.evaluating.suite import evaluate, record_path
from maebench.plugins import Names
from maebench.pretraining import runs
from maebench.pretraining.hardware import find_device
from maebench.pretraining.plan import Plan, config_of


def evaluated_again(
    results: Path, lost: Collection[Path], names: Names, progress: Progress = no_progress
) -> dict[Path, str]:
    """Makes those records again that an evaluation of a run's own settings would have.

    Args:
        results: the folder.
        lost: where they lay.
        names: the installed components.
        progress: shows it.

    Returns:
        Which could not be made again, and why.
    """
    left = {path: "no run here is set to be evaluated so: maebench eval makes it" for path in lost}
    for run in runs.readable_runs(results)[0]:
        if not left:
            break
        try:
            config = config_of(run, names)
            splits = config.splits(runs.read_kept(run))
            plan = Plan(config, run, splits, find_device(config.device))
            models = models_of(plan, names) if plan.whole else floors_of(plan, names)
            for model in models:
                for evaluation in config.evals:
                    path = record_path(model, evaluation, splits, config.seed)
                    if path in left:
                        evaluate(model, evaluation, config.seed, splits, names, progress)
                        del left[path]
            if not plan.whole:  # its weights are to be made again first
                why = "its run is not finished: the command that started it makes both"
                left |= {path: why for path in left if path.parents[1] == run.folder}
        except MaebenchError as error:
            left |= {path: str(error) for path in left if run.name in str(path)}
    return left
