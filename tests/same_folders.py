"""What two folders of results differ in: weights, logs, records, values, features, leftovers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from maebench import files
from maebench.evaluating import partial, records
from maebench.pretraining import checkpoints

# What belongs to the time, to the clock's choices or to the place, and not to the results.
TIMES = {"created", "seconds", "at", "pretraining_seconds", "ms_per_256", "hash"}
UNREAD = {"environment.json", "kernels.json"}
ELSEWHERE = {"lock", ".lock"}


def differences(found: Path, expected: Path) -> list[str]:
    """A line for each thing that is lost, added or different."""
    ours, theirs = contents(found), contents(expected)
    lost = [f"lost: {name}" for name in sorted(theirs.keys() - ours.keys())]
    added = [f"added: {name}" for name in sorted(ours.keys() - theirs.keys())]
    other = [f"other: {n}" for n in sorted(ours.keys() & theirs.keys()) if ours[n] != theirs[n]]
    return [*leftovers(found), *lost, *added, *other, *doubled(found)]


def leftovers(folder: Path) -> list[str]:
    """What is half-written, set aside, kept of an interrupted evaluation, or a traceback."""
    found = []
    for path in sorted(folder.rglob("*")):
        half = path.name.startswith((files.BESIDE, files.ASIDE)) or path.suffix == ".traceback"
        if path.parent.name == "checkpoint":  # and no half of one, nor more than are kept
            half |= path not in checkpoints.steps(path.parent)[-checkpoints.KEPT :]
        if half or path.parent.name == partial.FOLDER:
            found.append(f"left over: {path.relative_to(folder)}")
    return found


def doubled(folder: Path) -> list[str]:
    """Steps that are in a log twice, or not in their order."""
    found = []
    for log in sorted(folder.glob("runs/*/log.jsonl")):
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        if steps != list(range(1, len(steps) + 1)):
            found.append(f"doubled or missing steps: {log.relative_to(folder)}")
    return found


def contents(folder: Path) -> dict[str, Any]:
    """What each file holds that has to be the same, by its path."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if path.name in ELSEWHERE or path.name.startswith((files.BESIDE, files.ASIDE)):
            continue
        if path.parent.name in (partial.FOLDER, "logs"):
            continue
        if "checkpoint" in path.parts:  # which earlier one is kept beside the last says the clock
            if path.parent != checkpoints.steps(path.parent.parent)[-1]:
                continue
        if path.parent.name == "printed":  # its name holds the folder, what it holds the times
            name = str(path.parent.relative_to(folder))
        found[name] = content(path)
    return found


def content(path: Path) -> Any:
    """What of one file has to be the same."""
    if path.name in UNREAD or path.parent.name == "printed" or path.suffix == ".png":
        return "there"
    if path.name == checkpoints.MANIFEST:
        manifest = checkpoints.read_manifest(path.parent)
        return {key: manifest[key] for key in ("step", "sha256", "weights", "loss", "total")}
    if path.parent.name == "records" and path.suffix == ".json":
        return timeless(records.whole(path))
    if path.suffix == ".npz":
        with np.load(path) as packed:
            return {n: (str(packed[n].dtype), packed[n].tobytes()) for n in packed.files}
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        return {n: hashlib.sha256(t.numpy().tobytes()).hexdigest() for n, t in tensors.items()}
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text()))
    return path.read_bytes()


def timeless(value: Any) -> Any:
    """A JSON value without what belongs to the time."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if key not in TIMES}
    return [timeless(part) for part in value] if isinstance(value, list) else value
