"""How the results of an evaluation become rows: checked, averaged, with the range over choices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maebench.errors import PluginError
from maebench.evaluating import records
from maebench.evaluating.intervals import group_sums, indistinguishable, mean_interval
from maebench.evaluating.model import EvaluatedModel
from maebench.evaluation import Evaluation, Metric, NotApplicable, Result


def checked(evaluation: Evaluation, result: Result, model: EvaluatedModel) -> Result:
    """The result, if it keeps to what its evaluation declares.

    Raises:
        PluginError: an undeclared metric, a wrong shape, NaN, or a value out of range.
    """
    try:
        json.dumps(dict(result.where), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"{evaluation.name}/{result.metric}: where={result.where!r} is not made of plain values"
        ) from error
    metric = evaluation.metrics.get(result.metric)
    if metric is None:
        raise PluginError(f"evaluation {evaluation.name!r} does not declare {result.metric!r}")
    if result.value is None:
        if not result.reason:
            raise PluginError(f"{evaluation.name}/{result.metric} is None without a reason")
        return result
    value = torch.as_tensor(result.value, dtype=torch.float64)
    try:
        examples = len(ids_of(model, metric))
    except NotApplicable as error:
        raise PluginError(f"{evaluation.name}/{result.metric} has a value, but {error}") from error
    if metric.per_example and value.shape != (examples,):
        whose = "images held out of train" if metric.held_out else "test examples"
        raise PluginError(
            f"{evaluation.name}/{result.metric}: one number for each of {examples} {whose} "
            f"is declared, got shape {tuple(value.shape)}"
        )
    if not metric.per_example and value.ndim:
        raise PluginError(f"{evaluation.name}/{result.metric}: a plain number is declared")
    if not bool(value.isfinite().all()):
        raise PluginError(f"{evaluation.name}/{result.metric} is not finite")
    low, high = metric.low, metric.high
    if (low is not None and bool((value < low).any())) or (
        high is not None and bool((value > high).any())
    ):
        raise PluginError(f"{evaluation.name}/{result.metric} leaves its range {low} to {high}")
    return replace(result, value=value if metric.per_example else float(value))


def check_complete(evaluation: Evaluation, results: Sequence[Result]) -> None:
    """Refuses results without the one headline of the main metric, or with a row twice.

    Raises:
        PluginError: names what is missing.
    """
    mains = [name for name, metric in evaluation.metrics.items() if metric.main]
    if len(mains) != 1:
        raise PluginError(
            f"evaluation {evaluation.name!r} must declare one main metric, not {mains}"
        )
    names = [records.value_name({"metric": r.metric, "where": r.where}) for r in results]
    if twice := {name for name in names if names.count(name) > 1}:
        raise PluginError(f"evaluation {evaluation.name!r} yields {', '.join(twice)} twice")
    main = mains[0]
    headlines = [r for r in results if r.metric == main and is_headline(r.where)]
    if len(headlines) != 1:
        raise PluginError(
            f"evaluation {evaluation.name!r} must yield its main metric {main!r} exactly once "
            f"as headline (where has chosen=True, or is empty), got {len(headlines)}"
        )


def is_headline(where: Any) -> bool:
    """Whether a row is the one that is shown: it was chosen, or there is no other."""
    return bool(where.get("chosen")) or not where


def ids_of(model: EvaluatedModel, metric: Metric) -> Tensor:
    """The ids of the images that a metric's values belong to."""
    if metric.held_out:
        return model.splits.load("train").info.ids[model.folds().index]
    return model.splits.load(model.evaluation.test).info.ids


def mark_ranges(rows: Sequence[records.Row], values: Mapping[str, NDArray[Any]]) -> None:
    """Adds to what was chosen the range over the choices that validation cannot tell from it.

    The choices are told apart by `indistinguishable` on the images held out of train, on whole
    groups of them where there are groups. Where nothing was chosen, or outcomes of single images
    were not kept, the rows stay as they are.
    """
    place = records.place_key
    outcomes_of = held_out(rows, values)
    held = {place(row): row for row in outcomes_of if row["metric"] == outcomes_of[0]["metric"]}
    for row in rows:
        if not row["main"] or place(row) not in held or len(held) < 2:
            continue
        outcomes = np.stack([values[records.value_name(r)] for r in held.values()])
        best = list(held).index(place(row))
        sums, _ = group_sums(outcomes, values.get("held_out_groups"))
        alike = indistinguishable(sums, best)
        same_metric = [r for r in rows if r["metric"] == row["metric"] and r["value"] is not None]
        there = {place(r): r["value"] for r in same_metric}
        found = [there[p] for p, same in zip(held, alike, strict=True) if same and p in there]
        row |= {"choices": len(held), "choices_alike": int(alike.sum())}
        if len(found) == alike.sum():  # where test was read for the chosen one alone: no range
            row |= {"choice_low": min(found), "choice_high": max(found)}


def held_out(rows: Sequence[records.Row], values: Mapping[str, NDArray[Any]]) -> list[records.Row]:
    """The rows that have outcomes of images held out of train."""
    held = [row for row in rows if row["split"] == records.HELD_OUT]
    return [row for row in held if records.value_name(row) in values]


def row_of(model: EvaluatedModel, result: Result) -> records.Row:
    """What a result says, without what all rows of an evaluation share."""
    metric = model.evaluation.metrics[result.metric]
    row: records.Row = {
        **_metric(result.metric, metric),
        "where": dict(result.where),
        "main": metric.main and is_headline(result.where),
    }
    if metric.held_out:
        examples = 0 if result.value is None else len(ids_of(model, metric))
        row |= {"split": records.HELD_OUT, "examples": examples}
    if isinstance(result.value, Tensor):
        row |= _mean(model, metric, result.value.double().cpu().numpy())
    elif result.value is not None:
        row["value"] = float(result.value)
    else:
        row |= {"status": "not applicable", "reason": result.reason}
    return row


def _mean(model: EvaluatedModel, metric: Metric, values: NDArray[Any]) -> records.Row:
    """The mean over examples with its interval."""
    split = "train" if metric.held_out else model.evaluation.test
    groups = model.splits.load(split).info.groups
    if groups is not None and metric.held_out:
        groups = groups[model.folds().index]
    found = mean_interval(values, None if groups is None else groups.numpy())
    low, high = (None if np.isnan(end) else end for end in (found.low, found.high))
    row: records.Row = {"value": found.value, "low": low, "high": high, "interval": found.method}
    return row | {"num_groups": None if groups is None else len(groups.unique())}


def _metric(name: str, metric: Metric) -> records.Row:
    """What a row without a value says of its metric."""
    return {
        "metric": name,
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        **dict.fromkeys(("value", "low", "high", "interval", "num_groups")),
        **dict.fromkeys(("choice_low", "choice_high", "choices", "choices_alike")),
    }


def empty(evaluation: Evaluation) -> records.Row:
    """The row of an evaluation without results."""
    mains = [(name, metric) for name, metric in evaluation.metrics.items() if metric.main]
    name, metric = (
        mains[0] if mains else ("", Metric(help=""))
    )  # none: a broken plugin, which the reason says
    return {**_metric(name, metric), "where": {}, "main": True}
