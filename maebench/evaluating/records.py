"""Rows on disk and back: one JSON file per evaluation of a model, per-example values beside it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maebench import files
from maebench.errors import DamagedError, RunError

FORMAT = 2  # 1, of earlier versions, has no hashes
# how a kind of model without an encoder is called in tables
CONTROLS = {"pixels": "raw pixels", "tf-idf": "TF-IDF", "raw": "raw values"}


def examples_of(kinds: Iterable[Any]) -> str:
    """What examples of these kinds of inputs are called: images, windows of text, signals ...

    Records of earlier versions do not say the kind, and are of images.
    """
    found = {"images" if kind is None or kind != kind else str(kind) for kind in kinds}
    if len(found) > 1:
        return "examples"
    (kind,) = found or {"images"}
    return {"text": "windows"}.get(kind, kind)


HELD_OUT = "held out of train"  # the split of values by which choices are made
COLUMNS = (
    *("model", "model_kind", "run", "weights", "weights_hash", "dataset", "dataset_fingerprint"),
    *("train_examples", "train_fingerprint", "split", "examples", "num_groups", "skipped"),
    *("remarks", "inputs"),
    *("evaluation", "evaluation_version", "protocol", "options", "metric", "where"),
    *("value", "low", "high", "interval", "choice_low", "choice_high", "choices"),
    *("choices_alike", "unit", "higher_is_better", "main", "status", "reason", "seed", "seconds"),
    *("device", "precision", "source", "package", "package_version", "maebench_version"),
    *("created",),
)
_WHOLE = ("train_examples", "examples", "num_groups", "skipped", "evaluation_version", "seed")
# what is no text; whatever is not there is None
KINDS: dict[str, tuple[type, ...]] = {
    "where": (dict,),
    **dict.fromkeys((*_WHOLE, "choices", "choices_alike"), (int,)),
    **dict.fromkeys(("value", "low", "high", "choice_low", "choice_high", "seconds"), (float, int)),
    **dict.fromkeys(("higher_is_better", "main"), (bool,)),
}
AGAIN = "evaluate again"  # what is to be done with a damaged one
# Bytes that values beside rows may unpack to: 50,000 test images times 2,000 rows have 0.8 GB.
MOST_VALUES = 2**30
# Values are renamed into place before their rows. Between the two a reader waits; longer than this
# after values were written it knows that whoever wrote them was killed.
BETWEEN_SECONDS = 1.0
NEEDED = ("metric", "where", "main", "status")  # of any row
Row = dict[str, Any]


def write(folder: Path, name: str, rows: Sequence[Row], values: Mapping[str, NDArray[Any]]) -> Path:
    """Writes the per-example values, then the rows: rows that are there are complete."""
    path = folder / f"{files.safe_name(name)}.json"
    packed = io.BytesIO()
    np.savez_compressed(packed, **values)  # type: ignore[arg-type]
    content = {"format": FORMAT, "values": _hash(packed.getvalue()), "rows": list(rows)}
    with files.alone(folder):
        files.write_together(
            {
                path.with_suffix(".npz"): lambda beside: _write_bytes(beside, packed.getvalue()),
                path: lambda beside: _write_bytes(
                    beside, files.sealed_text(content, _whose(path)).encode()
                ),
            }
        )
    return path


def _whose(path: Path) -> str:
    """The model's folder and the record's name: rows of another one are not taken for its own."""
    return f"{path.parents[1].name}/{path.stem}"


def read(path: Path) -> list[Row]:
    """The rows of one file.

    Raises:
        DamagedError: it is not as it was written.
        RunError: it is of a newer format, or cannot be read now.
    """
    return list(_content(path)["rows"])


def whole(path: Path) -> list[Row]:
    """The rows of one file, with whose values beside it all is well too.

    Raises:
        DamagedError: either file is not as it was written.
        RunError: it is of a newer format, or cannot be read now.
    """
    with _arrays(path):
        return read(path)


def readable(path: Path) -> list[Row]:
    """The rows of one file; none where it, or the file of values beside it, cannot be read."""
    try:
        return whole(path)
    except RunError:
        return []


def _content(path: Path) -> dict[str, Any]:
    """What the file of rows holds.

    Raises:
        RunError: as `read`.
    """
    try:
        content = files.read_sealed(path, _whose(path), hashed=(FORMAT,))
        found, number = content.get("rows"), content.get("format")
        if type(number) is not int or not isinstance(found, list) or not found:
            raise DamagedError(f"{path} is damaged: it holds no rows")
        if number > FORMAT:
            raise RunError(f"{path} was written by a newer maebench (format {number})")
        for row in found:
            if why := wrong(row):
                raise DamagedError(f"{path} is damaged: {why}")
    except DamagedError as error:
        raise DamagedError(f"{error}; {AGAIN}") from error
    return content


def wrong(row: Any, needed: Sequence[str] = NEEDED) -> str:
    """What of a row's content cannot be, in words; empty where all can.

    Args:
        row: as it was read.
        needed: the columns that have to have a value.
    """
    if not isinstance(row, dict):
        return "a row is no object"
    for name in needed:
        if row.get(name) is None:
            return f"a row has no {name}"
    for name in COLUMNS:
        value, kinds = row.get(name), KINDS.get(name, (str,))
        good = type(value) in kinds and not (type(value) is float and not math.isfinite(value))
        if value is not None and not good:
            return f"a row's {name} is {files.shortened(value)}"
    if row["status"] == "ok" and row.get("value") is None:
        return f"{row['metric']} is ok and has no value"
    return ""


@contextlib.contextmanager
def _arrays(path: Path) -> Iterator[Mapping[str, NDArray[Any]]]:
    """The arrays beside the rows of a file.

    Raises:
        RunError: they are missing or damaged.
    """
    beside = path.with_suffix(".npz")
    try:
        with np.load(io.BytesIO(_checked(path, beside)), allow_pickle=False) as packed:
            yield packed
    except FileNotFoundError as error:
        raise DamagedError(f"{beside} is missing; {AGAIN}") from error
    except RunError:  # of what was done with them
        raise
    # zip archives and arrays have a dozen ways to say that they are cut off or are something else
    except Exception as error:
        raise DamagedError(f"{beside} cannot be read: {error}; {AGAIN}") from error


def _checked(path: Path, beside: Path) -> bytes:
    """The bytes of the values beside a file of rows.

    Raises:
        DamagedError: they are not those that were written with the rows, or unpack to too much.
        RunError: of the rows, as `read`.
    """
    while True:
        raw, stat = beside.read_bytes(), path.stat()
        mark = _mark_of(path, (stat.st_mtime_ns, stat.st_size, stat.st_ino))
        if mark is None or _hash(raw) == mark:
            break
        if abs(time.time() - beside.stat().st_mtime) > BETWEEN_SECONDS:
            raise DamagedError(f"{beside} is not as it was written with {path.name}; {AGAIN}")
        time.sleep(0.01)
    with zipfile.ZipFile(io.BytesIO(raw)) as packed:
        size = sum(part.file_size for part in packed.infolist())
    if size > MOST_VALUES:  # of an earlier version, which has no hash: what it claims may be a lie
        raise DamagedError(f"{beside} would unpack to {size:,} bytes: {MOST_VALUES:,} are allowed")
    return raw


@functools.lru_cache(maxsize=4096)  # values are asked for row by row
def _mark_of(path: Path, state: tuple[int, ...]) -> str | None:
    """The hash of the values beside a file of rows in this state; None of an earlier version."""
    return _content(path).get("values")


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def values(
    path: Path, row: Mapping[Any, Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Image ids and per-example values of a row; None where its metric has none.

    Raises:
        RunError: the file beside the rows is missing or damaged.
    """
    with _arrays(path) as packed:
        name = value_name(row)
        ids = "held_out_ids" if row.get("split") == HELD_OUT else "ids"
        if name not in packed:
            return None
        found = packed[ids], packed[name]
        if found[0].ndim != 1 or found[0].shape != found[1].shape:
            raise ValueError(f"{found[0].shape} ids and {found[1].shape} values")
        return found


