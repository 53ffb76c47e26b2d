"""Which weight is which: wrappers' prefixes, whole models below a name, users' maps."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from maebench.errors import ConfigError, unknown
from maebench.models.key_map import joined, read_key_map, renamed
from maebench.models.weight_sets import WeightSet, choose

# What wrappers put into names: DistributedDataParallel and AveragedModel, torch.compile,
# activation checkpointing, FSDP now and as fairscale had it. None of them changes the function.
WRAPPERS = (
    *("module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"),
    "_fpw_module",
)
COUNTER = "n_averaged"  # torch.optim.swa_utils.AveragedModel counts its models beside the weights
# Names that end those of a vision transformer's patch embedding, timm's and Hugging Face's.
HUGGINGFACE = "embeddings.patch_embeddings.projection.weight"
PATCHES = ("patch_embed.proj.weight", HUGGINGFACE)
DECODER = "decoder_embed.weight"
# What belongs to a classifier or to pretraining and to no encoder's features.
HEAD_NAMES = re.compile(
    r"head|fc_norm|classifier|pooler|mask_token|norm_pix_loss|decoder([_.]|$)"  # by its beginning
)


@dataclass(frozen=True)
class NamedWeights:
    """Weights by the names of timm and of the official MAE code.

    Args:
        tensors: by name, without what stands before a whole model's names.
        outside: names of weights that lie outside the encoder and its decoder.
        notes: what a reader of the number must know of the choice.
    """

    tensors: dict[str, Tensor]
    outside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def as_timm(found: WeightSet, key_map: str | Path | None, where: str) -> NamedWeights:
    """A vision transformer's weights by the names of timm.

    In this order: wrappers before every name, the rest of a user's key, the user's map, wrappers
    inside names, what stands before the encoder and its decoder, Hugging Face's names.

    Raises:
        ConfigError: the map or the key cannot be used, two weights get one name, or several
            encoders are there and nobody says which.
    """
    tensors = mapped(found, key_map, where)
    named = below(tensors, found, with_patches, where)
    tensors = named.tensors
    if any(name.endswith(HUGGINGFACE) for name in tensors):
        tensors = renamed(tensors, read_key_map("huggingface"))
    return NamedWeights(joined(tensors), named.outside, named.notes)


def as_own(
    found: WeightSet, key_map: str | Path | None, own: Collection[str], where: str
) -> NamedWeights:
    """The weights by the names of a network: what stands before all of them is left out.

    Args:
        found: the set of weights.
        key_map: a user's map.
        own: names that the network has and the weights must have.
        where: what an error names.
    """
    inner = [w for w in WRAPPERS if not any(w in name.split(".") for name in own)]
    tensors = mapped(found, key_map, where, inner)
    if key_map is not None and any(name.endswith(HUGGINGFACE) for name in tensors):
        tensors = joined(renamed(tensors, read_key_map("huggingface")))
    elif key_map is not None:
        tensors = joined(tensors)
    return below(tensors, found, lambda names: with_all(names, own), where)


def mapped(
    found: WeightSet,
    key_map: str | Path | None,
    where: str,
    inner: Collection[str] = WRAPPERS,
) -> dict[str, Tensor]:
    """The weights of a key, through a user's map, without wrappers before or inside names."""
    tensors = within(unwrapped(found.tensors), found, where)
    if key_map is not None:
        tensors = renamed(unwrapped(tensors), read_key_map(key_map))
    return without_wrappers(tensors, inner, where)


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names without what wrappers put before every one of them, in any order and depth."""
    made = dict(tensors)
    while True:
        counted = [n for n in made if n.rpartition(".")[2] != COUNTER]
        first = {name.partition(".")[0] for name in counted}
        if len(first) != 1 or not first <= set(WRAPPERS) or any("." not in n for n in counted):
            return made
        prefix = f"{first.pop()}."
        made = {name.removeprefix(prefix): tensor for name, tensor in made.items()}


def without_wrappers(
    tensors: Mapping[str, Tensor], wrappers: Collection[str], where: str
) -> dict[str, Tensor]:
    """The names without wrappers' parts anywhere in them.

    Raises:
        ConfigError: two weights have the same name then.
    """
    made: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        *parts, last = name.split(".")
        new = ".".join([*(part for part in parts if part not in wrappers), last])
        if new in made:
            raise ConfigError(
                f"{where}: without wrappers' prefixes {origin[new]} and {name} are both {new}: "
                "leave one out, --key-map FILE.yaml with 'expression: null'"
            )
        made[new], origin[new] = tensor, name
    return made


def within(tensors: dict[str, Tensor], found: WeightSet, where: str) -> dict[str, Tensor]:
    """The weights whose names begin with what is left of a user's key.

    Raises:
        ConfigError: there are none; the keys that are there are named.
    """
    if not found.within:
        return tensors
    start = f"{found.within}."
    kept = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    if kept:
        return kept
    inside = [p.rstrip(".") for p in with_patches(tensors) if p]
    before = f"{found.key}." if found.key else ""
    keys = {k for k in (found.key, *found.others, *(f"{before}{i}" for i in inside)) if k}
    raise ConfigError(unknown("key", found.asked, keys, where))


# ---- a whole model below a name


Prefixes = Callable[[Collection[str]], list[str]]


def below(
    tensors: Mapping[str, Tensor], found: WeightSet, prefixes: Prefixes, where: str
) -> NamedWeights:
    """The weights of the encoder and its decoder, without what stands before their names.

    Raises:
        ConfigError: there are several encoders and nobody says which.
    """
    counters = {n: t for n, t in tensors.items() if n.rpartition(".")[2] == COUNTER}
    names = [n for n in tensors if n not in counters]
    starts = prefixes(names)
    start, note = _chosen(tensors, starts, found, where) if starts else ("", "")
    others = tuple(s for s in starts if s != start and s.startswith(start))
    mine = [n for n in names if not n.startswith(others)] if others else names
    places = {n: n.removeprefix(start) for n in mine if n.startswith(start)}
    places = _with_decoder(places, mine)
    averaged = [
        f"averaged over {int(t)} model{'' if int(t) == 1 else 's'}"
        for n, t in counters.items()
        if start.startswith(n.removesuffix(COUNTER)) and t.numel() == 1
    ]
    return NamedWeights(
        {new: tensors[name] for name, new in places.items()},
        tuple(sorted(n for n in names if n not in places)),
        tuple(n for n in (found.note, note, *averaged) if n),
    )


def _chosen(
    tensors: Mapping[str, Tensor], starts: list[str], found: WeightSet, where: str
) -> tuple[str, str]:
    """The prefix of the encoder that is meant, and a note on the others."""
    before = f"{found.key}." if found.key else ""
    before += f"{found.within}." if found.within else ""
    keys = {f"{before}{start}".rstrip("."): start for start in starts}
    sets = {
        key: {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
        for key, start in keys.items()
    }
    if "" in starts:  # the encoder itself, and others inside it
        own = before.rstrip(".")
        inner = ", ".join(k for k in keys if k != own)
        return "", f"another encoder lies at {inner}: ,key={inner}" if inner else ""
    if len(sets) == 1:
        return starts[0], ""
    chosen, note = choose(sets, where)
    return keys[chosen], note


def _with_decoder(places: dict[str, str], names: Collection[str]) -> dict[str, str]:
    """The names of an encoder, and those of a decoder beside it, as in lightly and Hugging Face."""
    above = [n.removesuffix(DECODER) for n in names if _ends(n, DECODER)]
    if DECODER in places.values() or len(above) != 1:
        return places
    parts = tuple(f"{above[0]}{part}" for part in ("decoder_", "mask_token"))
    found = {n: n.removeprefix(above[0]) for n in names if n.startswith(parts)}
    # an encoder that keeps hidden patches has a token of the same name, which no feature needs
    kept = {n: new for n, new in places.items() if new not in found.values()}
    return {**kept, **found}


def with_patches(names: Collection[str]) -> list[str]:
    """What stands before the names of each vision transformer."""
    return sorted({n.removesuffix(end) for n in names for end in PATCHES if _ends(n, end)})


def with_all(names: Collection[str], own: Collection[str]) -> list[str]:
    """What stands before the names of each network that has all of these; else of the nearest."""
    have = set(names)
    starts: list[str] = []
    for some in own:  # the first that is there; all of them are looked for below
        starts = starts or [n.removesuffix(some) for n in names if _ends(n, some)]
    whole = [start for start in starts if all(start + name in have for name in own)]
    if whole:
        return sorted(whole)
    return sorted(starts, key=lambda s: -sum(s + name in have for name in own))[:1]


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
