"""Files of a results folder, with what reads each: for tests/faults.py."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import tiny
import torch
from faults import Kind

from maebench import MaebenchError, files, load_records
from maebench.analysis import same
from maebench.analysis.compare import seen_elsewhere
from maebench.analysis.records import COST, FROM_CONFIG
from maebench.analysis.state import read_failed, read_state
from maebench.data.dataset import Splits
from maebench.evaluating import partial, records, suite
from maebench.models.load import trained_model
from maebench.models.model import LoadedModel
from maebench.plugins import Names, installed
from maebench.pretraining import checkpoints, loop, runs
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare
from maebench_evals.linear_probe import LinearProbe

# two checkpoints, the last steps'
SETTINGS = {"budget": "steps=4", "machine": {"checkpoint_seconds": 1e-9}, "evals": ("knn",)}
SETTINGS_OF_RUNS = [name for name in FROM_CONFIG if name not in COST]
CLOCK = {"seconds", "created", "file", "pretraining_seconds"}  # other each time
UNKNOWN = "a comparison says that it is not known, as of a run of an earlier version"
OLD = (None, b'{"format": 1}', b'{"format": "2"}')  # a file of an earlier version has no hash
SLOW = 16  # cuts and flips of which one is taken, where a run goes on or is evaluated again


def kinds(folder: Path) -> list[Kind]:
    """Every kind of file of a results folder, made small in this one."""
    world = World.made(folder / "results")
    return of_world(world)


def of_world(world: World) -> list[Kind]:
    """Those of runs on images."""
    made = _of_tables, _of_pretraining, _of_evaluations, _of_comparisons
    return [kind for some in made for kind in some(world)]


@dataclass(frozen=True)
class World:
    """A results folder with two finished runs and one that has a step left.

    Args:
        root: it.
        run: the folder of a finished run.
        other: that of another.
        half: that of the unfinished one.
        names: the installed components.
        splits: the images, loaded.
    """

    root: Path
    run: Path
    other: Path
    half: Path
    names: Names
    splits: Splits

    @classmethod
    def made(cls, root: Path) -> World:
        """One that is there."""
        names = installed()
        with mock.patch.object(loop, "CHECKPOINT_SHARE", 0):
            made = [tiny.plan(root, seed=seed, **SETTINGS) for seed in (0, 1)]
            half = prepare(tiny.config(seed=2, **SETTINGS), root)
            steps = pretrain(half)
            for _ in range(3):
                next(steps)
            steps.close()
        world = cls(
            root, made[0].run.folder, made[1].run.folder, half.run.folder, names, half.splits
        )
        for plan in made:
            for spec in ("", "untrained:", "pixels:"):
                name = "digits" if spec == "pixels:" else plan.run.name
                model = tiny.load(root, f"{spec}{name}")
                suite.evaluate(model, plan.config.evals[0], names=names)
        return world

    # ---- what reads them

    def shown(self) -> dict[str, Any]:
        """Every number of every row of every table, and the values beside them."""
        table = load_records(self.root)
        found = rows_of(table.to_dict("records"))
        for file in table["file"].unique():
            found |= _values(Path(file))
        return found

    def evaluated(self, again: bool = False) -> dict[str, Any]:
        """The rows and values of the run's evaluation, which is made where it is not there."""
        model = self.model()
        path = suite.evaluate(model, model.config.evals[0], names=self.names, again=again)
        return _of_record(path)

    def goes_on(self, seed: int = 2) -> dict[str, Any]:
        """What a run has in the end: weights, hashes, log and cost."""
        config = tiny.config(seed=seed, **SETTINGS)
        plan = prepare(config, self.root, splits=self.splits)
        for _ in pretrain(plan):
            pass
        tensors, manifest = checkpoints.load_newest(plan.checkpoints) or ({}, {"step": 0})
        spent = runs.said_beside(plan.run, runs.SPENT)
        return {
            "weights": checkpoints.weights_hash(tensors),
            "step": manifest["step"],
            **{f"hash of {what}": mark for what, mark in runs.read_hashes(plan.run).items()},
            **{f"spent {what}": n for what, n in spent.items() if what not in CLOCK},
            **_logged(plan.run.folder),
        }

    def model(self) -> LoadedModel:
        """The finished run's."""
        run = runs.find_run(self.root, self.run.name)
        return trained_model(run, "cpu", self.names, splits=self.splits)

    def loaded(self) -> dict[str, Any]:
        """The weights of the finished run."""
        model = self.model()
        return {"weights": checkpoints.weights_hash(model.module.state_dict())}

    def beside(self) -> dict[str, Any]:
        """What a comparison reads of a run."""
        run = runs.Run(self.run, {"facts": {}})
        environment = runs.said_beside(run, runs.ENVIRONMENT_FILE)
        spent = runs.said_beside(run, runs.SPENT)
        parts = {"environment": environment, "spent": spent, "hashes": runs.read_hashes(run)}
        named = {"environment": ("processor", "gpus", "threads", "packages")}
        named |= {"spent": COST, "hashes": same.CHANGES}
        return {
            f"{part} {key}": repr(found[key])
            for part, found in parts.items()
            for key in named[part]
            if key in found
        }