def kept(row: Mapping[Any, Any]) -> NDArray[Any] | None:
    """What an evaluation kept beside a row of `load_records` (`Result.kept`); None for nothing.

    Raises:
        RunError: the file beside the rows is missing or damaged.
    """
    with _arrays(Path(row["file"])) as packed:
        name = kept_name(row)
        return packed[name] if name in packed else None


def groups(path: Path, held_out: bool = False) -> NDArray[np.int64] | None:
    """The group of each test image, in the order of the ids; None where each stands for itself.

    Or that of each image held out of train, in the order of theirs.

    Raises:
        RunError: the file beside the rows is missing or damaged.
    """
    name = "held_out_groups" if held_out else "groups"
    with _arrays(path) as packed:
        return packed[name] if name in packed else None


def place_key(row: Mapping[Any, Any]) -> str:
    """What tells rows of one metric apart, as a key: `where` without what was chosen of it."""
    where = {k: v for k, v in row["where"].items() if k not in ("chosen", "edge")}
    return json.dumps(where, sort_keys=True)


def value_name(row: Mapping[Any, Any]) -> str:
    """The name of a row's values in the .npz: the metric and what tells its rows apart."""
    where = ",".join(f"{k}={v}" for k, v in sorted(row["where"].items()) if k != "chosen")
    return f"{row['metric']}[{where}]"


def kept_name(row: Mapping[Any, Any]) -> str:
    """The name of what was kept beside a row in the .npz."""
    return f"kept {value_name(row)}"


def paths(results: Path) -> list[Path]:
    """Every file of rows under a results folder; half-written ones have another name."""
    found = [*results.glob("runs/*/records/*.json"), *results.glob("models/*/records/*.json")]
    return sorted(p for p in found if not p.name.startswith(files.BESIDE))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
