"""`file:`: a vision transformer's checkpoint as a model, its decoder where there is one.

Shapes: D width, E decoder width, L patches, P prefix tokens, p q pixels of a patch, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maebench.component import parse
from maebench.encoders.inputs import IMAGES, Inputs
from maebench.encoders.vit import VisionTransformer, ViTBase
from maebench.errors import ConfigError
from maebench.models import preprocessing
from maebench.models.naming import HEAD_NAMES, as_timm
from maebench.models.pooled_norm import NOTE, NormAfterPooling
from maebench.models.reading import Facts, WeightsFile
from maebench.models.spec import SpecOptions, check_used
from maebench.models.trained_size import trained_grid
from maebench.models.weights import (
    COMPLETE,
    NO_DECODER,
    ODD_DECODER,
    EncoderHolder,
    ForeignModel,
    Verdict,
    check_values,
    decoder_target,
    incomplete,
    listed,
    norm_epsilon,
    shapes_alone,
    stated_heads,
)
from maebench.objectives.decoders import DecoderSize
from maebench.objectives.mae import MAE, MaskedAutoencoder
from maebench.pretraining import checkpoints
from maebench.rng import isolated

# The three sizes of the official MAE code (models_mae.py) by width. Other widths have several head
# counts in use (384: 6 in DeiT, 12 in solo-learn), so there they have to be stated.
HEADS = {768: 12, 1024: 16, 1280: 16}
DECODER_HEADS = {512: 16}  # models_mae.py, for all three
# Weights that sizes are read off, and how many dimensions each has.
SHAPES = {
    **{"patch_embed.proj.weight": 4, "pos_embed": 3, "reg_token": 3, "blocks.0.mlp.fc1.weight": 2},
    **{"decoder_pos_embed": 3, "decoder_embed.weight": 2},
}
OF_A_BLOCK = 12  # weights: two of each of two norms, attention's two maps and the MLP's two


def from_weights(found: WeightsFile, options: SpecOptions, spec: str) -> ForeignModel:
    """A plain vision transformer read off its weights, with its decoder where that can be used.

    Raises:
        RunError: the encoder is incomplete, or what stands beside the weights cannot be.
        ConfigError: it is no plain vision transformer, or what cannot be read off the weights has
            to be given by name.
    """
    check_used(options, IMAGES, spec)
    named = as_timm(found.chosen, options.key_map, spec)
    tensors, facts = named.tensors, found.facts
    if "patch_embed.proj.weight" not in tensors or "pos_embed" not in tensors:
        core = {"patch_embed.proj.weight", "pos_embed", "cls_token"} - tensors.keys()
        raise incomplete(spec, core, {*tensors, *named.outside})
    check_kind(tensors, facts, spec)
    shape, grid_note = read_shape(tensors, options, facts, spec)
    heads = encoder_heads(shape, facts, options, spec)
    encoder, unused = read_encoder(tensors, shape, heads, spec)
    eps = norm_epsilon(facts, options)
    module, used, why = with_decoder(encoder, shape, tensors, facts, options)
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps
    left = unused - used | set(named.outside)
    notes = [*named.notes, grid_note, NOTE if isinstance(encoder, NormAfterPooling) else ""]
    there = any(name.startswith("decoder_") for name in left)
    verdict = Verdict(
        text=COMPLETE if used else ODD_DECODER if there else NO_DECODER,
        source=str(found.path),
        used=len(encoder.state_dict()) + len(used),
        unused=tuple(sorted(left)),
        notes=tuple(n for n in (*notes, why if used or there else "") if n),
    )
    preprocess = preprocessing.of_weights(facts, shape.size, shape.channels, options, spec)
    return ForeignModel(spec, module, preprocess, verdict, why, facts_beside_weights(module))


def check_kind(tensors: Mapping[str, Tensor], facts: Facts, spec: str) -> None:
    """Refuses transformers that are told apart before their shapes are read.

    Raises:
        ConfigError: it has a distillation token, whose position no grid explains, or another
            activation.
    """
    if "dist_token" in tensors:
        raise ConfigError(
            f"{spec}: it has a distillation token, and a plain vision transformer has none; if "
            f"timm knows the architecture: timm:NAME,weights={spec.partition(':')[2]}"
        )
    act = facts.get("config", {}).get("hidden_act", "gelu")
    if act != "gelu":
        raise ConfigError(f"{spec}: its activation is {act!r}; a plain vision transformer has gelu")


# ---- the encoder


@dataclass(frozen=True)
class EncoderShape:
    """What the shapes of the weights say of the encoder."""

    width: int
    depth: int
    patch: tuple[int, int]
    channels: int
    grid: tuple[int, int]
    registers: int
    mlp_ratio: float

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the images."""
        return self.grid[0] * self.patch[0], self.grid[1] * self.patch[1]


