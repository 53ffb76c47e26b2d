"""Several models under the common masks: the cross-mask matrix as a table and as one picture.

Its rows come from `across`: metrics `across_r2` and `across_psnr`, which `masking`, `ratio` and
`masks`, a hash of what was hidden, tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from maebench import (
    Attention,
    Block,
    BlueNoise,
    Border,
    Centred,
    GreenNoise,
    Grid,
    Hard,
    InverseBlock,
    MaebenchError,
    Masking,
    MultiBlock,
    Parts,
    PurpleNoise,
    Random,
    RedNoise,
    Summary,
    Uniform,
    Units,
)

if TYPE_CHECKING:
    import pandas as pd

METRIC = "across_r2"
OWN = "*"  # beside the value under the masking and ratio that a run was trained with
EMPTY = "-"  # this grid does not allow the masking at this ratio
# R2 has no lower end, and one untrained model would take all of the colours: at -1 the error is
# twice the variance, and how much worse it is says nothing more.
LOWEST = -1.0
# Strategies that need no file: with default options a run is said to be trained by their name.
NAMED: tuple[type[Masking], ...] = (
    *(Random, Grid, Uniform, Units, Centred, Border, Block, InverseBlock, MultiBlock),
    *(BlueNoise, GreenNoise, PurpleNoise, RedNoise, Attention, Hard, Parts),
)


def summary(rows: pd.DataFrame) -> Iterator[Summary]:
    """Yields the matrix of models and common masks, where any row was made under them.

    Raises:
        MaebenchError: the masks or the images of a column are not the same.
    """
    # of text there are no common masks: its row has a reason alone
    masked = rows[(rows["metric"] == METRIC) & rows["where"].map(lambda w: "masking" in w)]
    if len(masked):
        found = cells(masked)
        note = f"R2 under common masks; {OWN} what a run was trained with"
        yield Summary("across", matrix(found), (note,), heat_map(found))


def cells(rows: pd.DataFrame) -> pd.DataFrame:
    """The newest row of each model under each mask, with columns `under` and `at` for the mask.

    Raises:
        MaebenchError: two models have other masks or other images under one name and ratio.
    """
    found = rows[rows["metric"] == METRIC].sort_values("created", kind="stable")
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


def matrix(found: pd.DataFrame) -> pd.DataFrame:
    """One row per model, one column per masking and ratio, as texts.

    `OWN` marks what a run was trained with; `EMPTY` is a mask that the grid does not allow.
    """
    import pandas as pd

    table: dict[str, dict[str, str]] = {}
    for row in found.to_dict("records"):
        own, name = trained_with(row), f"{row['under']} {row['at']:g}"
        line = table.setdefault(row["model"], {"model": row["model"], "trained with": own})
        value = f"{row['value']:.3f}" if row["status"] == "ok" else EMPTY
        line[name] = value + OWN * (name == own)
    return pd.DataFrame(list(table.values())).fillna(EMPTY).set_index(["model", "trained with"])


def trained_with(row: Mapping[Any, Any]) -> str:
    """The masking and ratio of a run, such as `block 0.75`; nothing for another kind of model."""
    if row["model_kind"] != "run":
        return ""
    if row["realised_ratio"] == 0:  # an objective that hides nothing
        return "nothing hidden"
    names = {with_options(cls()): cls.name for cls in NAMED}
    moved = f" {row['schedule']}" if isinstance(row["schedule"], str) else ""
    return f"{names.get(row['masking'], row['masking'])} {row['ratio']:g}{moved}"


def with_options(masking: Masking) -> str:
    """The name and all options of a masking, as `load_records` writes it."""
    options = masking.model_dump(mode="json")
    texts = [f"{k}={v}" for k, v in options.items() if k != "name" and v is not None]
    return masking.name + (f"({', '.join(texts)})" if texts else "")


def heat_map(found: pd.DataFrame) -> Any:
    """The matrix as a figure: models down, maskings and ratios along, own ones framed."""
    from matplotlib.figure import Figure

    rows = found.to_dict("records")
    models = list(dict.fromkeys(row["model"] for row in rows))
    names = list(dict.fromkeys(f"{row['under']} {row['at']:g}" for row in rows))
    values, own = np.full((len(models), len(names)), np.nan), []
    for row in rows:
        name = f"{row['under']} {row['at']:g}"
        at = models.index(row["model"]), names.index(name)
        if row["status"] == "ok":
            values[at] = row["value"]
        if name == trained_with(row):
            own.append(at)
    size = (0.62 * len(names) + 4.5, 0.5 * len(models) + 2.2)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    colour(figure, axes, values, own)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(models)), models, fontsize=7)
    axes.set_title("R2 under the common masks; framed: what a run was trained with")
    return figure


def colour(figure: Any, axes: Any, values: np.ndarray, own: list[tuple[int, int]]) -> None:
    """Draws the values with their colours, and a frame around the own ones."""
    from matplotlib.patches import Rectangle

    low = max(LOWEST, float(np.nanmin(values, initial=1.0)))
    middle = (low + float(np.nanmax(values, initial=low))) / 2
    shown = axes.imshow(values, vmin=low, aspect="auto", cmap="viridis")
    for (y, x), value in np.ndenumerate(values):
        text = EMPTY if np.isnan(value) else f"{value:.2f}"
        axes.text(x, y, text, ha="center", va="center", color="w" if value < middle else "k")
    for y, x in own:
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor="r", linewidth=2))
    figure.colorbar(shown, ax=axes, extend="min" if np.nanmin(values, initial=low) < low else None)
