"""How our weights become files that official code, timm or transformers load as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from maebench import files
from maebench.encoders.vit import VisionTransformer
from maebench.errors import ConfigError, unknown
from maebench.models.reading import OURS
from maebench.objectives.mae import MaskedAutoencoder
from maebench.objectives.simmim import SimMIMModule

TARGETS = ("official", "timm", "hf")
NAMES = {"official": "the official MAE code", "hf": "transformers' ViTMAE"}
DECODER_RATIO = 4  # of every decoder of ours and of theirs


def export(
    module: Any, name: str, to: str, out: Path, mean: Sequence[float], std: Sequence[float]
) -> list[str]:
    """Writes the weights as the other side loads them, and says how it does.

    Args:
        module: the objective's module around the encoder.
        name: of the run, for messages.
        to: "official", "timm" or "hf".
        out: the file, or for "hf" the folder, to write.
        mean: per channel, of pixels in 0..1, that the encoder was trained with.
        std: per channel.

    Raises:
        ConfigError: the other side cannot hold this model, with the reason.
    """
    if to not in TARGETS:
        raise ConfigError(unknown("format", to, TARGETS, "--to"))
    encoder = module.encoder
    if not isinstance(encoder, VisionTransformer):
        raise ConfigError(
            f"{name} cannot be exported to {to}: its encoder is a {type(encoder).__name__}, which "
            "none of the other sides has; a plain vision transformer is wanted"
        )
    if reason := cannot_hold(encoder, to):
        raise ConfigError(f"{name} cannot be exported to {to}: {reason}")
    facts = weight_facts(module, encoder, mean, std)
    write = {"official": to_official, "timm": to_timm, "hf": to_hf}[to]
    return write(module, facts, out) + left_out(module, to)


# ---- what the other side has no place for


def cannot_hold(encoder: VisionTransformer, to: str) -> str:
    """What of this encoder the other side has no place for; "" where it holds all."""
    (h, w), (p, q) = encoder.grid, encoder.patch
    if to == "timm":
        return ""
    if encoder.prefix > 1:
        return f"it has {encoder.prefix - 1} register tokens, which {NAMES[to]} does not know"
    if h != w or p != q:
        return f"its grid is {h}x{w} of {p}x{q} pixels; {NAMES[to]} takes square ones alone"
    if to == "official" and encoder.inputs.channels != 3:
        return f"its images have {encoder.inputs.channels} channels; {NAMES[to]} cuts patches of 3"
    ratio = mlp_width(encoder.blocks[0]) / encoder.width
    if to == "official" and ratio != DECODER_RATIO:
        return f"its MLPs are {ratio:g} times as wide, its decoder's 4: {NAMES[to]} has one number"
    return ""


def left_out(module: Any, to: str) -> list[str]:
    """What of a model the other side has no place for, in at most one line."""
    why = decoder_unknown(module)
    if why and to in NAMES:  # timm has no decoders at all
        return [f"the decoder is left out: {NAMES[to]} does not know {why}"]
    place = f"for which {NAMES.get(to, to)} has no place"
    token = module.encoder.mask_token is not None
    if isinstance(module, SimMIMModule):
        what = "the token for hidden patches and the head that predicts pixels"
        return [] if to == "hf" or not token else [f"left out: {what}, {place}"]
    if not isinstance(module, MaskedAutoencoder) and len([*module.children()]) > 1:
        what = "decoder or head of this objective"
        what += " and the token for hidden patches" if token else ""
        return [f"left out: {what}, {place}"]
    return [f"left out: the token for hidden patches, {place}"] if token else []


def decoder_unknown(module: Any) -> str:
    """What of a masked autoencoder's decoder no other side knows; "" where they know it."""
    if not isinstance(module, MaskedAutoencoder):
        return ""
    options = module.options
    if options.decoder != "transformer":
        return f"decoder={options.decoder}"
    if options.target not in ("pixels", "normalised-pixels"):
        return f"target={options.target}"
    return "" if options.on == "hidden" else f"on={options.on}"


