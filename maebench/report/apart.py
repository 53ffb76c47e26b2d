"""Which rows may share a line and a column of a table, and how those that may not are marked.

Rows share a line where everything that can change a number is equal: the images of train and test,
their groups, the weights and the precision. They share a column where evaluation, options, version,
protocol and package are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from maebench.evaluating.records import CONTROLS, HELD_OUT, examples_of

MARK = "differs in"  # the table's column of marks
SHORTEST = 8  # characters of a fingerprint that are shown, more where they would be equal
Row = Mapping[Any, Any]


class Conditions(NamedTuple):
    """What can change a number beside the model's name, the data set's, and the evaluation.

    Where a field is None the row fits any: an evaluation that reads no train images has none, and
    a number without an interval does not say its groups.
    """

    earlier: bool  # a row of a version that kept neither train images nor weights
    train_examples: int | None
    train_fingerprint: str | None
    test: str
    precision: str
    groups: int | None  # 0 where each image stands for itself
    weights: str = ""  # where one model's name stands for several
    folder: str = ""  # the same, where the weights are equal: other settings or pre-processing
    record: str = ""  # the hash of the record, where two differ in what no column says
    examples: str = "images"  # what train holds; it tells no two apart


def conditions(row: Row, groups: int | None = None) -> Conditions:
    """What a row was measured under.

    Args:
        row: of `load_records`.
        groups: how many groups the other rows of its record tell, if any.
    """
    earlier = _missing(row["weights_hash"])
    train = None if _missing(row["train_examples"]) else int(row["train_examples"])
    if groups is None:
        known = earlier or not _missing(row["interval"])
        groups = (0 if known else None) if _missing(row["num_groups"]) else int(row["num_groups"])
    return Conditions(
        earlier=earlier,
        train_examples=-1 if earlier else train,
        train_fingerprint="" if earlier else None if train is None else _text(row, "train"),
        test=_text(row, "dataset"),
        precision="unknown precision" if _missing(row["precision"]) else str(row["precision"]),
        groups=groups,
        examples=examples_of([row.get("inputs")]),
    )


def _missing(value: Any) -> bool:
    return bool(pd.isna(value))


def _text(row: Row, what: str) -> str:
    return str(row[f"{what}_fingerprint"])


# ---- columns


def column_names(rows: pd.DataFrame, all_metrics: bool = False) -> list[str]:
    """The column that each row stands in: evaluation, what is not default, metric and unit.

    Where an evaluation has several versions, protocols, packages or spaces of its error, each
    column says its own, as in `knn@v2 top1 (%)`.

    Args:
        rows: all that the table shows.
        all_metrics: whether `where` tells columns apart, as it does unless it is the main metric.
    """
    known = rows.to_dict("records")
    versions = _several((r["evaluation"], r["evaluation_version"]) for r in known)
    protocols = _several((_family(r), _protocol(r)) for r in known)
    packages = _several((r["evaluation"], _package(r)) for r in known)
    spaces = _several(((_family(r), r["metric"]), _space(r)) for r in known if _space(r))
    names = []
    for row in known:
        name = str(row["options"])
        if row["evaluation"] in versions:
            name += f"@v{row['evaluation_version']}"
        if _family(row) in protocols:
            name += f" by {_protocol(row)}"
        if row["evaluation"] in packages:
            name += f" of {_package(row)}"
        where = place(row) if all_metrics else ""
        name += f" {where}" if where else ""
        name += f" {row['metric']}" + (f" ({row['unit']})" if row["unit"] else "")
        if not all_metrics and (_family(row), row["metric"]) in spaces and _space(row):
            name += f" in {_space(row)}"
        names.append(name)
    return names


def place(row: Row) -> str:
    """What tells rows of one metric apart, as text."""
    return ", ".join(f"{k}={v}" for k, v in row["where"].items() if k not in ("chosen", "edge"))


def _several(pairs: Iterable[tuple[Hashable, Hashable]]) -> set[Hashable]:
    """The first of these that stand with more than one second."""
    found: dict[Hashable, set[Hashable]] = {}
    for first, second in pairs:
        found.setdefault(first, set()).add(second)
    return {first for first, seconds in found.items() if len(seconds) > 1}


def _family(row: Row) -> tuple[str, str, Any]:
    return row["evaluation"], row["options"], row["evaluation_version"]


def _protocol(row: Row) -> str:
    """The protocol's name without its version."""
    name = row["protocol"]
    return "unknown protocol" if _missing(name) else str(name).removesuffix(_version(row))


