"""The cells of a comparison: which runs and evaluations are done, and what is missing."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from maebench.analysis.design import Arm, Design
from maebench.config.run import RunConfig
from maebench.data.dataset import Splits
from maebench.errors import ConfigError
from maebench.evaluating import records
from maebench.evaluating.suite import record_path
from maebench.models.control import CONTROLS, control_kind, control_of
from maebench.models.load import trained_model, untrained_model
from maebench.models.model import LoadedModel
from maebench.plugins import Names
from maebench.pretraining.checkpoints import newest
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import Plan, prepare

MEASURED_STEPS = 12  # of which the first ones pay for what is allocated once
WARM_STEPS = 3
MEASURED_SECONDS = 5.0  # for a step that takes seconds, a few are enough


@dataclass(frozen=True)
class Cell:
    """One run of one arm with one seed, and its evaluations; or a model without pretraining.

    Args:
        arm: the arm's name.
        seed: of the run.
        plan: the run, its folder not yet made where it is new.
        kind: "run", or a floor of the table: "untrained", or a control such as "pixels".
        records: the files that its evaluations have or will have; empty while its weights are not
            there.
        missing: how many evaluations are not done.
        state: "done", "to run", "goes on" or "failed before".
        reason: why, in words.
    """

    arm: str
    seed: int
    plan: Plan
    kind: str = "run"
    records: tuple[Path, ...] = ()
    missing: int = 0
    state: str = "to run"
    reason: str = "new"

    @property
    def name(self) -> str:
        """The run's name, or the floor's."""
        return self.plan.run.name if self.kind == "run" else f"{self.kind}:{self.plan.run.name}"

    def as_task(self, evaluation_seeds: Sequence[int]) -> dict[str, Any]:
        """What a worker needs to do it, as JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            # the device that was found: one that fails later must not become another
            "config": {**self.plan.config.dump(), "device": self.plan.device},
            "results": str(self.plan.run.results),
            "seeds": list(evaluation_seeds),
        }


@dataclass
class Data:
    """Images that are loaded once for all cells that share them."""

    loaded: dict[str, Splits] = field(default_factory=dict)

    @classmethod
    def of_cells(cls, cells: Sequence[Cell]) -> Data:
        """What cells have loaded already."""
        return cls({wanted(cell.plan.config): cell.plan.splits for cell in cells})

    def of(self, config: RunConfig) -> Splits:
        """The images that a config asks for."""
        return self.loaded.setdefault(wanted(config), config.splits())


def wanted(config: RunConfig) -> str:
    """What of a config says which images it asks for, and which of them are copies."""
    where = config.dataset, config.data_dir, config.machine.memory_gb
    how = config.image_size, config.limit, config.on_bad_image, config.data, config.augment.flip
    return repr((where, how))


def model_of(cell: Cell, names: Names) -> LoadedModel:
    """The model of a cell whose run is there."""
    plan, results = cell.plan, cell.plan.run.results
    run, config, device, splits = plan.run, plan.config, plan.device, plan.splits
    if cell.kind == "untrained":
        return untrained_model(run, results, device, names, config, splits)
    if cell.kind in CONTROLS:
        return control_of(config, run.facts, results, device, splits)
    return trained_model(run, device, names, config, splits)


def cells_of(
    design: Design, results: Path, names: Names, failed: Mapping[str, str], data: Data | None = None
) -> list[Cell]:
    """All cells of a comparison in the order in which they are run: seed by seed, then the floors.

    Args:
        design: arms and seeds.
        results: where runs lie.
        names: the installed components.
        failed: why cells failed before, by their names.
        data: images that are loaded already.

    Raises:
        MaebenchError: an arm cannot be run, or arms would be tested on different images.
    """
    data = data or Data()
    found: list[Cell] = []
    floors: list[Cell] = []
    started: set[Any] = set()
    first: dict[str, Cell] = {}  # of each arm
    for seed in design.seeds:
        for arm in design.arms:
            cell = _cell(arm, seed, results, data, first.get(arm.name))
            first.setdefault(arm.name, cell)
            found.append(cell)
            # arms of one encoder start from the same weights: one floor for all of them; the
            # objective's decoder counts in reconstruction, train's images in what probes learn from
            config = cell.plan.config
            images = (config.image_size, cell.plan.splits.load("train").info.fingerprint)
            for kind, start in (
                ("untrained", (seed, config.encoder, config.objective, images)),
                (control_kind(config.dataset.gives), images),
            ):
                if (kind, start) not in started:
                    started.add((kind, start))
                    floors.append(Cell(arm.name, seed, cell.plan, kind))
    floors.sort(key=lambda cell: cell.kind != "untrained")  # then the controls
    check_test_sets(found)
    return [judged(cell, design, names, failed) for cell in (*found, *floors)]


def _cell(arm: Arm, seed: int, results: Path, data: Data, like: Cell | None) -> Cell:
    """One run of an arm, not yet made; `like` is one of another seed."""
    config = arm.at(seed)
    facts = None if like is None else like.plan.run.facts
    try:
        splits = data.of(config)
        return Cell(
            arm.name, seed, prepare(config, results, splits=splits, facts=facts, write=False)
        )
    except ConfigError as error:
        raise ConfigError(f"arm {arm.name}: {error}") from error