def read_shape(
    tensors: Mapping[str, Tensor], options: SpecOptions, facts: Facts, spec: str
) -> tuple[EncoderShape, str]:
    """Sizes from the shapes of the weights, and a note where the grid is not stated.

    Raises:
        RunError: a weight that sizes are read off has none.
        ConfigError: nobody says the size and the positions do not show it.
    """
    for name, ndim in SHAPES.items():
        if name in tensors and (tensors[name].ndim != ndim or not tensors[name].numel()):
            raise incomplete(spec, (), (), [name])
    D, C, p, q = tensors["patch_embed.proj.weight"].shape
    if tensors["pos_embed"].shape[2] != D:
        raise incomplete(spec, (), (), ["pos_embed"])
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    decoder = tensors.get("decoder_pos_embed")
    grid, note = trained_grid(
        tensors["pos_embed"][0],
        (1 + registers, 1, 0),  # as in the official code; timm's no_embed_class has none
        (p, q),
        (options, facts, spec),
        None if decoder is None else decoder[0],
    )
    hidden = tensors.get("blocks.0.mlp.fc1.weight")
    ratio = 4.0 if hidden is None else hidden.shape[0] / D
    shape = EncoderShape(D, num_blocks(tensors, "blocks"), (p, q), C, grid, registers, ratio)
    return shape, note


