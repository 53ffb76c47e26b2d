"""A comparison whose numbers are made up: records on disk as evaluations write them, no runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maebench import RunConfig
from maebench.analysis.cells import Cell
from maebench.analysis.comparison import Comparison
from maebench.analysis.design import Design, label, read_design
from maebench.evaluating import records
from maebench.evaluating.intervals import mean_interval
from maebench.plugins import installed

Outcomes = dict[str, dict[int, NDArray[Any]]]  # arm -> seed -> one number per image
MACHINE = {"device": "cpu", "threads": 1, "precision": {"a": "fp32"}}


def design(ratios: tuple[float, ...] = (0.25, 0.5, 0.75), seeds: Any = 3, **more: Any) -> Design:
    """Random masking at some ratios."""
    return read_design({"ratio": list(ratios)}, installed(), seeds=seeds, **more)


def write(
    folder: Path,
    name: str,
    values: NDArray[Any],
    evaluation: str = "knn",
    unit: str = "%",
    held_out: NDArray[Any] | None = None,
    tests: NDArray[Any] | None = None,
    chosen: int = 0,
    groups: NDArray[Any] | None = None,
    **more: Any,
) -> Path:
    """One file of rows: the main metric, and where given a grid with what was held out of train."""
    shared = dict.fromkeys(records.COLUMNS) | {
        **{"evaluation": evaluation, "options": evaluation, "protocol": f"{evaluation}@v1"},
        **{"status": "ok", "reason": "", "seed": 0, "unit": unit, "higher_is_better": True},
        **more,
    }
    stored: dict[str, NDArray[Any]] = {"ids": np.arange(len(values))}
    if groups is not None:
        stored["groups"] = groups
    rows = []
    grid = [values] if tests is None else list(tests)
    for i, row in enumerate(grid):
        where: dict[str, Any] = {} if tests is None else {"k": i}
        where |= {"chosen": True} if tests is not None and i == chosen else {}
        found = mean_interval(row, groups)
        ends = {"value": found.value, "low": found.low, "high": found.high}
        main = {"metric": "top1", "where": where, "split": "test", "interval": found.method}
        rows.append(shared | main | ends | {"main": tests is None or i == chosen})
        stored[records.value_name(rows[-1])] = row
        if held_out is not None:
            held = {"metric": "validation_top1", "split": records.HELD_OUT, "main": False}
            rows.append(shared | held | {"where": where, "value": float(held_out[i].mean())})
            stored[records.value_name(rows[-1])] = held_out[i]
            stored["held_out_ids"] = np.arange(held_out.shape[1])
    return records.write(folder, name, rows, stored)


def comparison(
    folder: Path, outcomes: dict[str, Outcomes], asked: Design, **more: Any
) -> Comparison:
    """A finished comparison of these outcomes, by evaluation, arm and seed."""
    cells = []
    for arm in asked.arms:
        for seed in asked.seeds:
            paths = [
                write(
                    folder,
                    f"{evaluation}-{arms_name(arm.name)}-s{seed}",
                    values,
                    evaluation,
                    seed=seed,
                    **more,
                )
                for evaluation, by_arm in outcomes.items()
                if (values := by_arm.get(arm.name, {}).get(seed)) is not None
            ]
            plan: Any = SimpleNamespace(run=SimpleNamespace(name=f"{arm.name}-s{seed}"))
            state = "done" if paths else "failed before"
            cells.append(
                Cell(arm.name, seed, plan, records=tuple(paths), state=state, reason="made up")
            )
    return Comparison("made-up", folder, asked, tuple(cells), machine=MACHINE)


def arms_name(name: str) -> str:
    """A name as part of a file's name."""
    return name.replace(" ", "-").replace(".", "_")


def drawn(
    rng: np.random.Generator, shares: dict[str, float], seeds: tuple[int, ...], images: int = 100
) -> Outcomes:
    """Right or wrong at these shares, independently."""
    return {
        arm: {seed: (rng.random(images) < share).astype(float) for seed in seeds}
        for arm, share in shares.items()
    }


__all__ = ["RunConfig", "comparison", "design", "drawn", "label", "replace", "write"]


def clear_comparison(folder: Path) -> Comparison:
    """Two arms that differ in every seed and hardly between seeds, and one like the baseline."""
    asked = design(seeds=5, target=0.5, margin=20.0)
    outcomes: dict = {"0.25": {}, "0.5": {}, "0.75": {}}
    for seed in asked.seeds:
        for arm, right in (("0.25", 50), ("0.5", 51 - seed % 3), ("0.75", 80 + seed)):
            outcomes[arm][seed] = np.r_[np.ones(right), np.zeros(100 - right)]
    return comparison(folder, {"knn": outcomes}, asked)
