"""Every protocol on Fashion-MNIST: a pretrained vit-nano, the same untrained, and raw pixels.

    python benchmarks/fashion_mnist.py DIR [RESULTS] [SEEDS]

DIR holds the data set's files, RESULTS (default: results) the runs. MAE at ratio .75 on 10,000
training images, all 10,000 test images, three seeds (raw pixels, which have no weights: one). What
is done is found there and not done again: an interrupted call goes on. It ends with a Markdown
table: means over seeds ± their standard deviation (± half the mean 95 % interval over test images),
and the median seconds of an evaluation of the pretrained model.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

import maebench
from maebench.analysis.records import load_records
from maebench.analysis.run import models_of
from maebench.component import parse
from maebench.evaluation import Evaluation
from maebench.plugins import installed
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

SETTINGS: dict[str, Any] = {
    "dataset": "fashion-mnist",
    "masking": "random",
    "ratio": 0.75,
    "encoder": "vit-nano",
    "limit": 10_000,
    "budget": "epochs=40",
    "device": "cpu",
}
WITH_CROPS: dict[str, Any] = {"name": "linear-probe", "protocol": "mae"}
# The quick ones first: an interrupted table then has most of its rows.
EVALUATIONS: tuple[dict[str, Any], ...] = (
    {"name": "knn"},
    {"name": "knn", "protocol": "dino"},
    {"name": "retrieval"},
    {"name": "linear-probe"},
    {"name": "linear-probe", "pool": "cls"},
    {"name": "linear-probe", "protocol": "mae", "crops": False},
    {"name": "low-shot"},
    {"name": "layers"},
    {"name": "logistic"},
    {"name": "attentive-probe"},
    {"name": "reconstruction"},
    {"name": "finetune", "epochs": 5},
    WITH_CROPS,
)


def main(folder: str, results: str = "results", seeds: str = "3") -> None:
    """Makes what is missing and prints the table."""
    names = installed()
    made: list[str] = []
    began = time.monotonic()
    models = []
    for seed in range(int(seeds)):
        config = maebench.RunConfig(data_dir=Path(folder), seed=seed, **SETTINGS)
        plan = prepare(config, Path(results))
        for step in pretrain(plan):
            if step.number % 500 == 0:
                say(began, f"seed {seed}: step {step.number} of {step.total}")
        models += [(seed, model) for model in models_of(plan, names)]
    for one in EVALUATIONS:
        evaluation = parse(Evaluation, dict(one), names.context(), "benchmark")
        for seed, model in models:
            # raw pixels have no weights, so no seed of them, and one pooling
            moot = model.kind == "pixels" and (seed or "pool" in one)
            # new crops cannot be cached: minutes for each model, so one of them
            if moot or (one == WITH_CROPS and (seed or model.kind != "run")):
                continue
            made.append(str(maebench.evaluate(model, evaluation, seed, names=names)))
            say(began, f"seed {seed}: {evaluation.changed()} of {model.kind}")
    rows = load_records(results)
    rows = rows[rows["file"].isin(made) & rows["main"].astype(bool)]
    print(table(rows).to_markdown(index=False))
    spent = rows.drop_duplicates("file")["seconds"].sum() / 60
    whole = (time.monotonic() - began) / 60
    print(f"\nminutes in all evaluations: {spent:.1f}; this call took {whole:.1f}")


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per protocol, one column per kind of model."""
    kinds = {"run": "pretrained", "untrained": "untrained", "pixels": "raw pixels"}
    lines = []
    for options, group in rows.groupby("options", sort=False):
        first = group.iloc[0]
        line = {"evaluation": options, "protocol": first["protocol"], "metric": first["metric"]}
        for kind, title in kinds.items():
            line[title] = cell(group[group["model_kind"] == kind])
        ours = group[group["model_kind"] == "run"]
        line["seconds"] = f"{ours['seconds'].median():.0f}"
        lines.append(line)
    return pd.DataFrame(lines)


def cell(group: pd.DataFrame) -> str:
    """Mean over seeds, deviation over seeds, half the mean interval over images."""
    good = group[group["status"] == "ok"]
    if good.empty:
        return ", ".join(sorted(set(group["status"]))) or "not run"
    scale = 100 if good["unit"].iloc[0] == "%" else 1
    digits = 1 if scale == 100 else 3
    half = (good["high"] - good["low"]).mean() / 2
    text = f"{scale * good['value'].mean():.{digits}f}"
    if len(good) > 1:
        text += f" ±{scale * good['value'].std():.{digits}f}"
    return text + f" (±{scale * half:.{digits}f})"


def say(began: float, what: str) -> None:
    """One line of progress with the minutes since the call began."""
    print(f"{(time.monotonic() - began) / 60:5.1f} min  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
