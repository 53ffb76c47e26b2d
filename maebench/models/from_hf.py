"""`hf:`: a model of Hugging Face's transformers, from a folder, the hub or its cache."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maebench.data.preprocess import Preprocess
from maebench.data.tokens import KEPT
from maebench.encoders.encoder import Tokens
from maebench.encoders.inputs import IMAGES, Inputs
from maebench.errors import ConfigError, RunError, unknown
from maebench.files import read_json, with_home
from maebench.masking.mask import Mask
from maebench.models.bert import from_bert
from maebench.models.from_file import from_weights
from maebench.models.preprocessing import as_stated
from maebench.models.reading import WeightsFile, read_weights
from maebench.models.spec import SpecOptions, check_used
from maebench.models.weights import (
    COMPLETE,
    LEAST_NUMBERS,
    MOST_STATED,
    NO_HEAD,
    EncoderHolder,
    ForeignModel,
    Verdict,
    asking,
    check_values,
    incomplete,
    listed,
)

FILES = [
    *("config.json", "preprocessor_config.json", KEPT),
    *("*.safetensors", "*.safetensors.index.json"),
]
# model_type of a config.json whose hidden states are a class token, registers and patches
TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit")
# What transformers raises on a folder that cannot be.
WRONG = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, ArithmeticError, ImportError),
    AttributeError,
)
# What is no part of the encoder: classifiers, and the decoder and token of SimMIM.
HEADS = (
    *("classifier.", "pooler.", "cls_classifier.", "distillation_classifier."),
    *("decoder.", "embeddings.mask_token", "vit.embeddings.mask_token"),
)


def from_hf(name: str, options: SpecOptions, spec: str, download: bool) -> ForeignModel:
    """The model of this name or in this folder."""
    folder = with_home(name)
    if not folder.is_dir():
        with asking(spec, download):
            folder = fetched(name, options.revision, download, FILES)
            if not any(folder.glob("*.safetensors")):  # older uploads
                fetched(name, options.revision, download, ["pytorch_model.bin"])
    return from_folder(folder, options, spec)


def fetched(name: str, revision: str | None, download: bool, patterns: list[str]) -> Path:
    """The hub's folder of a model in the cache, filled first where that was asked for."""
    from huggingface_hub import snapshot_download

    local = not download
    return Path(
        snapshot_download(name, revision=revision, local_files_only=local, allow_patterns=patterns)
    )


def from_folder(folder: Path, options: SpecOptions, spec: str) -> ForeignModel:
    """ViTMAE becomes ours, decoder and all; ViT and DINOv2 stay transformers' and are wrapped.

    Raises:
        RunError: the encoder is incomplete, or a file is damaged or would run something.
        ConfigError: another kind of model, or transformers is not installed.
    """
    kind = kind_of(folder)
    if kind == "vit_mae":
        return from_weights(read_weights(folder, options.key), options, spec)
    if kind == "bert":
        return from_bert(folder, options, spec)
    if kind not in TYPES:
        raise ConfigError(unknown("kind of model", str(kind), ["vit_mae", "bert", *TYPES], spec))
    check_used(options, IMAGES, spec)
    found = read_weights(folder)  # refuses what is damaged or would run, in our words
    network, loading = by_transformers(folder, kind, found, spec)
    missing = {n for n in loading["missing_keys"] if not n.startswith(HEADS)}
    unused = {n for n in loading["unexpected_keys"] if not n.startswith(HEADS)}
    wrong = [str(item[0]) for item in loading.get("mismatched_keys", ())]
    if missing or wrong or unused:
        raise incomplete(spec, missing, unused, wrong)
    beside = found.facts.get("preprocessor", {})
    preprocess = preprocess_of(network.config, beside, options, spec)
    left = tuple(sorted(loading["unexpected_keys"]))
    return ForeignModel(
        name=spec,
        module=EncoderHolder(HuggingFaceEncoder(network, preprocess.size)),
        preprocess=preprocess,
        verdict=Verdict(
            text=COMPLETE if any("classifier" in name for name in left) else NO_HEAD,
            source=spec,
            used=len(network.state_dict()),
            unused=left,
            notes=tuple(n for n in (found.chosen.note,) if n),
        ),
        no_decoder=f"a model of kind {kind} has no decoder",
        facts=facts_of(network.config),
    )


def kind_of(folder: Path) -> str | None:
    """The model_type of a folder's config.json; None where it has none."""
    path = folder / "config.json"
    content = read_json(path) if path.exists() else {}
    return content.get("model_type") if isinstance(content, dict) else None


