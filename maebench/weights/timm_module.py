"""Any model of timm as an encoder: tokens where it has them, else the patches of its last map.

Shape suffixes: B images, N tokens, P prefix tokens, D width, h w rows and columns of a map.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import DropPath
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

from maebench.encoders.encoder import Tokens
from maebench.errors import ConfigError
from maebench.masking.mask import Mask


class TimmEncoder(nn.Module):
    """A timm model behind the encoder's contract, for evaluation; it cannot hide patches.

    Args:
        model: without a classifier (num_classes=0).
        size: rows and columns of the images it is fed.
        channels: of those images.
    """

    def __init__(self, model: Any, size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.model = model
        self.channels = channels
        takes = set(inspect.signature(model.forward_intermediates).parameters)
        self._options: dict[str, Any] = {}
        if "return_prefix_tokens" in takes and getattr(model, "num_prefix_tokens", None):
            self._options["return_prefix_tokens"] = True
        with torch.no_grad():
            end = self._tokens(model.eval().forward_features(torch.zeros(1, channels, *size)))
            maps = self._intermediates(torch.zeros(1, channels, *size), None)
        self.grid = self.out_grid = end.grid
        self.patch = (size[0] // end.grid[0], size[1] // end.grid[1])
        self.prefix = end.prefix.shape[1]
        # registers alone, as in timm's "reg4_gap", are no class token
        self.class_token = bool(self.prefix) and getattr(model, "has_class_token", True)
        self.width = end.patches.shape[2]
        self.depth = len(maps)

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Tokens after the last norm, and the maps after the asked-for blocks or stages.

        Raises:
            ConfigError: a mask is given.
        """
        if mask is not None:
            raise ConfigError("a model of timm is evaluated whole: it hides no patches")
        kept: dict[int, Tokens] = {}
        if layers:
            found = self._intermediates(images, [layer - 1 for layer in layers])
            kept = dict(zip(sorted(layers), found, strict=True))
        end = self._tokens(self.model.forward_features(images))
        return Tokens(end.prefix, end.patches, end.grid, None, kept)

    def layer_ids(self) -> dict[str, int]:
        """The layer of each parameter by timm's own grouping, 0 to depth + 1."""
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
        for block, share in zip(blocks, torch.linspace(0, rate, len(blocks)), strict=True):
            if share > 0:
                block.drop_path1 = DropPath(float(share)).train(self.training)
                block.drop_path2 = DropPath(float(share)).train(self.training)

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
        grid = self._grid(N - prefix)
        return Tokens(features[:, :prefix], features[:, prefix:], grid)

    def _grid(self, length: int) -> tuple[int, int]:
        """Rows and columns of the tokens: the embedding's, or a square, or one row."""
        told = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
        if told is not None and told[0] * told[1] == length:
            return int(told[0]), int(told[1])
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
