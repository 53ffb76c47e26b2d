"""What a file of weights holds; reading it never runs code."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maebench.errors import RunError
from maebench.files import read_json
from maebench.models.file_kinds import folder_kind, is_safetensors, refuse_other_kinds
from maebench.models.pickles import read_pickle
from maebench.models.weight_sets import WeightSet, find_set

SHARDS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# As Hugging Face writes a folder; the first that is there is taken, as transformers does.
IN_FOLDER = ("model.safetensors", SHARDS[0], "pytorch_model.bin", SHARDS[1])
OURS = "maebench"  # the key of what our own exports say about themselves
Facts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds.

    Args:
        path: the file or folder.
        chosen: the set of weights that is meant, by the names they have there.
        facts: what stands beside them: `args` of a training checkpoint, `config` and
            `preprocessor` of a Hugging Face folder, `maebench` of an export of ours.
        stray: names of weights in files where the index of a folder does not look for them.
    """

    path: Path
    chosen: WeightSet
    facts: Facts = field(default_factory=dict)
    stray: tuple[str, ...] = ()


def read_weights(path: Path, key: str | None = None) -> WeightsFile:
    """The weights in a file (.pth, .pt, .bin, .ckpt, .safetensors) or a Hugging Face folder.

    Args:
        path: the file or folder.
        key: which of several sets of weights, dictionaries' keys with dots between them.

    Raises:
        RunError: it is missing, damaged, asks for code to be run, or holds no weights.
        ConfigError: it holds several sets of weights and nobody says which.
    """
    if path.is_dir():
        return _read_folder(path, key)
    if not path.exists():
        raise RunError(f"file:{path}: there is no such file")
    if path.name in SHARDS:
        return _read_by_index(path, key)
    content, facts = _read_file(path)
    found = _plain(find_set(content, path, key), path)
    return WeightsFile(path, found, {**_beside(path.parent), **facts})


def _read_folder(folder: Path, key: str | None) -> WeightsFile:
    there = [name for name in IN_FOLDER if (folder / name).exists()]
    if not there and (found := folder_kind(folder)):
        raise RunError(f"file:{folder} is {found[0]} in pieces: {found[1]}")
    if not there:
        raise RunError(f"file:{folder}: no {' or '.join(IN_FOLDER)} is in this folder")
    name, *others = there
    weights = replace(read_weights(folder / name, key), path=folder)
    if not others:
        return weights
    note = f"{name} was taken; the folder holds {' and '.join(others)} too, which may be others"
    return replace(weights, chosen=_noted(weights.chosen, note))


def _noted(found: WeightSet, note: str) -> WeightSet:
    return replace(found, note="; ".join(n for n in (found.note, note) if n))


def _read_by_index(path: Path, key: str | None) -> WeightsFile:
    """The weights of several files, by the index that lies beside them."""
    index = read_json(path)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not named:
        raise RunError(f"file:{path.parent}: {path.name} has no weight_map of names to files")
    tensors, stray = _read_shards(path, named)
    found = _plain(find_set(tensors, path.parent, key), path.parent)
    if stray:
        count = f"{len(stray)} weight{'s' * (len(stray) > 1)}"
        found = _noted(
            found, f"{count} left out that the index looks for elsewhere or does not name"
        )
    return WeightsFile(path, found, _beside(path.parent), stray)


def _read_shards(path: Path, named: Mapping[str, Any]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights that an index names, each from the file that it names for it; and the others.

    A shard that was kept from another version of the model may hold others of the same names.

    Raises:
        RunError: a file is missing, or a weight is missing in it.
    """
    folder, index = path.parent, path.name
    tensors, stray = dict[str, Tensor](), list[str]()
    for shard in sorted(set(map(str, named.values()))):
        # a name that leaves the folder is no shard of it
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise RunError(f"file:{folder}: {index} names {shard!r}, which is no file beside it")
        there = find_set(_read_file(folder / shard)[0], folder / shard, "").tensors
        wanted = [name for name, place in named.items() if place == shard]
        if lost := sorted(set(wanted) - there.keys()):
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise RunError(
                f"file:{folder}: {index} says that {lost[0]}{more} is in {shard}, and it is not: "
                "one of them is of another version; download both again"
            )
        tensors |= {name: there[name] for name in wanted}
        stray += sorted(there.keys() - set(wanted))
    return tensors, tuple(stray)


def _plain(found: WeightSet, path: Path) -> WeightSet:
    """The set, where each of its weights is a plain tensor with values.

    Raises:
        RunError: one is sparse, quantised, or a shape alone.
    """
    for name, tensor in found.tensors.items():
        if tensor.is_meta:
            raise RunError(f"file:{path}: {name} is a shape without values, on the device meta")
        if tensor.is_quantized or tensor.layout != torch.strided:
            kind, how = (
                ("quantised", "dequantize") if tensor.is_quantized else ("sparse", "to_dense")
            )
            raise RunError(
                f"file:{path}: {name} is {kind}, and plain tensors are wanted: save the model as "
                f"it was before, or each weight by .{how}()"
            )
    return found


def _beside(folder: Path) -> dict[str, dict[str, Any]]:
    """What a Hugging Face folder says of its weights."""
    files = {"config": "config.json", "preprocessor": "preprocessor_config.json"}
    there = {key: folder / name for key, name in files.items() if (folder / name).exists()}
    read = {key: read_json(path) for key, path in there.items()}
    # a run's own folder has a config.json too, which speaks of something else
    return {k: v for k, v in read.items() if isinstance(v, dict) and "facts" not in v}


def _read_file(path: Path) -> tuple[Any, dict[str, dict[str, Any]]]:
    """The content, and what it says beside its weights; its first bytes say how to read it."""
    refuse_other_kinds(path)
    if is_safetensors(path):
        return _read_safetensors(path)
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            if file.read(2) not in (b"PK", b"\x80\x02"):  # as torch.save begins, now and before
                return _read_safetensors(path)
    content = read_pickle(path)
    facts: dict[str, dict[str, Any]] = {}
    if isinstance(content, dict):
        args = content.get("args")
        args = vars(args) if isinstance(args, argparse.Namespace) else args
        facts |= {"args": args} if isinstance(args, dict) else {}
        facts |= {OURS: content[OURS]} if isinstance(content.get(OURS), dict) else {}
    return content, facts


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    try:
        with safe_open(path, "pt") as file:
            stated = (file.metadata() or {}).get(OURS)
            content = {name: file.get_tensor(name) for name in file.keys()}
        ours = json.loads(stated) if stated else None
        return content, {OURS: ours} if isinstance(ours, dict) else {}
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"file:{path} cannot be read as safetensors: {error}") from error
