"""Which groups of settings a run has: its length, the ratio's schedule, optimiser and machine."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from maebench.component import Options
from maebench.data.dataset import MEMORY_LIMIT_GB
from maebench.data.reading import MOST_GB
from maebench.outputs import Tracker

# Images per update: CLIP's 32,768 and the 65,536 of LAMB are the largest that were of use.
MOST_BATCH = 2**20


class Schedule(Options):
    """How the ratio moves while pretraining, in a few equal stages."""

    ratio: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="ratio of the last stage; none: --ratio from start to end",
    )
    # few: before a run begins, the cost of an image is counted in each (pretraining/cost.py)
    stages: int = Field(
        default=4, ge=2, le=8, description="number of stages from --ratio to schedule.ratio"
    )

    def model_post_init(self, _: object) -> None:
        """Refuses stages that lead nowhere."""
        if self.ratio is None and self.stages != type(self).model_fields["stages"].default:
            raise ValueError("schedule.stages needs schedule.ratio, the ratio of the last stage")


class Optimiser(Options):
    """How weights are updated: AdamW with warm-up and a half cosine, per step."""

    weight_decay: float = Field(default=0.05, ge=0, description="AdamW's decay (MAE: 0.05)")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's first beta (MAE: 0.9)")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="AdamW's second beta (MAE: 0.95)")
    warmup: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="share of the steps with a rising rate (MAE: 40 of 800 epochs)",
    )
    min_lr: float = Field(
        default=0.0, ge=0, description="rate at the end, before scaling by the batch"
    )
    clip: float | None = Field(
        default=None, gt=0, description="largest gradient norm; none: not clipped"
    )
    accumulate: PositiveInt = Field(
        default=1, le=MOST_BATCH, description="parts that a batch is computed in"
    )


class Machine(Options):
    """How the work is done on this machine; precisions alone change numbers beyond rounding."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="fp32, or mixed precision: bf16, or fp16 with loss scaling; auto: bf16 where "
        "the hardware has it, on a CPU from width 192 up, fp16 on GPUs without it",
    )
    checkpoint_seconds: PositiveFloat = Field(
        default=10.0,
        description="least seconds between checkpoints (more where writing one is slow)",
    )
    compile: Literal["auto"] | bool = Field(
        default="auto",
        description="whether torch.compile makes the step quicker, which takes a minute first; "
        "auto: where the run is long enough for it to pay",
    )
    deterministic: bool = Field(
        default=False,
        description="kernels whose last bit is the same each time, so that a run that goes on does "
        "so bit for bit on a GPU too, where it costs time; a CPU's are",
    )
    on_nan: Literal["stop", "skip"] = Field(
        default="stop",
        description="what to do where a loss is no number: stop with what broke it, or skip the "
        "update, 10 in a row or one in a hundred at most (reads each loss, which a GPU waits for)",
    )
    strict: bool = Field(
        default=False,
        description="refuse to go on with a run under other threads, versions or hardware than it "
        "was computed with so far, which changes its weights by rounding that grows",
    )
    features: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="what frozen features are kept in; bf16: half of the space, each number within "
        "2^-8 of itself",
    )
    evaluation: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        default="auto",
        description="what frozen features are computed in; auto: tf32 on GPUs that have it, whose "
        "products round to 2^-11, else fp32",
    )
    memory_gb: float = Field(
        default=MEMORY_LIMIT_GB,
        ge=0,
        le=MOST_GB,
        description="largest split decoded into memory, in GiB",
    )
    trackers: tuple[Tracker, ...] = Field(
        default=(), description="where numbers go beside log.jsonl"
    )


class Recipe(Options):
    """The recipe that settings come from, and the settings that differ from it."""

    name: str = Field(description="the recipe's name")
    hash: str = Field(description="hash of the settings in its file")
    overrides: dict[str, tuple[Any, Any]] = Field(
        default={}, description="each setting that differs: what the recipe says, what was given"
    )

    @model_validator(mode="before")
    @classmethod
    def _no_name(cls, value: Any) -> Any:
        """A name alone is no source of settings, whatever it looks like."""
        if isinstance(value, str):
            raise ValueError("write RunConfig(**maebench.recipe(NAME)), or --recipe NAME")
        return value
