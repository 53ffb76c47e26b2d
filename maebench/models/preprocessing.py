"""What images go through before weights from elsewhere see them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from maebench.data.preprocess import Preprocess
from maebench.errors import ConfigError, RunError
from maebench.models.reading import OURS, Facts
from maebench.models.spec import SpecOptions

# ImageNet's statistics, which the official MAE code normalises with (main_pretrain.py).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Official code, main_linprobe.py: resized to 256, the centre 224 kept. Known for that size alone.
MAE_SIZE, MAE_CROP = (224, 224), 224 / 256
RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, in Hugging Face's files
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation per channel


def of_weights(
    facts: Facts, size: tuple[int, int], channels: int, options: SpecOptions, spec: str
) -> Preprocess:
    """By what stands beside a file's weights, else as the official MAE code does it.

    Raises:
        ConfigError: nobody says mean and deviation of images that are not in colour.
        RunError: what stands there cannot be.
    """
    preprocessor = facts.get("preprocessor", {})
    timms = facts.get("config", {}).get("pretrained_cfg")
    if isinstance(timms, dict):  # a folder as timm writes it for the hub
        preprocessor = as_hugging_face(timms, size)
    ours = stated_statistics(facts, channels)
    known = ours or preprocessor.get("image_mean") or (options.mean and options.std)
    if not known and channels != 3:
        raise ConfigError(
            f"{spec}: mean and deviation of its {channels} channels cannot be read off the "
            "weights: give them, as in ,mean=0.5,std=0.25"
        )
    unchanged = (0.0,) * channels, (1.0,) * channels
    mean, std = ours or ((IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else unchanged)
    crop = 1.0 if OURS in facts or size != MAE_SIZE else MAE_CROP
    return as_stated(Preprocess(size, channels, mean, std, "bicubic", crop), preprocessor)


def stated_statistics(facts: Facts, channels: int) -> Statistics | None:
    """Mean and deviation per channel that an export of ours says.

    Raises:
        RunError: it says something that cannot be.
    """
    ours = facts.get(OURS, {})
    mean, std = ours.get("mean"), ours.get("std")
    if mean is None or std is None:
        return None
    for values in (mean, std):
        numbers = isinstance(values, list | tuple) and len(values) == channels
        if not numbers or not all(isinstance(v, float) and math.isfinite(v) for v in values):
            raise RunError(
                f"mean or std beside the weights is {values!r}: {channels} numbers wanted"
            )
    return tuple(mean), tuple(std)


def as_stated(
    base: Preprocess, preprocessor: Mapping[str, Any], may_resize: bool = False
) -> Preprocess:
    """What a preprocessor_config.json says, over what is known without it.

    Raises:
        RunError: it says something that cannot be.
    """
    if not preprocessor:
        return base
    changes: dict[str, Any] = {}
    for key, ours in (("image_mean", "mean"), ("image_std", "std")):
        values = preprocessor.get(key)
        if values is None:
            continue
        numbers = isinstance(values, list) and len(values) == base.channels
        if not numbers or not all(isinstance(v, float | int) and math.isfinite(v) for v in values):
            raise RunError(
                f"{key} in preprocessor_config.json is {values!r}: {base.channels} numbers are "
                "wanted"
            )
        changes[ours] = tuple(map(float, values))
    if preprocessor.get("do_normalize") is False:
        changes |= {"mean": (0.0,) * base.channels, "std": (1.0,) * base.channels}
    if preprocessor.get("resample") is not None:
        if preprocessor["resample"] not in RESAMPLE:
            raise RunError(
                f"resample in preprocessor_config.json is {preprocessor['resample']!r}, there is: "
                + ", ".join(f"{number} ({name})" for number, name in RESAMPLE.items())
            )
        changes["interpolation"] = RESAMPLE[preprocessor["resample"]]
    resized = as_size(preprocessor.get("size"))
    kept = as_size(preprocessor.get("crop_size")) if preprocessor.get("do_center_crop") else None
    if may_resize and (kept or resized):
        changes["size"] = kept or resized
    changes["crop"] = 1.0
    if kept and resized and kept[0] < resized[0]:
        changes["crop"] = kept[0] / resized[0]
    return replace(base, **changes)


def as_size(value: Any) -> tuple[int, int] | None:
    """The several ways in which a preprocessor says a size; None where it is none of them."""
    if isinstance(value, dict):
        both = [value.get("height"), value.get("width")]
        value = value.get("shortest_edge") if None in both else both
    sides: list[Any] = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def as_hugging_face(timms: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Timm's pretrained_cfg in the words of a preprocessor_config.json."""
    words: dict[str, Any] = {}
    for theirs, ours in (("mean", "image_mean"), ("std", "image_std")):
        if timms.get(theirs) is not None:
            words[ours] = timms[theirs]
    names = {name: number for number, name in RESAMPLE.items()}
    if timms.get("interpolation") in names:
        words["resample"] = names[timms["interpolation"]]
    share = timms.get("crop_pct")
    if isinstance(share, float) and 0 < share < 1:
        words |= {"do_center_crop": True, "crop_size": list(size)}
        words["size"] = [int(side / share) for side in size]
    return words


def with_options(base: Preprocess, options: SpecOptions, spec: str) -> Preprocess:
    """The pre-processing with what a MODEL string says in its place.

    Raises:
        ConfigError: as many numbers as there are channels are wanted, or one.
    """
    changes: dict[str, Any] = {
        "mean": per_channel(options.mean, base.channels, f"{spec}: mean"),
        "std": per_channel(options.std, base.channels, f"{spec}: std"),
        "interpolation": options.interpolation,
        "crop": options.crop,
    }
    return replace(base, **{k: v for k, v in changes.items() if v is not None})


def per_channel(
    values: tuple[float, ...] | None, channels: int, where: str
) -> tuple[float, ...] | None:
    """One number per channel, or None; a single one stands for all channels."""
    if values is None or len(values) == channels:
        return values
    if len(values) == 1:
        return values * channels
    raise ConfigError(f"{where}: {channels} numbers are wanted, given {len(values)}")
