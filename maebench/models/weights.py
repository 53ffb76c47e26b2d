"""Weights from elsewhere: what a MODEL string says, what a file says, and how they fit."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from maebench.component import Options, explain
from maebench.data.preprocess import Preprocess
from maebench.errors import ConfigError, RunError, unknown
from maebench.models.reading import OURS

# which of them each kind of model can use
USES = {
    "file": {"heads", "decoder_heads", "target", "eps", "key_map"},
    "timm": {"weights", "key_map"},
    "hf": {"revision"},
}
PREPROCESSING = {"image_size", "mean", "std", "interpolation", "crop"}


class SpecOptions(Options):
    """What weights do not say of themselves, or what is to be other than they say."""

    heads: PositiveInt | None = Field(None, description="attention heads of the encoder")
    decoder_heads: PositiveInt | None = Field(None, description="attention heads of the decoder")
    target: Literal["pixels", "normalised-pixels"] | None = Field(
        None, description="what the decoder predicts"
    )
    eps: PositiveFloat | None = Field(None, description="epsilon of the norms")
    key_map: Path | None = Field(None, description="YAML file of regular expressions for names")
    weights: Path | None = Field(None, description="file of weights for the architecture")
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    image_size: tuple[PositiveInt, ...] | None = Field(
        None, description="pixels of a side of what the encoder takes, or rows,columns"
    )
    mean: tuple[float, ...] | None = Field(None, description="mean per channel, of pixels in 0..1")
    std: tuple[PositiveFloat, ...] | None = Field(None, description="deviation per channel")
    interpolation: Literal["bicubic", "bilinear", "nearest"] | None = Field(
        None, description="how images are resized"
    )
    crop: float | None = Field(
        None, ge=0.1, le=1, description="share of the resized side that the centre crop keeps"
    )

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns."""
        if self.image_size is None:
            return None
        return self.image_size[0], self.image_size[-1]


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """The name and what follows it: `a,b=1,2,c=3` is a, {b: "1,2", c: "3"}.

    Raises:
        ConfigError: an option is given twice.
    """
    parts = re.split(r",([a-z][a-z-]*)=", spec)
    names = [name.replace("-", "_") for name in parts[1::2]]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"{spec}: {', '.join(sorted(twice))} is given twice")
    return parts[0], dict(zip(names, parts[2::2], strict=True))


def read_given(kind: str, spec: str, options: Mapping[str, str]) -> SpecOptions:
    """The options of a MODEL string.

    Raises:
        ConfigError: one that this kind of model does not use, or a value out of range.
    """
    allowed = USES[kind] | PREPROCESSING
    for key in options:
        if key not in allowed:
            names = [name.replace("_", "-") for name in allowed]
            raise ConfigError(unknown("option", key.replace("_", "-"), names, repr(spec)))
    try:
        given = SpecOptions.model_validate(dict(options))
    except ValidationError as error:
        raise explain(error, spec) from error
    for key, values in (("mean", given.mean), ("std", given.std)):
        if values and not all(0 <= value <= 1 for value in values):
            raise ConfigError(f"{spec}: {key}: of pixels in 0..1, not 0..255, given {values}")
    if given.image_size is not None and len(given.image_size) > 2:
        raise ConfigError(f"{spec}: image-size: a side or rows,columns, given {given.image_size}")
    return given


def pixels_of(values: tuple[float, ...] | None, channels: int, what: str, spec: str) -> Any:
    """One number per channel, or None; a single one stands for all channels."""
    if values is None or len(values) == channels:
        return values
    if len(values) == 1:
        return values * channels
    raise ConfigError(f"{spec}: {what}: {channels} numbers are wanted, given {len(values)}")


EPS = 1e-6  # official code; a config.json that stands beside the weights says its own
Facts = Mapping[str, Any]


def whole(facts: Facts, place: str, key: str) -> int | None:
    """A whole number from 1 of the facts, None where they do not say it.

    Raises:
        RunError: it is something else.
    """
    value = facts.get(place, {}).get(key)
    if value is not None and (type(value) is not int or value < 1):
        raise RunError(f"{key} beside the weights is {value!r}: a whole number from 1 is wanted")
    return value


def size_of(facts: Facts) -> tuple[int, int] | None:
    """Rows and columns of the images that the weights take."""
    for place in (OURS, "config"):
        value = facts.get(place, {}).get("image_size")
        if value is not None:
            sides = value if isinstance(value, list | tuple) else [value, value]
            if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
                raise RunError(f"image_size beside the weights is {value!r}: a side or two wanted")
            return sides[0], sides[1]
    return None


def heads_told(facts: Facts, ours: str, theirs: str) -> int | None:
    """The number of heads that an export of ours or a config.json says."""
    return whole(facts, OURS, ours) or whole(facts, "config", theirs)