def num_blocks(names: Collection[str], group: str) -> int:
    """The highest number of a block that is named, plus one.

    More than the names can fill stands for any higher number: they are incomplete either way.
    """
    found = (re.match(rf"{group}\.(\d+)\.", name) for name in names)
    highest = max((int(match[1]) for match in found if match), default=-1)
    return 1 + min(highest, len(names) // OF_A_BLOCK)


def encoder_heads(shape: EncoderShape, facts: Facts, options: SpecOptions, spec: str) -> int:
    """The number of heads, which the joined matrix of queries, keys and values does not show.

    Raises:
        ConfigError: nobody says it.
    """
    stated = stated_heads(facts, "heads", "num_attention_heads")
    heads = options.heads or stated or HEADS.get(shape.width)
    if heads is None:
        raise ConfigError(
            f"{spec}: the number of attention heads of an encoder of width {shape.width} cannot be "
            "read off its weights: give it, as in ,heads=6"
        )
    if shape.width % heads:
        raise ConfigError(f"{spec}: heads={heads} does not divide the width {shape.width}")
    return heads


def read_encoder(
    tensors: Mapping[str, Tensor], shape: EncoderShape, heads: int, spec: str
) -> tuple[VisionTransformer, set[str]]:
    """The encoder with its weights, and the names of those that it has no place for.

    Raises:
        RunError: the weights do not fill it.
        ConfigError: they hold parts that a plain vision transformer has not.
    """
    sizes = {
        "width": shape.width,
        "depth": max(1, shape.depth),
        "heads": heads,
        "mlp_ratio": shape.mlp_ratio,
        "patch": shape.patch,
        "registers": shape.registers,
    }
    layout = parse(ViTBase, sizes, {}, f"{spec}: its encoder")
    pooled = "norm.weight" not in tensors and "fc_norm.weight" in tensors
    kind = NormAfterPooling if pooled else VisionTransformer
    inputs = Inputs.of_images(shape.channels, shape.size)
    with shapes_alone(tensors, spec):
        own = kind(layout, inputs, shape.patch).state_dict()
    weights = {**tensors, **positions(tensors, shape)}
    missing = own.keys() - weights.keys()
    unused = weights.keys() - own.keys()
    strange = {name for name in unused if not HEAD_NAMES.match(name)}
    wrong = wrong_shapes(own, weights)
    if missing or wrong:
        raise incomplete(spec, missing, strange or unused, wrong)
    if strange:  # such as LayerScale: without it the features are others
        raise ConfigError(
            f"{spec}: a plain vision transformer has no {listed(strange)}; "
            f"if timm knows the architecture: timm:NAME,weights={spec.partition(':')[2]}; "
            "if they do not matter: --key-map FILE.yaml with 'expression: null'"
        )
    taken = {name: weights[name] for name in own}
    check_values(taken, spec)
    with isolated(0, "weights"):  # drawn, and replaced below
        encoder = kind(layout, inputs, shape.patch)
    encoder.load_state_dict(taken)
    return encoder, unused


def positions(tensors: Mapping[str, Tensor], shape: EncoderShape) -> dict[str, Tensor]:
    """Positions as ours has them, (1, 1 + L, D); those of registers go into the register tokens."""
    position = tensors["pos_embed"]
    extra = position.shape[1] - shape.grid[0] * shape.grid[1]
    if extra == 0:  # none for prefix tokens
        zero = position.new_zeros(1, 1, shape.width)
        return {"pos_embed": torch.cat([zero, position], 1)}
    if extra == 1 + shape.registers and shape.registers:
        kept = torch.cat([position[:, :1], position[:, extra:]], 1)
        return {"pos_embed": kept, "reg_token": tensors["reg_token"] + position[:, 1:extra]}
    return {"pos_embed": position}


def wrong_shapes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """The names of weights that have another shape than ours of the same name."""
    return [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]


# ---- the decoder


def with_decoder(
    encoder: VisionTransformer,
    shape: EncoderShape,
    tensors: Mapping[str, Tensor],
    facts: Facts,
    options: SpecOptions,
) -> tuple[nn.Module, set[str], str]:
    """The encoder in a module that reconstructs, the names it took, or why there is none."""
    alone = EncoderHolder(encoder)
    if "decoder_embed.weight" not in tensors or "decoder_pred.weight" not in tensors:
        return alone, set(), "the weights hold no decoder"
    E = tensors["decoder_embed.weight"].shape[0]
    places = tensors.get("decoder_pos_embed")
    if places is None or places.shape[2] != E:
        return alone, set(), "the decoder is no plain one: decoder_pos_embed"
    heads = (
        options.decoder_heads
        or stated_heads(facts, "decoder_heads", "decoder_num_attention_heads")
        or DECODER_HEADS.get(E)
    )
    if heads is None or E % heads:
        return alone, set(), f"the heads of a decoder of width {E} are not known: ,decoder-heads=N"
    target = decoder_target(facts, options)
    depth = max(1, num_blocks(tensors, "decoder_blocks"))
    # loading does not depend on the target: where it is not known it is asked for when it matters
    sizes = {"decoder_depth": depth, "decoder_width": E, "decoder_heads": heads}
    objective = parse(MAE, {"target": target or "pixels", **sizes}, {}, "its decoder")
    size, inputs = DecoderSize(depth, E, heads), encoder.inputs
    with shapes_alone(tensors, "the decoder"):
        own = MaskedAutoencoder(objective, encoder, size, inputs).decoder.state_dict()
    weights = {n: t for n, t in tensors.items() if n.startswith("decoder_") or n == "mask_token"}
    names = set(weights)
    places = weights.get("decoder_pos_embed")
    if places is not None and places.shape[1] == own["decoder_pos_embed"].shape[1] + 1:
        if bool(places[:, 0].any()):  # ours gives the class token none, as sin-cos positions do
            return alone, set(), "the decoder's class token has a position of its own"
        weights["decoder_pos_embed"] = places[:, 1:]
    if odd := {*(own.keys() ^ names), *wrong_shapes(own, weights)}:
        return alone, set(), f"the decoder is no plain one: {', '.join(sorted(odd)[:4])}"
    check_values(weights, "the decoder")
    with isolated(0, "weights"):
        module = MaskedAutoencoder(objective, encoder, size, inputs)
    checkpoints.load_strictly(module.decoder, weights, "the decoder")
    if target is None:
        either = ",target=normalised-pixels or ,target=pixels"
        why = f"the weights do not say what they predict: add {either}"
        return EncoderHolder(encoder, module.decoder), names, why
    return module, names, ""


def facts_beside_weights(module: Any) -> dict[str, Any]:
    """What besides its weights the numbers of a vision transformer depend on."""
    encoder, decoder = module.encoder, getattr(module, "decoder", None)
    facts: dict[str, Any] = {
        "grid": list(encoder.grid),
        "heads": encoder.blocks[0].attn.num_heads,
        "eps": getattr(encoder, "fc_norm", encoder.norm).eps,
    }
    if decoder is not None:
        facts["decoder_heads"] = decoder.decoder_blocks[0].attn.num_heads
        target = getattr(module, "target", None)
        facts["target"] = None if target is None else target.space == "normalised-pixels"
    return facts