def mlp_width(block: Any) -> int:
    """The hidden width of a block's MLP."""
    return block.mlp.fc1.out_features


def weight_facts(
    module: Any, encoder: VisionTransformer, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """What the weights do not say of themselves, as plain JSON values."""
    (h, w), (p, q) = encoder.grid, encoder.patch
    first: Any = encoder.blocks[0]
    facts: dict[str, Any] = {
        "image_size": [h * p, w * q],
        "patch": [p, q],
        "channels": encoder.inputs.channels,
        "width": encoder.width,
        "depth": encoder.depth,
        "heads": first.attn.num_heads,
        "mlp": mlp_width(first),
        "eps": encoder.norm.eps,
        "mean": list(mean),
        "std": list(std),
    }
    if isinstance(module, MaskedAutoencoder) and not decoder_unknown(module):
        decoder = module.decoder
        facts |= {
            "decoder_width": decoder.decoder_embed.out_features,
            "decoder_depth": len(decoder.decoder_blocks),
            "decoder_heads": decoder.decoder_blocks[0].attn.num_heads,
            "decoder_mlp": mlp_width(decoder.decoder_blocks[0]),
            "target": module.options.target,
        }
    return facts


# ---- the official code's file, and timm's


def to_official(module: Any, facts: Mapping[str, Any], out: Path) -> list[str]:
    """A .pth with the weights under "model", as the official code's own full checkpoints."""
    content = {"model": official_names(module), OURS: dict(facts)}
    files.write(out, lambda beside: torch.save(content, beside))
    images = f"img_size={facts['image_size'][0]}, patch_size={facts['patch'][0]}"
    sizes = f"embed_dim={facts['width']}, depth={facts['depth']}, num_heads={facts['heads']}"
    lines = [f"load it: MaskedAutoencoderViT({images}, {sizes},"]
    if "decoder_width" in facts:
        lines += [
            f"  decoder_embed_dim={facts['decoder_width']}, decoder_depth="
            f"{facts['decoder_depth']}, decoder_num_heads={facts['decoder_heads']},",
            f"  norm_pix_loss={facts['target'] == 'normalised-pixels'},",
        ]
    return [*lines, "  mlp_ratio=4, norm_layer=partial(nn.LayerNorm, eps=1e-6))"]


def official_names(module: Any, decoder: bool = True) -> dict[str, Tensor]:
    """Encoder, and decoder where the official code knows it, by the names there."""
    tensors = dict(module.encoder.state_dict())
    tensors.pop("mask_token", None)  # there it is the decoder's
    if decoder and isinstance(module, MaskedAutoencoder) and not decoder_unknown(module):
        own = dict(module.decoder.state_dict())
        places = own["decoder_pos_embed"]
        zero = places.new_zeros(1, 1, places.shape[2])  # the class token's, as sin-cos has it
        own["decoder_pos_embed"] = torch.cat([zero, places], 1)
        tensors |= own
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def to_timm(module: Any, facts: Mapping[str, Any], out: Path) -> list[str]:
    """A .safetensors with the encoder's weights; positions of registers are zero."""
    tensors = official_names(module, decoder=False)
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    if registers:
        places = tensors["pos_embed"]
        zero = places.new_zeros(1, registers, places.shape[2])
        tensors["pos_embed"] = torch.cat([places[:, :1], zero, places[:, 1:]], 1)
    metadata = {OURS: json.dumps(dict(facts))}
    files.write(out, lambda beside: save_file(tensors, beside, metadata=metadata))
    size, patch = tuple(facts["image_size"]), tuple(facts["patch"])
    ratio = facts["mlp"] / facts["width"]
    return [
        f"load it: timm.models.VisionTransformer(img_size={size}, patch_size={patch},",
        f"  in_chans={facts['channels']}, embed_dim={facts['width']}, depth={facts['depth']},",
        f"  num_heads={facts['heads']}, mlp_ratio={ratio:g}, reg_tokens={registers}, "
        "num_classes=0)",
    ]


# ---- a folder of Hugging Face's


def to_hf(module: Any, facts: Mapping[str, Any], out: Path) -> list[str]:
    """A folder with config.json, preprocessor_config.json and model.safetensors.

    They are ViTMAE's, or for SimMIM ViTForMaskedImageModeling's.
    """
    whole, simmim = "decoder_width" in facts, isinstance(module, SimMIMModule)
    tensors = huggingface_names(official_names(module), whole or simmim)
    config = {
        "architectures": ["ViTMAEForPreTraining" if whole else "ViTMAEModel"],
        "model_type": "vit_mae",
        "image_size": facts["image_size"][0],
        "patch_size": facts["patch"][0],
        "num_channels": facts["channels"],
        "hidden_size": facts["width"],
        "num_hidden_layers": facts["depth"],
        "num_attention_heads": facts["heads"],
        "intermediate_size": facts["mlp"],
        "layer_norm_eps": facts["eps"],
        "qkv_bias": True,
        "hidden_act": "gelu",
    }
    if whole:
        config |= {
            "decoder_hidden_size": facts["decoder_width"],
            "decoder_num_hidden_layers": facts["decoder_depth"],
            "decoder_num_attention_heads": facts["decoder_heads"],
            "decoder_intermediate_size": facts["decoder_mlp"],
            "norm_pix_loss": facts["target"] == "normalised-pixels",
        }
    if simmim:
        tensors |= simmim_names(module)
        config |= {
            "architectures": ["ViTForMaskedImageModeling"],
            "model_type": "vit",
            "encoder_stride": facts["patch"][0],
        }
    preprocessor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "size": {"height": facts["image_size"][0], "width": facts["image_size"][1]},
        "resample": 3,  # Pillow's bicubic
        "image_mean": facts["mean"],
        "image_std": facts["std"],
    }
    metadata = {"format": "pt", OURS: json.dumps(dict(facts))}

    def fill(beside: Path) -> None:
        files.write_json(beside / "config.json", config)
        files.write_json(beside / "preprocessor_config.json", preprocessor)
        save_file(tensors, beside / "model.safetensors", metadata=metadata)

    files.write_folder(out, fill)
    return [f"load it: transformers.{config['architectures'][0]}.from_pretrained({str(out)!r})"]


