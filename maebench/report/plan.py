"""What `maebench compare` prints before it runs: cells, tests, what they can detect, the time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from maebench.analysis import seeds
from maebench.analysis.cells import Cell, Estimate
from maebench.analysis.comparison import Comparison
from maebench.report.comparison import FEW_SEEDS, floor_names, ranges


def plan_lines(comparison: Comparison) -> list[str]:
    """Which cells there are and why, and what is tested."""
    cells, design = comparison.cells, comparison.design
    seeds = f"{len(design.seeds)} seed{'s' * (len(design.seeds) > 1)}"
    lines = [f"comparison {comparison.name}: {len(design.arms)} arms x {seeds}"]
    kept = comparison.machine
    precisions = ", ".join(dict.fromkeys(kept["precision"].values()))
    lines.append(
        f"every cell on {kept['device']}, {kept['threads']} thread(s) per worker, {precisions}"
    )
    lines += [f"note: {note}" for note in comparison.notes]
    return [*lines, *_family(comparison), *_counts(cells)]


def cells_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """Every cell with its state and the reason: a row per arm, seeds in the same state together."""
    found: dict[str, dict[tuple[str, str], list[int]]] = {}
    names = floor_names((cell.kind, cell.arm) for cell in cells)
    for cell in cells:
        states = found.setdefault(names.get((cell.kind, cell.arm), cell.arm), {})
        states.setdefault((cell.state, cell.reason), []).append(cell.seed)
    rows = []
    for arm, states in found.items():
        for (state, reason), numbers in states.items():
            rows.append({"arm": arm, "seeds": ranges(numbers), "state": state, "reason": reason})
    return pd.DataFrame(rows)


def _counts(cells: Sequence[Cell]) -> list[str]:
    counts: dict[str, int] = {}
    for cell in cells:
        counts[cell.state] = counts.get(cell.state, 0) + 1
    return [f"{len(cells)} cells: " + ", ".join(f"{n} {state}" for state, n in counts.items())]


def _family(comparison: Comparison) -> list[str]:
    design = comparison.design
    m, n = len(design.rivals), len(design.seeds)
    lines = [
        f"tests: {m} against {design.baseline} for each evaluation ({'; '.join(design.rivals)}); "
        f"Holm over these {m}"
        if m > 1
        else f"test: {design.rivals[0]} against {design.baseline} for each evaluation"
    ]
    if n < FEW_SEEDS:
        lines.append(
            "one seed: whether two models differ can be answered, whether two ways of pretraining "
            "differ cannot: that needs --seeds 2 or more"
        )
        return lines
    in_deviations = seeds.detectable(1.0, n, m)
    text = f"{in_deviations:.1f} times the standard deviation of the differences between seeds"
    lines.append(f"{n} seeds find a difference of {text} with 80 % power at Holm's level")
    least = seeds.sign_flip_seeds(m)
    if n < least:
        lines.append(
            f"the exact sign flip over {n} seeds cannot fall below p = {2 / 2**n:.3g}; "
            f"it can be significant from {least} seeds on"
        )
    for row in _pilot(comparison):
        lines.append(row)
    return lines


def _pilot(comparison: Comparison) -> Iterator[str]:
    """What the design detects by the deviation of what is done already."""
    design = comparison.design
    scores = comparison.scores()
    if scores.empty or not (scores["status"] == "ok").any():
        return
    pairs = comparison.pairs()
    if "deviation" not in pairs:
        return
    m = len(design.rivals)
    for evaluation, rows in pairs[pairs["num_seeds"] > 1].groupby("evaluation", sort=False):
        # the mean variance of the arms: each alone is of few seeds
        pilot = math.sqrt((rows["deviation"].astype(float) ** 2).mean())
        unit = "points" if rows["unit"].iloc[0] == "%" else rows["unit"].iloc[0]
        if math.isnan(pilot) or pilot == 0:
            continue
        least = seeds.detectable(pilot, len(design.seeds), m)
        text = f"  {evaluation}: by the seeds that are done these are {least:.2g} {unit}"
        if design.target is not None:
            need = seeds.seeds_needed(pilot, design.target, m)
            text += f"; a difference of {design.target:g} {unit} needs {need} seeds"
        yield text


def time_lines(found: Estimate, cells: Sequence[Cell], workers: int) -> list[str]:
    """How long what is missing takes, as measured."""
    if not any(cell.missing for cell in cells):
        return []
    lines = []
    for arm, seconds in found.step_seconds.items():
        lines.append(f"  {arm}: {1000 * seconds:.3g} ms per update")
    workers = min(workers, sum(cell.missing > 0 for cell in cells))
    seconds = max(found.pretraining / workers, found.longest)
    text = f"pretraining takes about {duration(seconds)} on {workers} worker(s)"
    if found.evaluations is None:
        text += "; how long evaluations take is known when the first ones are done"
    else:
        text += f", evaluations about {duration(found.evaluations / workers)}"
    return [*lines, text]


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
