"""`timm:`: any model of timm as an encoder, its weights from a file, the hub or random.

Shape suffixes: B images, N tokens, P prefix tokens, D width, h w rows and columns of a map.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maebench.data.preprocess import Preprocess
from maebench.encoders.blocks import drop_paths
from maebench.encoders.encoder import Tokens
from maebench.encoders.inputs import Inputs
from maebench.encoders.timm_cnn import check_architecture
from maebench.errors import ConfigError, unknown
from maebench.masking.mask import Mask
from maebench.models.preprocessing import RESAMPLE
from maebench.models.spec import SpecOptions
from maebench.models.timm_weights import filled, made
from maebench.models.weights import EncoderHolder, ForeignModel
from maebench.rng import isolated

WANTED = ("forward_features", "forward_intermediates", "reset_classifier")  # what features need


def from_timm(name: str, options: SpecOptions, spec: str, download: bool) -> ForeignModel:
    """The model of this name behind the encoder's contract.

    Raises:
        RunError: weights that were asked for are missing or do not fit.
        ConfigError: timm has no such model, or it does not take images of this size.
    """
    import timm
    from timm.data import resolve_model_data_config

    check_name(name, spec)
    for key in ("key", "key_map"):
        if getattr(options, key) is not None and options.weights is None:
            what = key.replace("_", " ")
            raise ConfigError(f"{spec}: a {what} is for ,weights=FILE, which is not given")
    network = made(name)
    if not all(hasattr(network, method) for method in WANTED):
        raise ConfigError(f"{spec}: this model of timm gives no features")
    network, verdict = filled(network, name, options, spec, download)
    data = resolve_model_data_config(network)
    network.reset_classifier(0)
    size = options.size or tuple(data["input_size"][1:])
    check_size(network, size, spec)
    try:
        if options.size is not None and hasattr(network, "set_input_size"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # timm's own indexing, of which torch complains
                network.set_input_size(img_size=size)  # positions are interpolated
        with isolated(0, "timm shape"):
            encoder = TimmEncoder(network, size, data["input_size"][0])
    # what timm's models raise on a size that they cannot take
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"{spec}: image-size {size[0]},{size[1]}: {reason}") from error
    how = data["interpolation"] if data["interpolation"] in RESAMPLE.values() else "bicubic"
    preprocess = Preprocess(
        size, encoder.inputs.channels, data["mean"], data["std"], how, float(data["crop_pct"])
    )
    return ForeignModel(
        name=spec,
        module=EncoderHolder(encoder),
        preprocess=preprocess,
        verdict=verdict,
        no_decoder="timm's models have no decoder",
        facts={
            "timm": timm.__version__,
            "architecture": name,
            **({"pooled_norms": sorted(encoder.pooled_norms)} if encoder.pooled_norms else {}),
        },
    )


def check_name(name: str, spec: str) -> None:
    """Refuses a name that timm does not have, or a tag that the architecture does not have.

    Raises:
        ConfigError: names the nearest; all of them are over a thousand.
    """
    import timm

    architecture = name.partition(".")[0]
    check_architecture(architecture, spec)
    if "." in name and name not in timm.list_pretrained():
        tags = timm.list_pretrained(f"{architecture}.*")
        raise ConfigError(unknown("weights of timm", name, tags, spec))


def check_size(network: nn.Module, size: tuple[int, int], spec: str) -> None:
    """Refuses a size that patches do not divide: pixels at its edge would not be seen.

    Raises:
        ConfigError: names both.
    """
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and (size[0] % patch[0] or size[1] % patch[1]):
        raise ConfigError(
            f"{spec}: image-size {size[0]},{size[1]}: patches of {patch[0]}x{patch[1]} do not "
            "divide it"
        )


# ---- the encoder


class TimmEncoder(nn.Module):
    """A timm model behind the encoder's contract, for evaluation; it cannot hide patches.

    Args:
        network: timm's, without a classifier (num_classes=0).
        size: rows and columns of the images it is fed.
        channels: of those images.
    """

    def __init__(self, network: Any, size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.model = network  # the hash of the weights covers this name
        self.inputs = Inputs.of_images(channels, size)
        takes = set(inspect.signature(network.forward_intermediates).parameters)
        self._options: dict[str, Any] = {}
        if "return_prefix_tokens" in takes and getattr(network, "num_prefix_tokens", None):
            self._options["return_prefix_tokens"] = True
        with torch.no_grad():
            end = self._tokens(network.eval().forward_features(torch.zeros(1, channels, *size)))
            maps = self._intermediates(torch.zeros(1, channels, *size), None)
        self.grid = self.out_grid = end.grid
        self.patch = (size[0] // end.grid[0], size[1] // end.grid[1])
        self.prefix = end.prefix.shape[1]
        # registers alone, as in timm's "reg4_gap", are no class token
        self.class_token = bool(self.prefix) and getattr(network, "has_class_token", True)
        self.width = end.patches.shape[2]
        self.depth = len(maps)

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Tokens after the last norm, and the maps after the asked-for blocks or stages.

        Raises:
            ConfigError: there is a mask.
        """
        if mask is not None:
            raise ConfigError("a model of timm is evaluated whole: it hides no patches")
        kept: dict[int, Tokens] = {}
        if layers:
            found = self._intermediates(images, [layer - 1 for layer in layers])
            kept = dict(zip(sorted(layers), found, strict=True))
        end = self._tokens(self.model.forward_features(images))
        return Tokens(end.prefix, end.patches, end.grid, None, kept)

    @property
    def pooled_norms(self) -> dict[str, nn.Module]:
        """What timm's model applies after pooling, by the kind of pooling that it was made for."""
        norm = getattr(self.model, "fc_norm", None)
        pool = {"avg": "mean", "token": "cls"}.get(getattr(self.model, "global_pool", ""))
        if norm is None or isinstance(norm, nn.Identity) or pool is None:
            return {}
        return {pool: norm}

    def layer_ids(self) -> dict[str, int]:
        """The layer of each parameter by timm's own grouping, 0 to depth + 1."""
        from timm.models._manipulate import group_with_matcher

        try:
            matcher = self.model.group_matcher(coarse=True)
        # timm's models without a grouping, or without a coarse one
        except (AttributeError, AssertionError, NotImplementedError):
            return {f"model.{n}": self.depth + 1 for n, _ in self.model.named_parameters()}
        found = group_with_matcher(self.model.named_parameters(), matcher, reverse=True)
        last = max(found.values())
        # without a final norm, or with the stem in its first stage, timm has fewer groups
        ids = {f"model.{n}": min(i, self.depth + 1) for n, i in found.items()}
        shift = max(0, self.depth - last)
        return {n: i + shift if i else 0 for n, i in ids.items()}

    def no_weight_decay(self) -> set[str]:
        """What timm's model names."""
        spared = getattr(self.model, "no_weight_decay", set)
        own = {name for name, _ in self.model.named_parameters()}
        return {f"model.{name}" for name in spared() if name in own}

    def set_drop_path(self, rate: float) -> None:
        """Drops residual branches, more and more over the blocks, where timm's blocks have them."""
        blocks = [b for b in getattr(self.model, "blocks", ()) if hasattr(b, "drop_path1")]
        drop_paths(blocks, rate, self.training)

    def _intermediates(self, images: Tensor, indices: list[int] | None) -> list[Tokens]:
        """The maps after blocks (of token models) or stages, the norm not applied."""
        found = self.model.forward_intermediates(
            images,
            indices=None if indices is None else sorted(indices),
            norm=False,
            output_fmt="NCHW",
            intermediates_only=True,
            **self._options,
        )
        return [_from_map(*item) if isinstance(item, tuple) else _from_map(item) for item in found]

    def _tokens(self, features: Any) -> Tokens:
        """What `forward_features` gives, whatever its shape."""
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            # several scales at once: what the model itself makes of them is its feature
            pooled_BD = self.model.forward_head(features, pre_logits=True)
            return _from_map(pooled_BD[:, :, None, None])
        if features.ndim == 4:
            last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return _from_map(features.permute(0, 3, 1, 2) if last else features)
        N = features.shape[1]
        prefix = getattr(self.model, "num_prefix_tokens", None)
        if prefix is None:  # a class token that the model does not declare
            prefix = 1 if math.isqrt(N - 1) ** 2 == N - 1 and math.isqrt(N) ** 2 != N else 0
        return Tokens(features[:, :prefix], features[:, prefix:], self._grid(N - prefix))

    def _grid(self, length: int) -> tuple[int, int]:
        """Rows and columns of the tokens: the embedding's, or a square, or one row."""
        own = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        if own is not None and own[0] * own[1] == length:
            return int(own[0]), int(own[1])
        side = math.isqrt(length)
        return (side, side) if side * side == length else (1, length)


def _from_map(map_BDhw: Tensor, prefix_BPD: Tensor | None = None) -> Tokens:
    if map_BDhw.ndim == 2:  # a model that ends in a vector
        map_BDhw = map_BDhw[:, :, None, None]
    patches_BND = map_BDhw.flatten(2).transpose(1, 2)
    if prefix_BPD is None:
        prefix_BPD = patches_BND[:, :0]
    elif prefix_BPD.ndim == 2:
        prefix_BPD = prefix_BPD[:, None]
    return Tokens(prefix_BPD, patches_BND, (map_BDhw.shape[2], map_BDhw.shape[3]))
