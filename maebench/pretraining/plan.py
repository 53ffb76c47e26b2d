"""What a run is made of: its folder, its data, its model and what was found out about them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maebench import files, masking
from maebench.component import parse
from maebench.config.run import HIDING, RunConfig
from maebench.data.dataset import Dataset, Splits
from maebench.data.images import Images, statistics_of
from maebench.data.reading import Reading
from maebench.data.split_info import SplitInfo
from maebench.encoders.encoder import EncoderModule
from maebench.encoders.inputs import IMAGES, Inputs
from maebench.errors import ConfigError, DamagedError, PluginError, RunError
from maebench.plugins import Names, contained
from maebench.pretraining import runs
from maebench.pretraining.budget import Length, num_steps, stage_steps
from maebench.pretraining.checkpoints import is_whole, newest, steps
from maebench.pretraining.cost import NOTHING, Cost, count
from maebench.pretraining.hardware import (
    environment,
    evaluation_precision,
    find_device,
    find_precision,
    precision_note,
)
from maebench.pretraining.memory import check_step, check_weights
from maebench.rng import isolated


@dataclass(frozen=True)
class Plan:
    """A run that can start: its folder, its data and what was found out about them."""

    config: RunConfig
    run: runs.Run
    splits: Splits
    device: str

    @property
    def images(self) -> Images:
        """The training split."""
        return self.splits.load("train")

    @property
    def steps(self) -> int | None:
        """How many updates the run has; None where the clock decides."""
        return self.run.facts["steps"]

    @property
    def length(self) -> Length:
        """How long the run is."""
        return Length(self.steps, self.config.budget.seconds or math.inf)

    @property
    def costs(self) -> list[Cost]:
        """What an image costs in each stage; none where costs were not counted yet."""
        return [Cost(**each) for each in self.run.facts.get("cost", ())]

    def cost_at(self, progress: float) -> Cost:
        """What an image costs at a progress from 0 to 1; nothing where costs were not counted."""
        return self.costs[self.config.stage_at(progress)] if self.costs else NOTHING

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.run.folder / "checkpoint"

    @property
    def log(self) -> Path:
        """The file of what is logged of each step."""
        return self.run.folder / "log.jsonl"

    @property
    def masks(self) -> Path:
        """The file of the statistics of the run's masks."""
        return self.run.folder / "masks.json"

    @property
    def spent(self) -> Path:
        """The file of what the run has cost."""
        return self.run.folder / runs.SPENT

    @property
    def whole(self) -> bool:
        """Whether it is finished, and the bytes of the last checkpoint are those written."""
        return self.finished and is_whole(steps(self.checkpoints)[-1])

    @property
    def finished(self) -> bool:
        """Whether the last step's checkpoint is there, and what the masks were like in the end."""
        manifest = newest(self.checkpoints)
        whole = manifest is not None and manifest["step"] == manifest.get("total")
        return whole and (self.masks.exists() or not self.config.objective.hides)


@contained()
def prepare(
    config: RunConfig,
    results: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    splits: Splits | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    write: bool = True,
) -> Plan:
    """Loads the data, checks that all fits, and opens the run's folder.

    Args:
        config: what to run.
        results: where runs lie.
        progress: called with (done, total) while images are decoded.
        splits: the config's images, where they are loaded already.
        facts: those of a run that differs in the seed alone, which need not be found out again.
        write: whether the run's folder is made; else it is only looked at.

    Raises:
        MaebenchError: anything that would stop the run later, before it has begun.
    """
    device = find_device(config.device)
    folder = runs.results_folder(results)
    if write:
        files.make_folder(folder / "runs")  # by which it is known as no class of a folder
    splits = splits or config.splits()
    images = splits.load("train", progress)
    info = images.info
    _check_labels(config, info)
    inputs = info.inputs
    _check_kind(config, info)
    check_weights(config, inputs, device)
    module = build(config, inputs)
    encoder = module.encoder
    check_needs(config, module)
    for note in _notes(config, encoder, inputs):
        warnings.warn(note, stacklevel=2)
    num_hidden = hidden_in_stages(config, encoder)
    if config.objective.hides:
        config.masking.check_ids(info.ids)
    precision = find_precision(config.machine.precision, device, encoder.width)
    evaluation_precision(config.machine.evaluation, device)  # refused now, not when it is trained
    if note := precision_note(config.machine.precision, precision, device):
        warnings.warn(note, stacklevel=2)
    identity = config.identity(info.fingerprint, precision)
    run = _existing(folder, config, identity, write)
    if run is not None:
        return Plan(config, with_dataset(run, config) if write else run, splits, device)
    if facts is None:
        least = min(num_hidden, default=None)
        check_step(config, module, inputs, device, least, precision)
        costs = count(module, inputs, num_hidden or [None])
        facts = facts_of(config, images, encoder, num_hidden, costs)
        splits.look_at_test(progress)
        facts |= {"precision": precision, "device": device, "remarks": splits.remark_facts()}
    run = runs.new_run(folder, config, identity, dict(facts))
    if write:
        runs.write_run(run, environment(device), info.kept)
    return Plan(config, run, splits, device)


