"""Words and pictures side by side: the picture, the table, and what they say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maebench import files
from maebench.analysis.comparison import LEVEL
from maebench.analysis.modality import BASELINES, CLAIM
from maebench.encoders.inputs import IMAGES, TEXT
from maebench.outputs import write_figure
from maebench.report import formats

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {TEXT: "words", IMAGES: "pictures"}
SIZE = (10.0, 7.2)  # inches
NAMES = {
    TEXT: {"baseline": "seen neighbours, no model", "model": "trained model"},
    IMAGES: {"baseline": "harmonic inpainting, no model", "model": "trained model"},
}


def picture(rows: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Text and images side by side; above what is known of what is hidden, below the probe's gain.

    Args:
        rows: as `analysis.modality.rows` gives them.
        titles: the data set of each kind.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, kind in enumerate(TITLES):
        mine = rows[rows["kind"] == kind].sort_values("ratio")
        known, gain = axes[0, column], axes[1, column]
        _curve(known, mine, "model", "black", "o-", NAMES[kind]["model"])
        label = NAMES[kind]["baseline"]
        known.plot(mine["ratio"], mine["baseline"], "s--", color="tab:orange", label=label)
        _curve(gain, mine, "gain", "tab:blue", "D-", "linear probe, pretrained - untrained")
        known.set_title(f"{TITLES[kind]}: {titles[kind]}")
        gain.set_xlabel("share of hidden " + ("tokens" if kind == TEXT else "patches"))
        for axis in (known, gain):
            axis.axhline(0, color="0.6", linewidth=0.8)
            axis.axvline(CLAIM, color="0.4", linestyle=":", linewidth=1.4, label=f"{CLAIM:.0%}")
            axis.legend(fontsize=8)
    axes[0, 0].set_ylabel("known of what is hidden (R2)")
    axes[1, 0].set_ylabel("points of linear probe")
    figure.suptitle("means over seeds with 95 % t intervals", fontsize=9)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, what: str, colour: str, style: str, label: str) -> None:
    axes.plot(rows["ratio"], rows[what], style, color=colour, markersize=5, label=label)
    low, high = rows[f"{what}_low"], rows[f"{what}_high"]
    axes.fill_between(rows["ratio"], low, high, color=colour, alpha=0.15, linewidth=0)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as texts, for reading."""
    import pandas as pd

    found = []
    for row in rows.sort_values(["kind", "ratio"], ascending=[False, True]).to_dict("records"):
        found.append(
            {
                "inputs": row["kind"],
                "ratio": f"{row['ratio']:.3f}",
                "without a model (R2)": f"{row['baseline']:.3f}",
                "model (R2)": _with_ends(row, "model", 3),
                "linear probe (%)": _number(row["probe"], 1),
                "untrained (%)": _number(row["untrained"], 1),
                "gain (points)": _gain(row),
                f"p against {CLAIM:g} (Holm)": _number(row["p_holm"], 3),
            }
        )
    return pd.DataFrame(found)


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _with_ends(row: Mapping[Any, Any], what: str, digits: int) -> str:
    text = _number(row[what], digits)
    if math.isnan(row[f"{what}_low"]):
        return text
    return f"{text} [{row[f'{what}_low']:.{digits}f}, {row[f'{what}_high']:.{digits}f}]"


def answers(rows: pd.DataFrame) -> Iterator[str]:
    """What the numbers say of the claim, whichever way it falls."""
    near: dict[str, dict[str, Any]] = {}
    for kind in rows["kind"].unique():
        group = rows[rows["kind"] == kind].to_dict("records")
        at = near[kind] = min(group, key=lambda row: abs(row["ratio"] - CLAIM))
        what = "tokens" if kind == TEXT else "patches"
        yield (
            f"{kind}, {at['ratio']:.0%} of the {what} hidden: {at['baseline']:.0%} of what is "
            f"hidden is known without a model ({BASELINES[kind]}), and {at['model']:.0%} by the "
            "trained model"
            + ("" if math.isnan(at["gain"]) else f"; its probe gains {_gain(at)} points")
        )
        if math.isnan(at["gain"]):
            yield f"{kind}: without labels there is no probe, and no gain of it"
            continue
        best = max(group, key=lambda row: row["gain"])
        apart = [row for row in group if row["p_holm"] <= LEVEL]
        better = [row["ratio"] for row in apart if row["gain"] > at["gain"]]
        worse = [row["ratio"] for row in apart if row["gain"] < at["gain"]]
        yield (
            f"{kind}: the probe gains most at {best['ratio']:.0%}, "
            f"{_gain(best)} points; told from {CLAIM:.0%} over seeds, better at "
            f"{_list(better)}, worse at {_list(worse)}"
        )
    if near.keys() == {TEXT, IMAGES}:
        text, images = (near[kind]["baseline"] for kind in (TEXT, IMAGES))
        yield (
            f"at {CLAIM:.0%}, {1 - text:.0%} of what a hidden word says is not said by the words "
            f"beside it, and {1 - images:.0%} of what a hidden patch shows not by the pixels around"
        )


def _gain(row: Mapping[Any, Any]) -> str:
    return _with_ends(row, "gain", 1)


def _list(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.0%}" for ratio in sorted(ratios)) or "none"


def write(rows: pd.DataFrame, titles: dict[str, str], folder: Path) -> None:
    """Writes rows.csv, table.md and modality.png into a folder."""
    files.make_folder(folder)
    files.write_text(folder / "rows.csv", formats.csv(rows))
    text = [formats.markdown(table(rows)), ""]
    text += [f"- {formats.as_markdown(line)}" for line in answers(rows)]
    files.write_text(folder / "table.md", "\n".join(text) + "\n")
    write_figure(picture(rows, titles), folder / "modality.png")
