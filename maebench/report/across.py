"""Models under common masks: the cross-mask matrix as a table and as one picture.

Rows come from an evaluation with option `across`: metrics `across_r2` and `across_psnr`, told
apart by `masking`, `ratio` and `masks`, a hash of what was hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maebench import files, masking
from maebench.analysis.records import written
from maebench.errors import MaebenchError

METRIC = "across_r2"
OWN = "*"  # beside the value under the masking and ratio that a run was trained with
LEAST = 3  # columns beside each other, however long a model's name: one masking's ratios
EMPTY = "-"  # this grid does not allow the masking at this ratio
# R2 has no lower end, and one untrained model would take all of the colours: at -1 the error is
# twice the variance, and how much worse it is tells nothing more.
LOWEST = -1.0


def has_cells(rows: pd.DataFrame) -> bool:
    """Whether any row was made under the common masks."""
    return bool((rows["metric"] == METRIC).any())


def cells(rows: pd.DataFrame, metric: str = METRIC) -> pd.DataFrame:
    """The newest row of each model under each mask, with columns `under` and `at` for the mask.

    Raises:
        MaebenchError: two models have other masks or other images under one name and ratio.
    """
    found = rows[rows["metric"] == metric].sort_values("created", kind="stable")
    found = found.assign(
        under=found["where"].map(lambda w: w["masking"]),
        at=found["where"].map(lambda w: w["ratio"]),
        masks=found["where"].map(lambda w: w.get("masks", "")),
    ).drop_duplicates(["model", "under", "at"], keep="last")
    for (under, at), column in found[found["masks"] != ""].groupby(["under", "at"], sort=False):
        for what, key in (("masks", "masks"), ("images", "dataset_fingerprint")):
            if column[key].nunique() > 1:
                one, other = column.drop_duplicates(key).head(2).to_dict("records")
                raise MaebenchError(
                    f"across: not the same {what} under {under} {at:g}: {one['model']} has "
                    f"{one[key]}, {other['model']} {other[key]}; compare models of one patch grid "
                    "on the same test images"
                )
    return found


def matrix(rows: pd.DataFrame, metric: str = METRIC) -> pd.DataFrame:
    """One row per model, one column per masking and ratio, as texts.

    `OWN` marks what a run was trained with; `EMPTY` is a mask that the grid does not allow.

    Raises:
        MaebenchError: the masks of a column are not the same.
    """
    found = cells(rows, metric)
    table: dict[str, dict[str, str]] = {}
    for row in found.to_dict("records"):
        own = trained_with(row)
        line = table.setdefault(row["model"], {"model": row["model"], "trained with": own})
        name = f"{row['under']} {row['at']:g}"
        value = f"{row['value']:.3f}" if row["status"] == "ok" else EMPTY
        line[name] = value + OWN * (name == own)
    return pd.DataFrame(list(table.values())).fillna(EMPTY)


def bands(table: pd.DataFrame, width: int) -> Iterator[pd.DataFrame]:
    """The matrix in as many tables as it takes to fit a terminal, the columns' heads in lines."""

    def needs(column: str) -> int:
        texts = [*column.split("\n"), *table[column]]
        return max(len(text) for text in texts) + 3  # a space on both sides and a line

    heads = {name: name.replace("-", "-\n").replace(" ", "\n") for name in table.columns[2:]}
    table = table.rename(columns=heads)
    fixed, left = list(table.columns[:2]), list(table.columns[2:])
    space = width - sum(map(needs, fixed)) - 1
    while left:
        count, used = 0, 0
        while count < len(left) and (used + needs(left[count]) <= space or count < LEAST):
            used += needs(left[count])
            count += 1
        yield table[fixed + left[:count]]
        left = left[count:]


def trained_with(row: dict[Any, Any]) -> str:
    """The masking and ratio of a run, such as `block 0.75`; nothing for another kind of model."""
    if row["model_kind"] != "run":
        return ""
    if row["realised_ratio"] == 0:  # an objective that hides nothing
        return "nothing hidden"
    defaults = {written(cls().model_dump(mode="json")): cls.name for cls in _with_defaults()}
    moved = f" {row['schedule']}" if isinstance(row["schedule"], str) else ""
    return f"{defaults.get(row['masking'], row['masking'])} {row['ratio']:g}{moved}"


def _with_defaults() -> list[type[masking.Masking]]:
    """Strategies that need no file."""
    return [cls for cls in masking.BUILT_IN if cls.spec is None]


def heat_map(rows: pd.DataFrame, path: Path) -> None:
    """Writes the R2 matrix as a PNG: models down, maskings and ratios along, own ones framed.

    Raises:
        MaebenchError: the masks of a column are not the same.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    found = cells(rows).to_dict("records")
    models = list(dict.fromkeys(row["model"] for row in found))
    names = list(dict.fromkeys(f"{row['under']} {row['at']:g}" for row in found))
    values, own = np.full((len(models), len(names)), np.nan), []
    for row in found:
        name = f"{row['under']} {row['at']:g}"
        at = models.index(row["model"]), names.index(name)
        if row["status"] == "ok":
            values[at] = row["value"]
        if name == trained_with(row):
            own.append(at)
    low = max(LOWEST, float(np.nanmin(values, initial=1.0)))
    middle = (low + float(np.nanmax(values, initial=low))) / 2
    size = (0.62 * len(names) + 4.5, 0.5 * len(models) + 2.2)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(values, vmin=low, aspect="auto", cmap="viridis")
    for (y, x), value in np.ndenumerate(values):
        text = EMPTY if np.isnan(value) else f"{value:.2f}"
        axes.text(x, y, text, ha="center", va="center", color="w" if value < middle else "k")
    for y, x in own:
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="r", linewidth=2))
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(models)), models, fontsize=7)
    axes.set_title("R2 under the common masks; framed: what a run was trained with")
    figure.colorbar(shown, ax=axes, extend="min" if np.nanmin(values, initial=low) < low else None)
    files.make_folder(path.parent)
    files.write(path, lambda beside: figure.savefig(beside, format="png", dpi=120))
