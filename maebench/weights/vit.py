"""A vision transformer read off its weights, and its masked-autoencoder decoder where there is one.

Shapes: D width, E decoder width, L patches, P prefix tokens, p q pixels of a patch, C channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from maebench import checkpoints
from maebench.encoders.vit import ViT, ViTBase
from maebench.encoders.vit_module import VisionTransformer, sincos_positions
from maebench.errors import ConfigError
from maebench.objectives.decoder import DecoderSize
from maebench.objectives.mae import MAE
from maebench.objectives.mae_module import MaskedAutoencoder
from maebench.objectives.objective import Inputs
from maebench.rng import isolated
from maebench.weights.given import Given
from maebench.weights.names import as_timm
from maebench.weights.read import Found
from maebench.weights.told import eps_of, heads_told, size_of, target_of
from maebench.weights.verdict import COMPLETE, NO_DECODER, ODD_DECODER, Verdict, incomplete

# The three sizes of the official MAE code (models_mae.py) by width. Other widths have several head
# counts in use (384: 6 in DeiT, 12 in solo-learn), so there they have to be told.
HEADS = {768: 12, 1024: 16, 1280: 16}
DECODER_HEADS = {512: 16}  # models_mae.py, for all three
# What belongs to a classifier or a pre-training head and to no encoder's features.
HEADS_NAMES = re.compile(
    r"^(head|fc_norm|classifier|pooler|mask_token|norm_pix_loss|decoder(_|\.|$)|decoder_)"
)


@dataclass(frozen=True)
class Shape:
    """What the weights say of the encoder."""

    width: int
    depth: int
    patch: tuple[int, int]
    channels: int
    grid: tuple[int, int]
    registers: int
    mlp_ratio: float


def build(found: Found, given: Given, spec: str) -> tuple[Any, Verdict, str]:
    """The module around the encoder, the verdict, and why it cannot reconstruct ("" if it can).

    Raises:
        RunError: the encoder is incomplete, or has parts that a plain vision transformer has not.
        ConfigError: what cannot be read off the weights has to be given by name.
    """
    tensors = as_timm(found.tensors, given_map(given))
    if "patch_embed.proj.weight" not in tensors or "pos_embed" not in tensors:
        core = {"patch_embed.proj.weight", "pos_embed", "cls_token"} - tensors.keys()
        raise incomplete(spec, core, tensors.keys())
    act = found.facts.get("config", {}).get("hidden_act", "gelu")
    if act != "gelu":
        raise ConfigError(f"{spec}: its activation is {act!r}; a plain vision transformer has gelu")
    shape = read_shape(tensors, given, found.facts, spec)
    encoder = make_encoder(shape, heads_of(shape, found.facts, given, spec))
    own = encoder.state_dict()
    weights = {**tensors, **positions(tensors, shape, spec)}
    missing = own.keys() - weights.keys()
    unused = weights.keys() - own.keys()
    strange = {name for name in unused if not HEADS_NAMES.match(name)}
    bent = [n for n in own.keys() & weights.keys() if own[n].shape != weights[n].shape]
    if missing or bent:
        raise incomplete(spec, missing, strange or unused, bent)
    if strange:  # such as LayerScale: without it the features are others
        raise incomplete_parts(spec, strange)
    encoder.load_state_dict({name: weights[name] for name in own})
    set_eps(encoder, eps_of(found.facts, given))
    module, used, why = with_decoder(encoder, shape, tensors, found.facts, given)
    left = unused - used
    there = any(name.startswith("decoder_") for name in left)
    text = COMPLETE if used else ODD_DECODER if there else NO_DECODER
    notes = (why,) if why and (used or there) else ()
    told = Verdict(text, str(found.path), len(own) + len(used), (), tuple(sorted(left)), notes)
    return module, told, why


def given_map(given: Given) -> Any:
    """The user's key map, read."""
    from maebench.weights.names import read_key_map

    return None if given.key_map is None else read_key_map(given.key_map)


def incomplete_parts(spec: str, strange: Iterable[str]) -> ConfigError:
    """The error for weights with parts that a plain vision transformer has not."""
    from maebench.weights.verdict import listed

    names = sorted(strange)
    return ConfigError(
        f"{spec}: a plain vision transformer has no {listed(names)}; "
        f"if timm knows the architecture: timm:NAME,weights={spec.partition(':')[2]}; "
        "if they do not matter: --key-map FILE.yaml with 'expression: null'"
    )


