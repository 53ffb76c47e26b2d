"""What a run is computed with, and what is said where that changes on the way.

Sums are added in an order that depends on the number of threads, on the processor's instructions
and on the version of torch. They differ in the last bit, and the difference grows: 8e-4 in the
weights after 120 steps of vit-nano under 1 and 2 threads.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from maebench.errors import RunError
from maebench.pretraining.checkpoints import newest
from maebench.pretraining.hardware import card, processor
from maebench.pretraining.plan import Plan
from maebench.pretraining.runs import Run

MACHINES = "machines"  # in the manifest of a checkpoint
FROM = "from_step"


def computed_with(device: str) -> dict[str, Any]:
    """What rounding depends on."""
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": card(device) if torch.device(device).type == "cuda" else "cpu",
    }


def machines(plan: Plan, manifest: Mapping[str, Any], done: int) -> list[dict[str, Any]]:
    """What the run was and is computed with, from which step on; a change is said.

    Raises:
        RunError: there is one, and machine.strict is asked for.
    """
    before = _listed(manifest)
    here = computed_with(plan.device)
    if before and not (changes := _changes(before[-1], here)):
        return before
    if done and not before:
        return []  # a run of an earlier version, which kept none of it
    if before:
        text = f"run {plan.run.name} goes on from step {done} with {', '.join(changes)}"
        if plan.config.machine.strict:
            raise RunError(
                f"{text}: machine.strict refuses that; go on as before, or begin another run"
            )
        warnings.warn(
            f"{text}: its weights will not be those of a run under one of them "
            "(-o machine.strict=true refuses that)",
            stacklevel=3,
        )
    return [*before, {FROM: done, **here}]


def remark(run: Run) -> str:
    """What is to be said in a record of a run that was computed with different things, or nothing.

    And of one whose updates were not all made.
    """
    manifest = newest(run.folder / "checkpoint") or {}
    found = _listed(manifest)
    said = []
    for before, after in pairwise(found):
        said.append(f"from step {after.get(FROM)} on {', '.join(_changes(before, after))}")
    texts = [f"pretraining was a mixture: {'; '.join(said)}"] if said else []
    skipped = manifest.get("skipped")
    if type(skipped) is int and skipped:
        texts.append(f"{skipped} updates were skipped, whose loss or gradient was no number")
    return "; ".join(texts)


def _listed(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = manifest.get(MACHINES)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
    """Such as "threads 1 (before 2)"."""
    keys = [key for key in after if key != FROM and before.get(key) != after[key]]
    return [f"{key} {after[key]} (before {before.get(key)})" for key in keys]
