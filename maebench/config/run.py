"""What a run is: flags, `-o`, YAML and presets become one object, the only source of truth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from maebench.component import Options, explain, parse
from maebench.config.length import Budget
from maebench.config.parts import MOST_BATCH, Machine, Optimiser, Recipe, Schedule
from maebench.data.augment import Augment
from maebench.data.dataset import Dataset, Request, Splits
from maebench.data.reading import Reading
from maebench.encoders.encoder import Encoder
from maebench.encoders.inputs import IMAGES, LONGEST_SIDE, takes
from maebench.errors import ConfigError
from maebench.evaluation import Evaluation
from maebench.masking.mask import Masking
from maebench.objectives.objective import Objective
from maebench.plugins import Names, installed

HIDING = ("masking", "ratio", "schedule")  # settings that only objectives that hide patches read
OF_IMAGES = ("image_size", "augment")  # settings that are read with images alone
Pixels = Annotated[PositiveInt, Field(le=LONGEST_SIDE)]
DEFAULT_EVALUATIONS = ("linear-probe", "finetune", "knn", "reconstruction")


class RunConfig(Options):
    """All settings of a run; what is left out comes from the data set's preset."""

    dataset: Dataset = Field(default="digits", description="images to learn from")  # type: ignore[assignment]
    data_dir: Path | None = Field(
        default=None, description="folder that holds the data set's files"
    )
    download: bool = Field(default=False, description="fetch missing files of the data set")
    on_bad_image: Literal["fail", "skip"] = Field(
        default="fail", description="what to do with an image that cannot be read"
    )
    image_size: tuple[Pixels, Pixels] | None = Field(
        default=None, description="pixels of a side, or rows,columns"
    )
    encoder: Encoder = Field(default="vit-nano", description="what is pretrained")  # type: ignore[assignment]
    objective: Objective = Field(default="mae", description="what pretraining minimises")  # type: ignore[assignment]
    masking: Masking = Field(default="random", description="which patches are hidden")  # type: ignore[assignment]
    ratio: float = Field(default=0.75, gt=0, lt=1, description="share of patches that are hidden")
    budget: Budget = Field(  # type: ignore[assignment]
        default="epochs=100",
        description="length: epochs=N, steps=N, tokens=N, flops=N or seconds=N",
    )
    batch: PositiveInt = Field(default=64, le=MOST_BATCH, description="images per update")
    lr: PositiveFloat = Field(default=1e-3, description="learning rate per 256 images of a batch")
    seed: NonNegativeInt = Field(default=0, description="seed of everything random")
    device: str = Field(
        default="auto", description="cpu, cuda or cuda:N; auto takes a GPU if there is one"
    )
    limit: PositiveInt | None = Field(
        default=None, description="number of training images, class-balanced"
    )
    evals: tuple[Evaluation, ...] = Field(
        default=DEFAULT_EVALUATIONS,  # type: ignore[arg-type]
        description="evaluations to run, separated by commas",
    )
    schedule: Schedule = Field(default=Schedule(), description="how the ratio moves")
    augment: Augment = Field(default=Augment(), description="crops and flips")
    data: Reading = Field(default=Reading(), description="how files become images")
    optimiser: Optimiser = Field(default=Optimiser(), description="how weights are updated")
    machine: Machine = Field(default=Machine(), description="how the work is done")
    recipe: Recipe | None = Field(
        default=None, description="which recipe the settings come from; --recipe writes it"
    )

    FLAGS: ClassVar[tuple[str, ...]] = (
        *("dataset", "data_dir", "download", "on_bad_image", "image_size", "encoder", "objective"),
        *("masking", "ratio", "budget", "batch", "lr", "seed", "device", "limit", "evals"),
    )
    # Exactly the settings that can change the numbers; a test per field, both ways.
    IDENTITY: ClassVar[tuple[str, ...]] = (
        *("dataset", "image_size", "encoder", "objective", "masking", "ratio", "budget", "batch"),
        *("lr", "seed", "limit", "augment", "optimiser", "schedule"),
    )

    def __init__(self, _names: Names | None = None, /, **settings: Any) -> None:
        """Reads names by the installed plugins and fills what is missing from the preset.

        Raises:
            ConfigError: an unknown name or option, or a value out of range, in one line.
        """
        found = _names or installed()
        names = found.context()
        try:
            filled = with_preset(settings, names)
            check_hiding(settings, filled["objective"], found)
            self.__pydantic_validator__.validate_python(filled, self_instance=self, context=names)
            check_kinds(self, found)
        except ValidationError as error:
            raise explain(error, "") from error

    @model_validator(mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        """One number for a side is both sides; "32x64" and "32,64" are rows and columns."""
        if not isinstance(value, dict) or value.get("image_size") is None:
            return value
        size = value["image_size"]
        if isinstance(size, str):
            if not re.fullmatch(r"\s*\d+\s*([x,]\s*\d+\s*)?", size):
                raise ValueError(f"image_size: write N or H,W, given {size!r}")
            size = [int(part) for part in re.split("[x,]", size)]
            size = size[0] if len(size) == 1 else size
        return {**value, "image_size": (size, size) if isinstance(size, int) else size}

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the images.

        Raises:
            ConfigError: these are no images.
        """
        if self.image_size is None:
            raise ConfigError(f"image_size: dataset {self.dataset.name!r} yields no images")
        return self.image_size

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratio of each stage of the schedule; one where there is none."""
        last, stages = self.schedule.ratio, self.schedule.stages
        if last is None:
            return (self.ratio,)
        # rounded, because a ratio is read as it is written: .5 + 2 * .1 is no .7 in floats
        step = (last - self.ratio) / (stages - 1)
        between = (round(self.ratio + i * step, 6) for i in range(1, stages - 1))
        return (self.ratio, *between, last)

    @property
    def ratio_text(self) -> str:
        """The ratio as in a run's name, with where a schedule moves it: .75, or .5to0.8."""
        first, last = self.ratios[0], self.ratios[-1]
        return f"{first:g}" + (f"to{last:g}" if last != first else "")

    def ratio_at(self, progress: float) -> float:
        """The ratio at a progress from 0 to 1."""
        return self.ratios[self.stage_at(progress)]

    def stage_at(self, progress: float) -> int:
        """Which of the ratios holds at a progress from 0 to 1."""
        return min(len(self.ratios) - 1, int(progress * len(self.ratios)))

    @property
    def unread(self) -> set[str]:
        """Settings that this objective, or this kind of inputs, does not read."""
        unused = set() if self.objective.hides else set(HIDING)
        return unused if self.dataset.gives == IMAGES else unused | set(OF_IMAGES)

    def splits(self, kept: Mapping[str, str] | None = None) -> Splits:
        """The data set as this config asks for it.

        Args:
            kept: what the run of the model that is to be fed has kept of its own data set.
        """
        request = Request(
            split="",
            data_dir=self.data_dir,
            download=self.download,
            image_size=self.image_size,
            on_bad_image=self.on_bad_image,
            memory_limit=int(self.machine.memory_gb * 2**30),
            reading=self.data,
            kept=kept or {},
        )
        return Splits(self.dataset, request, self.limit, self.augment.flip)

    def dump(self) -> dict[str, Any]:
        """Everything that is read as JSON values, names included: `RunConfig(**dump)` again."""
        return self.model_dump(mode="json", exclude=self.unread)

    def identity(self, fingerprint: str, precision: str) -> dict[str, Any]:
        """What can change the numbers: the allow-listed settings, the data and the precision.

        Component versions and the fingerprint of the data count, the folder it lies in does not.
        """
        unused = self.unread
        if self.schedule.ratio is None:
            unused.add("schedule")
        settings = self.model_dump(mode="json", include=set(self.IDENTITY) - unused)
        parts = {"dataset", "encoder", "objective", "masking"} - unused
        settings |= {part: getattr(self, part).identity() for part in parts}
        # the fingerprint stands for what a folder holds; where it lies does not count
        if self.dataset.spec:
            settings["dataset"].pop(self.dataset.spec)
        versions = {part: getattr(self, part).version for part in sorted(parts)}
        return {**settings, "versions": versions, "data": fingerprint, "precision": precision}


def with_preset(settings: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """The settings over the preset of their data set, which gives what they leave out."""
    # an option without a name, as in -o objective.target=pixels, is one of the default part
    parts = ("dataset", "objective", "masking")
    defaults = {part: RunConfig.model_fields[part].default for part in parts}
    given = merge(defaults, settings)["dataset"]
    dataset = parse(Dataset, given, names, "dataset")
    wanted = {"image_size", "encoder", "objective", "budget", "batch", "lr", "augment"}
    if wanted <= settings.keys() and all(_named(settings[p]) for p in ("encoder", "objective")):
        return {**merge(defaults, settings), "dataset": dataset}
    if dataset.gives != IMAGES and (idle := [key for key in OF_IMAGES if settings.get(key)]):
        raise ConfigError(
            f"{idle[0]}: dataset {dataset.name!r} yields {dataset.gives}; "
            f"{' and '.join(OF_IMAGES)} are read with images alone"
        )
    return merge(merge(defaults, dataset.preset()), {**settings, "dataset": dataset})


def default_objective(settings: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
    """The objective where none is named: that of the data set's preset, else MAE."""
    given = merge({"dataset": RunConfig.model_fields["dataset"].default}, settings)["dataset"]
    dataset = parse(Dataset, given, names, "dataset")
    usual = RunConfig.model_fields["objective"].default
    return usual if dataset.gives == IMAGES else dataset.preset().get("objective", usual)


def check_kinds(config: RunConfig, names: Names) -> None:
    """Refuses an encoder, objective or option that is not of what the data set yields.

    Raises:
        ConfigError: names both, and what does.
    """
    kind = config.dataset.gives
    for evaluation in config.evals:
        evaluation.suited(kind)
    for part in (config.encoder, config.objective):
        if not takes(part, kind):
            there = names.table[part.kind].items()
            fits = ", ".join(name for name, cls in there if takes(cls, kind)) or "nothing"
            raise ConfigError(
                f"{part.kind} {part.name!r} takes {' and '.join(part.takes)}, and dataset "
                f"{config.dataset.name!r} yields {kind}; what takes {kind}: {fits}"
            )


def check_hiding(settings: Mapping[str, Any], chosen: Any, names: Names) -> None:
    """Refuses a masking, ratio or schedule beside an objective that hides nothing.

    Raises:
        ConfigError: names the setting, and the objectives that read it.
    """
    idle = [key for key in HIDING if key in settings]
    objective = parse(Objective, chosen, names.context(), "objective") if idle else None
    if objective is not None and not objective.hides:
        hiding = [n for n, cls in names.table["objective"].items() if cls.hides]  # type: ignore[attr-defined]
        raise ConfigError(
            f"{idle[0]}: objective {objective.name!r} hides no patch; "
            f"{', '.join(HIDING)} are read by {', '.join(hiding)}"
        )


def _named(value: Any) -> bool:
    return not isinstance(value, Mapping) or "name" in value


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers over earlier ones, part by part; another component's options do not survive."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            before = merged.get(key)
            if isinstance(value, Mapping) or isinstance(before, Mapping):
                # -o masking.aspect=... and --masking block speak of one part
                value, before = _as_mapping(key, value), _as_mapping(key, before)
            if isinstance(value, Mapping) and isinstance(before, Mapping):
                other = "name" in value and value["name"] != before.get("name", value["name"])
                value = dict(value) if other else merge(before, value)
            merged[key] = value
    return merged


def _as_mapping(key: str, value: Any) -> Any:
    """A text as the mapping that it stands for: a component's name, or a budget."""
    if not isinstance(value, str) or key in ("augment", "data", "optimiser", "machine"):
        return value
    if key != "budget":
        return {"name": value}
    try:
        return dict(Budget.model_validate(value))
    except ValidationError:
        return value  # validation of the whole will say what is wrong
