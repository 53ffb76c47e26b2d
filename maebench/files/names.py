"""Which names a file may have, where folders lie that a user names, and short hashes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from maebench.errors import ConfigError, RunError

# Letters, digits, dot, dash and underscore; no leading dot, so no name can climb or hide.
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
# Devices of Windows, whatever follows their dot; nor may a name end with one there.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.", re.IGNORECASE)
CACHE = "MAEBENCH_CACHE"  # the folder of what is kept between commands; below the user's own cache
SHOWN = 40  # characters of a wrong value in a message


def safe_name(name: str) -> str:
    """The name itself where it is a safe file name.

    Raises:
        RunError: it could leave its folder or is not portable.
    """
    if not SAFE_NAME.fullmatch(name) or RESERVED.fullmatch(name):
        raise RunError(
            f"{name!r} cannot be a file name: allowed are letters, digits, '.', '_', '-', "
            "first a letter or digit, last no dot, 200 characters at most, and no device of "
            "Windows such as con or nul"
        )
    return name


def with_home(path: str | Path) -> Path:
    """The path with the home folder in place of a leading ~ or ~USER.

    Raises:
        ConfigError: there is no such user.
    """
    if not str(path).startswith("~") and str(Path(path)).startswith("~"):
        return Path(path).absolute()  # ./~ is a name, and Path forgets the dot
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = Path(path).parts[0]
        raise ConfigError(
            f"cannot read {path}: there is no home folder for {user}; write the whole path, or "
            f"./{user} for a file of this name"
        ) from error


def cache_folder() -> Path:
    """Where what is costly to find out is kept: MAEBENCH_CACHE, else the user's cache folder."""
    if named := os.environ.get(CACHE):
        return with_home(named)
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return with_home(home) / "maebench"


def shortened(value: Any) -> str:
    """A JSON value as a message shows it."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(value: Any) -> str:
    """Ten hex digits of a JSON value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def size_text(count: float, step: int = 1024) -> str:
    """A number of bytes as a person reads it, in KiB and so on, or in kB with step 1000."""
    for unit in ("B", "KiB", "MiB"):
        if count < step:
            return f"{count:.0f} {_unit(unit, step)}"
        count /= step
    return f"{count:,.1f} {_unit('GiB', step)}"


def _unit(name: str, step: int) -> str:
    """KiB as it is, or kB."""
    return name if step == 1024 else name.replace("i", "").replace("K", "k")
