"""What a file of weights holds, and which weight is which; reading it never runs code."""

from __future__ import annotations

import argparse
import json
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maebench.errors import ConfigError, RunError, unknown
from maebench.files import read_json

# Where a checkpoint keeps its weights beside an optimiser: the official code says "model",
# Lightning and many others "state_dict", DeepSpeed "module".
INSIDE = ("model", "state_dict", "model_state_dict", "module")
DEEPEST = 4  # dictionaries within each other: a file may hold itself
SHARDS = "model.safetensors.index.json"
IN_FOLDER = ("model.safetensors", SHARDS, "pytorch_model.bin")  # as Hugging Face writes a folder
# What wrappers put before every name: DistributedDataParallel, torch.compile.
WRAPPERS = ("module.", "_orig_mod.")
# What torch's readers raise on files that are cut off or of another kind.
BROKEN = (RuntimeError, OSError, EOFError, LookupError, ValueError, TypeError, struct.error)
# What any file of weights names: how tensors are put together, and the containers they lie in.
HARMLESS = re.compile(
    r"torch\._utils\._rebuild\w+|torch\.(storage\.)?\w*Storage|torch\.[a-z]+\d*"
    r"|collections\.OrderedDict|argparse\.Namespace"
)
OURS = "maebench"  # the key of what our own exports say about themselves
Facts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds.

    Args:
        path: the file or folder.
        tensors: weights by the names they have there, without wrappers' prefixes.
        facts: what stands beside them: `args` of a training checkpoint, `config` and
            `preprocessor` of a Hugging Face folder, `maebench` of an export of ours.
    """

    path: Path
    tensors: dict[str, Tensor]
    facts: Facts = field(default_factory=dict)


def read_weights(path: Path) -> WeightsFile:
    """The weights in a file (.pth, .pt, .bin, .ckpt, .safetensors) or a Hugging Face folder.

    Raises:
        RunError: it is missing, damaged, asks for code to be run, or holds no weights.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise RunError(f"file:{path}: there is no such file")
    content, facts = _read_file(path)
    return WeightsFile(
        path, _unwrapped(_weights_in(content, path)), {**_beside(path.parent), **facts}
    )


def _read_folder(folder: Path) -> WeightsFile:
    name = next((n for n in IN_FOLDER if (folder / n).exists()), None)
    if name is None:
        raise RunError(f"file:{folder}: no {' or '.join(IN_FOLDER)} is in this folder")
    if name != SHARDS:
        return replace(read_weights(folder / name), path=folder)
    tensors: dict[str, Tensor] = {}
    index = read_json(folder / SHARDS)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not named:
        raise RunError(f"file:{folder}: {SHARDS} has no weight_map of names to files")
    for shard in sorted(set(map(str, named.values()))):
        # a name that leaves the folder is no shard of it
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise RunError(f"file:{folder}: {SHARDS} names {shard!r}, which is no file beside it")
        tensors |= _read_safetensors(folder / shard)[0]
    return WeightsFile(folder, _unwrapped(_weights_in(tensors, folder)), _beside(folder))


def _beside(folder: Path) -> dict[str, dict[str, Any]]:
    """What a Hugging Face folder says of its weights."""
    files = {"config": "config.json", "preprocessor": "preprocessor_config.json"}
    there = {key: folder / name for key, name in files.items() if (folder / name).exists()}
    read = {key: read_json(path) for key, path in there.items()}
    # a run's own folder has a config.json too, which speaks of something else
    return {k: v for k, v in read.items() if isinstance(v, dict) and "facts" not in v}


def _read_file(path: Path) -> tuple[Any, dict[str, dict[str, Any]]]:
    """The content, and what it says beside its weights."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = _read_pickle(path)
    facts: dict[str, dict[str, Any]] = {}
    if isinstance(content, dict):
        args = content.get("args")
        facts |= {"args": vars(args)} if isinstance(args, argparse.Namespace) else {}
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


def _read_pickle(path: Path) -> Any:
    """A torch file through torch's restricted unpickler.

    Tensors and plain containers are let in, and argparse.Namespace, which the training checkpoints
    of the official code hold (util/misc.py, save_model): a bag of values that runs nothing.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that other pickle protocols are not all supported
            return torch.load(path, map_location="cpu", weights_only=True)
    except (*BROKEN, pickle.UnpicklingError) as error:
        text = " ".join(str(error).split())
        named = re.search(r"GLOBAL ([\w.]+[\w])", text)
        forbidden = named[1] if named else _first_global(path)
        if forbidden:
            raise RunError(
                f"file:{path} is refused: to load it, {forbidden} would have to be run or made; "
                "only tensors, plain containers and argparse.Namespace are let in"
            ) from error
        raise RunError(
            f"file:{path} cannot be read as weights of torch ({type(error).__name__}); "
            "it may be cut off or of another kind"
        ) from error


