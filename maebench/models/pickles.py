"""Files of torch.save, read by torch's restricted unpickler; no code of a file is ever run."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import pickle
import pickletools
import re
import struct
import types
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maebench.errors import RunError

# What torch's readers raise on files that are cut off or of another kind.
BROKEN = (
    *(RuntimeError, OSError, EOFError, LookupError, ValueError, TypeError, AttributeError),
    *(struct.error, OverflowError, MemoryError),
)
# What any file of weights names: how tensors are put together, and the containers they lie in.
HARMLESS = re.compile(
    r"torch\._utils\._rebuild\w+|torch\.(storage\.)?\w*Storage|torch\.[a-z]+\d*"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode"
)
# Lightning's dictionary of hyper-parameters: a dict with another way to write d["key"].
ATTRIBUTE_DICTS = (
    *("pytorch_lightning.utilities.parsing", "lightning.pytorch.utilities.parsing"),
    *("lightning_fabric.utilities.data", "lightning.fabric.utilities.data"),
)

# Bytes unpacked over bytes of the file: torch.save packs nothing, and what is packed again by hand
# shrinks to a half or so, for weights are noise; deflate itself reaches 1,032.
MOST_PACKED, LEAST_PACKED = 16, 2**20


def inert() -> list[Any]:
    """What a checkpoint may hold beside tensors and plain containers: values that run nothing.

    argparse.Namespace as the official code writes it (util/misc.py, save_model), numbers and arrays
    of numpy (best metrics, random states), paths, dates. Under the names of every version; a path
    becomes a pure one, which cannot touch a file system and exists for other systems too. Arrays of
    objects stay outside.
    """
    scalar, rebuilt = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
    codes = np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?SUMm"
    named: dict[str, Any] = {}
    for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
        named |= {f"{core}.multiarray.scalar": scalar, f"{core}.multiarray._reconstruct": rebuilt}
    for module in ("pathlib", "pathlib._local"):  # the latter in Python 3.13
        for system in ("Posix", "Windows"):
            pure = getattr(pathlib, f"Pure{system}Path")
            named |= {f"{module}.{system}Path": pure, f"{module}.Pure{system}Path": pure}
    named |= {f"{module}.AttributeDict": dict for module in ATTRIBUTE_DICTS}
    dates = [datetime.datetime, datetime.date, datetime.timedelta, datetime.timezone]
    plain = [argparse.Namespace, types.SimpleNamespace, np.dtype, np.ndarray, *dates]
    kinds = {type(np.dtype(code)) for code in codes}
    return [*plain, *kinds, *((thing, name) for name, thing in named.items())]


def read_pickle(path: Path) -> Any:
    """The content of a file of torch.save.

    Raises:
        RunError: it is cut off or of another kind, its archive unpacks to far more than the file
            has, or loading it would run or make something.
    """
    _check_unpacked(path)
    try:
        with torch.serialization.safe_globals(inert()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that other pickle protocols are not all supported
            with path.open("rb") as file:  # by its content: torch reads .safetensors its own way
                return torch.load(file, map_location="cpu", weights_only=True)
    except (*BROKEN, pickle.UnpicklingError) as error:
        text = " ".join(str(error).split())
        named = re.search(r"GLOBAL ([\w.]+[\w])", text)
        forbidden = named[1] if named else _first_global(path)
        if forbidden:
            raise RunError(
                f"file:{path} is refused: to load it, {forbidden} would have to be run or made; "
                "let in are tensors, plain containers, numbers of numpy, paths, dates and "
                "argparse.Namespace. Where it was made, save the weights alone: "
                "torch.save(model.state_dict(), 'weights.pth')"
            ) from error
        raise RunError(
            f"file:{path} cannot be read as weights of torch ({type(error).__name__}); "
            "it may be cut off or of another kind"
        ) from error


def _check_unpacked(path: Path) -> None:
    """Refuses an archive whose parts are stated to unpack to far more bytes than the file has.

    Raises:
        RunError: names both.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            stated = sum(each.file_size for each in packed.infolist())
    except (*BROKEN, zipfile.BadZipFile):
        return  # a bare pickle, or cut off: said by whoever reads it
    there = path.stat().st_size
    if stated > MOST_PACKED * max(there, LEAST_PACKED):
        raise RunError(
            f"file:{path} would unpack to {stated:,} bytes, and has {there:,}: more than "
            f"{MOST_PACKED} times is no file of weights"
        )


def _first_global(path: Path) -> str:
    """The first function or class that a bare pickle should not name, read without running it."""
    try:
        content = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                inside = [n for n in packed.namelist() if n.endswith("data.pkl")]
                content = packed.read(inside[0]) if inside else b""
        known = {_name(thing) for thing in inert()}
        found = (n for n in _globals(content) if n not in known and not HARMLESS.fullmatch(n))
        return next(found, "")
    except (*BROKEN, zipfile.BadZipFile):
        return ""  # cut off, or no pickle at all


def _name(thing: Any) -> str:
    return thing[1] if isinstance(thing, tuple) else f"{thing.__module__}.{thing.__qualname__}"


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