def by_transformers(
    folder: Path, kind: str, found: WeightsFile, spec: str
) -> tuple[Any, dict[str, Any]]:
    """Transformers' network, and what it says of the weights' names."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise ConfigError(f"{spec} needs transformers: pip install 'maebench[hf]'") from error

    if found.stray:  # transformers takes whichever it reads last
        raise RunError(
            f"{spec}: {listed(found.stray)} in files where the index does not look for them: take "
            "the files that belong to it"
        )
    config = found.facts["config"]
    own = {n: t for n, t in found.chosen.tensors.items() if not n.startswith(HEADS)}
    names = [n for n, t in own.items() if t.is_floating_point() or n.endswith((".weight", ".bias"))]
    check_values({n: own[n] for n in names}, spec)
    refuse_more_than_weights(folder, config, spec)
    blocks = config.get("num_hidden_layers")
    if isinstance(blocks, int) and blocks > len(own):  # none of them could be built in time
        raise RunError(
            f"{spec}: its config.json states {blocks:,} blocks, and there are {len(own)} weights"
        )
    try:
        plan = AutoConfig.for_model(kind, **settings_of(config))
        refuse_larger(plan, found, spec)
        network, loading = AutoModel.from_pretrained(
            folder,
            config=plan,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are refused by us, by name
        )
    except (*WRONG, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{spec} cannot be read: {type(error).__name__}: {reason}") from error
    return network, loading


def refuse_more_than_weights(folder: Path, config: Mapping[str, Any], spec: str) -> None:
    """Refuses folders that would bring more than plain weights of a plain model.

    Raises:
        RunError: names what.
    """
    for key in ("quantization_config", "auto_map"):
        if config.get(key):
            raise RunError(f"{spec}: its config.json asks for {key}: plain weights are wanted")
    if (folder / "adapter_config.json").exists():
        raise RunError(f"{spec}: it is an adapter of another model: merge it first")


def refuse_larger(plan: Any, found: WeightsFile, spec: str) -> None:
    """Refuses a config that states a far larger network than the weights are of.

    Transformers would allocate and draw what it has no weights for, or of other shapes.

    Raises:
        RunError: names both sizes.
    """
    from transformers import AutoModel

    with torch.device("meta"):  # shapes alone
        stated = sum(tensor.numel() for tensor in AutoModel.from_config(plan).state_dict().values())
    there = sum(tensor.numel() for tensor in found.chosen.tensors.values())
    if stated > MOST_STATED * max(there, LEAST_NUMBERS):
        raise RunError(
            f"{spec}: its config.json states a network of {stated:,} numbers, and its weights are "
            f"{there:,}"
        )


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json says of the model, and nothing of how it is run.

    Precision is ours, and an attention by another name than torch's is a kernel of the hub, which
    transformers would fetch and run.
    """
    how = ("_", "attn_implementation", "experts_implementation", "dtype", "torch_dtype")
    return {k: v for k, v in config.items() if not k.startswith(how) and k != "model_type"}


def preprocess_of(
    config: Any, preprocessor: Mapping[str, Any], options: SpecOptions, spec: str
) -> Preprocess:
    """What a folder's images go through.

    Raises:
        ConfigError: nobody says it.
    """
    statistics = preprocessor.get("image_mean") and preprocessor.get("image_std")
    if preprocessor.get("do_normalize") is not False and not statistics:
        if not (options.mean and options.std):
            raise ConfigError(
                f"{spec}: no preprocessor_config.json says mean and deviation: give what images go "
                "through, as in ,mean=0.5,std=0.5"
            )
    side, channels = config.image_size, config.num_channels
    size = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
    unchanged = Preprocess(size, channels, (0.0,) * channels, (1.0,) * channels, "bilinear")
    chosen = as_stated(unchanged, preprocessor, may_resize=True)
    return chosen if options.size is None else replace(chosen, size=options.size)


def facts_of(config: Any) -> dict[str, Any]:
    """Transformers' config but what it adds of itself and of the file's history, as JSON values."""
    own = config.to_diff_dict()
    return {
        key: json.loads(json.dumps(value, default=str))
        for key, value in own.items()
        if not key.startswith(("_", "transformers", "architectures"))
    }


class HuggingFaceEncoder(nn.Module):
    """ViT, DeiT, DINOv2 and their like behind the encoder's contract, for evaluation.

    Args:
        network: transformers', without a head; its hidden states are [class token, registers,
            patches], the last one before the final norm.
        size: rows and columns of the images it is fed.
    """

    def __init__(self, network: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = network  # the hash of the weights covers this name
        config = network.config
        self.inputs = Inputs.of_images(config.num_channels, size)
        self.width = config.hidden_size
        self.depth = config.num_hidden_layers
        self.prefix = 1 + getattr(config, "num_register_tokens", 0)
        self.patch = (config.patch_size, config.patch_size)
        if size[0] % config.patch_size or size[1] % config.patch_size:
            raise ConfigError(
                f"image-size: {size[0]}x{size[1]} is no multiple of the patch {config.patch_size}"
            )
        self.grid = self.out_grid = (size[0] // self.patch[0], size[1] // self.patch[1])
        # weights trained at another size have their positions interpolated, as DINOv2 always does
        trained = getattr(config, "image_size", size[0])
        self._options = {} if size == (trained, trained) else {"interpolate_pos_encoding": True}
        if "dinov" in config.model_type:
            self._options = {}

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Tokens after the last norm, and after the asked-for blocks.

        Raises:
            ConfigError: there is a mask.
        """
        if mask is not None:
            raise ConfigError("a model of transformers is evaluated whole: it hides no patches")
        self.inputs.check(tuple(images.shape[1:]), "the encoder")
        found = self.model(images, output_hidden_states=bool(layers), **self._options)
        kept = {layer: self._tokens(found.hidden_states[layer]) for layer in layers}
        end = self._tokens(found.last_hidden_state)
        return Tokens(end.prefix, end.patches, end.grid, None, kept)

    def layer_ids(self) -> dict[str, int]:
        """0 for the embedding, i + 1 for block i, depth + 1 for the rest."""
        ids = {}
        for name, _ in self.model.named_parameters():
            block = re.search(r"\blayers?\.(\d+)\.", name)
            place = int(block[1]) + 1 if block else 0 if "embeddings" in name else self.depth + 1
            ids[f"model.{name}"] = place
        return ids

    def no_weight_decay(self) -> set[str]:
        """Positions and tokens."""
        named = ("position_embeddings", "cls_token", "register_tokens", "mask_token")
        return {
            f"model.{name}" for name, _ in self.model.named_parameters() if name.endswith(named)
        }

    def _tokens(self, x_BND: Tensor) -> Tokens:
        return Tokens(x_BND[:, : self.prefix], x_BND[:, self.prefix :], self.grid)
