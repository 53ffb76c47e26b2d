"""What a comparison keeps of itself on disk, read back: its arms, its machine, what was seen."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from maebench import files
from maebench.errors import ConfigError, RunError

FORMAT = 1  # of comparison.json
STATE, FAILED = "comparison.json", "failed.json"
MACHINE = {"device": str, "threads": int, "precision": dict}


def read_state(folder: Path) -> dict[str, Any]:
    """What a comparison was begun with and which of its seeds have been seen; empty for a new one.

    Raises:
        MaebenchError: the file is damaged, or of a newer format.
    """
    path = folder / STATE
    if not path.exists():
        return {}
    state = {"looks": [], **files.read_sealed(path, folder.name)}
    if type(state.get("format")) is not int:
        raise ConfigError(f"{path} is no comparison's state: move it away")
    if state["format"] > FORMAT:
        raise ConfigError(f"{path} was written by a newer maebench (format {state['format']})")
    arms, looks, machine = state.get("arms"), state["looks"], state.get("machine")
    good = {
        "arms": isinstance(arms, dict) and all(isinstance(spec, dict) for spec in arms.values()),
        "looks": isinstance(looks, list) and all(_is_look(look) for look in looks),
        "machine": isinstance(machine, dict)
        and all(isinstance(machine.get(name), kind) for name, kind in MACHINE.items()),
    }
    if wrong := [name for name in good if not good[name]]:
        raise ConfigError(f"{path} is damaged ({', '.join(wrong)}): move it away")
    return state


def _is_look(look: Any) -> bool:
    """Whether it says of which seeds p values have been seen."""
    if not isinstance(look, dict) or not isinstance(look.get("baseline", ""), str):
        return False
    seeds = look.get("seeds")
    return isinstance(seeds, list) and bool(seeds) and all(type(seed) is int for seed in seeds)


def read_failed(folder: Path) -> dict[str, str]:
    """Why cells failed before, by their names; none where that cannot be read, with a warning."""
    path = folder / FAILED
    try:
        found = files.read_sealed(path, folder.name) if path.exists() else {}
    except RunError as error:  # these cells are only tried again
        warnings.warn(f"left out: {error}", stacklevel=2)
        return {}
    return {name: str(reason) for name, reason in found.items()}
