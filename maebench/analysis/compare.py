"""A comparison from its design to its results: what is done is kept, what is missing is run."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import maebench
from maebench import files
from maebench.analysis import same, workers
from maebench.analysis.cells import Data, cells_of
from maebench.analysis.comparison import Comparison
from maebench.analysis.design import Arm, Design, read_design
from maebench.analysis.state import FAILED, FORMAT, STATE, read_failed, read_state
from maebench.analysis.workers import Event
from maebench.config.run import RunConfig
from maebench.config.sources import read_yaml
from maebench.errors import ConfigError, MaebenchError
from maebench.plugins import Names, contained, installed
from maebench.pretraining import runs
from maebench.pretraining.hardware import environment, find_device, find_precision
from maebench.pretraining.plan import build

# settings of a comparison in a YAML file or in Python, beside those of a run
OWN = ("seeds", "baseline", "arms", "probe_seeds", "target", "margin")


@contained()
def compare(
    *,
    seeds: int | str | Sequence[int] = 3,
    baseline: str | None = None,
    arms: Sequence[Mapping[str, Any]] | None = None,
    probe_seeds: int = 1,
    target: float | None = None,
    margin: float | None = None,
    results: str | Path | None = None,
    name: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    fail_fast: bool = False,
    **settings: Any,
) -> Comparison:
    """Pretrains and evaluates arms times seeds, and gives what they support.

    The same call again goes on where it stopped and then only reads the results.

    Args:
        seeds: how many, from 0; or "3-10"; or a list.
        baseline: the arm that the others are tested against; the first where left out.
        arms: settings of each arm, where the arms are no product of lists.
        probe_seeds: how many seeds each evaluation of a run gets.
        target: a difference to find, in the metric's shown unit: percentage points.
        margin: up to which difference arms count as equivalent, in that unit.
        results: where results lie.
        name: of the comparison's folder; by what is compared where left out.
        workers: processes side by side; one per core, or one on a GPU, where left out.
        threads: of each worker; 1 where left out.
        fail_fast: stop at the first failure instead of going on with the other cells.
        settings: those of RunConfig; a list where one value is wanted makes an arm of each.

    Raises:
        MaebenchError: a setting is wrong, or an arm cannot be; cells that fail are rows.
    """
    names = installed()
    design = read_design(
        settings,
        names,
        seeds=seeds,
        baseline=baseline,
        arms=arms,
        probe_seeds=probe_seeds,
        target=target,
        margin=margin,
    )
    comparison = plan_comparison(design, results, name, names, threads=threads)
    return carry_out(comparison, workers=workers, fail_fast=fail_fast, names=names)


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of runs and those of the comparison itself in a YAML file.

    Raises:
        ConfigError: no YAML, or no mapping.
    """
    settings = {*OWN, *RunConfig.model_fields}  # of which some have two words, as flags a dash

    def name(key: str) -> str:
        plain = key.replace("-", "_")
        return plain if plain in settings else key

    found = {name(key): value for key, value in read_yaml(path).items()}
    own = {key: found.pop(key) for key in OWN if key in found}
    return found, own


def plan_comparison(
    design: Design,
    results: str | Path | None = None,
    name: str | None = None,
    names: Names | None = None,
    *,
    threads: int | None = None,
    data: Data | None = None,
) -> Comparison:
    """What of a comparison is done and what is missing; writes nothing.

    Raises:
        MaebenchError: an arm cannot be run here, or the comparison was begun on another device.
    """
    names, folder = names or installed(), runs.results_folder(results)
    data = data or Data()
    if threads is not None and threads < 1:
        raise ConfigError(f"threads: a whole number above 0 is wanted, given {threads}")
    where = folder / "comparisons" / files.safe_name(name or default_name(design))
    state = read_state(where)
    here = machine(design, data, threads)
    kept = state.get("machine", here)
    if kept["device"] != here["device"]:
        raise ConfigError(
            f"comparison {where.name} was begun on {kept['device']} and would go on on "
            f"{here['device']}: choose --device {kept['device']}, or another --name"
        )
    arms = {arm.name: _spec(arm) for arm in design.arms}
    if state and state["arms"] != arms:
        raise ConfigError(
            f"comparison {where.name} has other arms or settings ({'; '.join(state['arms'])}): "
            "choose another --name"
        )
    if threads is not None and kept["threads"] != threads:
        raise ConfigError(
            f"comparison {where.name} was begun with {kept['threads']} threads per worker, "
            f"given {threads}: leave it out, or choose another --name"
        )
    resolved = replace(design, arms=tuple(_resolved(arm, kept["precision"]) for arm in design.arms))
    failed = read_failed(where)
    cells = cells_of(resolved, folder, names, failed, data)
    found = Comparison(where.name, where, resolved, tuple(cells), kept)
    return replace(found, notes=(*notes_of(state, here), *extension(found), *seen_elsewhere(found)))


