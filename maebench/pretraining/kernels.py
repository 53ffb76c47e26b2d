"""How a run computes its steps: which attention kernels, and whether and from where compiled.

Each way gives other last bits, so that the way is kept with the run: who goes on takes the same.
"""

from __future__ import annotations

import copy
import os
import shutil
import statistics
import textwrap
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maebench import files
from maebench.config.run import RunConfig
from maebench.errors import DamagedError, MaebenchError
from maebench.objectives.objective import Batch

# Steps that tell how long one takes, without the first, which load and allocate.
SKIPPED, WATCHED = 5, 15
# What compiling cost and gained where nothing is known yet: 34 to 41 s for four blocks, 52 to 76 s
# on a slower machine; a step 1.37 to 1.50 x as quick on two threads, 1.01 to 1.18 x on one
# (results/reference/speed-step.md). Nothing was measured on a GPU.
COST_SECONDS = 45.0
GAIN = {"one thread": 1.1, "threads": 1.3}
# What it is to save over what it costs, for the estimates are rough.
WORTH = 1.5
FILE = "kernels.json"
SHOWN = 160  # characters of a compiler's message, whose pages nobody reads


class Kernels:
    """The way a run computes, as it is kept in its folder.

    Args:
        folder: the run's; None where nobody goes on from a part of the work.
        wanted: machine.compile.
        device: where the run computes.
        shape: what stands for the model and its batch, for what is known of compiling them.
        done: updates that were done before.
    """

    def __init__(
        self,
        folder: Path | None,
        wanted: Literal["auto"] | bool,
        device: str,
        shape: str,
        done: int,
    ) -> None:
        self._path = None if folder is None else folder / FILE
        kept = _kept(self._path) if done and self._path else {}
        self.attention: dict[str, bool] = kept.get("attention", {})
        self._wanted, self._device, self._shape = wanted, device, shape
        self._seconds: list[float] = []  # of steps that were not compiled
        self._module: Any = None
        self._costs: float | None = None
        self._quick: list[float] = []
        self.note = ""
        # the step after which the module is compiled; None: never, or not decided yet
        self.after: int | None = kept.get("compiled_after")
        self._decided = bool(kept)
        if not kept and wanted != "auto":
            self._decide(0 if wanted else None)
        elif kept and wanted != "auto" and wanted != (self.after is not None):
            way = "as it is" if self.after is None else f"compiled after step {self.after}"
            asked = str(wanted).lower()
            self.note = f"machine.compile={asked} is not read: the run goes on {way}, as it began"

    def module(self, module: Any, number: int) -> Any:
        """The module that computes step `number`, from 1."""
        if self.after is None or number <= self.after:
            return module
        if self._module is None:
            # of one function torch compiles eight models, and leaves the ninth as it is without a
            # word; what else is compiled in this process is so again when it is called
            torch.compiler.reset()
            self._module = torch.compile(module, dynamic=False)
        return self._module

    def forward(self, module: Any, part: Any, number: int) -> Any:
        """What a module gives for a batch; where compiling fails, without it from now on.

        Args:
            module: such as the objective around its encoder.
            part: what it takes.
            number: of the step, from 1.
        """
        chosen = self.module(module, number)
        if chosen is module or self._costs is not None:
            return chosen(part)
        began = time.monotonic()
        fresh = replace(part, draws=copy.copy(part.draws)) if isinstance(part, Batch) else part
        try:
            made = chosen(part)
        except Exception as error:
            self._decide(None)
            text = textwrap.shorten(str(error), SHOWN) or type(error).__name__
            self.note = f"cannot be compiled, goes on without: {text}"
            return module(fresh)
        self._costs = time.monotonic() - began
        return made

    def took(self, number: int, seconds: float, left: float) -> None:
        """Takes how long a step was; decides once enough is known.

        Args:
            number: of the step.
            seconds: that it took.
            left: steps that are left.
        """
        if self.after is not None and number > self.after:
            self._watch_compiled(seconds)
            return
        self._seconds.append(seconds)
        if not self._decided and len(self._seconds) == SKIPPED + WATCHED:
            self._estimate(number, left)

    def keep(self, number: int, left: float) -> None:
        """Writes the way into the run's folder, before a checkpoint that another may go on from.

        Large models have a checkpoint after their first steps; what these took has to do.
        """
        if not self._decided:
            self._estimate(number, left)
        content = {"attention": dict(sorted(self.attention.items())), "compiled_after": self.after}
        if self._path is not None and _kept(self._path) != content:
            files.write_sealed(self._path, content, self._path.parent.name)

    def _decide(self, after: int | None) -> None:
        self.after, self._decided, self._module = after, True, None

    def _estimate(self, number: int, left: float) -> None:
        """Compiles where what is left is long enough for it, by what is known or assumed."""
        skipped = min(SKIPPED, len(self._seconds) - 1)
        one = statistics.median(self._seconds[skipped:])
        known = _known().get(self._shape, {})
        cost = float(known.get("cost", COST_SECONDS))
        usual = GAIN["one thread" if torch.get_num_threads() == 1 else "threads"]
        gain = float(known.get("gain", usual))
        saved = left * one * (1 - 1 / gain)
        pays = saved > WORTH * cost and not missing_compiler(self._device)
        self._decide(number if pays else None)
        if pays:
            how = "as measured before" if known else "an estimate"
            self.note = (
                f"compiling the step: about {cost:.0f} s, to save {saved:.0f} s of the "
                f"{left * one:.0f} s that are left ({how}; -o machine.compile=false leaves it out)"
            )

    def _watch_compiled(self, seconds: float) -> None:
        """Says what compiling has cost and gained, and keeps it for later runs."""
        self._quick.append(seconds)
        if len(self._quick) != SKIPPED + WATCHED:
            return
        one = statistics.median(self._quick[SKIPPED:])
        # the first two steps compile forward and backward
        cost = max(0.0, sum(self._quick[:SKIPPED]) - SKIPPED * one)
        self.note = f"compiled in {cost:.0f} s: a step takes {1000 * one:.1f} ms"
        if self._seconds:
            before = statistics.median(self._seconds[min(SKIPPED, len(self._seconds) - 1) :])
            self.note += f", before {1000 * before:.1f} ms ({before / one:.2f} x)"
            _keep_known(self._shape, {"cost": round(cost, 1), "gain": round(before / one, 3)})


