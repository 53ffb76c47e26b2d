"""What is read back: JSON files that carry a hash of their content and say what they are of.

A file that was changed by hand, or by a failing disk, is told from what was written; so is a whole
one that belongs elsewhere. It protects against accidents: whoever can write to a results folder
can make a hash anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from maebench.errors import DamagedError, RunError
from maebench.files.names import shortened
from maebench.files.writing import failure, json_text, make_folder, write_text

HASH, OF, CHECK = "hash", "of", "crc32"
# Of a JSON file in bytes. The largest of ours are records of evaluations with thousands of rows.
MOST_JSON = 2**28


def write_sealed(path: Path, value: Mapping[str, Any], of: str) -> None:
    """Replaces a JSON file as a whole, with a hash of what it holds and whose it is.

    Args:
        path: the file.
        value: its content; NaN and infinity are refused.
        of: what it belongs to, such as the run's name.
    """
    write_text(path, sealed_text(value, of))


def sealed_text(value: Mapping[str, Any], of: str) -> str:
    """The text of a file of `write_sealed`."""
    content = {OF: of, **value}
    return json_text({HASH: content_hash(content), **content})


def read_sealed(path: Path, of: str, hashed: tuple[int, ...] = ()) -> dict[str, Any]:
    """The content of a file of `write_sealed`, without its hash.

    Args:
        path: the file.
        of: what it has to belong to.
        hashed: values of `format` that have a hash for sure (0: no `format`); files of earlier
            versions have none, and of a newer one nobody knows.

    Raises:
        DamagedError: cut off, no JSON object, changed since it was written, or of something else.
        RunError: it cannot be read now, or is missing.
    """
    content = read_object(path)
    mark = content.pop(HASH, None)
    number = content.get("format", 0)
    if mark is None and OF not in content and number not in hashed:
        return content
    if not _fits(content, mark):
        raise DamagedError(f"{path} is damaged: it is not as it was written")
    if (whose := content.pop(OF, None)) != of:
        named = shortened(whose).strip('"')  # as JSON, for it may hold line breaks
        raise DamagedError(f"{path} belongs to {named}, and lies where {of} has its own")
    return content


def content_hash(value: Mapping[str, Any]) -> str:
    """Thirty-two hex digits of a JSON object, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _fits(content: Mapping[str, Any], mark: Any) -> bool:
    """Whether this is the hash of that; of NaN, which is never written, there is none."""
    try:
        return bool(mark == content_hash(content))
    except (ValueError, RecursionError):
        return False


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        DamagedError: empty, cut off, or not JSON.
        RunError: it is missing, or cannot be read now.
    """
    try:
        if (size := path.stat().st_size) > MOST_JSON:
            raise DamagedError(
                f"{path} cannot be read: it has {size:,} bytes, and {MOST_JSON:,} are allowed"
            )
        text = path.read_text(encoding="utf-8")
        if not text:
            raise DamagedError(f"{path} cannot be read: it is empty")
        return json.loads(text)
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        DamagedError: cut off, or not a JSON object.
        RunError: it is missing, or cannot be read now.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise DamagedError(
            f"{path} cannot be read: an object is wanted, it holds {shortened(value)}"
        )
    return value


# ---- lines


def as_lines(values: Iterable[Mapping[str, Any]], of: str = "") -> str:
    """JSON objects as lines, each with a check sum of its own.

    Args:
        values: the objects.
        of: whose they are, which goes into the sum: another's lines are not taken for its own.
    """
    return "".join(json.dumps({**value, CHECK: _sum(value, of)}) + "\n" for value in values)


def append_lines(path: Path, values: Sequence[Mapping[str, Any]], of: str = "") -> None:
    """Adds JSON objects as lines; a torn last line is what `read_lines` leaves out.

    Args:
        path: the file.
        values: the objects.
        of: as in `as_lines`.

    Raises:
        RunError: the disk is full or the file cannot be written.
    """
    make_folder(path.parent)
    try:
        with path.open("ab+") as file:
            if file.tell() and _last_byte(file) != b"\n":
                file.write(b"\n")  # a crash cut the last line: start a new one
            file.write(as_lines(values, of).encode())
            file.flush()
    except OSError as error:
        raise failure(error)(f"cannot write {path}: {error.strerror or error}") from error


def read_lines(path: Path, *needed: str, of: str = "") -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, without their check sums.

    Lines that a crash cut off, that are not as they were written or are another's are left out.

    Args:
        path: the file; none is like an empty one.
        needed: keys of numbers; a line that lacks one is left out too.
        of: as in `as_lines`.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and not ("\ufffd" in line and CHECK in row):
                found.append(row)
    if any(CHECK in row for row in found):  # then all had one: a file is rewritten as a whole first
        found = [row for row in found if CHECK in row and row.pop(CHECK) == _sum(row, of)]
    return [row for row in found if all(type(row.get(key)) in (int, float) for key in needed)]


def _sum(value: Mapping[str, Any], of: str) -> str:
    return f"{zlib.crc32(json.dumps(dict(value)).encode(), zlib.crc32(of.encode())):08x}"


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)