def default_name(design: Design) -> str:
    """By the data set, what is compared, and a hash of the arms and the evaluations."""
    first = design.arms[0].config
    what = "-".join(
        dict.fromkeys(path[-1] if len(path) > 1 else path[0] for path in design.compared)
    )
    spec = {
        "arms": sorted(files.short_hash(_spec(arm)) for arm in design.arms),
        "probe_seeds": design.probe_seeds,
    }
    return f"{first.dataset.name}-{what.replace('_', '-')}-{files.short_hash(spec)}"


def _spec(arm: Arm) -> dict[str, Any]:
    kept = arm.config.dump()
    machine_settings = ("seed", "machine", "device", "data_dir", "download", "recipe")
    return {key: value for key, value in kept.items() if key not in machine_settings}


def machine(design: Design, data: Data, threads: int | None) -> dict[str, Any]:
    """What every cell is computed with: device, threads, and the precision of each arm."""
    device = find_device(design.arms[0].config.device)
    kept = environment(device)
    precision = {}
    for arm in design.arms:
        try:
            info = data.of(arm.config).load("train").info
            width = build(arm.config, info.inputs).encoder.width
            precision[arm.name] = find_precision(arm.config.machine.precision, device, width)
        except ConfigError as error:
            raise ConfigError(f"arm {arm.name}: {error}") from error
    return {
        "device": device,
        "threads": threads or 1,
        "precision": precision,
        "attention": attention(device),
        "processor": kept["processor"],
        "gpus": kept["gpus"],
        "torch": torch.__version__,
        "maebench": maebench.__version__,
    }


def attention(device: str) -> str:
    """Which attention kernel the encoders of maebench take on a device."""
    return "fused" if device != "cpu" else "explicit for short sequences, else fused"


def _resolved(arm: Arm, precision: Mapping[str, str]) -> Arm:
    chosen = {"precision": precision.get(arm.name, arm.config.machine.precision)}
    settings = arm.config.machine.model_copy(update=chosen)
    return replace(arm, config=arm.config.model_copy(update={"machine": settings}))


