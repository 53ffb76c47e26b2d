"""Whether the tests of `maebench compare` keep their promises, on a pool of real runs.

    python benchmarks/calibration.py RESULTS [RUNS] [WORKERS]

Makes RUNS (default 64) short runs on digits that differ in the seed alone (random masking at .75,
100 updates, kNN); what is done is found in RESULTS and not done again. Then it simulates 2,000
times and prints Markdown:

- Two models: the outcomes of two runs are swapped per image at random, so that nothing differs;
  how often McNemar's test says that something does.
- Two ways: two arms are drawn from the pool without replacement, so that nothing differs, with 3,
  5 and 8 seeds; how often the paired t test (and, for a family of three arms against a baseline,
  the paired t test with Holm) says that something does.
- Power: the difference that the design calls detectable is added to one arm; how often it is found,
  with the deviation of the pool and with that of the design's own seeds.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maebench import RunConfig
from maebench.analysis.cells import Cell, is_done, record_path
from maebench.analysis.cells import model_of as model_of_cell
from maebench.analysis.seeds import detectable, over_seeds
from maebench.analysis.stats import paired_difference
from maebench.analysis.workers import run_tasks
from maebench.evaluating import records
from maebench.plugins import Names, installed
from maebench.pretraining.plan import prepare

SIMULATIONS = 2000
SEEDS = (3, 5, 8)
RIVALS = 3  # of the family that Holm is tried on
LEVEL = 0.05


def main(folder: str, runs: str = "64", workers: str = "2") -> None:
    """Makes the pool, simulates and prints."""
    outcomes = pool(Path(folder), int(runs), int(workers))
    scores = 100 * outcomes.mean(1)
    print(
        f"{len(scores)} runs, kNN {scores.mean():.1f} %, standard deviation between seeds "
        f"{scores.std(ddof=1):.2f} points, {outcomes.shape[1]} test images; "
        f"{SIMULATIONS:,} simulations, two Monte Carlo errors at 5 % are "
        f"{200 * math.sqrt(LEVEL * (1 - LEVEL) / SIMULATIONS):.2f} points\n"
    )
    rng = np.random.default_rng(0)
    print("| question | seeds | what is true | flagged |\n| --- | --- | --- | --- |")
    print(f"| two models, McNemar | 1 | no difference | {models(rng, outcomes):.1%} |")
    for num in SEEDS:
        print(f"| two ways, paired t | {num} | no difference | {ways(rng, scores, num):.1%} |")
    for num in SEEDS:
        found = family(rng, scores, num)
        print(f"| {RIVALS} arms against a baseline, Holm | {num} | no difference | {found:.1%} |")
    for num in SEEDS:
        planted, share = power(rng, scores, num)
        print(f"| two ways, paired t | {num} | {planted:.2f} points (pool's) | {share:.1%} |")
    for num in SEEDS:
        planted, share = power(rng, scores, num, own=True)
        text = f"{planted:.2f} points (median; of the design's own seeds)"
        print(f"| two ways, paired t | {num} | {text} | {share:.1%} |")


def pool(results: Path, runs: int, workers: int) -> NDArray[np.float64]:
    """Whether each run gives each test image its class, (runs, images)."""
    names = installed()
    cells, tasks = [], []
    for seed in range(runs):
        config = RunConfig(
            names, masking="random", ratio=0.75, budget="steps=100", seed=seed, evals=("knn",)
        )
        splits = cells[0].plan.splits if cells else None
        facts = cells[0].plan.run.facts if cells else None
        plan = prepare(config, results, splits=splits, facts=facts, write=False)
        cells.append(Cell("random", seed, plan))
        if not plan.finished or not is_done(record_of(cells[-1], names)):
            tasks.append(cells[-1].as_task([seed]))
    for event in run_tasks(tasks, workers, 1, results / "logs"):
        if event["what"] in ("done", "failed"):
            print(event, file=sys.stderr)
    found = []
    for cell in cells:
        path = record_of(cell, names)
        main_row = next(row for row in records.read(path) if row["main"])
        values = records.values(path, main_row)
        assert values is not None
        found.append(values[1])
    return np.array(found)


def record_of(cell: Cell, names: Names) -> Path:
    """The file of a finished run's evaluation, there or not."""
    model = model_of_cell(cell, names)
    return record_path(model, cell.plan.config.evals[0], model.splits, cell.seed)


def models(rng: np.random.Generator, outcomes: NDArray[np.float64]) -> float:
    """How often two models are called different that are one and the same by construction."""
    ids, flagged = np.arange(outcomes.shape[1]), 0
    for _ in range(SIMULATIONS):
        first, second = outcomes[rng.choice(len(outcomes), 2, replace=False)]
        swap = rng.random(len(ids)) < 0.5
        mine, theirs = np.where(swap, second, first), np.where(swap, first, second)
        flagged += paired_difference(ids, mine, ids, theirs).p <= LEVEL
    return flagged / SIMULATIONS


def ways(rng: np.random.Generator, scores: NDArray[np.float64], num: int) -> float:
    """How often two arms of the same way are called different."""
    flagged = 0
    for _ in range(SIMULATIONS):
        drawn = rng.choice(scores, (2, num), replace=False)
        flagged += over_seeds(drawn[0] - drawn[1]).p <= LEVEL
    return flagged / SIMULATIONS


def family(rng: np.random.Generator, scores: NDArray[np.float64], num: int) -> float:
    """How often any of several arms is called different from a baseline of the same way.

    Holm's first step decides whether anything is: the least p value against the level over the
    number of tests.
    """
    flagged = 0
    for _ in range(SIMULATIONS):
        drawn = rng.choice(scores, (RIVALS + 1, num), replace=False)
        least = min(over_seeds(arm - drawn[0]).p for arm in drawn[1:])
        flagged += least <= LEVEL / RIVALS
    return flagged / SIMULATIONS


def power(
    rng: np.random.Generator, scores: NDArray[np.float64], num: int, own: bool = False
) -> tuple[float, float]:
    """The median planted difference, and how often it is found."""
    deviation = math.sqrt(2) * scores.std(ddof=1)  # of a difference of two independent runs
    fixed, planted, flagged = detectable(deviation, num), [], 0
    for _ in range(SIMULATIONS):
        drawn = rng.choice(scores, (2, num), replace=False)
        effect = fixed
        if own:
            effect = detectable(float((drawn[0] - drawn[1]).std(ddof=1)), num)
        planted.append(effect)
        flagged += over_seeds(drawn[0] + effect - drawn[1]).p <= LEVEL
    return float(np.median(planted)), flagged / SIMULATIONS


if __name__ == "__main__":
    main(*sys.argv[1:])