def _notes(config: RunConfig, encoder: EncoderModule, inputs: Inputs) -> Iterator[str]:
    """What a user should know of the objective and the encoder before the run begins."""
    yield from config.objective.notes(encoder, inputs)
    if config.encoder.leaky and config.objective.hides:
        yield (
            f"encoder {config.encoder.name} is a control: hidden patches are grey in its images, "
            "and it cannot tell them from grey ones that are seen"
        )


def _check_labels(config: RunConfig, info: SplitInfo) -> None:
    """Refuses an objective that learns from labels where there are none.

    Raises:
        ConfigError: names both.
    """
    if config.objective.needs_labels and info.labels is None:
        raise ConfigError(
            f"objective {config.objective.name!r} needs labels, "
            f"dataset {config.dataset.name!r} has none"
        )


def _check_kind(config: RunConfig, info: SplitInfo) -> None:
    """Refuses a data set that yields something else than it says.

    Raises:
        PluginError: names both.
    """
    if info.inputs.kind != config.dataset.gives:
        raise PluginError(
            f"dataset {config.dataset.name!r} gives {config.dataset.gives!r}, by its `gives`, and "
            f"yields {info.inputs.kind!r}"
        )


def _existing(
    folder: Path, config: RunConfig, identity: Mapping[str, Any], write: bool
) -> runs.Run | None:
    """The run of this identity; none where its config.json is damaged, which is made anew.

    All that it holds follows from the settings and the data, but for the time of its beginning.

    Raises:
        RunError: it is of a newer maebench, or holds another run, and would be written to.
    """
    try:
        return runs.existing(folder, config, dict(identity))
    except DamagedError as error:
        place = folder / "runs" / runs.run_name(config, dict(identity)) / "config.json"
        what = (
            f"written anew, the old one is {files.move_aside(place).name}" if write else "left out"
        )
        warnings.warn(f"{error}: {what}", stacklevel=3)
    except RunError as error:
        if write:
            raise
        warnings.warn(f"left out: {error}", stacklevel=3)
    return None


def with_dataset(run: runs.Run, config: RunConfig) -> runs.Run:
    """The run with these settings of its data, such as groups or levels, for later evaluations.

    They have not changed its weights, for it is the run of this identity: its train images are the
    same by content, though their folder may be a copy.
    """
    kept, now = run.content["config"], config.dump()
    where = str(run.folder / "config.json")
    before = parse(type(config.dataset), kept["dataset"], {}, where)
    said = [_of_dataset(run.name, before, config.dataset), _of_reading(run.name, kept, now)]
    if not any(said):
        return run
    for text in filter(None, said):
        warnings.warn(text, stacklevel=3)
    return runs.rewritten(run, dataset=now["dataset"], data=now["data"])


def _of_dataset(run: str, before: Dataset, now: Dataset) -> str:
    """What is said where a run is asked for with other settings of its data set."""
    if before == now:
        return ""
    if now.spec and getattr(before, now.spec) != getattr(now, now.spec):
        old, new = (f"{d.name}:{getattr(d, now.spec)}" for d in (before, now))
        return (
            f"the train images of {new} are the same as those of {old}, so their run is used: {run}"
        )
    return f"{run}: its config.json now has dataset {now.changed()}, before {before.changed()}"