def _first_global(path: Path) -> str:
    """The first function or class that a bare pickle should not name, read without running it."""
    try:
        content = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                inside = [n for n in packed.namelist() if n.endswith("data.pkl")]
                content = packed.read(inside[0]) if inside else b""
        return next((name for name in _globals(content) if not HARMLESS.fullmatch(name)), "")
    except (*BROKEN, UnicodeDecodeError, OverflowError, zipfile.BadZipFile):
        return ""  # cut off, or no pickle at all


def _globals(content: bytes) -> Iterator[str]:
    """The functions and classes that a pickle names, in its order."""
    texts: list[str] = []
    memory: dict[int, str] = {}  # what the pickle remembers to name it again
    for code, argument, _ in pickletools.genops(content):
        if code.name == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif code.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)
        elif code.name == "MEMOIZE":
            memory[len(memory)] = texts[-1] if texts else ""
        elif code.name in ("BINPUT", "LONG_BINPUT", "PUT") and argument is not None:
            memory[int(argument)] = texts[-1] if texts else ""
        elif code.name in ("BINGET", "LONG_BINGET", "GET") and argument is not None:
            texts.append(memory.get(int(argument), ""))


def _weights_in(content: Any, path: Path, depth: int = 0) -> dict[str, Tensor]:
    """The names and tensors, wherever the checkpoint keeps them.

    Raises:
        RunError: there are none, or something else stands among them.
    """
    if not isinstance(content, dict):
        raise RunError(f"file:{path} holds a {type(content).__name__}, no names with weights")
    for key in INSIDE:
        inner = content.get(key)
        if isinstance(inner, dict) and inner is not content:
            return _weights_in(inner, path, depth + 1) if depth < DEEPEST else {}
    whole = all(isinstance(key, str) for key in content)
    tensors = {k: v for k, v in content.items() if whole and isinstance(v, torch.Tensor)}
    if not tensors or len(tensors) < len(content):
        others = sorted(str(k) for k in content.keys() - tensors.keys())[:8]
        raise RunError(
            f"file:{path}: weights are looked for at the top or under {', '.join(INSIDE)}; "
            f"it holds {', '.join(others) or 'nothing'}"
        )
    return tensors


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names without what a wrapper put before every one of them."""
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
    return tensors


# ---- which weight is which

MAPS = Path(__file__).with_name("key_maps")
KeyMap = Mapping[str, str | None]
HUGGINGFACE = "embeddings.patch_embeddings.projection.weight"  # ends a name in every generation
# What belongs to a classifier or to pretraining and to no encoder's features.
HEAD_NAMES = re.compile(
    r"head|fc_norm|classifier|pooler|mask_token|norm_pix_loss|decoder([_.]|$)"  # by its beginning
)


def as_timm(tensors: Mapping[str, Tensor], key_map: str | Path | None) -> dict[str, Tensor]:
    """The weights by the names of timm: through a user's map, and Hugging Face's for theirs.

    Raises:
        ConfigError: the map cannot be used.
    """
    if key_map is not None:
        tensors = renamed(tensors, read_key_map(key_map))
    if any(name.endswith(HUGGINGFACE) for name in tensors):
        tensors = renamed(tensors, read_key_map("huggingface"))
    return joined(tensors)


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
        ConfigError: there is no such file or map, it is no mapping, or an expression is wrong.
    """
    path = Path(file)
    if not path.suffix and not path.exists():
        if str(file) not in shipped():
            raise ConfigError(unknown("key map", str(file), shipped(), "--key-map FILE.yaml"))
        path = MAPS / f"{file}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--key-map {path}: {reason}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--key-map {path} is no YAML: {' '.join(str(error).split())}") from error
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