def check_test_sets(cells: Sequence[Cell]) -> None:
    """Refuses arms that would be tested on different images.

    Raises:
        ConfigError: names two such arms.
    """
    tests = {cell.arm: cell.plan.splits.load("test").info.fingerprint for cell in cells}
    first = cells[0].arm
    for arm, fingerprint in tests.items():
        if fingerprint != tests[first]:
            raise ConfigError(
                f"arms {first} and {arm} have different test images (fingerprints "
                f"{tests[first][:8]} and {fingerprint[:8]}): their results cannot be paired"
            )


def judged(cell: Cell, design: Design, names: Names, failed: Mapping[str, str]) -> Cell:
    """The cell with what is done of it, judged by what lies in its folder."""
    plan, changes = cell.plan, dict[str, Any]()
    evaluations = len(plan.config.evals) * len(design.evaluation_seeds(cell.seed))
    if cell.kind == "run" and not plan.finished:
        changes["missing"] = evaluations
        if last := newest(plan.checkpoints):
            far = f"step {last['step']:,}" + (f" of {plan.steps:,}" if plan.steps else "")
            changes |= {"state": "goes on", "reason": far}
    else:
        paths = record_paths(model_of(cell, names), plan.config, design, cell.seed)
        missing = sum(not is_done(path) for path in paths)
        changes = {"records": tuple(paths), "missing": missing}
        if not missing:
            changes |= {"state": "done", "reason": "its results are there"}
        elif cell.kind == "run" or missing < evaluations:
            some = f"{missing} of {evaluations} evaluations missing"
            changes |= {"state": "goes on", "reason": some}
    if cell.name in failed and changes.get("state") != "done":
        changes |= {"state": "failed before", "reason": failed[cell.name]}
    return replace(cell, **changes)


def record_paths(model: LoadedModel, config: RunConfig, design: Design, seed: int) -> list[Path]:
    """The files of all evaluations of a model, by evaluation and seed."""
    return [
        record_path(model, evaluation, model.splits, number)
        for evaluation in config.evals
        for number in design.evaluation_seeds(seed)
    ]


def is_done(path: Path) -> bool:
    """Whether an evaluation is done: its rows are there and whole, and it did not fail."""
    found = records.readable(path)
    return bool(found) and all(row["status"] != "failed" for row in found)


# ---- how long it will take


@dataclass(frozen=True)
class Estimate:
    """How long the cells that are missing will take.

    Args:
        step_seconds: of one update of each arm, measured on one thread.
        pretraining: seconds of all missing updates together, on one worker.
        longest: seconds of the longest of the runs.
        evaluations: seconds of all missing evaluations where earlier records say it, else None.
    """

    step_seconds: dict[str, float]
    pretraining: float
    longest: float
    evaluations: float | None


def estimate(cells: Sequence[Cell], threads: int) -> Estimate:
    """Measures a few updates of each arm that has runs to make, and looks up its evaluations."""
    runs_left = [c for c in cells if c.kind == "run" and not c.plan.finished]
    per_step = {
        arm: measured(next(c for c in runs_left if c.arm == arm), threads)
        for arm in dict.fromkeys(c.arm for c in runs_left)
    }
    seconds = [0.0]
    for cell in runs_left:
        last = newest(cell.plan.checkpoints)
        steps = (cell.plan.steps or 0) - (last["step"] if last else 0)
        seconds.append(cell.plan.config.budget.seconds or steps * per_step[cell.arm])
    return Estimate(per_step, sum(seconds), max(seconds), _evaluation_seconds(cells))


def measured(cell: Cell, threads: int) -> float:
    """The median seconds of an update of a cell's run, by a few of them in a folder aside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    machine = cell.plan.config.machine.model_copy(update={"trackers": ()})  # it is no run of theirs
    config = cell.plan.config.model_copy(update={"machine": machine})
    seconds: list[float] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            # whatever fails here fails in its cell too, which becomes a row
            with contextlib.suppress(Exception):
                for step in pretrain(prepare(config, Path(folder), splits=cell.plan.splits)):
                    seconds.append(step.seconds)
                    late = time.monotonic() - began > MEASURED_SECONDS
                    if len(seconds) == MEASURED_STEPS or (late and len(seconds) > WARM_STEPS):
                        break
    finally:
        torch.set_num_threads(before)
    return statistics.median(seconds[WARM_STEPS:] or seconds or [0.0])


def _evaluation_seconds(cells: Sequence[Cell]) -> float | None:
    """Seconds of the missing evaluations by the median of done ones; None where one has none."""
    took: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        for path in cell.records:
            for row in records.readable(path)[:1]:
                took.setdefault((cell.kind, row["options"]), []).append(row["seconds"] or 0.0)
    total = 0.0
    for cell in cells:
        gives = cell.plan.config.dataset.gives
        for evaluation in cell.plan.config.evals if cell.missing else ():
            found = took.get((cell.kind, evaluation.changed_on(gives)))
            if found is None:
                return None
            total += statistics.median(found) * cell.missing / len(cell.plan.config.evals)
    return total