def _version(row: Row) -> str:
    return f"@v{row['evaluation_version']}"


def _package(row: Row) -> str:
    return "unknown package" if _missing(row["package"]) else str(row["package"])


def _space(row: Row) -> str:
    return str(row["where"].get("space", ""))


# ---- lines


def told_apart(
    shown: pd.DataFrame, owner: Sequence[str] = ("model", "dataset"), all_metrics: bool = False
) -> list[dict[Any, Any]]:
    """The rows, oldest first, each with its `column` and, as MARK, the mark of its line.

    A row that reads no train images is there once for each training set of its owner's rows: its
    number is the same beside all of them.

    Args:
        shown: all that the table shows.
        owner: the columns whose values a line stands for; `dataset` is among them.
        all_metrics: as in `column_names`.
    """
    shown = shown.sort_values("created", kind="stable")
    shown = shown.assign(column=column_names(shown, all_metrics))
    known = shown.to_dict("records")
    found = _resolved(known)
    owners = [tuple(_plain(row[name]) for name in owner) for row in known]
    measured: dict[tuple[Any, ...], set[Conditions]] = {}
    for one, under in zip(owners, found, strict=True):
        measured.setdefault(one, set()).update(under)
    lines = {one: sorted(under, key=_order) for one, under in measured.items()}
    marked = _marks([(one, owner.index("dataset"), under) for one, under in lines.items()])
    return [
        {**row, MARK: marked[one][lines[one].index(condition)]}
        for row, one, under in zip(known, owners, found, strict=True)
        for condition in under
    ]


def _resolved(rows: Sequence[Row]) -> list[list[Conditions]]:
    """What each row was measured under, where it does not say all as its model's others say.

    Of the same model, or else the number of one run would stand beside those of another.
    """
    found = _conditions(rows)
    models = [(row["model"], row["dataset"]) for row in rows]
    measured: dict[tuple[Any, ...], set[Conditions]] = {}
    for model, condition in zip(models, found, strict=True):
        measured.setdefault(model, set()).add(condition)
    lines = {model: _lines(under) for model, under in measured.items()}
    return [
        [lines[model][0][line] for line in lines[model][1][condition]]
        for model, condition in zip(models, found, strict=True)
    ]


def _plain(value: Any) -> Any:
    return None if _missing(value) else value  # NaN is not equal to itself


def _conditions(rows: Sequence[Row]) -> list[Conditions]:
    """What each row was measured under, with weights, folder and record where they are needed."""
    groups = _groups_of_records(rows)
    found = [conditions(row, groups.get(str(row["file"]))) for row in rows]
    names = [(row["model"], row["dataset"]) for row in rows]
    kept = [(row["weights_hash"], c.earlier) for row, c in zip(rows, found, strict=True)]
    several = _several((n, w) for n, (w, old) in zip(names, kept, strict=True) if not old)
    for i, (row, name, (weights, old)) in enumerate(zip(rows, names, kept, strict=True)):
        if name in several and not old:
            what = "settings" if row["model_kind"] in CONTROLS else "weights"
            found[i] = found[i]._replace(weights=f"{what} {weights}")
    folders = [
        ((n, c.earlier, c.weights), _folder(row))
        for n, c, row in zip(names, found, rows, strict=True)
    ]
    several = _several((of, folder) for of, folder in folders if folder)
    for i, (of, folder) in enumerate(folders):
        if of in several:
            found[i] = found[i]._replace(folder=folder)
    # what no column says: all of an earlier version's train images and weights, which groups
    unsaid = [
        ((n, c, row["column"]), _record(row)) for n, c, row in zip(names, found, rows, strict=True)
    ]
    unlike = _several(unsaid)
    for i, (same, record) in enumerate(unsaid):
        if same in unlike and (found[i].earlier or found[i].groups != 0):
            found[i] = found[i]._replace(record=record)
    return found


def _groups_of_records(rows: Sequence[Row]) -> dict[str, int]:
    """How many groups each record tells; those of test images before those held out of train."""
    found: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: row["split"] != HELD_OUT):
        if not _missing(row["num_groups"]) and not _missing(row["file"]):
            found[str(row["file"])] = int(row["num_groups"])
    return found


def _folder(row: Row) -> str:
    """The model's folder, whose name holds a hash of all that makes the model."""
    return "" if _missing(row["file"]) else Path(row["file"]).parent.parent.name