def read_shape(
    tensors: Mapping[str, Tensor], given: Given, facts: Mapping[str, Any], spec: str
) -> Shape:
    """Sizes from the shapes of the weights.

    Raises:
        ConfigError: the positions are those of no square grid and no size is given.
    """
    D, C, p, q = tensors["patch_embed.proj.weight"].shape
    blocks = {int(m[1]) for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))}
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    count = tensors["pos_embed"].shape[1]
    # positions of the prefix tokens are there, as in the official code; timm's no_embed_class,
    # which has none, cannot be told from an oblong grid that has them
    length = count - 1 - registers
    found = grid_of(tensors["pos_embed"][0, count - length :], D) if length > 0 else None
    told = given.size or size_of(facts)
    if told is not None:
        grid = (told[0] // p, told[1] // q)
        lengths = {count, count - 1, count - 1 - registers}
        if told[0] % p or told[1] % q or grid[0] * grid[1] not in lengths:
            raise ConfigError(
                f"{spec}: image-size {told[0]},{told[1]} does not fit {count} positions "
                f"of {p}x{q} patches"
            )
    elif found is None:
        raise ConfigError(
            f"{spec}: {count} positions lie on no square grid beside a class token: give the size "
            "that the weights were trained at, as in ,image-size=96,192"
        )
    else:
        grid = found
    hidden = tensors.get("blocks.0.mlp.fc1.weight")
    ratio = 4.0 if hidden is None else hidden.shape[0] / D
    return Shape(D, max(blocks, default=-1) + 1, (p, q), C, grid, registers, ratio)


def grid_of(positions_LD: Tensor, width: int) -> tuple[int, int] | None:
    """The grid of these positions: one whose sin-cos positions they are, else a square one."""
    import torch

    length = len(positions_LD)
    for rows in (n for n in range(1, length + 1) if length % n == 0 and width % 4 == 0):
        grid = (rows, length // rows)
        if torch.allclose(positions_LD.float(), sincos_positions(grid, width), atol=1e-4):
            return grid
    side = math.isqrt(length)
    return (side, side) if side * side == length else None


def heads_of(shape: Shape, facts: Mapping[str, Any], given: Given, spec: str) -> int:
    """The number of heads, which the joined matrix of queries, keys and values does not show.

    Raises:
        ConfigError: nobody says it.
    """
    told = heads_told(facts, "heads", "num_attention_heads")
    heads = given.heads or told or HEADS.get(shape.width)
    if heads is None:
        raise ConfigError(
            f"{spec}: the number of attention heads of an encoder of width {shape.width} cannot be "
            "read off its weights: give it, as in ,heads=6"
        )
    if shape.width % heads:
        raise ConfigError(f"{spec}: heads={heads} does not divide the width {shape.width}")
    return heads


def make_encoder(shape: Shape, heads: int) -> VisionTransformer:
    """A vision transformer of this shape; its weights are replaced."""
    options: ViT = ViTBase(
        width=shape.width,
        depth=max(1, shape.depth),
        heads=heads,
        mlp_ratio=shape.mlp_ratio,
        patch=shape.patch,
        registers=shape.registers,
    )
    size = (shape.grid[0] * shape.patch[0], shape.grid[1] * shape.patch[1])
    with isolated(0, "weights"):
        return VisionTransformer(options, size, shape.patch, shape.channels)


def positions(tensors: Mapping[str, Tensor], shape: Shape, spec: str) -> dict[str, Tensor]:
    """Positions as ours has them, (1, 1 + L, D); those of registers go into the register tokens."""
    import torch

    position = tensors["pos_embed"]
    length = shape.grid[0] * shape.grid[1]
    extra = position.shape[1] - length
    if extra == 0:  # none for prefix tokens
        zero = position.new_zeros(1, 1, shape.width)
        return {"pos_embed": torch.cat([zero, position], 1)}
    if extra == 1 + shape.registers and shape.registers:
        kept = torch.cat([position[:, :1], position[:, extra:]], 1)
        return {"pos_embed": kept, "reg_token": tensors["reg_token"] + position[:, 1:extra]}
    return {"pos_embed": position}


def set_eps(module: nn.Module, eps: float) -> None:
    """Gives every norm this epsilon."""
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps


def with_decoder(
    encoder: VisionTransformer,
    shape: Shape,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    given: Given,
) -> tuple[Any, set[str], str]:
    """The encoder in a module that reconstructs, the names it took, or why there is none."""
    alone: Any = nn.Module()
    alone.encoder = encoder
    mine = {n for n in tensors if n.startswith("decoder_")} | ({"mask_token"} & tensors.keys())
    if "decoder_embed.weight" not in tensors or "decoder_pred.weight" not in tensors:
        return alone, set(), "the weights hold no decoder"
    E = tensors["decoder_embed.weight"].shape[0]
    depth = 1 + max(
        (int(m[1]) for n in tensors if (m := re.match(r"decoder_blocks\.(\d+)\.", n))), default=-1
    )
    heads = (
        given.decoder_heads
        or heads_told(facts, "decoder_heads", "decoder_num_attention_heads")
        or DECODER_HEADS.get(E)
    )
    if heads is None or E % heads:
        return alone, set(), f"the heads of a decoder of width {E} are not known: ,decoder-heads=N"
    target = target_of(facts, given)
    # loading does not depend on the target: where it is not known it is asked for when it matters
    options = MAE(
        target=target or "pixels", decoder_depth=max(1, depth), decoder_width=E, decoder_heads=heads
    )
    size = (shape.grid[0] * shape.patch[0], shape.grid[1] * shape.patch[1])
    with isolated(0, "weights"):
        module = MaskedAutoencoder(
            options, encoder, DecoderSize(max(1, depth), E, heads), Inputs(shape.channels, size)
        )
    own = module.decoder.state_dict()
    weights = {name: tensors[name] for name in mine}
    places = weights.get("decoder_pos_embed")
    if places is not None and places.shape[1] == own["decoder_pos_embed"].shape[1] + 1:
        if bool(places[:, 0].any()):  # ours gives the class token none, as sin-cos positions do
            return alone, set(), "the decoder's class token has a position of its own"
        weights["decoder_pos_embed"] = places[:, 1:]
    bent = [n for n in own.keys() & weights.keys() if own[n].shape != weights[n].shape]
    if own.keys() != weights.keys() or bent:
        odd = sorted({*(own.keys() ^ weights.keys()), *bent})
        return alone, set(), f"the decoder is no plain one: {', '.join(odd[:4])}"
    checkpoints.load_strictly(module.decoder, weights, "the decoder")
    set_eps(module, eps_of(facts, given))
    if target is None:
        keep: Any = nn.Module()
        keep.encoder, keep.decoder = encoder, module.decoder
        either = ",target=normalised-pixels or ,target=pixels"
        return keep, mine, f"the weights do not say what they predict: add {either}"
    return module, mine, ""
