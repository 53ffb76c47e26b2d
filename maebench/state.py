"""Everything that resuming needs: weights, teacher, optimiser, and what was spent."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from maebench import checkpoints, cost
from maebench.teacher import Teacher


def state(
    model: nn.Module, teacher: Teacher | None, adam: torch.optim.Optimizer, names: list[str]
) -> dict[str, Tensor]:
    """Everything that resuming needs, as named tensors."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    if teacher is not None:
        tensors |= {f"teacher.{k}": v for k, v in teacher.model.state_dict().items()}
    for number, values in adam.state_dict()["state"].items():
        tensors |= {f"optimiser.{names[number]}/{k}": v for k, v in values.items()}
    return tensors


def restore(
    folder: Path,
    model: nn.Module,
    teacher: Teacher | None,
    adam: torch.optim.Optimizer,
    names: list[str],
) -> tuple[int, cost.Spent]:
    """Loads the newest whole checkpoint and gives its step, 0 where there is none, and its cost."""
    found = checkpoints.load_newest(folder)
    if found is None:
        return 0, cost.Spent()
    tensors, manifest = found
    checkpoints.load_strictly(model, checkpoints.part(tensors, "model."), str(folder))
    if teacher is not None:
        checkpoints.load_strictly(teacher.model, checkpoints.part(tensors, "teacher."), str(folder))
    content = adam.state_dict()
    content["state"] = {
        number: checkpoints.part(tensors, f"optimiser.{name}/") for number, name in enumerate(names)
    }
    adam.load_state_dict(content)
    spent = cost.Spent.read(manifest["spent"]) if "spent" in manifest else cost.Spent()
    return manifest["step"], spent
