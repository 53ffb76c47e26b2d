"""Pictures of a comparison: accuracy of the arms with their seeds, and differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maebench.analysis.design import label
from maebench.evaluating.records import CONTROLS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maebench.analysis.comparison import Comparison

# told apart without colour too: marks, lines and shades
MARKS = "osD^vP*Xh<>"
LINES = ("-", "--", "-.", ":")
COLOURS = ("black", "tab:blue", "tab:orange", "0.55", "tab:green", "tab:red", "tab:purple")
WIDTH, HEIGHT = 5.0, 3.8  # inches of one evaluation's panel
BESIDE = 0.008  # of the ratio, between the points of two strategies
LEFT = 0.2  # of a mean where arms stand side by side: its seeds
ROW = 0.32  # inches of an arm's line in the forest


def of(comparison: Comparison) -> dict[str, Figure]:
    """The pictures that the comparison has numbers for, by name.

    "ratio" (accuracy against ratio, a line per strategy) where the ratio is compared, else "arms";
    "differences" where there are arms to set against the baseline.
    """
    if not comparison.evaluations():
        return {}
    by_ratio = ("ratio",) in comparison.design.compared
    found = {"ratio" if by_ratio else "arms": accuracy(comparison, by_ratio)}
    pairs = comparison.pairs()
    if not pairs.empty and "value" in pairs and pairs["value"].notna().any():
        found["differences"] = differences(comparison, pairs)
    return found


def accuracy(comparison: Comparison, by_ratio: bool) -> Figure:
    """The mean of each arm over seeds with its 95 % t interval, and each seed as a point."""
    table = comparison.table()
    evaluations = list(dict.fromkeys(table.loc[table["kind"] == "run", "evaluation"]))
    figure, panels = _figure(len(evaluations), HEIGHT if by_ratio else HEIGHT + 1)
    seeds = {key[0]: group for key, group in comparison._groups()}
    for axes, evaluation in zip(panels, evaluations, strict=True):
        mine = table[table["evaluation"] == evaluation]
        runs, points = mine[mine["kind"] == "run"], seeds[evaluation]
        if by_ratio:
            _against_ratio(axes, comparison, runs, points)
        else:
            _side_by_side(axes, comparison, runs, points)
        for kind, style in {"untrained": "--", **dict.fromkeys(CONTROLS, ":")}.items():
            for mean in mine.loc[mine["kind"] == kind, "mean"]:  # arms may have floors of their own
                name = CONTROLS.get(kind, kind)
                axes.axhline(mean, color="0.4", linestyle=style, linewidth=1, label=name)
        unit = mine["unit"].iloc[0]
        axes.set(title=evaluation, ylabel=f"{mine['metric'].iloc[0]}" + (f" ({unit})" * bool(unit)))
    handles: dict[str, Any] = {}
    for axes in panels:
        handles |= dict(
            reversed(list(zip(*reversed(axes.get_legend_handles_labels()), strict=True)))
        )
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=5, fontsize=8
    )
    least, most = (int(f(table.loc[table["kind"] == "run", "num_seeds"])) for f in (min, max))
    over = f"{most}" if least == most else f"{least} to {most}"
    said = f"means over {over} seeds, 95 % t intervals; points are seeds"
    # two lines: one of both is wider than the panel of a single evaluation
    figure.suptitle(f"{comparison.name}\n{'one seed' if most == 1 else said}", fontsize=9)
    return figure


def _against_ratio(
    axes: Axes, comparison: Comparison, runs: pd.DataFrame, points: pd.DataFrame
) -> None:
    strategies = _strategies(comparison)
    for number, (strategy, arms) in enumerate(strategies.items()):
        colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
        mine = runs[runs["arm"].isin(arms)]
        ratios = np.array([arms[name] for name in mine["arm"]])
        order = ratios.argsort()
        mean, low, high = (mine[c].to_numpy(float)[order] for c in ("mean", "low", "high"))
        line = LINES[number % len(LINES)]
        axes.plot(
            ratios[order], mean, line, color=colour, marker=mark, markersize=6, label=strategy
        )
        axes.fill_between(ratios[order], low, high, color=colour, alpha=0.12, linewidth=0)
        if len(order) == 1 and np.isfinite(low[0]):
            axes.vlines(ratios, low, high, color=colour, alpha=0.4)
        aside = BESIDE * (number + 1)  # the points of strategies at one ratio beside each other
        for name, ratio in arms.items():
            values = points.loc[points["arm"] == name, "value"]
            axes.plot(
                [ratio + aside] * len(values), values, mark, color=colour, markersize=3, alpha=0.6
            )
    for row in runs.to_dict("records"):
        if not comparison.design.arm(row["arm"]).config.objective.hides:  # it has no ratio
            axes.axhline(row["mean"], color="0.2", linewidth=1.5, label=row["arm"])
    axes.set_xlabel("share of hidden patches")


def _strategies(comparison: Comparison) -> dict[str, dict[str, float]]:
    """For each combination of what is compared beside the ratio, its arms and their ratios."""
    others = [path for path in comparison.design.compared if path != ("ratio",)]
    found: dict[str, dict[str, float]] = {}
    for arm in comparison.design.arms:
        if arm.config.objective.hides:
            name = label(arm.config, others) or "all arms"
            found.setdefault(name, {})[arm.name] = arm.config.ratio
    return found


def _side_by_side(
    axes: Axes, comparison: Comparison, runs: pd.DataFrame, points: pd.DataFrame
) -> None:
    for place, row in enumerate(runs.to_dict("records")):
        base = row["arm"] == comparison.design.baseline
        values = points.loc[points["arm"] == row["arm"], "value"].to_numpy(float)
        spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        # to the left of the mean, whose mark would cover one of them
        axes.plot(place - LEFT + spread, values, "o", color="0.6", markersize=4, zorder=1)
        axes.plot([place], [row["mean"]], "D" if base else "s", color="black", markersize=6)
        if np.isfinite(row["low"]):
            axes.vlines([place], row["low"], row["high"], color="black", linewidth=1.5)
    axes.set_xticks(range(len(runs)), list(runs["arm"]), rotation=30, ha="right", fontsize=8)


def differences(comparison: Comparison, pairs: pd.DataFrame) -> Figure:
    """A forest plot: each arm minus the baseline with its t interval, seeds as points."""
    evaluations = list(dict.fromkeys(pairs["evaluation"]))
    rivals = comparison.design.rivals
    figure, panels = _figure(len(evaluations), 1.6 + ROW * len(rivals))
    seeds = {key[0]: group for key, group in comparison._groups()}
    for axes, evaluation in zip(panels, evaluations, strict=True):
        axes.axvline(0, color="0.5", linewidth=1)
        rows = pairs[pairs["evaluation"] == evaluation].set_index("arm")
        for place, (name, each) in enumerate(_per_seed(comparison, seeds[evaluation], rivals)):
            row = rows.loc[name]
            axes.plot(each, [place] * len(each), "o", color="0.65", markersize=3.5, zorder=1)
            if np.isfinite(row.get("low", np.nan)):
                axes.hlines([place], row["low"], row["high"], color="black", linewidth=1.5)
            filled = "black" if row["different"] else "white"
            axes.plot(
                [row["value"]],
                [place],
                "s",
                color="black",
                markerfacecolor=filled,
                markersize=6,
                zorder=3,
            )
        axes.set_yticks(range(len(rivals)), rivals, fontsize=8)
        axes.set_ylim(len(rivals) - 0.4, -0.6)
        unit = rows["unit"].iloc[0]
        points = "points" if unit == "%" else unit or rows["metric"].iloc[0]
        axes.set(title=evaluation, xlabel=f"minus {comparison.design.baseline} ({points})")
    figure.suptitle(
        "differences over seeds, 95 % t intervals; filled: different by Holm, 5 %", fontsize=9
    )
    return figure


def _per_seed(
    comparison: Comparison, scores: pd.DataFrame, rivals: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    values = scores.groupby(["arm", "seed"])["value"].mean()
    base = comparison.design.baseline
    there = values.index.get_level_values("arm")
    for name in rivals:
        found = values[name] - values[base] if name in there and base in there else values.iloc[:0]
        yield name, found.dropna().to_numpy(float)


def _figure(panels: int, height: float) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(WIDTH * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for left in axes[panels:]:
        left.remove()
    return figure, axes[:panels]
