"""A vision transformer of Hugging Face's transformers as an encoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from maebench.encoders.encoder import Tokens, check_images
from maebench.errors import ConfigError
from maebench.masking.mask import Mask


class HuggingFaceEncoder(nn.Module):
    """ViT, DeiT, DINOv2 and their like behind the encoder's contract, for evaluation.

    Args:
        model: transformers' model without a head; its hidden states are [class token, registers,
            patches], the last one before the final norm.
        size: rows and columns of the images it is fed.
    """

    def __init__(self, model: Any, size: tuple[int, int]) -> None:
        super().__init__()
        self.model = model
        config = model.config
        self.channels, self.width = config.num_channels, config.hidden_size
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
            ConfigError: a mask is given.
        """
        if mask is not None:
            raise ConfigError("a model of transformers is evaluated whole: it hides no patches")
        check_images(self, images)
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
