"""What `maebench run` ends with: its table, its differences, what is missing and what is next."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from maebench.analysis.seeds import SIGNIFICANCE
from maebench.evaluating.intervals import Interval
from maebench.evaluating.records import examples_of
from maebench.outputs import in_unit
from maebench.pretraining.plan import Plan
from maebench.report.apart import column_names
from maebench.report.comparison import p_text
from maebench.report.differences import differences, unpaired
from maebench.report.footnotes import footnotes, of_differences
from maebench.report.notes import mixed
from maebench.report.printed import Line, Sheet
from maebench.report.table import LABELS, cell_of, headlines
from maebench.report.terminal import edges, protocols, sheet_of

PIXELS = (
    "Raw pixels are the control without an encoder{why}; what pretraining taught the encoder is "
    "its distance to the untrained one."
)
# true of characters and clothes, and of no photographs
CENTRED = (
    ": small centred pictures such as digits lie so close together in pixels that they are hard to "
    "beat"
)
SMALL = 32  # pixels of a side, with one channel: the largest such sets are MNIST's relatives


def print_run(rows: pd.DataFrame, plan: Plan) -> None:
    """Prints what `maebench run` ends with."""
    for part in ending(rows, plan):
        part.show()


def ending(rows: pd.DataFrame, plan: Plan) -> Iterator[Line | Sheet]:
    """What `maebench run` ends with: table, differences, how to read it, what is next."""
    config = plan.config
    names = dict(zip(rows["model_kind"], rows["model"], strict=True))
    models = [names[kind] for kind in LABELS if kind in names]
    main = headlines(rows)
    main = main.assign(column=column_names(main))
    yield Line(_settings(plan), style="bold")
    lines = [
        {
            "model": LABELS[mine[0]["model_kind"]],
            **{row["column"]: cell_of(row) for row in mine},
        }
        for mine in (main[main["model"] == model].to_dict("records") for model in models)
        if mine
    ]
    if lines:
        table = pd.DataFrame(lines).fillna("")
        yield sheet_of(table)
        yield from map(Line, footnotes(main, table))
        yield from said_of_differences(rows, names["run"], names["untrained"])
        if ((main["model_kind"] == "pixels") & (main["status"] == "ok")).any():
            grey = plan.run.facts["channels"] == 1
            like_digits = grey and max(config.size) <= SMALL
            yield Line(PIXELS.format(why=CENTRED if like_digits else ""))
    yield from said_of_gaps(rows)
    for line in [*edges(rows), *(f"note: {note}" for note in mixed(rows))]:
        yield Line(f"  {line}")
    for row in rows[rows["skipped"] > 0].drop_duplicates("dataset").to_dict("records"):
        yield Line(
            f"  {row['skipped']} unreadable {examples_of(rows['inputs'])} were left out: see "
            "skipped in config.json"
        )
    yield Line(protocols(rows))
    yield Line(f"results   {plan.run.folder}", whole=True)
    yield Line(f"pictures  {plan.run.folder / 'pictures'}", whole=True)
    other = "--masking block" if config.objective.hides else "--objective mae"
    yield Line(f"next      maebench table    maebench eval linear-probe    maebench run {other}")


def _settings(plan: Plan) -> str:
    """Such as "digits, vit-nano, mae, random 0.75, seed 0"."""
    config = plan.config
    parts = [config.dataset.changed(), config.encoder.changed(), config.objective.changed()]
    if config.objective.hides:
        moved = config.schedule.ratio is not None
        ratio = config.ratio_text if moved else f"{plan.run.facts['realised_ratio']:.4g}"
        parts.append(f"{config.masking.changed()} {ratio}")
    return ", ".join([*parts, f"seed {config.seed}"])


def said_of_differences(rows: pd.DataFrame, model: str, other: str) -> Iterator[Line]:
    """The paired difference of each main metric, pretrained minus untrained."""
    compared, each = differences(rows, model, other), examples_of(rows["inputs"])
    for name, found, unit in compared:
        value, ends = in_unit(found.value, unit, "+"), _ends(found, unit, found.num_groups, each)
        # where interval and test differ the test decides
        verdict = "" if found.p <= SIGNIFICANCE else ": no difference shown"
        p = p_text(found.p)
        p = p if p.startswith("<") else f"= {p}"
        again = ""
        if found.choice is not None:
            again = f" (choices made again: {_ends(found.choice, unit, found.num_groups, each)})"
        text = f"  pretrained - untrained, {name}: {value} {ends}{again}, p {p}{verdict}"
        yield Line(text)
    for name, why in unpaired(rows, model, other):
        yield Line(f"  pretrained - untrained, {name}: not paired, {why}")
    if methods := of_differences(compared, each):
        yield Line(methods)


def _ends(found: Interval, unit: str, num_groups: int | None, examples: str) -> str:
    """The interval in brackets, or why there is none."""
    if math.isnan(found.low):
        one = examples.removesuffix("s")
        return f"no interval: one {one if num_groups is None else f'group of {examples}'}"
    return f"[{in_unit(found.low, unit, '+')}, {in_unit(found.high, unit, '+')}]"


def said_of_gaps(rows: pd.DataFrame) -> Iterator[Line]:
    """Which numbers are missing and why, equal reasons together."""
    gaps = rows[rows["status"] != "ok"]
    for (evaluation, status, reason), group in gaps.groupby(
        ["evaluation", "status", "reason"], sort=False
    ):
        kinds = ", ".join(LABELS.get(kind, kind) for kind in group["model_kind"].unique())
        # where the main metric is there, only some of the others are missing
        some = "" if group["main"].any() else " " + ", ".join(group["metric"].unique())
        yield Line(f"  {evaluation}{some} of {kinds}: {status}: {reason}")
