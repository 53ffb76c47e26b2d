"""A model of Hugging Face's transformers: a folder here, or one of the hub or its cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from maebench.data.preprocess import Preprocess
from maebench.errors import ConfigError, RunError, unknown
from maebench.files import read_json
from maebench.weights.foreign import Foreign
from maebench.weights.given import Given
from maebench.weights.hub import asking
from maebench.weights.plain import as_told, from_weights
from maebench.weights.read import read_weights
from maebench.weights.verdict import COMPLETE, NO_HEAD, Verdict, incomplete

# model_type of a config.json whose hidden states are a class token, registers and patches
TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit")
FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]


def from_hf(name: str, given: Given, spec: str, download: bool) -> Foreign:
    """The model of this name or in this folder."""
    place = Path(name).expanduser()
    if not place.is_dir():
        with asking(spec, download):
            place = fetched(name, given.revision, download, FILES)
            if not any(place.glob("*.safetensors")):  # older uploads
                fetched(name, given.revision, download, ["pytorch_model.bin"])
    return from_folder(place, given, spec)


def fetched(name: str, revision: str | None, download: bool, patterns: list[str]) -> Path:
    """The hub's folder of a model in the cache, filled first where that was asked for."""
    from huggingface_hub import snapshot_download

    local = not download
    return Path(
        snapshot_download(name, revision=revision, local_files_only=local, allow_patterns=patterns)
    )


def from_folder(place: Path, given: Given, spec: str) -> Foreign:
    """ViTMAE becomes ours, decoder and all; ViT and DINOv2 stay transformers' and are wrapped.

    Raises:
        RunError: the encoder is incomplete, or a file is damaged or would run something.
        ConfigError: another kind of model, or transformers is not installed.
    """
    kind = kind_of(place)
    if kind == "vit_mae":
        return from_weights(read_weights(place), given, spec)
    if kind not in TYPES:
        raise ConfigError(unknown("kind of model", str(kind), ["vit_mae", *TYPES], spec))
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise ConfigError(f"{spec} needs transformers: pip install 'maebench[hf]'") from error
    from maebench.weights.hf_module import HuggingFaceEncoder

    found = read_weights(place)  # refuses what is damaged or would run, in our words
    try:
        model, info = AutoModel.from_pretrained(
            place, output_loading_info=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise RunError(f"{spec} cannot be read: {' '.join(str(error).split())}") from error
    heads = ("classifier.", "pooler.", "cls_classifier.", "distillation_classifier.")
    missing = {n for n in info["missing_keys"] if not n.startswith(heads)}
    unused = {n for n in info["unexpected_keys"] if not n.startswith(heads)}
    bent = [str(item[0]) for item in info.get("mismatched_keys", ())]
    if missing or bent or unused:
        raise incomplete(spec, missing, unused, bent)
    chosen = preprocessing(model.config, found.facts.get("preprocessor", {}), given, spec)
    holder: Any = nn.Module()
    holder.encoder = HuggingFaceEncoder(model, chosen.size)
    left = tuple(sorted(info["unexpected_keys"]))
    text = COMPLETE if any("classifier" in n for n in left) else NO_HEAD
    told = Verdict(text, spec, len(model.state_dict()), (), left)
    return Foreign(spec, holder, chosen, told, f"a model of kind {kind} has no decoder")


def preprocessing(config: Any, told: Any, given: Given, spec: str) -> Preprocess:
    """What a folder's images go through.

    Raises:
        ConfigError: nobody says it.
    """
    if not told and not (given.mean and given.std):
        raise ConfigError(
            f"{spec}: preprocessor_config.json is missing: give what images go through, as in "
            ",mean=0.5,std=0.5"
        )
    side, channels = config.image_size, config.num_channels
    size = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
    blank = Preprocess(size, channels, (0.0,) * channels, (1.0,) * channels, "bilinear")
    chosen = as_told(blank, told, may_resize=True)
    return chosen if given.size is None else replace(chosen, size=given.size)


def kind_of(folder: Path) -> str | None:
    """The model_type of a folder's config.json; None where it has none."""
    path = folder / "config.json"
    content = read_json(path) if path.exists() else {}
    return content.get("model_type") if isinstance(content, dict) else None