class Paced:
    """A module that is called once a step, and compiled where the steps left are worth it.

    Args:
        module: with parameters, of one tensor.
        steps: calls in all.
        wanted: machine.compile.
        device: where it lies.
    """

    def __init__(
        self, module: nn.Module, steps: int, wanted: Literal["auto"] | bool, device: str
    ) -> None:
        hardware = [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), device]
        shape = files.short_hash([repr(module), hardware, torch.__version__])
        self._kernels = Kernels(None, wanted, device, shape, 0)
        self._module, self._steps = module, steps
        self._number, self._last = 0, 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """What the module gives."""
        now = time.monotonic()
        if self._number:
            self._kernels.took(self._number, now - self._last, self._steps - self._number)
        self._number, self._last = self._number + 1, now
        made: Tensor = self._kernels.forward(self._module, x, self._number)
        if self._kernels.note:
            warnings.warn(self._kernels.note, stacklevel=2)
            self._kernels.note = ""
        return made


def shape_of(config: RunConfig, facts: Mapping[str, Any]) -> str:
    """What stands for a compiled step: model, batch, precision, hardware and torch's version."""
    parts = {
        "encoder": config.encoder.model_dump(mode="json"),
        "objective": config.objective.model_dump(mode="json"),
        "batch": config.batch,
        **{key: facts[key] for key in ("grid", "patch", "channels", "num_hidden", "precision")},
        "hardware": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
        **{key: facts[key] for key in ("inputs",) if key in facts},
        "device": facts["device"],
        "torch": torch.__version__,
    }
    return files.short_hash(parts)


def missing_compiler(device: str) -> str:
    """What torch.compile lacks here; empty where nothing is missing."""
    if torch.device(device).type == "cuda":
        return "" if find_spec("triton") else "triton is not installed"
    named = os.environ.get("CXX")
    there = any(shutil.which(name) for name in ((named,) if named else ("g++", "clang++", "c++")))
    return "" if there else f"no C++ compiler is here ({named or 'g++, clang++'})"


def plain_logged(made: Mapping[str, Any], share: float, kind: str) -> dict[str, float | Tensor]:
    """What an objective logs of a part of a batch; on a GPU it is read later."""
    found: dict[str, float | Tensor] = {}
    for name, value in made.items():
        plain = value.detach() if isinstance(value, Tensor) else value
        found[name] = float(plain * share) if kind == "cpu" else plain * share
    return found


def _kept(path: Path) -> dict[str, Any]:
    """The way that a run began with; one that cannot be read would be another way.

    Raises:
        RunError: the file is damaged.
    """
    if not path.exists():
        return {}
    found = files.read_sealed(path, path.parent.name)
    attention, after = found.get("attention"), found.get("compiled_after")
    good = isinstance(attention, dict) and all(isinstance(v, bool) for v in attention.values())
    if not good or not (after is None or (isinstance(after, int) and after >= 0)):
        raise DamagedError(f"{path} cannot be read: attention and compiled_after are wanted")
    return found


def _known() -> dict[str, Any]:
    """What compiling cost and gained here before; a damaged file is said, and as good as none."""
    path = _known_path()
    try:
        found = files.read_sealed(path, path.stem) if path.exists() else {}
        if wrong := [name for name, each in found.items() if not _are_numbers(each)]:
            raise DamagedError(f"{path} is damaged: {files.shortened(wrong[0])} has no numbers")
        return found
    except MaebenchError as error:
        warnings.warn(f"{error}: what compiling gains is estimated again", stacklevel=2)
        return {}


def _are_numbers(each: Any) -> bool:
    return isinstance(each, dict) and all(type(v) in (int, float) for v in each.values())


def _known_path() -> Path:
    return files.cache_folder() / "compiling.json"


def _keep_known(shape: str, what: dict[str, float]) -> None:
    try:
        files.make_folder(files.cache_folder())
        path = _known_path()
        files.write_sealed(path, {**_known(), shape: what}, path.stem)
    except (MaebenchError, OSError):
        return  # a later run estimates again
