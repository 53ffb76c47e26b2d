"""Every kind of encoder on Fashion-MNIST at equal FLOPs: masked, supervised and untrained.

    python benchmarks/encoders.py DIR [RESULTS] [SEEDS]

DIR holds the data set's files, RESULTS (default: results) the runs, SEEDS (default: 0,1) which are
made. 10,000 training images, all 10,000 test images; the same patches of 4 px are hidden of every
encoder, and all are pretrained for the same FLOPs of encoder and decoder, forward and backward, at
the data set's rate: none is tuned. What is done is found there and not done again: an interrupted
call goes on, and two calls for other seeds share the work. It ends with two Markdown tables of all
seeds that are there: means ± standard deviation over seeds (± half the mean 95 % interval over test
images), and differences to vit-nano that was trained alike, image by image.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from objectives import cell, paired, points, say

import maebench
from maebench.analysis.records import load_records
from maebench.analysis.run import models_of
from maebench.component import parse
from maebench.evaluation import Evaluation
from maebench.plugins import installed
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

FLOPS = 4e12  # vit-nano's 25 epochs under masks; one to three minutes of one core for each run
SETTINGS: dict[str, Any] = {
    "dataset": "fashion-mnist",
    "limit": 10_000,
    "budget": f"flops={FLOPS:g}",
    "device": "cpu",
}
# Swin masks patches of 2 px, which it merges: squares of two are what the others hide
ENCODERS: dict[str, dict[str, Any]] = {
    "vit-nano": {},
    "hiera-nano": {},
    "swin-nano": {"masking": {"name": "units", "size": 2}},
    "convnext-nano": {},
    "resnet-nano": {},
    "convnext-nano-leaky": {},
}
OBJECTIVES = {"masked": "mae", "supervised": "supervised"}
# One of each kind of corruption, the middle severity: all of them take seven times as long
EVALUATIONS: tuple[dict[str, Any], ...] = (
    {"name": "knn"},
    {"name": "linear-probe"},
    {"name": "geometry"},
    {
        "name": "robustness",
        "corruptions": ("gaussian-noise", "gaussian-blur", "contrast", "pixelate", "jpeg", "fog"),
        "severities": (3,),
    },
)
COLUMNS = {
    "kNN": ("knn", "top1"),
    "linear probe": ("linear-probe", "top1"),
    "corrupted": ("robustness", "top1"),
    "drop": ("robustness", "drop"),
    "RankMe": ("geometry", "rankme"),
}
TRAINED = ("masked", "supervised", "untrained")


def main(folder: str, results: str = "results", seeds: str = "0,1") -> None:
    """Makes what is missing and prints the tables."""
    names = installed()
    began = time.monotonic()
    evaluations = [
        parse(Evaluation, dict(one), names.context(), "benchmark") for one in EVALUATIONS
    ]
    made: dict[str, tuple[str, str, int]] = {}
    done: set[tuple[object, ...]] = set()
    for seed in map(int, seeds.split(",")):
        for encoder, own in ENCODERS.items():
            for trained, objective in OBJECTIVES.items():
                hides = own if trained == "masked" else {}
                config = maebench.RunConfig(
                    data_dir=Path(folder),
                    seed=seed,
                    encoder=encoder,
                    objective=objective,
                    **SETTINGS,
                    **hides,
                )
                plan = prepare(config, Path(results))
                for _ in pretrain(plan):
                    pass
                for model in models_of(plan, names):
                    who = trained if model.kind == "run" else model.kind
                    # at step 0 one encoder for both objectives; raw pixels have none at all
                    one = (who,) if who == "pixels" else (who, encoder, seed)
                    if one in done:
                        continue
                    done.add(one)
                    for evaluation in evaluations:
                        path = maebench.evaluate(model, evaluation, seed, names=names)
                        made[str(path)] = (encoder, who, seed)
                    say(began, f"seed {seed}: {encoder} {who}")
    rows = load_records(results)
    rows = rows[rows["file"].isin(made)].copy()
    rows["encoder_of"], rows["who"], rows["of_seed"] = zip(*rows["file"].map(made), strict=True)
    rows = rows[~rows["where"].map(lambda w: "corruption" in w)]
    chosen = rows["where"].map(lambda w: bool(w.get("chosen")))
    rows = rows[chosen | (rows["metric"] == "drop")]
    print(table(rows).to_markdown(index=False))
    print()
    print(differences(rows).to_markdown(index=False))
    spent = rows.drop_duplicates("file")["seconds"].sum() / 60
    trained_for = rows.drop_duplicates("run")["pretraining_seconds"].astype(float).sum() / 60
    print(f"\nminutes of pretraining {trained_for:.1f}, of evaluations {spent:.1f}")


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per encoder and way of training it: what it cost, and each number."""
    lines = []
    for who in (*TRAINED, "pixels"):
        for encoder in ENCODERS:
            mine = rows[(rows["encoder_of"] == encoder) & (rows["who"] == who)]
            if mine.empty:
                continue
            line: dict[str, Any] = {"encoder": encoder if who != "pixels" else "", "trained": who}
            cost = mine.drop_duplicates("run")
            if who in OBJECTIVES:
                flops = cost[["flops_encoder", "flops_decoder"]].astype(float).sum(axis=1)
                line |= {
                    "steps": f"{cost['steps'].astype(float).mean():.0f}",
                    "GFLOP": f"{flops.mean() / 1e9:.0f}",
                    "seconds": f"{cost['pretraining_seconds'].astype(float).median():.0f}",
                }
            for title, (evaluation, metric) in COLUMNS.items():
                line[title] = cell_of(mine, evaluation, metric)
            lines.append(line)
    return pd.DataFrame(lines).fillna("")


def cell_of(rows: pd.DataFrame, evaluation: str, metric: str) -> str:
    """Mean over seeds, deviation over seeds, and half the interval over images where there is one.

    A share is in per cent.
    """
    group = rows[(rows["evaluation"] == evaluation) & (rows["metric"] == metric)]
    good = group[group["status"] == "ok"]
    if good["low"].notna().any():
        return cell(group)
    if good.empty:
        return "-"
    factor, digits = (100, 1) if good.iloc[0]["unit"] == "%" else (1, 1)
    text = f"{factor * good['value'].mean():.{digits}f}"
    return text + (f" ±{factor * good['value'].std():.{digits}f}" if len(good) > 1 else "")


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Points of each encoder minus vit-nano that was trained alike, seed by seed."""
    lines = []
    for who in TRAINED:
        for encoder in list(ENCODERS)[1:]:
            line = {"minus vit-nano": encoder, "trained": who}
            for title in ("kNN", "linear probe", "corrupted"):
                evaluation, metric = COLUMNS[title]
                of = rows[(rows["evaluation"] == evaluation) & (rows["metric"] == metric)]
                of = of[(of["who"] == who) & (of["status"] == "ok")]
                of = of.assign(who=of["encoder_of"])
                pairs = [paired(of, encoder, s, "vit-nano") for s in sorted(set(of["of_seed"]))]
                line[title] = points([one for one in pairs if one is not None])
            lines.append(line)
    return pd.DataFrame(lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