def eps_of(facts: Facts, given: SpecOptions) -> float:
    """The norms' epsilon."""
    told = facts.get("config", {}).get("layer_norm_eps", EPS)
    if not isinstance(told, float | int) or not 0 < told < 1:
        raise RunError(f"layer_norm_eps beside the weights is {told!r}: between 0 and 1 is wanted")
    return given.eps or float(told)


def colours(facts: Facts, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation per channel that an export of ours says."""
    found = [facts.get(OURS, {}).get(key) for key in ("mean", "std")]
    if None in found:
        return None
    for values in found:
        numbers = isinstance(values, list | tuple) and len(values) == channels
        if not numbers or not all(isinstance(v, float) and math.isfinite(v) for v in values):
            raise RunError(
                f"mean or std beside the weights is {values!r}: {channels} numbers wanted"
            )
    return tuple(found[0]), tuple(found[1])


def target_of(facts: Facts, given: SpecOptions) -> Any:
    """What the decoder predicts: given, or said beside the weights; None where nobody says."""
    told = facts.get(OURS, {}).get("target")
    if given.target is not None or told in ("pixels", "normalised-pixels"):
        return given.target or told
    for place in ("args", "config"):
        normalised = facts.get(place, {}).get("norm_pix_loss")
        if isinstance(normalised, bool):
            return "normalised-pixels" if normalised else "pixels"
    return None


SHOWN = 6  # names in a line; the others are counted
# The verdicts that an evaluation can live with; an incomplete encoder is an error.
COMPLETE = "complete"
NO_HEAD = "head only missing"
NO_DECODER = "decoder missing"
ODD_DECODER = "decoder not usable"
RANDOM = "random weights"


@dataclass(frozen=True)
class Verdict:
    """How weights and model fit.

    Args:
        text: "complete", "head only missing", "decoder missing", "decoder not usable" or "random
            weights".
        source: where the weights come from.
        used: how many weights the model took.
        missing: names of what the model has and the weights have not.
        unused: names of what the weights have and the model has not.
        notes: what else a reader of the number must know.
    """

    text: str
    source: str
    used: int = 0
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.text}: {self.used} weights of {self.source}"]
        parts += [f"missing {listed(self.missing)}"] if self.missing else []
        parts += [f"not used {listed(self.unused)}"] if self.unused else []
        return "; ".join([*parts, *self.notes])

    def dump(self) -> dict[str, Any]:
        """As JSON values, every name included."""
        return {
            "verdict": self.text,
            "source": self.source,
            "used": self.used,
            "missing": list(self.missing),
            "unused": list(self.unused),
            "notes": list(self.notes),
        }


def listed(names: Collection[str]) -> str:
    """The first few names and how many more."""
    ordered = sorted(names)
    more = len(ordered) - SHOWN
    return ", ".join(ordered[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def incomplete(
    source: str, missing: Collection[str], unused: Collection[str], shapes: Collection[str] = ()
) -> RunError:
    """The error for an encoder that the weights do not fill, with the nearest name of each."""
    hints = []
    for name in sorted(missing)[:SHOWN]:
        near = get_close_matches(name, list(unused), n=1, cutoff=0.8)
        hints.append(f"{name} (is it {near[0]}?)" if near else name)
    more = len(missing) - SHOWN
    told = ", ".join(hints) + (f" and {more} more" if more > 0 else "")
    parts = [f"missing {told}"] if missing else []
    parts += [f"left over {listed(unused)}"] if unused else []
    parts += [f"other shape {listed(list(shapes))}"] if shapes else []
    return RunError(
        f"{source}: the encoder is incomplete: {'; '.join(parts)}. "
        "--key-map FILE.yaml gives names their own"
    )


@dataclass(frozen=True)
class Foreign:
    """A model from elsewhere.

    Args:
        name: as in tables.
        module: holds the encoder as `.encoder`; reconstructs where `no_decoder` is empty.
        preprocess: what its images go through.
        verdict: how its weights fit.
        no_decoder: why it cannot reconstruct.
        facts: what besides its weights its numbers depend on, as JSON values.
    """

    name: str
    module: Any
    preprocess: Preprocess
    verdict: Verdict
    no_decoder: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def adapted(base: Preprocess, given: SpecOptions, spec: str) -> Preprocess:
    """The pre-processing with what the MODEL string gives in its place."""
    changes = {
        "mean": pixels_of(given.mean, base.channels, "mean", spec),
        "std": pixels_of(given.std, base.channels, "std", spec),
        "interpolation": given.interpolation,
        "crop": given.crop,
    }
    return replace(base, **{k: v for k, v in changes.items() if v is not None})


@contextlib.contextmanager
def asking(spec: str, download: bool = True) -> Iterator[None]:
    """Turns what a hub or its cache answers into one line.

    Raises:
        RunError: it cannot be had, with the reason.
    """
    # huggingface_hub's errors and those of its network library, of whichever it has
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        more = "" if download else "; nothing was downloaded: --download asks the hub"
        raise RunError(f"{spec} is not to be had here{more}: {reason}") from error