def _record(row: Row) -> str:
    """The hash of options, weights and data in the name of a record, which ends with its seed."""
    if _missing(row["file"]):
        return ""
    name = Path(row["file"]).stem.removesuffix(f"-s{row['seed']}")
    return name.rpartition("-")[2]


def _lines(found: set[Conditions]) -> tuple[list[Conditions], dict[Conditions, list[int]]]:
    """The lines of one model, and in which of them what was measured under conditions stands."""
    whole = sorted(c for c in found if None not in c)
    lines, places = list(whole), {c: [i] for i, c in enumerate(whole)}
    for one in sorted(found - set(whole), key=_order):
        fits = [i for i, line in enumerate(lines) if _agree(one, line)]
        if len(fits) == 1:
            line = lines[fits[0]]
            said = {k: v for k, v in one._asdict().items() if v is not None}
            lines[fits[0]] = line._replace(**said)
        places[one] = fits or [len(lines)]
        if not fits:
            lines.append(one)
    return lines, places


def _order(one: Conditions) -> tuple[Any, ...]:
    """By what they say, those that do not say all last."""
    return (one.count(None), str(one)) if None in one else (0, one)


def _agree(one: Conditions, other: Conditions) -> bool:
    return all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))


# ---- marks


def _marks(
    lines: Sequence[tuple[tuple[Any, ...], int, list[Conditions]]],
) -> dict[tuple[Any, ...], list[str]]:
    """The mark of each owner's lines: what varies in its data set, then what tells them apart."""
    datasets: dict[Any, list[Conditions]] = {}
    for owner, at, found in lines:
        datasets.setdefault(owner[at], []).extend(found)
    marks = {}
    for owner, at, found in lines:
        everything = datasets[owner[at]]
        say = _sayings(everything)
        parts = [[say[name](c) for name in _varying(everything, c)] for c in found]
        for name in ("weights", "folder", "record", *Conditions._fields[:6]):
            texts = [say[name](c) for c in found]
            differing = _several(zip(map(_joined, parts), texts, strict=True))
            for said, text in zip(parts, texts, strict=True):
                if _joined(said) in differing:
                    said.append(text)
        marks[owner] = [_joined(said) for said in parts]
    return marks


def _joined(said: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, said)))


def _varying(everything: Sequence[Conditions], one: Conditions) -> list[str]:
    """In what the rows of a data set differ that is told of this one."""
    names = [
        name
        for name in ("earlier", "train_examples", "test", "precision", "groups")
        if len({getattr(c, name) for c in everything if getattr(c, name) not in (None, -1)}) > 1
    ]
    size = one.train_examples
    same = {c.train_fingerprint for c in everything if c.train_examples == size}
    return names + ["train_fingerprint"] * (size is not None and len(same) > 1)


def _sayings(everything: Sequence[Conditions]) -> dict[str, Callable[[Conditions], str]]:
    """How each of the conditions is said; empty where a row does not say it."""
    train = _shortened(c.train_fingerprint for c in everything if c.train_fingerprint)
    test = _shortened(c.test for c in everything)
    weights = _shortened(c.weights.rpartition(" ")[2] for c in everything)

    def of_weights(c: Conditions) -> str:
        what, _, value = c.weights.rpartition(" ")
        return f"{what} {weights[value]}" if value else ""

    def of_groups(c: Conditions) -> str:
        return "" if c.groups is None else f"{c.groups or 'no'} groups"

    return {
        "earlier": lambda c: "earlier record" if c.earlier else "",
        "train_examples": lambda c: (
            "" if c.train_examples in (None, -1) else f"{c.train_examples:,} train {c.examples}"
        ),
        "train_fingerprint": lambda c: (
            f"train {train[c.train_fingerprint]}" if c.train_fingerprint else ""
        ),
        "test": lambda c: f"test {test[c.test]}",
        "precision": lambda c: c.precision,
        "groups": of_groups,
        "weights": of_weights,
        "folder": lambda c: f"folder {c.folder}" if c.folder else "",
        "record": lambda c: f"record {c.record}" if c.record else "",
    }


def _shortened(hashes: Iterable[str]) -> dict[str, str]:
    """The first characters of each, as many as tell all of them apart."""
    found, length = set(hashes), SHORTEST
    while len({one[:length] for one in found}) < len(found):
        length += 1
    return {one: one[:length] for one in found}
