"""Names by a user's map, and queries, keys and values in one matrix as timm has them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from pathlib import Path

import regex
import torch
from torch import Tensor

from maebench.config.yaml_file import load_yaml
from maebench.errors import ConfigError, unknown
from maebench.files import SHOWN, with_home

MAPS = Path(__file__).with_name("key_maps")
# For all names and expressions together: thousands of them take milliseconds, and an expression
# that tries every way to divide a name, such as (a|aa)+$, centuries.
SECONDS = 5.0
LONGEST_NAME = 1_000  # characters that a name may grow to: a line may double it, and forty lines do
LONGEST_EXPRESSION = 1_000  # characters; those of the shipped maps have at most 60
# Counts in braces, multiplied: `regex` writes repetitions within each other out in memory, so that
# ((a{1000}){1000}){1000} takes all of it. No name has more characters than this to repeat.
MOST_REPEATED = 1_000
COUNTS = re.compile(r"\{\d*(?:,\d*)?\}")
KeyMap = Mapping[str, str | None]


def renamed(tensors: Mapping[str, Tensor], key_map: KeyMap) -> dict[str, Tensor]:
    """The weights under other names; those that a `null` finds are left out.

    Raises:
        ConfigError: two weights would get one name, the map finds nothing, or an expression takes
            too long.
    """
    # `regex` understands what `re` does, and has a limit of time
    expressions = {pattern: regex.compile(pattern, regex.V0) for pattern in key_map}
    until = time.monotonic() + SECONDS
    made: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    met = False
    for name, tensor in tensors.items():
        new: str | None = name
        for pattern, replacement in key_map.items():
            if new is None:
                break
            left = max(until - time.monotonic(), 0.001)
            try:
                if not expressions[pattern].search(new, timeout=left):
                    continue
                met = True
                if replacement is None:
                    new = None
                else:
                    new = expressions[pattern].sub(replacement, new, timeout=left)
            except TimeoutError as error:
                raise ConfigError(
                    f"--key-map: {shown(pattern)} was tried on {shown(name)} for too long: all "
                    f"expressions together have {SECONDS:g} seconds; one that tries "
                    "every way to divide a name, as (a|aa)+$ does, never ends"
                ) from error
            if new is not None and len(new) > LONGEST_NAME:
                raise ConfigError(
                    f"--key-map: {shown(pattern)} makes of {shown(name)} a name of {len(new):,} "
                    f"characters, and {LONGEST_NAME:,} are the most"
                )
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
        _check_expression(pattern, replacement, f"--key-map {path}: {shown(pattern)}")
    return content


def _check_expression(pattern: str, replacement: str | None, where: str) -> None:
    """Refuses what is no expression of `re` and of `regex`, or takes too much to read.

    Raises:
        ConfigError: says why.
    """
    counts = [int(n) for braces in COUNTS.findall(pattern) for n in re.findall(r"\d+", braces)[-1:]]
    if len(pattern) > LONGEST_EXPRESSION or math.prod(counts) > MOST_REPEATED:
        raise ConfigError(
            f"{where}: {LONGEST_EXPRESSION:,} characters, and {MOST_REPEATED:,} repetitions by "
            "counts in braces, multiplied, are the most"
        )
    try:
        re.sub(pattern, replacement or "", "")
        re.compile(pattern)
        regex.compile(pattern, regex.V0).sub(replacement or "", "")
    except (re.error, regex.error, IndexError, RecursionError, OverflowError) as error:
        raise ConfigError(f"{where}: {error}") from error


def shown(text: str) -> str:
    """A text as a message shows it: quoted, and its beginning where it is long."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def shipped() -> list[str]:
    """The key maps that come with maebench, by name."""
    return sorted(path.stem for path in MAPS.glob("*.yaml"))
