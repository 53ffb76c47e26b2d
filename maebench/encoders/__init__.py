"""Images to tokens: the contract and the built-in encoders."""

from maebench.encoders.encoder import Encoder, EncoderModule, Tokens, check_images
from maebench.encoders.vit import (
    ViT,
    ViTBase,
    ViTHuge,
    ViTLarge,
    ViTMicro,
    ViTNano,
    ViTSmall,
    ViTTiny,
    default_patch,
)

BUILT_IN: tuple[type[Encoder], ...] = (
    ViTNano,
    ViTMicro,
    ViTTiny,
    ViTSmall,
    ViTBase,
    ViTLarge,
    ViTHuge,
)

__all__ = [
    "BUILT_IN",
    "Encoder",
    "EncoderModule",
    "Tokens",
    "ViT",
    "ViTBase",
    "ViTHuge",
    "ViTLarge",
    "ViTMicro",
    "ViTNano",
    "ViTSmall",
    "ViTTiny",
    "check_images",
    "default_patch",
]
