"""`file:`: a vision transformer's checkpoint as a model, its decoder where there is one.

Shapes: D width, E decoder width, L patches, P prefix tokens, p q pixels of a patch, C channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from maebench.data.preprocess import Preprocess
from maebench.encoders.blocks import sincos_positions
from maebench.encoders.vit import VisionTransformer, ViT, ViTBase
from maebench.errors import ConfigError, RunError
from maebench.models import from_file as vit
from maebench.models.reading import OURS, Found, as_timm, read_key_map
from maebench.models.weights import (
    COMPLETE,
    NO_DECODER,
    ODD_DECODER,
    Foreign,
    SpecOptions,
    Verdict,
    colours,
    eps_of,
    heads_told,
    incomplete,
    listed,
    size_of,
    target_of,
)
from maebench.objectives.decoders import DecoderSize
from maebench.objectives.mae import MAE, MaskedAutoencoder
from maebench.objectives.objective import Inputs
from maebench.pretraining import checkpoints
from maebench.rng import isolated

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


def build(found: Found, given: SpecOptions, spec: str) -> tuple[Any, Verdict, str]:
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


def given_map(given: SpecOptions) -> Any:
    """The user's key map, read."""
    return None if given.key_map is None else read_key_map(given.key_map)


def incomplete_parts(spec: str, strange: Iterable[str]) -> ConfigError:
    """The error for weights with parts that a plain vision transformer has not."""
    names = sorted(strange)
    return ConfigError(
        f"{spec}: a plain vision transformer has no {listed(names)}; "
        f"if timm knows the architecture: timm:NAME,weights={spec.partition(':')[2]}; "
        "if they do not matter: --key-map FILE.yaml with 'expression: null'"
    )


def read_shape(
    tensors: Mapping[str, Tensor], given: SpecOptions, facts: Mapping[str, Any], spec: str
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
    length = len(positions_LD)
    for rows in (n for n in range(1, length + 1) if length % n == 0 and width % 4 == 0):
        grid = (rows, length // rows)
        if torch.allclose(positions_LD.float(), sincos_positions(grid, width), atol=1e-4):
            return grid
    side = math.isqrt(length)
    return (side, side) if side * side == length else None


def heads_of(shape: Shape, facts: Mapping[str, Any], given: SpecOptions, spec: str) -> int:
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
    given: SpecOptions,
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


# ImageNet's statistics, which the official MAE code normalises with (main_pretrain.py).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Official code, main_linprobe.py: resized to 256, the centre 224 kept. Known for that size alone.
MAE_SIZE, MAE_CROP = (224, 224), 224 / 256
RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, in Hugging Face's files


def from_weights(found: Found, given: SpecOptions, spec: str) -> Foreign:
    """A plain vision transformer read off its weights."""
    module, told, why = vit.build(found, given, spec)
    encoder = module.encoder
    size = (encoder.grid[0] * encoder.patch[0], encoder.grid[1] * encoder.patch[1])
    channels, facts = encoder.channels, found.facts
    preprocessor = facts.get("preprocessor", {})
    timms = facts.get("config", {}).get("pretrained_cfg")
    if isinstance(timms, dict):  # a folder as timm writes it for the hub
        preprocessor = as_hugging_face(timms, size)
    known = colours(facts, channels) or preprocessor.get("image_mean")
    if not known and channels != 3 and not (given.mean and given.std):
        raise ConfigError(
            f"{spec}: mean and deviation of its {channels} channels cannot be read off the "
            "weights: give them, as in ,mean=0.5,std=0.25"
        )
    blank = (
        (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.0,) * channels, (1.0,) * channels)
    )
    mean, std = colours(facts, channels) or blank
    crop = 1.0 if OURS in facts or size != MAE_SIZE else MAE_CROP
    chosen = Preprocess(size, channels, mean, std, "bicubic", crop)
    return Foreign(spec, module, as_told(chosen, preprocessor), told, why, shape_of(module))


def shape_of(module: Any) -> dict[str, Any]:
    """What besides its weights the numbers of a vision transformer depend on."""
    encoder, decoder = module.encoder, getattr(module, "decoder", None)
    facts: dict[str, Any] = {
        "grid": list(encoder.grid),
        "heads": encoder.blocks[0].attn.num_heads,
        "eps": encoder.norm.eps,
    }
    if decoder is not None:
        facts["decoder_heads"] = decoder.decoder_blocks[0].attn.num_heads
        target = getattr(module, "target", None)
        facts["target"] = None if target is None else target.space == "normalised-pixels"
    return facts


def as_told(base: Preprocess, told: Mapping[str, Any], may_resize: bool = False) -> Preprocess:
    """What a preprocessor_config.json says, over what is known without it.

    Raises:
        RunError: it says something that cannot be.
    """
    if not told:
        return base
    changes: dict[str, Any] = {}
    for key, ours in (("image_mean", "mean"), ("image_std", "std")):
        values = told.get(key)
        if values is None:
            continue
        numbers = isinstance(values, list) and len(values) == base.channels
        if not numbers or not all(map(_number, values)):
            raise RunError(
                f"{key} in preprocessor_config.json is {values!r}: {base.channels} numbers are "
                "wanted"
            )
        changes[ours] = tuple(map(float, values))
    if told.get("do_normalize") is False:
        changes |= {"mean": (0.0,) * base.channels, "std": (1.0,) * base.channels}
    if told.get("resample") is not None:
        if told["resample"] not in RESAMPLE:
            raise RunError(
                f"resample in preprocessor_config.json is {told['resample']!r}, there is: "
                + ", ".join(f"{number} ({name})" for number, name in RESAMPLE.items())
            )
        changes["interpolation"] = RESAMPLE[told["resample"]]
    resized, kept = side_of(told.get("size")), side_of(told.get("crop_size"))
    cropped = kept if told.get("do_center_crop") and kept else resized
    if may_resize and cropped:
        changes["size"] = cropped
    cut = told.get("do_center_crop") and kept and resized and kept[0] < resized[0]
    changes["crop"] = kept[0] / resized[0] if cut and kept and resized else 1.0
    return replace(base, **changes)


def as_hugging_face(timms: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Timm's pretrained_cfg in the words of a preprocessor_config.json."""
    told: dict[str, Any] = {}
    for theirs, ours in (("mean", "image_mean"), ("std", "image_std")):
        if timms.get(theirs) is not None:
            told[ours] = timms[theirs]
    names = {name: number for number, name in RESAMPLE.items()}
    if timms.get("interpolation") in names:
        told["resample"] = names[timms["interpolation"]]
    share = timms.get("crop_pct")
    if isinstance(share, float) and 0 < share < 1:
        told |= {"do_center_crop": True, "crop_size": list(size)}
        told["size"] = [int(side / share) for side in size]
    return told


def _number(value: Any) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)


def side_of(size: Any) -> tuple[int, int] | None:
    """The several ways in which a preprocessor says a size; None where it is none of them."""
    if isinstance(size, dict):
        both = [size.get("height"), size.get("width")]
        size = size.get("shortest_edge") if None in both else both
    sides: list[Any] = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        return None
    return int(sides[0]), int(sides[1])
