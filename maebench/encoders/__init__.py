"""Images to tokens: the contract and the built-in encoders."""

from maebench.encoders.encoder import Encoder, EncoderModule, Tokens, keep_positions
from maebench.encoders.swin import Swin, SwinNano, SwinTiny
from maebench.encoders.text import (
    TextBase,
    TextMicro,
    TextNano,
    TextSmall,
    TextTiny,
    TextTransformer,
)
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
    SwinNano,
    SwinTiny,
    TextNano,
    TextMicro,
    TextTiny,
    TextSmall,
    TextBase,
)
__all__ = [
    "BUILT_IN",
    "Encoder",
    "EncoderModule",
    "Swin",
    "SwinNano",
    "SwinTiny",
    "TextBase",
    "TextMicro",
    "TextNano",
    "TextSmall",
    "TextTiny",
    "TextTransformer",
    "Tokens",
    "ViT",
    "ViTBase",
    "ViTHuge",
    "ViTLarge",
    "ViTMicro",
    "ViTNano",
    "ViTSmall",
    "ViTTiny",
    "default_patch",
    "keep_positions",
]