# ours, and those of the hub's ViTMAE files, which transformers 4 and 5 read
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
GROUP_NAMES = {"blocks": "encoder.layer", "decoder_blocks": "decoder.decoder_layers"}


def huggingface_names(tensors: Mapping[str, Tensor], whole: bool) -> dict[str, Tensor]:
    """The names of the hub's ViTMAE files; a whole model has its encoder under `vit.`."""
    made: dict[str, Tensor] = {}
    top = "vit." if whole else ""
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        if group in GROUP_NAMES:
            number, _, rest = rest.partition(".")
            start = f"{top if group == 'blocks' else ''}{GROUP_NAMES[group]}.{number}."
            made |= _block(start, rest, tensor)
        elif name.startswith("decoder_") or name == "mask_token":
            made[f"decoder.{name}"] = tensor
        else:
            made[top + PLAIN_NAMES[name]] = tensor
    return made


def _block(start: str, rest: str, tensor: Tensor) -> dict[str, Tensor]:
    part, _, kind = rest.rpartition(".")
    if part != "attn.qkv":
        return {f"{start}{BLOCK_NAMES[part]}.{kind}": tensor}
    named = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
    return {f"{start}attention.attention.{n}.{kind}": piece.contiguous() for n, piece in named}


def simmim_names(module: SimMIMModule) -> dict[str, Tensor]:
    """Token and head of SimMIM around a vision transformer, as ViTForMaskedImageModeling has them.

    Its head is a 1x1 convolution and a PixelShuffle, whose values of a patch are in channel, row,
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
