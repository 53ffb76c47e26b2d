"""Whether arms differ in nothing but what is compared: weights, batches, length, machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maebench.analysis.design import Path
from maebench.errors import RunError
from maebench.pretraining import runs

if TYPE_CHECKING:
    from maebench.analysis.cells import Cell
    from maebench.analysis.comparison import Comparison

# Settings that change what each hash stands for: arms that differ in one of them may differ in it.
CHANGES = {
    # an objective may give the encoder what it lacks, as SimMIM its mask token
    "encoder": ("encoder", "image_size", "dataset", "objective"),
    "module": ("encoder", "image_size", "dataset", "objective"),
    "first_batch": ("batch", "augment", "limit", "image_size", "dataset"),
    "last_batch": ("batch", "augment", "limit", "image_size", "dataset"),
}
WORDS = {
    "encoder": "initial weights of the encoder",
    "module": "initial weights",
    "first_batch": "first batch",
    "last_batch": "last batch",
}


def check(comparison: Comparison) -> tuple[str, ...]:
    """Notes on what arms differ in beside what is compared.

    Raises:
        RunError: arms of one seed began from other weights or saw other images, which nothing that
            is compared explains.
    """
    cells = [c for c in comparison.cells if c.kind == "run" and c.plan.finished]
    compared = comparison.design.compared
    by_seed: dict[int, list[Cell]] = {}
    for cell in cells:
        by_seed.setdefault(cell.seed, []).append(cell)
    for seed, row in by_seed.items():
        _check_hashes(seed, row, compared)
    return tuple(dict.fromkeys([*_lengths(cells), *_settings(cells), *_machines(cells)]))


def _check_hashes(seed: int, cells: Sequence[Cell], compared: Sequence[Path]) -> None:
    explained = {path[0] for path in compared}
    hashes = {cell.arm: runs.read_hashes(cell.plan.run) for cell in cells}
    # by the clock only a finished run knows its length
    steps = {cell.arm: _spent(cell).get("steps", cell.plan.steps) for cell in cells}
    for what, settings in CHANGES.items():
        if explained & set(settings):
            continue
        if what == "last_batch" and len(set(steps.values())) > 1:
            continue  # another length is another last batch: the note on lengths says so
        there = {arm: found[what] for arm, found in hashes.items() if what in found}
        if len(set(there.values())) > 1:
            said = ", ".join(f"{arm} {mark[:8]}" for arm, mark in there.items())
            raise RunError(
                f"seed {seed}: the {WORDS[what]} differ between arms ({said}), which nothing that "
                "is compared explains: these runs are not comparable"
            )


def _spent(cell: Cell) -> Mapping[str, Any]:
    """What a run has cost; nothing where an earlier version did not write it."""
    return runs.said_beside(cell.plan.run, runs.SPENT)


def _lengths(cells: Sequence[Cell]) -> Iterator[str]:
    """What arms cost beside what the budget makes equal."""
    costs: dict[str, Mapping[str, Any]] = {}
    for cell in cells:
        if cell.arm not in costs and (spent := _spent(cell)):
            costs[cell.arm] = spent
    for name, words in (("steps", "updates"), ("tokens", "seen tokens"), ("images", "images")):
        there = {arm: spent[name] for arm, spent in costs.items() if name in spent}
        if there and max(there.values()) > 1.005 * min(there.values()):
            said = ", ".join(f"{arm} {number:,.0f}" for arm, number in there.items())
            yield f"arms differ in {words}: {said}"
    flops = {a: s["flops_encoder"] + s["flops_decoder"] for a, s in costs.items() if "images" in s}
    if flops and max(flops.values()) > 1.005 * min(flops.values()):
        yield "arms differ in FLOPs: " + ", ".join(f"{a} {f:.3g}" for a, f in flops.items())


def _settings(cells: Iterable[Cell]) -> Iterator[str]:
    """Runs whose hashes are not known, because an earlier version made them."""
    old = sorted({c.arm for c in cells if "first_batch" not in runs.read_hashes(c.plan.run)})
    if old:
        yield (
            f"runs of {', '.join(old)} are of an earlier version, which kept no hashes of weights "
            "and batches: that they began alike is not checked"
        )


def _machines(cells: Iterable[Cell]) -> Iterator[str]:
    """Where and by what the runs were made, where that differs."""
    said = [runs.said_beside(cell.plan.run, runs.ENVIRONMENT_FILE) for cell in cells]
    for name in ("processor", "gpus", "threads"):
        there: dict[str, int] = {}
        for environment in said:
            found = str(environment.get(name)) if environment else "unknown"
            there[found] = there.get(found, 0) + 1
        if len(there) > 1:
            yield f"runs differ in {name}: " + ", ".join(f"{k} ({n})" for k, n in there.items())
    versions: dict[str, int] = {}
    for environment in said:
        packages = environment.get("packages")
        packages = packages if isinstance(packages, dict) else {}
        text = f"torch {packages.get('torch', 'unknown')}"
        versions[text] = versions.get(text, 0) + 1
    if len(versions) > 1:
        yield "runs differ in versions: " + ", ".join(f"{k} ({n})" for k, n in versions.items())
