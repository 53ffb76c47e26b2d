"""What follows the name in a MODEL string: `file:PATH,heads=6`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from maebench.component import Options, explain
from maebench.encoders.inputs import IMAGES, LONGEST_SIDE, TEXT
from maebench.errors import ConfigError, unknown

# which options each kind of model can use beside those of pre-processing
USES = {
    "file": {"length", "heads", "decoder_heads", "target", "eps", "key", "key_map"},
    "timm": {"weights", "key", "key_map"},
    "hf": {"revision", "length"},
}
PREPROCESSING = {"image_size", "mean", "std", "interpolation", "crop"}
PATHS = {"file", "hf", "weights", "key_map"}  # kinds and options that a path follows
Pixels = Annotated[PositiveInt, Field(le=LONGEST_SIDE)]
PixelTarget = Literal["pixels", "normalised-pixels"]


class SpecOptions(Options):
    """What weights do not say of themselves, or what is to be other than they say."""

    heads: PositiveInt | None = Field(default=None, description="attention heads of the encoder")
    decoder_heads: PositiveInt | None = Field(
        default=None, description="attention heads of the decoder"
    )
    target: PixelTarget | None = Field(default=None, description="what the decoder predicts")
    eps: PositiveFloat | None = Field(default=None, description="epsilon of the norms")
    key: str | None = Field(
        default=None,
        description="which of several sets of weights in a file, with dots: model_ema",
    )
    key_map: Path | None = Field(
        default=None, description="YAML file of regular expressions for names"
    )
    weights: Path | None = Field(default=None, description="file of weights for the architecture")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    image_size: tuple[Pixels, ...] | None = Field(
        default=None, description="pixels of a side of what the encoder takes, or rows,columns"
    )
    length: PositiveInt | None = Field(default=None, description="of text: tokens of a window")
    mean: tuple[float, ...] | None = Field(
        default=None, description="mean per channel, of pixels in 0..1"
    )
    std: tuple[PositiveFloat, ...] | None = Field(default=None, description="deviation per channel")
    interpolation: Literal["bicubic", "bilinear", "nearest"] | None = Field(
        default=None, description="how images are resized"
    )
    crop: float | None = Field(
        default=None,
        ge=0.1,
        le=1,
        description="share of the resized side that the centre crop keeps",
    )

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns."""
        if self.image_size is None:
            return None
        return self.image_size[0], self.image_size[-1]


def split_spec(kind: str, spec: str) -> tuple[str, dict[str, str]]:
    """The name and what follows it: `a,b=1,2,c=3` is a, {b: "1,2", c: "3"}.

    A path may hold commas and equals signs itself: of those that are there, the longest is meant.

    Raises:
        ConfigError: an option is given twice.
    """
    parts = re.split(r"(,[a-z][a-z-]*=)", spec)
    name, rest = _path(parts) if kind in PATHS else (parts[0], parts[1:])
    options: dict[str, str] = {}
    while rest:
        key = rest[0][1:-1].replace("-", "_")
        if key in options:
            raise ConfigError(f"{spec}: {key} is given twice")
        options[key], rest = _path(rest[1:]) if key in PATHS else (rest[1], rest[2:])
    return name, options


def _path(parts: list[str]) -> tuple[str, list[str]]:
    """The longest beginning that is a path here, else the shortest one, and what follows."""
    for end in range(len(parts), 0, -2):
        path = "".join(parts[:end])
        # a name that is too long or holds what no name may is no path; ~nobody is said elsewhere
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            if path and Path(path).expanduser().exists():
                return path, parts[end:]
    return parts[0], parts[1:]


def read_spec_options(kind: str, spec: str, texts: Mapping[str, str]) -> SpecOptions:
    """The options of a MODEL string, from their texts.

    Raises:
        ConfigError: one that this kind of model does not use, or a value out of range.
    """
    allowed = USES[kind] | PREPROCESSING
    for key in texts:
        if key not in allowed:
            names = [name.replace("_", "-") for name in allowed]
            raise ConfigError(unknown("option", key.replace("_", "-"), names, repr(spec)))
    try:
        options = SpecOptions.model_validate(dict(texts))
    except ValidationError as error:
        raise explain(error, spec) from error
    for key, values in (("mean", options.mean), ("std", options.std)):
        if values and not all(0 <= value <= 1 for value in values):
            raise ConfigError(f"{spec}: {key}: of pixels in 0..1, not 0..255, given {values}")
    if options.image_size is not None and len(options.image_size) > 2:
        raise ConfigError(f"{spec}: image-size: a side or rows,columns, given {options.image_size}")
    return options


def check_used(options: SpecOptions, kind: str, spec: str) -> None:
    """Refuses options of images where weights take text, and of text where they take images.

    Raises:
        ConfigError: names them.
    """
    unused, of = ({"length"}, TEXT) if kind == IMAGES else (PREPROCESSING, IMAGES)
    if wrong := sorted(key.replace("_", "-") for key in unused & options.model_fields_set):
        raise ConfigError(f"{spec}: {', '.join(wrong)}: of {of}, and these weights take {kind}")
