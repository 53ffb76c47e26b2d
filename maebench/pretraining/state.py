"""What training changes: the module, its EMA teacher and the optimiser, kept and restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maebench.objectives.ema import follow, make_teacher
from maebench.pretraining import memory
from maebench.pretraining.checkpoints import load_newest, load_strictly, part, weights_hash
from maebench.pretraining.cost import Spent
from maebench.pretraining.hardware import keep_memory
from maebench.pretraining.optimiser import AdamW, parameter_groups
from maebench.pretraining.plan import Plan, build, has_teacher, inputs_of
from maebench.pretraining.teacher import TEACHER_DECAY

SCALER = ("scale", "_growth_tracker")  # what a GradScaler changes as it goes


@dataclass(frozen=True)
class State:
    """What training changes.

    Args:
        module: the objective around its encoder, on the device.
        teacher: its EMA teacher, where the masking asks one.
        optimiser: AdamW.
        scaler: of the loss, in fp16: small gradients would be 0 there.
        names: of the optimiser's parameters, in its order.
    """

    module: Any
    teacher: Any | None
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    names: list[str]

    @property
    def asked(self) -> Any:
        """Whom a masking asks: the teacher, or the module as it is."""
        return self.module if self.teacher is None else self.teacher

    def update(self, clip: float | None) -> None:
        """One update by the gradients, whose norm is clipped unless `clip` is None.

        In fp16 there is none where a gradient is infinite: the loss is scaled by less from then on.
        """
        if clip is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()

    def after_update(self, number: int, progress: float) -> None:
        """Moves what follows the module's weights after update `number` (from 1)."""
        if self.teacher is not None:
            follow(self.teacher, self.module, TEACHER_DECAY, number)
        if hasattr(self.module, "after_step"):
            self.module.after_step(progress)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that resuming needs, as named tensors."""
        tensors = {f"model.{k}": v for k, v in self.module.state_dict().items()}
        if self.teacher is not None:
            tensors |= {f"teacher.{k}": v for k, v in self.teacher.state_dict().items()}
        scaling = self.scaler.state_dict()
        tensors |= {f"scaler.{key}": torch.tensor(scaling[key]) for key in SCALER if scaling}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{self.names[number]}/{k}": v for k, v in values.items()}
        return tensors

    def hashes(self) -> dict[str, str]:
        """What stands for the weights: of the encoder, and of all that is trained."""
        return {
            "encoder": weights_hash(self.module.encoder.state_dict()),
            "module": weights_hash(self.module.state_dict()),
        }

    def restore(self, folder: Path) -> tuple[int, Spent, Mapping[str, Any]]:
        """Loads the newest whole checkpoint; gives its step, 0 where there is none, cost, manifest.

        Only the holder of the run's lock may: damaged ones are moved aside.
        """
        found = load_newest(folder)
        if found is None:
            return 0, Spent(), {}
        tensors, manifest = found
        load_strictly(self.module, part(tensors, "model."), str(folder))
        if self.teacher is not None:
            load_strictly(self.teacher, part(tensors, "teacher."), str(folder))
        content = self.optimiser.state_dict()
        content["state"] = {
            number: part(tensors, f"optimiser.{name}/") for number, name in enumerate(self.names)
        }
        self.optimiser.load_state_dict(content)
        if scaling := part(tensors, "scaler."):
            plain = {key: value.item() for key, value in scaling.items()}
            self.scaler.load_state_dict(self.scaler.state_dict() | plain)
        # a run that began before costs were counted has none
        spent = Spent.read(manifest["spent"]) if "spent" in manifest else Spent()
        return manifest["step"], spent, manifest


def begin(plan: Plan) -> State:
    """The state at step 0: the same weights for one seed, whatever the masking."""
    config = plan.config
    if plan.device == "cpu":
        keep_memory()
    with memory.said(f"run {plan.run.name}", plan.device, config):
        module = build(config, inputs_of(config, plan.run.facts)).to(plan.device)
        teacher = make_teacher(module) if has_teacher(config) else None
    settings = config.optimiser
    groups, names = parameter_groups(module, settings.weight_decay)
    optimiser = AdamW(groups, betas=(settings.beta1, settings.beta2), fused=True)
    in_fp16 = plan.run.facts["precision"] == "fp16"
    scaler = torch.amp.GradScaler(torch.device(plan.device).type, enabled=in_fp16)
    return State(module, teacher, optimiser, scaler, names)
