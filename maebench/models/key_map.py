"""Names by a user's map, and queries, keys and values in one matrix as timm has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from maebench.config.yaml_file import load_yaml
from maebench.errors import ConfigError, unknown
from maebench.files import with_home

MAPS = Path(__file__).with_name("key_maps")
KeyMap = Mapping[str, str | None]


def renamed(tensors: Mapping[str, Tensor], key_map: KeyMap) -> dict[str, Tensor]:
    """The weights under other names; those that a `null` finds are left out.

    Raises:
        ConfigError: two weights would get one name, or the map finds nothing.
    """
    made: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    met = False
    for name, tensor in tensors.items():
        new: str | None = name
        for pattern, replacement in key_map.items():
            if new is None or not re.search(pattern, new):
                continue
            met = True
            new = None if replacement is None else re.sub(pattern, replacement, new)
        if new is None:
            continue
        if new in made:
            raise ConfigError(f"--key-map gives {origin[new]} and {name} the same name {new}")
        made[new], origin[new] = tensor, name
    if not met:
        some = ", ".join(sorted(tensors)[:3])
        raise ConfigError(f"--key-map: no expression finds a weight; the names are {some} ...")
    return made


def joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values apart as the one matrix that timm and the official code have.

    A missing bias beside others is zero, as in BEiT, whose keys have none.
    """
    made = dict(tensors)
    for start in {
        m[1] for name in tensors if (m := re.fullmatch(r"(.*\.attn\.)[qkv]\.weight", name))
    }:
        weights = [made.pop(f"{start}{part}.weight", None) for part in "qkv"]
        biases = [made.pop(f"{start}{part}.bias", None) for part in "qkv"]
        whole = [w for w in weights if w is not None]
        if len(whole) < 3:  # whoever loads it says what is missing
            continue
        made[f"{start}qkv.weight"] = torch.cat(whole)
        if any(b is not None for b in biases):
            zero = whole[0].new_zeros(len(whole[0]))
            made[f"{start}qkv.bias"] = torch.cat([zero if b is None else b for b in biases])
    return made


def read_key_map(file: str | Path) -> KeyMap:
    """Regular expressions and what to put in their place, from a YAML file or a shipped map's name.

    Each is applied to every name, in the order of the file, as `re.sub` does; `null` leaves the
    weights out whose name it finds.

    Raises:
        ConfigError: there is no such file or map, it is no mapping, an expression is wrong, or one
            is there twice.
    """
    path = with_home(file)
    if not path.suffix and not path.exists():
        if str(file) not in shipped():
            raise ConfigError(unknown("key map", str(file), shipped(), "--key-map FILE.yaml"))
        path = MAPS / f"{file}.yaml"
    content = load_yaml(path, "--key-map")
    if not isinstance(content, dict) or not content:
        raise ConfigError(
            f"--key-map {path}: lines of 'regular expression: replacement' are wanted, "
            f"got {content!r}"
        )
    for pattern, replacement in content.items():
        if not isinstance(pattern, str) or not isinstance(replacement, str | None):
            raise ConfigError(
                f"--key-map {path}: {pattern!r}: {replacement!r} must be an expression and a text "
                "or null"
            )
        try:
            re.sub(pattern, replacement or "", "")
            re.compile(pattern)
        except (re.error, IndexError) as error:
            raise ConfigError(f"--key-map {path}: {pattern!r}: {error}") from error
    return content


def shipped() -> list[str]:
    """The key maps that come with maebench, by name."""
    return sorted(path.stem for path in MAPS.glob("*.yaml"))