def rows_of(rows: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    """What rows say, and apart from it what the settings and the cost of their runs add."""
    found = {}
    parts = {"": records.COLUMNS, "settings of ": SETTINGS_OF_RUNS, "cost of ": COST}
    for row in rows:
        name = f"{row['model']} {row['seed']} {row['metric']} {row['where']}"
        there = {k: v for k, v in row.items() if k not in CLOCK and v is not None and v == v}
        for part, columns in parts.items():
            # a column that lacks a number somewhere holds doubles
            plain = {k: _plain(there[k]) for k in columns if k in there}
            found |= {f"{part}{name}": repr(plain)} if plain else {}
    return found


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, int) else value


def _values(path: Path) -> dict[str, Any]:
    """What stands for the values beside rows; what cannot be read is warned of."""
    try:
        with records._arrays(path) as packed:
            return {f"{path.parents[1].name}/{path.stem} {k}": mark_of(packed[k]) for k in packed}
    except MaebenchError as error:
        warnings.warn(str(error), stacklevel=2)
        return {}


def _of_record(path: Path) -> dict[str, Any]:
    return {"path": path.name, **rows_of(records.read(path)), **_values(path)}


def mark_of(values: np.ndarray) -> str:
    return hashlib.sha256(f"{values.dtype}{values.shape}".encode() + values.tobytes()).hexdigest()


def _logged(run: Path, steps: int | None = None) -> dict[str, Any]:
    return {f"step {row['step']}": repr(row) for row in runs.read_log(run / "log.jsonl", steps)}


def _of_tables(world: World) -> list[Kind]:
    """What `maebench table` reads."""
    run, other = world.run, world.other
    (record,), (of_other,) = ([*each.glob("records/*.json")] for each in (run, other))
    (pixels,) = (path for path in world.root.glob("models/pixels*/records/*-s0.json"))
    not_made = "an evaluation that was never made has no record either"
    config, spent = run / "config.json", run / runs.SPENT
    lacking = "its numbers show without cost, as those of a run that goes on"
    return [
        Kind("config.json: table", config, world.shown, [other / "config.json"], every=2),
        Kind(
            "spent.json: table", spent, world.shown, [other / runs.SPENT], absent=lacking, every=2
        ),
        Kind(
            "record .json: table", record, world.shown, [of_other, pixels], absent=not_made, every=2
        ),
        Kind(
            *("record .npz: table", record.with_suffix(".npz"), world.shown),
            others=[of_other.with_suffix(".npz"), pixels.with_suffix(".npz")],
            every=2,
        ),
    ]


def _of_pretraining(world: World) -> list[Kind]:
    """What pretraining reads where it goes on, or finds out that it is done."""
    run, half, other, root = world.run, world.half, world.other, world.root
    first, second, last = "step-000000002", "step-000000003", "step-000000004"
    made: list[Kind] = []

    def kind(name: str, path: Path, at: Path, every: int, **more: Any) -> None:
        theirs = other / at
        others = [*more.pop("others", ()), *([theirs] if theirs.exists() else [])]
        made.append(Kind(name, path / at, others=others, every=every, **more))

    finished = {"read": lambda: world.goes_on(0), "root": root}
    unfinished = {"read": world.goes_on, "root": root}
    config, kernels = Path("config.json"), Path("kernels.json")
    kind("config.json: run again", run, config, SLOW, **finished)
    kind("config.json: run goes on", half, config, SLOW, **unfinished)
    kind("masks.json: run again", run, Path("masks.json"), SLOW, **finished)
    kind("hashes.json: run again", run, Path(runs.HASHES), SLOW, absent=UNKNOWN, **finished)
    kind("kernels.json: run goes on", half, kernels, SLOW, **unfinished)
    kind(
        "log.jsonl: run goes on",
        half,
        Path("log.jsonl"),
        SLOW,
        absent="no step is logged",
        **unfinished,
    )
    kind(
        *("log.jsonl: loss curve", run, Path("log.jsonl"), 1),
        **{"read": lambda: _logged(run, 4), "named": [str(run / "log.jsonl")]},
    )
    for name in (checkpoints.MANIFEST, checkpoints.STATE):
        newest, before, done = (Path("checkpoint", step, name) for step in (second, first, last))
        folder = half / "checkpoint"
        kind(
            *(f"newest {name}: run goes on", half, newest, SLOW),
            **{"others": [half / before], "named": [str(folder / second)], **unfinished},
        )
        kind(
            f"{name} before: run goes on", half, before, SLOW, others=[half / newest], **unfinished
        )
        named = {
            "named": [str((run / done).parent), run.name],
            "others": [run / "checkpoint" / second / name],
        }
        kind(f"newest {name}: model", run, done, 1, read=world.loaded, **named)
        kind(f"newest {name}: run again", run, done, SLOW, **finished, **named)
    return made


