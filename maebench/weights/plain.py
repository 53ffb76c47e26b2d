"""A plain vision transformer's checkpoint as a model: its images' pre-processing beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from maebench.data.preprocess import Preprocess
from maebench.errors import ConfigError, RunError
from maebench.weights import vit
from maebench.weights.foreign import Foreign
from maebench.weights.given import Given
from maebench.weights.read import OURS, Found
from maebench.weights.told import colours

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
    channels, facts = encoder.channels, found.facts
    preprocessor = facts.get("preprocessor", {})
    timms = facts.get("config", {}).get("pretrained_cfg")
    if isinstance(timms, dict):  # a folder as timm writes it for the hub
        preprocessor = as_hugging_face(timms, size)
    known = colours(facts, channels) or preprocessor.get("image_mean")
    if not known and channels != 3 and not (given.mean and given.std):
        raise ConfigError(
            f"{spec}: mean and deviation of its {channels} channels cannot be read off the "
            "weights: give them, as in ,mean=0.5,std=0.25"
        )
    blank = (
        (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.0,) * channels, (1.0,) * channels)
    )
    mean, std = colours(facts, channels) or blank
    crop = 1.0 if OURS in facts or size != MAE_SIZE else MAE_CROP
    chosen = Preprocess(size, channels, mean, std, "bicubic", crop)
    return Foreign(spec, module, as_told(chosen, preprocessor), told, why, shape_of(module))


def shape_of(module: Any) -> dict[str, Any]:
    """What besides its weights the numbers of a vision transformer depend on."""
    encoder, decoder = module.encoder, getattr(module, "decoder", None)
    facts: dict[str, Any] = {
        "grid": list(encoder.grid),
        "heads": encoder.blocks[0].attn.num_heads,
        "eps": encoder.norm.eps,
    }
    if decoder is not None:
        facts["decoder_heads"] = decoder.decoder_blocks[0].attn.num_heads
        target = getattr(module, "target", None)
        facts["target"] = None if target is None else target.space == "normalised-pixels"
    return facts


def as_told(base: Preprocess, told: Mapping[str, Any], may_resize: bool = False) -> Preprocess:
    """What a preprocessor_config.json says, over what is known without it.

    Raises:
        RunError: it says something that cannot be.
    """
    if not told:
        return base
    changes: dict[str, Any] = {}
    for key, ours in (("image_mean", "mean"), ("image_std", "std")):
        values = told.get(key)
        if values is None:
            continue
        numbers = isinstance(values, list) and len(values) == base.channels
        if not numbers or not all(map(_number, values)):
            raise RunError(
                f"{key} in preprocessor_config.json is {values!r}: {base.channels} numbers are "
                "wanted"
            )
        changes[ours] = tuple(map(float, values))
    if told.get("do_normalize") is False:
        changes |= {"mean": (0.0,) * base.channels, "std": (1.0,) * base.channels}
    if told.get("resample") is not None:
        if told["resample"] not in RESAMPLE:
            raise RunError(
                f"resample in preprocessor_config.json is {told['resample']!r}, there is: "
                + ", ".join(f"{number} ({name})" for number, name in RESAMPLE.items())
            )
        changes["interpolation"] = RESAMPLE[told["resample"]]
    resized, kept = side_of(told.get("size")), side_of(told.get("crop_size"))
    cropped = kept if told.get("do_center_crop") and kept else resized
    if may_resize and cropped:
        changes["size"] = cropped
    cut = told.get("do_center_crop") and kept and resized and kept[0] < resized[0]
    changes["crop"] = kept[0] / resized[0] if cut and kept and resized else 1.0
    return replace(base, **changes)


def as_hugging_face(timms: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Timm's pretrained_cfg in the words of a preprocessor_config.json."""
    told: dict[str, Any] = {}
    for theirs, ours in (("mean", "image_mean"), ("std", "image_std")):
        if timms.get(theirs) is not None:
            told[ours] = timms[theirs]
    names = {name: number for number, name in RESAMPLE.items()}
    if timms.get("interpolation") in names:
        told["resample"] = names[timms["interpolation"]]
    share = timms.get("crop_pct")
    if isinstance(share, float) and 0 < share < 1:
        told |= {"do_center_crop": True, "crop_size": list(size)}
        told["size"] = [int(side / share) for side in size]
    return told


def _number(value: Any) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)


def side_of(size: Any) -> tuple[int, int] | None:
    """The several ways in which a preprocessor says a size; None where it is none of them."""
    if isinstance(size, dict):
        both = [size.get("height"), size.get("width")]
        size = size.get("shortest_edge") if None in both else both
    sides: list[Any] = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        return None
    return int(sides[0]), int(sides[1])