def notes_of(state: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[str, ...]:
    """What has changed on the machine since the comparison was begun."""
    begun = state.get("machine", here)
    changed = [
        f"{what} {begun[what]} became {here[what]}"
        for what in ("processor", "gpus", "torch", "maebench")
        if begun.get(what) != here[what]
    ]
    return (f"begun on another machine: {'; '.join(changed)}",) if changed else ()


def carry_out(
    comparison: Comparison,
    *,
    workers: int | None = None,
    fail_fast: bool = False,
    names: Names | None = None,
    say: Callable[[Event], None] = lambda event: None,
) -> Comparison:
    """Runs what is missing and gives the comparison with what is there then.

    Args:
        comparison: as `plan_comparison` gives it.
        workers: processes side by side; one per core, or one on a GPU, where left out.
        fail_fast: stop at the first failure.
        names: the installed components.
        say: called with what happens.

    Raises:
        ConfigError: fewer than one worker.
        RunError: another process works on this comparison, or its folder is removed meanwhile.
    """
    names, folder = names or installed(), comparison.folder
    num = num_workers(workers, comparison.machine)
    with files.lock(folder) as held:
        _write_state(comparison)
        done = run_cells(comparison, held, num, fail_fast, say)
        results, data = comparison.cells[0].plan.run.results, Data.of_cells(comparison.cells)
        cells = cells_of(comparison.design, results, names, done, data)
        found = replace(comparison, cells=tuple(cells))
        found = replace(found, notes=(*comparison.notes, *same.check(found)))
        held.check()
        _note_look(found)
    return found


def run_cells(
    comparison: Comparison,
    held: files.Held,
    num: int,
    fail_fast: bool,
    say: Callable[[Event], None],
) -> dict[str, str]:
    """Runs the cells that are not done; gives why cells failed, by their names."""
    left = [cell for cell in comparison.cells if cell.state != "done"]
    design, kept = comparison.design, comparison.machine
    tasks = [cell.as_task(design.evaluation_seeds(cell.seed)) for cell in left]
    path = comparison.folder / FAILED
    failed = read_failed(comparison.folder)
    logs = comparison.folder / "logs"
    happens = workers.run_tasks(tasks, num, int(kept["threads"]), logs, fail_fast)
    with contextlib.closing(happens) as events:
        for event in events:
            held.check()
            say(event)
            if event["what"] == "failed":
                failed[event["task"]] = event["reason"]
            elif event["what"] == "done":
                failed.pop(event["task"], None)
            else:
                continue
            files.write_sealed(path, failed, comparison.name)
    return failed


def num_workers(asked: int | None, machine: Mapping[str, Any]) -> int:
    """How many processes work side by side: what is asked for, else as the cores allow.

    Two runs of one thread each are done sooner than one after the other on two threads, because a
    small model keeps no two threads busy. A GPU is one worker's.

    Raises:
        ConfigError: fewer than one is asked for.
    """
    if asked is not None and asked < 1:
        raise ConfigError(f"workers: a whole number above 0 is wanted, given {asked}")
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    on_gpu = str(machine["device"]).startswith("cuda")
    return 1 if on_gpu else max(1, (cores or 1) // int(machine["threads"]))


def _write_state(comparison: Comparison) -> None:
    """Keeps what the comparison is made of; what was seen of it before stays."""
    state, design = read_state(comparison.folder), comparison.design
    files.write_sealed(
        comparison.folder / STATE,
        {
            "format": FORMAT,
            "name": comparison.name,
            "created": state.get("created", runs.now()),
            "arms": {arm.name: _spec(arm) for arm in design.arms},
            "baseline": design.baseline,
            "seeds": list(design.seeds),
            "target": design.target,
            "margin": design.margin,
            "probe_seeds": design.probe_seeds,
            "machine": comparison.machine,
            "looks": state.get("looks", []),
        },
        comparison.name,
    )


def _note_look(comparison: Comparison) -> None:
    """Keeps which seeds' p values have been seen, so that an extension can be told."""
    state = read_state(comparison.folder)
    design = comparison.design
    compared = {c.seed for c in comparison.cells if c.kind == "run" and c.state == "done"}
    seen = sorted(compared & set(design.seeds))
    looks = state["looks"]
    pairs = comparison.pairs()
    if "p" not in pairs or pairs["p"].isna().all():
        return
    look = {"seeds": seen, "baseline": design.baseline}
    if not looks or any(looks[-1].get(name) != value for name, value in look.items()):
        looks = [*looks, {**look, "at": runs.now()}]
        whole = {**state, "looks": looks}
        files.write_sealed(comparison.folder / STATE, whole, comparison.name)


def extension(comparison: Comparison) -> tuple[str, ...]:
    """Says so where seeds or the baseline changed after p values of some seeds had been seen."""
    looks = read_state(comparison.folder).get("looks", [])
    design, notes = comparison.design, []
    now = set(design.seeds)
    looks = [look for look in looks if now & set(look["seeds"])]
    added = [set(look["seeds"]) for look in looks if now - set(look["seeds"])]
    if added:
        seen = added[0] & now
        first = max(max(look["seeds"]) for look in looks) + 1
        notes.append(
            f"extended from {len(seen)} to {len(now)} seeds after p values had been seen, which "
            f"makes them smaller than they should be; fresh seeds alone, such as --seeds "
            f"{first}-{first + len(now) - 1}, leave the first ones out"
        )
    others = dict.fromkeys(look.get("baseline", design.baseline) for look in looks)
    others.pop(design.baseline, None)
    if others:
        notes.append(
            f"p values had been seen against another baseline ({', '.join(others)}): of several "
            "that were tried, the one that shows something shows too much"
        )
    return tuple(notes)


def seen_elsewhere(comparison: Comparison) -> tuple[str, ...]:
    """Says so where p values of two or more of the arms had been seen in another comparison."""
    mine = {files.short_hash(_without_evals(_spec(arm))) for arm in comparison.design.arms}
    found = []
    for path in sorted(comparison.folder.parent.glob(f"*/{STATE}")):
        if path.parent == comparison.folder:
            continue
        try:
            state = read_state(path.parent)
        except MaebenchError as error:  # another comparison's: this one goes on without it
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        theirs = {files.short_hash(_without_evals(spec)) for spec in state["arms"].values()}
        seen = {seed for look in state["looks"] for seed in look["seeds"]}
        if len(mine & theirs) > 1 and seen & set(comparison.design.seeds):
            found.append(path.parent.name)
    if not found:
        return ()
    return (
        f"p values of some of these runs had been seen in {', '.join(found)}: where they decided "
        "what is compared now, p values are smaller than they should be",
    )


def _without_evals(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "evals"}
