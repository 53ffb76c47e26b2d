"""What happens where a loss, a gradient or a weight is no number any more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from maebench import files
from maebench.data.augment import Crops
from maebench.errors import RunError
from maebench.pretraining import checkpoints
from maebench.pretraining.plan import Plan
from maebench.pretraining.state import State

REPORT = "diverged.json"  # in the run's folder
SHOWN = 8  # image ids in a line; the others are in the report
# Updates that `machine.on_nan=skip` may leave out. A few come of rare images or of overflow; more
# in a row, or more than one in a hundred, are no accidents, and what they would teach is missing.
MOST_IN_A_ROW = 10
MOST_SHARE = 0.01
# Steps that images are remembered of: on a GPU a loss is read a second after its step.
REMEMBERED = 1000


@dataclass
class Finite:
    """Watches the losses of a run, and names what broke one.

    Args:
        plan: the run.
        state: what is trained.
        skipped: updates that were left out so far, those before a resume too.
    """

    plan: Plan
    state: State
    skipped: int = 0
    _in_a_row: int = 0
    _ids: dict[int, list[Tensor]] = field(default_factory=dict)

    def saw(self, number: int, crops: Sequence[Crops]) -> None:
        """Remembers the images of a step, those of its parts."""
        self._ids[number] = [crop.ids for crop in crops]
        self._ids.pop(number - REMEMBERED, None)

    def update(self, number: int, logged: Mapping[str, float | Tensor], before: float) -> bool:
        """Updates the weights by the gradients, or leaves that out where they are no numbers.

        Args:
            number: of the step.
            logged: its loss; on a GPU it is only read here where updates may be skipped.
            before: the newest loss that is known of an earlier step.

        Returns:
            Whether there was an update.

        Raises:
            RunError: the loss is not finite, and nothing or too much was skipped.
        """
        loss, settings = logged["loss"], self.plan.config.machine
        skips = settings.on_nan == "skip"
        if isinstance(loss, Tensor) and skips:
            loss = float(loss)
        broken = isinstance(loss, float) and not math.isfinite(loss)
        if skips and not broken and self.plan.run.facts["precision"] != "fp16":
            # in fp16 the loss is scaled, and updates that overflow are left out anyway
            broken = not all(found[1] for found in _largest(self.state.module))
        if not broken:
            self.state.update(self.plan.config.optimiser.clip)
            self._in_a_row = 0
            return True
        if not skips:
            raise self.error(number, float(loss), before)
        self.skipped += 1
        self._in_a_row += 1
        most = max(MOST_IN_A_ROW, int(MOST_SHARE * (self.plan.steps or 0)))
        if self._in_a_row > MOST_IN_A_ROW or self.skipped > most:
            raise self.error(number, float(loss), before)
        self.state.optimiser.zero_grad()
        return False

    def check_weights(self, number: int, loss: float) -> None:
        """Refuses weights that an update has made infinite although its loss was a number.

        Raises:
            RunError: it has.
        """
        if not _all_finite(self.state.module.parameters()):
            raise self.error(number, math.nan, loss, after=True)

    def error(self, number: int, loss: float, before: float, after: bool = False) -> RunError:
        """The error for a step whose loss is no number, with a report in the run's folder.

        Args:
            number: of the step.
            loss: of the step.
            before: the newest loss that is known of an earlier step.
            after: whether it was the update of this step that broke the weights.
        """
        plan = self.plan
        culprit = number
        if not after and not _all_finite(self.state.module.parameters()):
            culprit = max(1, number - 1)  # weights were broken before this step's loss was computed
        ids = [int(i) for part in self._ids.get(culprit, ()) for i in part.tolist()]
        largest = _worst(self.state.module)
        content: dict[str, Any] = {
            **{"step": number, "loss": str(loss), "images_of_step": culprit, "images": ids},
            **{"loss_before": str(before), "largest_gradient": largest, "skipped": self.skipped},
        }
        files.write_sealed(plan.run.folder / REPORT, content, plan.run.name)
        what = "weights are not finite after" if after else f"the loss is {loss} at"
        said = [f"run {plan.run.name}: {what} step {number}"]
        said += [f"{'its loss' if after else 'before it'} was {before:.6g}"] if number > 1 else []
        if culprit != number:
            said.append(f"the update of step {culprit} had broken the weights")
        said += [f"images of step {culprit}: {_some(ids)}"] if ids else []
        said += [f"largest gradient: {largest}"] if largest else []
        said += [f"{self.skipped} updates were skipped"] if self.skipped else []
        last = checkpoints.steps(plan.checkpoints)
        said.append(
            f"the last good checkpoint is {last[-1]}" if last else "no checkpoint was written yet"
        )
        return RunError(
            f"{'; '.join(said)}. Try a smaller --lr, -o optimiser.clip=1, or "
            f"-o machine.on_nan=skip; all of it stands in {plan.run.folder / REPORT}"
        )


def _some(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(map(str, ids[:SHOWN])) + more


def _all_finite(tensors: Any) -> bool:
    return bool(torch.stack([p.isfinite().all() for p in tensors]).all())


def _largest(module: nn.Module) -> list[tuple[float, bool, str]]:
    """The largest gradient of each parameter, whether all are finite, and its name."""
    named = [(n, p.grad) for n, p in module.named_parameters() if p.grad is not None]
    if not named:
        return []
    sizes = torch.stack([grad.detach().abs().amax().float() for _, grad in named]).tolist()
    return [(x, math.isfinite(x), n) for x, (n, _) in zip(sizes, named, strict=True)]


def _worst(module: nn.Module) -> str:
    """The largest gradient with the name of its parameter, and how many are no numbers."""
    found = _largest(module)
    broken = [(size, name) for size, finite, name in found if not finite]
    if not found:
        return ""
    if not broken:
        size, _, name = max(found)
        return f"{size:.3g} in {name}"
    return f"{broken[0][0]} in {broken[0][1]} ({len(broken)} of {len(found)} parameters)"
