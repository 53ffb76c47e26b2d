"""What a MODEL string says beside the name: `file:vit.pth,heads=6,target=pixels`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from maebench.component import Options, explain
from maebench.errors import ConfigError, unknown

# which of them each kind of model can use
USES = {
    "file": {"heads", "decoder_heads", "target", "eps", "key_map"},
    "timm": {"weights", "key_map"},
    "hf": {"revision"},
}
PREPROCESSING = {"image_size", "mean", "std", "interpolation", "crop"}


class Given(Options):
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


def read_given(kind: str, spec: str, options: Mapping[str, str]) -> Given:
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
        given = Given.model_validate(dict(options))
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
