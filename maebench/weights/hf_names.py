"""Our weights by the names that Hugging Face's transformers reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def huggingface_names(tensors: Mapping[str, Tensor], whole: bool) -> dict[str, Tensor]:
    """The names of the hub's ViTMAE files, which transformers 4 and 5 read."""
    made: dict[str, Tensor] = {}
    top = "vit." if whole else ""
    for name, tensor in tensors.items():
        if name.startswith("blocks.") or name.startswith("decoder_blocks."):
            group, number, rest = name.split(".", 2)
            start = (
                f"{top}encoder.layer.{number}."
                if group == "blocks"
                else f"decoder.decoder_layers.{number}."
            )
            made |= _block(start, rest, tensor)
        elif name.startswith("decoder_") or name == "mask_token":
            made[f"decoder.{name}"] = tensor
        else:
            made[top + PLAIN_NAMES[name]] = tensor
    return made


PLAIN_NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
BLOCK_NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def _block(start: str, rest: str, tensor: Tensor) -> dict[str, Tensor]:
    part, _, kind = rest.rpartition(".")
    if part != "attn.qkv":
        return {f"{start}{BLOCK_NAMES[part]}.{kind}": tensor}
    named = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
    return {f"{start}attention.attention.{n}.{kind}": piece.contiguous() for n, piece in named}


def simmim_names(module: Any) -> dict[str, Tensor]:
    """Token and head of SimMIM around a vision transformer, as ViTForMaskedImageModeling has them.

    Its head is a 1x1 convolution and a PixelShuffle, whose numbers of a patch are in channel, row,
    column order; ours has the channel last.
    """
    (p, q), head = module.encoder.patch, module.head
    weight = head.weight.detach().cpu().view(p, q, -1, module.encoder.width).permute(2, 0, 1, 3)
    bias = head.bias.detach().cpu().view(p, q, -1).permute(2, 0, 1)
    return {
        "vit.embeddings.mask_token": module.encoder.mask_token.detach().cpu().contiguous(),
        "decoder.0.weight": weight.reshape(-1, module.encoder.width, 1, 1).contiguous(),
        "decoder.0.bias": bias.flatten().contiguous(),
    }
