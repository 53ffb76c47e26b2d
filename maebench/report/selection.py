"""Which rows a table shows: those of some models, of a data set, of some evaluations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from maebench.errors import ConfigError, unknown
from maebench.files import with_home


def selected(
    rows: pd.DataFrame,
    models: Sequence[str] = (),
    dataset: str | None = None,
    evaluations: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The rows that all that is asked for has in common.

    Args:
        rows: of `load_records`.
        models: names of models as tables have them, or folders of runs and models; all where none
            is named.
        dataset: its name as tables have it, or without what follows, such as "folder".
        evaluations: their names.

    Raises:
        ConfigError: something is asked for that is not there, or nothing is left.
    """
    asked = []
    found = rows
    if models:
        found = found[pd.concat([of_model(rows, name) for name in models], axis=1).any(axis=1)]
        asked.append(", ".join(models))
    if dataset is not None:
        found = found[of_dataset(rows, dataset)[found.index]]
        asked.append(f"--dataset {dataset}")
    if evaluations:
        there = set(rows["evaluation"])
        for name in evaluations:
            if name not in there:
                raise ConfigError("--evaluation: " + unknown("evaluation", name, there))
        found = found[found["evaluation"].isin(evaluations)]
        asked.append(f"--evaluation {','.join(evaluations)}")
    if found.empty:
        raise ConfigError(f"no results are of {' and '.join(asked)}: leave one of them out")
    return found.reset_index(drop=True)


def of_model(rows: pd.DataFrame, name: str) -> pd.Series:
    """Which rows are of a model, by its name or its folder.

    Raises:
        ConfigError: none is.
    """
    found = rows["model"] == name
    if not found.any():
        folders = rows["file"].map(lambda file: Path(file).parent.parent)
        found = folders.map(lambda folder: folder.name) == name
        if not found.any() and (folder := with_home(name)).is_dir():
            found = folders.map(lambda path: path.resolve()) == folder.resolve()
    if not found.any():
        raise ConfigError(unknown("run or model", name, set(rows["model"])))
    return found


def of_dataset(rows: pd.DataFrame, name: str) -> pd.Series:
    """Which rows are of a data set: `folder:birds(groups=folder)`, `folder:birds` or `folder`.

    Raises:
        ConfigError: none is.
    """
    names = {text: _names(text) for text in rows["dataset"].unique()}
    found = rows["dataset"].map(lambda text: name in names[text])
    if not found.any():
        raise ConfigError("--dataset: " + unknown("data set", name, names))
    return found


def _names(text: str) -> set[str]:
    """What one may call a data set: its name in tables, without its options, without its place."""
    title = re.sub(r"\([^()]*\)$", "", text)
    return {text, title, re.split(r"[:(]", text)[0]}
