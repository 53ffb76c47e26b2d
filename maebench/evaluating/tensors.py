"""Tensors on disk whose bytes and owner are known: features, and evaluations in the making."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maebench import files
from maebench.errors import DamagedError
from maebench.files.sealed import content_hash
from maebench.pretraining.checkpoints import weights_hash

SAID = "maebench"  # in the metadata of a file; one key, for safetensors mixes the order of several


def write_tensors(path: Path, of: str, tensors: Mapping[str, Tensor], more: Any = None) -> None:
    """Replaces a file of tensors as a whole, with a hash of each, of all names, and whose they are.

    Args:
        path: the file.
        of: what they belong to.
        tensors: on the CPU, contiguous.
        more: JSON values beside them.

    Raises:
        RunError: it cannot be written; what was there before stays.
    """
    hashes = {name: weights_hash({name: part}) for name, part in tensors.items()}
    content = {"of": of, "hashes": hashes, "more": more}
    said = {SAID: json.dumps([content_hash(content), content])}

    def fill(beside: Path) -> None:
        try:
            save_file(dict(tensors), beside, said)
        except SafetensorError as error:  # a full disk, which is no OSError there
            raise OSError(str(error)) from error

    files.write(path, fill)


def read_tensors(
    path: Path, of: str | None, names: Sequence[str] | None = None
) -> tuple[dict[str, Tensor], Any]:
    """Tensors of a file by name, those alone that it has, and the JSON values beside them.

    Args:
        path: the file.
        of: what they have to belong to; None where only the hashes are looked at.
        names: of the wanted ones; all of them where left out.

    Raises:
        DamagedError: a file that is cut off, changed, of something else, or without hashes.
    """
    try:
        with safe_open(path, "pt") as kept:
            said = (kept.metadata() or {}).get(SAID)
            if said is None:
                raise ValueError("there is no hash, as in files of an earlier version")
            mark, content = json.loads(said)
            if mark != content_hash(content):  # names and JSON values may be damaged too
                raise ValueError("it is not as it was written")
            whose, hashes, more = (content[key] for key in ("of", "hashes", "more"))
            if of is not None and whose != of:
                raise ValueError(f"it belongs to {files.shortened(whose)}")
            wanted = hashes if names is None else [name for name in names if name in hashes]
            found = {name: kept.get_tensor(name) for name in wanted}
        if any(weights_hash({name: part}) != hashes[name] for name, part in found.items()):
            raise ValueError("it is not as it was written")
        return found, more
    # its header is made of bytes that may say anything
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, LookupError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
