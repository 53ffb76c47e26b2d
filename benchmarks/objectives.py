"""Every objective on Fashion-MNIST at equal FLOPs: vit-nano, linear probe, kNN and fine-tuning.

    python benchmarks/objectives.py DIR [RESULTS] [SEEDS]

DIR holds the data set's files, RESULTS (default: results) the runs, SEEDS (default: 0,1,2) which
are made. 5,000 training images, all 10,000 test images; every objective with its defaults and none
tuned, at the same FLOPs of encoder and decoder, forward and backward. What is done is found there
and not done again: an interrupted call goes on, and two calls for other seeds share the work. It
ends with two Markdown tables of all seeds that are there: means ± standard deviation over seeds
(± half the mean 95 % interval over test images), and differences to `mae` of the same seed.
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
from maebench.analysis.stats import paired_difference
from maebench.component import parse
from maebench.evaluating import records
from maebench.evaluation import Evaluation
from maebench.plugins import installed
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

FLOPS = 1.5e12  # mae's 18 epochs; about a minute of one core for each run
SETTINGS: dict[str, Any] = {
    "dataset": "fashion-mnist",
    "encoder": "vit-nano",
    "limit": 5_000,
    "budget": f"flops={FLOPS:g}",
    "device": "cpu",
}
# ratios where a paper has another one than MAE's .75
OBJECTIVES: dict[str, dict[str, Any]] = {
    "mae": {"objective": "mae"},
    "mae, pixels": {"objective": {"name": "mae", "target": "pixels"}},
    "mae, hog": {"objective": {"name": "mae", "target": "hog"}},
    "mae, low-pass": {"objective": {"name": "mae", "target": "low-pass"}},
    "mae, features": {"objective": {"name": "mae", "target": "features"}},
    "mae, cross-attention": {"objective": {"name": "mae", "decoder": "cross-attention"}},
    "mae, all patches": {"objective": {"name": "mae", "on": "all"}},
    "simmim": {"objective": "simmim", "ratio": 0.6},  # SimMIM, arXiv 2111.09886, table 1
    "autoencoder": {"objective": "autoencoder"},
    "denoising": {"objective": "denoising"},
    "sparse": {"objective": "sparse"},
    "contractive": {"objective": "contractive"},
    "variational": {"objective": "variational"},
    "supervised": {"objective": "supervised"},
}
EVALUATIONS: tuple[dict[str, Any], ...] = (
    {"name": "knn"},
    {"name": "linear-probe"},
    {"name": "finetune", "epochs": 5},
)
COLUMNS = ("linear-probe", "knn", "finetune")


def main(folder: str, results: str = "results", seeds: str = "0,1,2") -> None:
    """Makes what is missing and prints the tables."""
    names = installed()
    began = time.monotonic()
    evaluations = [
        parse(Evaluation, dict(one), names.context(), "benchmark") for one in EVALUATIONS
    ]
    made: dict[str, tuple[str, int]] = {}
    for seed in map(int, seeds.split(",")):
        for number, (title, own) in enumerate(OBJECTIVES.items()):
            config = maebench.RunConfig(data_dir=Path(folder), seed=seed, **SETTINGS, **own)
            plan = prepare(config, Path(results))
            for _ in pretrain(plan):
                pass
            models = models_of(plan, names)
            # at step 0 one encoder for all objectives of a seed; raw pixels have no seed
            kept = models[:1] if number else models if seed == 0 else models[:2]
            for model in kept:
                who = title if model.kind == "run" else model.kind
                for evaluation in evaluations:
                    path = maebench.evaluate(model, evaluation, seed, names=names)
                    made[str(path)] = (who, seed)
                say(began, f"seed {seed}: {who}")
    rows = load_records(results)
    rows = rows[rows["file"].isin(made) & rows["main"].astype(bool)].copy()
    rows["who"], rows["of_seed"] = zip(*rows["file"].map(made), strict=True)
    print(table(rows).to_markdown(index=False))
    print()
    print(differences(rows).to_markdown(index=False))
    spent = rows.drop_duplicates("file")["seconds"].sum() / 60
    trained = rows.drop_duplicates("run")["pretraining_seconds"].astype(float).sum() / 60
    print(f"\nminutes of pretraining {trained:.1f}, of evaluations {spent:.1f}")


def order(rows: pd.DataFrame) -> list[str]:
    """Who is in the table, objectives in their order and controls last."""
    there = set(rows["who"])
    return [name for name in (*OBJECTIVES, "untrained", "pixels") if name in there]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per objective: what it cost, and the main metric of each evaluation."""
    lines = []
    for who in order(rows):
        mine = rows[rows["who"] == who]
        line: dict[str, Any] = {"objective": who}
        cost = mine.drop_duplicates("run")
        if who in OBJECTIVES:
            flops = cost[["flops_encoder", "flops_decoder"]].astype(float).mean() / 1e9
            line |= {
                "steps": f"{cost['steps'].astype(float).mean():.0f}",
                "images": f"{cost['images'].astype(float).mean():,.0f}",
                "encoder GFLOP": f"{flops.iloc[0]:.0f}",
                "decoder GFLOP": f"{flops.iloc[1]:.0f}",
                "seconds": f"{cost['pretraining_seconds'].astype(float).median():.0f}",
            }
        for name in COLUMNS:
            line[name] = cell(mine[mine["evaluation"] == name])
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Points of each minus `mae` of the same seed: mean over seeds, and each seed's sign."""
    lines = []
    for who in order(rows):
        if who in ("mae", "pixels"):
            continue
        line = {"minus mae": who}
        for name in COLUMNS:
            of = rows[(rows["evaluation"] == name) & (rows["status"] == "ok")]
            pairs = [paired(of, who, seed) for seed in sorted(set(of["of_seed"]))]
            found = [one for one in pairs if one is not None]
            line[name] = points(found)
        lines.append(line)
    return pd.DataFrame(lines)


def points(found: list[tuple[float, float, float]]) -> str:
    """Differences in points with their intervals."""
    return ", ".join(f"{100 * v:+.1f} [{100 * a:+.1f}, {100 * b:+.1f}]" for v, a, b in found)


def paired(
    rows: pd.DataFrame, who: str, seed: int, base: str = "mae"
) -> tuple[float, float, float] | None:
    """The paired difference over test images of one seed, with its 95 % interval."""
    pair = [rows[(rows["who"] == name) & (rows["of_seed"] == seed)] for name in (who, base)]
    if any(one.empty for one in pair):
        return None
    values = [records.values(Path(one.iloc[0]["file"]), one.iloc[0].to_dict()) for one in pair]
    if values[0] is None or values[1] is None:
        return None
    found = paired_difference(*values[0], *values[1])
    return found.value, found.low, found.high


def cell(group: pd.DataFrame) -> str:
    """Mean over seeds, deviation over seeds, half the mean interval over images."""
    good = group[group["status"] == "ok"]
    if good.empty:
        return ", ".join(sorted(set(group["status"]))) or "not run"
    half = (good["high"] - good["low"]).mean() / 2
    text = f"{100 * good['value'].mean():.1f}"
    if len(good) > 1:
        text += f" ±{100 * good['value'].std():.1f}"
    return text + f" (±{100 * half:.1f})"


def say(began: float, what: str) -> None:
    """One line of progress with the minutes since the call began."""
    print(f"{(time.monotonic() - began) / 60:5.1f} min  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
