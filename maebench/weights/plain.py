"""A plain vision transformer's checkpoint as a model: its images' pre-processing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from maebench.data.preprocess import Preprocess
from maebench.errors import ConfigError
from maebench.weights import vit
from maebench.weights.foreign import Foreign
from maebench.weights.given import Given
from maebench.weights.read import OURS, Found

# ImageNet's statistics, which the official MAE code normalises with (main_pretrain.py).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Official code, main_linprobe.py: resized to 256, the centre 224 kept. Known for that size alone.
MAE_SIZE, MAE_CROP = (224, 224), 224 / 256
RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, in Hugging Face's files


def from_weights(found: Found, given: Given, spec: str) -> Foreign:
    """A plain vision transformer read off its weights."""
    module, told, why = vit.build(found, given, spec)
    encoder = module.encoder
    size = (encoder.grid[0] * encoder.patch[0], encoder.grid[1] * encoder.patch[1])
    ours = found.facts.get(OURS, {})
    mean, std = ours.get("mean"), ours.get("std")
    if mean is None and encoder.channels == 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    if (mean is None or std is None) and not (given.mean and given.std):
        raise ConfigError(
            f"{spec}: mean and deviation of its {encoder.channels} channels cannot be read off the "
            "weights: give them, as in ,mean=0.5,std=0.25"
        )
    blank = (0.0,) * encoder.channels, (1.0,) * encoder.channels
    crop = 1.0 if ours or size != MAE_SIZE else MAE_CROP
    chosen = Preprocess(size, encoder.channels, mean or blank[0], std or blank[1], "bicubic", crop)
    chosen = as_told(chosen, found.facts.get("preprocessor", {}))
    return Foreign(spec, module, chosen, told, why)


def as_told(base: Preprocess, told: Mapping[str, Any], may_resize: bool = False) -> Preprocess:
    """What a preprocessor_config.json says, over what is known without it."""
    if not told:
        return base
    changes: dict[str, Any] = {}
    if told.get("image_mean") and told.get("image_std"):
        changes |= {"mean": tuple(told["image_mean"]), "std": tuple(told["image_std"])}
    if told.get("resample") in RESAMPLE:
        changes["interpolation"] = RESAMPLE[told["resample"]]
    resized, kept = _side(told.get("size")), _side(told.get("crop_size"))
    cropped = kept if told.get("do_center_crop") and kept else resized
    if may_resize and cropped:
        changes["size"] = cropped
    if told.get("do_center_crop") and kept and resized and kept[0] < resized[0]:
        changes["crop"] = kept[0] / resized[0]
    else:
        changes["crop"] = 1.0
    return replace(base, **changes)


def _side(size: Any) -> tuple[int, int] | None:
    """The several ways in which a preprocessor says a size."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, dict) and "height" in size:
        return int(size["height"]), int(size["width"])
    if isinstance(size, dict) and "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    return None