def _of_reading(run: str, kept: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The same of how files are read, which may change the test images alone."""
    default = Reading().model_dump(mode="json")
    found = kept.get("data")
    before = {**default, **found} if isinstance(found, dict) else default
    changes = [key for key, value in now["data"].items() if value != before[key]]
    new, old = (
        ", ".join(f"data.{key}={files.shortened(some[key])}" for key in changes)
        for some in (now["data"], before)
    )
    return f"{run}: its config.json now has {new}, before {old}" if changes else ""


def hidden_in_stages(config: RunConfig, encoder: Any) -> list[int]:
    """How many patches are hidden in each stage of the schedule; none where nothing is."""
    found = []
    if config.objective.hides:
        check_plane(config, encoder)
    for ratio in config.ratios if config.objective.hides else ():
        units, num_units = masking.units_of(config.masking, ratio, encoder.patch, encoder.grid)
        per_unit = (encoder.grid[0] // units[0]) * (encoder.grid[1] // units[1])
        found.append(num_units * per_unit)
    return found


def check_plane(config: RunConfig, encoder: Any) -> None:
    """Refuses a masking that needs rows and columns on what lies on a line, such as text.

    Raises:
        ConfigError: names what is given and what fits.
    """
    kind = encoder.inputs.kind
    if config.masking.plane and kind != IMAGES and 1 in encoder.grid:
        raise ConfigError(
            f"masking {config.masking.name!r} needs rows and columns of patches, and dataset "
            f"{config.dataset.name!r} yields {kind} on a line of {max(encoder.grid)}: take one "
            "such as random, block, inverse-block, grid or red-noise"
        )


def facts_of(
    config: RunConfig, images: Images, encoder: Any, num_hidden: list[int], costs: list[Cost]
) -> dict[str, Any]:
    """What was found out before step 0, as JSON values."""
    info = images.info
    steps = num_steps(config.budget, len(images), config.batch, costs)
    mean, std = statistics_of(images)
    length = encoder.grid[0] * encoder.grid[1]
    return {
        "steps": steps,
        "cost": [one.dump() for one in costs],  # of an image, in each stage of the schedule
        "grid": list(encoder.grid),
        "patch": list(encoder.patch),
        **_inputs_facts(info.inputs),
        **({"kept": runs.marks_of(info.kept)} if info.kept else {}),
        "num_classes": info.inputs.num_classes,
        "num_hidden": num_hidden,
        # by the clock, stages are equally long and so have about as many steps each
        "realised_ratio": mean_over_stages(num_hidden, steps or len(num_hidden)) / length,
        "images": len(images),
        "skipped": list(info.skipped),
        "fingerprint": info.fingerprint,
        "mean": list(mean),
        "std": list(std),
        "encoder_parameters": sum(p.numel() for p in encoder.parameters()),
    }


def config_of(run: runs.Run, names: Names | None = None) -> RunConfig:
    """The settings of a run, every component as its class.

    Raises:
        ConfigError: a plugin that the run used is not installed.
    """
    settings, identity = run.content["config"], run.content["identity"]
    # earlier versions kept what the objective does not read
    read = {k: v for k, v in settings.items() if k not in HIDING or k in identity}
    return RunConfig(names, **read)


def mean_over_stages(values: Sequence[int], steps: int) -> float:
    """The mean over the steps of what each stage of a schedule has; 0 where there is no stage."""
    if not values:
        return 0.0
    lengths = stage_steps(len(values), steps)
    return sum(v * n for v, n in zip(values, lengths, strict=True)) / steps


def _inputs_facts(inputs: Inputs) -> dict[str, Any]:
    """What says what a model is fed: of images the channels, whose size is a setting."""
    if inputs.kind == IMAGES:
        return {"channels": inputs.channels}
    return {"channels": 0, "inputs": inputs.dump()}


def inputs_of(config: RunConfig, facts: Mapping[str, Any]) -> Inputs:
    """What a run's model is fed, from the run's facts."""
    if "inputs" in facts:
        return Inputs.load(facts["inputs"], facts["num_classes"])
    return Inputs.of_images(facts["channels"], config.size, facts["num_classes"])


def has_teacher(config: RunConfig) -> bool:
    """Whether an EMA teacher of the module is kept, because the masking asks it."""
    asks = config.objective.hides and bool(config.masking.needs)
    return asks and config.masking.answered_by == "teacher"


def check_needs(config: RunConfig, module: Any) -> None:
    """Refuses a masking that asks what this encoder or objective cannot answer.

    Raises:
        ConfigError: names what is missing.
    """
    needs = config.masking.needs if config.objective.hides else frozenset()
    if "attention" in needs and not hasattr(module.encoder, "attention"):
        raise ConfigError(
            f"masking {config.masking.name!r} needs attention, "
            f"which encoder {config.encoder.name!r} does not give"
        )
    if "patch_loss" in needs and not hasattr(module, "reconstruct"):
        raise ConfigError(
            f"masking {config.masking.name!r} needs the loss of each patch, "
            f"which objective {config.objective.name!r} does not give"
        )


def build(config: RunConfig, inputs: Inputs) -> Any:
    """The objective around its encoder at step 0: the same for one seed, whatever the masking.

    Raises:
        ConfigError: sizes that do not fit.
    """
    with isolated(config.seed, "encoder"):
        encoder = config.encoder.build(inputs)
    with isolated(config.seed, "objective"):
        return config.objective.build(encoder, inputs)