def _of_evaluations(world: World) -> list[Kind]:
    """What evaluations read."""
    run, other, root = world.run, world.other, world.root
    (record,), (of_other,) = ([*each.glob("records/*.json")] for each in (run, other))
    features, theirs = (sorted(each.glob("features/*")) for each in (run, other))
    kept, part = _partial(world)
    return [
        Kind("record .json: eval", record, world.evaluated, [of_other], root, 8),
        Kind(
            *("record .npz: eval", record.with_suffix(".npz"), world.evaluated),
            *([of_other.with_suffix(".npz")], root, 8),
        ),
        *(
            Kind(
                f"features ({number}): eval",
                path,
                lambda: world.evaluated(again=True),
                [theirs[number], features[1 - number]],
                root,
                SLOW,
            )
            for number, path in enumerate(features)
        ),
        Kind("partial: what is kept", part, kept, features[:1], absent="it begins anew"),
        Kind("diverged.json: table", _diverged(world), world.shown, every=16),
    ]


def _partial(world: World) -> tuple[Any, Path]:
    """An interrupted linear probe: what goes on with it, and the file of how far it was."""
    model = world.model()
    keep, whose = partial.Kept.keep, []

    def ended(self: Any, state: Any) -> None:
        keep(self, state)
        whose.append(self._of)
        if len(whose) == 3:
            raise KeyboardInterrupt

    quick = mock.patch.multiple(partial, SECONDS=0.0, SHARE=0)
    with quick, mock.patch.object(partial.Kept, "keep", ended):
        with contextlib.suppress(KeyboardInterrupt):
            suite.evaluate(model, LinearProbe(), names=world.names)
    (path,) = (world.run / partial.FOLDER).glob("*.safetensors")

    def kept() -> dict[str, Any]:
        with torch.random.fork_rng():
            state = partial.Kept(path, whose[0], "cpu").state
        return {name: checkpoints.weights_hash({name: part}) for name, part in state.items()}

    return kept, path


def _diverged(world: World) -> Path:
    path = world.run / "diverged.json"
    files.write_sealed(path, {"step": 3, "loss": "nan"}, world.run.name)
    return path


def _of_comparisons(world: World) -> list[Kind]:
    """What comparisons read of themselves, of others and of their runs."""
    folder = world.root / "comparisons"
    machine = {"device": "cpu", "threads": 1, "precision": {"a": "fp32"}}
    for name in ("mine", "yours"):
        state = {"format": 1, "arms": {"a": {"x": name}}, "looks": [{"seeds": [0]}]}
        files.write_sealed(folder / name / "comparison.json", {**state, "machine": machine}, name)
        files.write_sealed(folder / name / "failed.json", {f"cell of {name}": "why"}, name)
    mine, yours = folder / "mine", folder / "yours"
    design = SimpleNamespace(arms=(), seeds=(0,))
    new = SimpleNamespace(folder=folder / "new", design=design)

    def read() -> dict[str, Any]:
        failed = {k: why for k, why in read_failed(mine).items() if k.startswith("cell")}
        parts = {"state": read_state(mine), "failed": failed}
        found = {f"{p} {k}": repr(v) for p, part in parts.items() for k, v in part.items()}
        return {**found, "state looks": found.get("state looks")} if parts["state"] else found

    def elsewhere() -> dict[str, Any]:
        return {"seen": seen_elsewhere(new)}

    again: dict[str, Any] = {"absent": "tried again", "nothing": (*OLD, b"{}")}
    gone = "a comparison of this name begins"
    state, failed = mine / "comparison.json", mine / "failed.json"
    run, other = world.run, world.other
    files_beside = (runs.ENVIRONMENT_FILE, runs.SPENT, runs.HASHES)
    return [
        Kind("comparison.json: compare", state, read, [yours / state.name], absent=gone),
        Kind("comparison.json: another comparison", state, elsewhere, [yours / state.name]),
        Kind("failed.json: compare", failed, read, [yours / failed.name], **again),
        *(
            Kind(f"{n}: compare", run / n, world.beside, [other / n], absent=UNKNOWN, nothing=OLD)
            for n in files_beside
        ),
    ]
