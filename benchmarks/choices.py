"""Which rule of choosing on train wobbles least, and which flatters nobody.

    python benchmarks/choices.py DIR [RESULTS] [KEPT]

DIR holds Fashion-MNIST's files, RESULTS (default: results) the pretrained runs, KEPT (default:
RESULTS/choices) what became of the images held out of train. What is there is not made again: an
interrupted call goes on. The linear probe's penalty and kNN's k are chosen by each rule on many
draws of the split; test is read for the whole grid once. It ends with three Markdown tables, from
which results/reference/choices.md is made:

- what each rule chose: mean and deviation over draws of the test accuracy, for each model;
- how far the difference of a pretrained and an untrained encoder wobbles by the choice alone, and
  how far its mean is from that of the rule with most fits;
- what a rule costs each of the two against the best of the grid: a neutral rule costs both as
  much.

A draw of several repeats of folds shares some with its neighbours, going round: each draw has its
own set of repeats, and deviations come out too small: over 24 draws by 7 % for four times five
folds and 2 % for twice five, over 8 draws by 24 and 7 %.

"own" is what the evaluations do for so many images: twice five folds up to 2,000, five up to
20,000.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

import maebench
from maebench.analysis.run import models_of
from maebench.evaluating.intervals import indistinguishable
from maebench.evaluating.model import EvaluatedModel
from maebench.evaluation.folds import FOLDS, Folds
from maebench.models.model import LoadedModel
from maebench.plugins import Names, installed
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare
from maebench_evals import knn
from maebench_evals.frozen import pool_for, standardised
from maebench_evals.heads import ITERATIONS, POWER, Problem, Space, regressions
from maebench_evals.knn import KNN
from maebench_evals.linear_probe import L2, LinearProbe

# Shape suffixes: N images of train, M of them held out, T of test, D features, G entries of a grid,
# R rounds.
FASHION = {"dataset": "fashion-mnist", "encoder": "vit-nano", "budget": "steps=1500", "batch": 64}
REFERENCE = "4 x 5 folds"  # the rule with most fits, against which a mean difference is moved
SMOOTH = 3  # penalties or k whose test accuracy is averaged before the best is looked for

Array = NDArray[Any]
Rule = Callable[[Array, Array, str], int]


@dataclass(frozen=True)
class Data:
    """Images to choose on, models of them, and how often train is divided into five folds."""

    name: str
    settings: dict[str, Any]
    kinds: tuple[str, ...]
    repeats: int
    product: int  # repeats that the evaluations make of so many images


DATA = (
    Data("digits", {}, ("run", "untrained", "pixels"), 24, 2),
    Data("fashion-mnist, 1,000", {**FASHION, "limit": 1000}, ("run", "untrained"), 24, 2),
    Data("fashion-mnist, 10,000", {**FASHION, "limit": 10_000}, ("run", "untrained"), 8, 1),
)


def main(folder: str, results: str = "results", kept: str = "") -> None:
    """Makes what is missing and prints the tables."""
    names = installed()
    place = Path(kept) if kept else Path(results) / "choices"
    rows, seconds = [], 0.0
    for data in DATA:
        for model in models(data, Path(folder), Path(results), names):
            for head in (Probe(), Neighbours()):
                found = outcomes(data, model, head, place)
                seconds += found["seconds"]
                rows += list(chosen(data, model.kind, head.name, found))
    frame = pd.DataFrame(rows)
    for table in (accuracies(frame), differences(frame), costs(frame)):
        print(table.to_markdown(index=False))
        print()
    print(f"{seconds / 60:.1f} minutes of one thread, pretraining apart")


def models(data: Data, folder: Path, results: Path, names: Names) -> list[LoadedModel]:
    """The pretrained encoder, the untrained one, and raw pixels where they are asked for."""
    own = {"data_dir": folder} if "dataset" in data.settings else {}
    config = maebench.RunConfig(evals=("knn",), device="cpu", **own, **data.settings)
    plan = prepare(config, results)
    for _ in pretrain(plan):
        pass
    return [model for model in models_of(plan, names) if model.kind in data.kinds]


# ---- what became of the images that were held out


class Probe:
    """The linear probe's own heads."""

    name = "linear-probe"
    evaluation = LinearProbe()
    size = len(L2)

    def features(self, model: EvaluatedModel) -> tuple[Tensor, Tensor]:
        """Of train and of test, standardised by train."""
        pool = pool_for(model, None, "mean")
        train, test = standardised(*(model.features(split, None, pool) for split in SPLITS))
        return train, test

    def held_out(
        self, model: EvaluatedModel, x_ND: Tensor, used_RN: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Right or wrong, and the log-likelihood, of what each round holds out, (G, held)."""
        labels = model.labels("train")
        space, heads = self._heads(model, x_ND, used_RN)
        z_KN = space(x_ND)
        for used_N, weight_GCK in zip(used_RN, heads.transpose(0, 1), strict=True):
            held = (~used_N).nonzero()[:, 0]
            likelihood_GCM = (weight_GCK @ z_KN[:, held]).log_softmax(1)
            picked = labels[held].expand(self.size, 1, -1)
            right = likelihood_GCM.argmax(1) == labels[held]
            yield right, likelihood_GCM.gather(1, picked)[:, 0]

    def tested(self, model: EvaluatedModel, x_ND: Tensor, test_TD: Tensor) -> Tensor:
        """Right or wrong on test after training on all of train, (G, T)."""
        space, heads = self._heads(model, x_ND, torch.ones(1, len(x_ND), dtype=torch.bool))
        return (heads[:, 0] @ space(test_TD)).argmax(1) == model.labels("test")

    def _heads(self, model: EvaluatedModel, x_ND: Tensor, used_RN: Tensor) -> tuple[Space, Tensor]:
        """The directions of features, and weights (G, R, C, K) in them, penalties ascending."""
        space, classes = Space.of(x_ND, POWER), len(model.class_names())
        problem = Problem(space(x_ND), model.labels("train"), classes, used_RN.float())
        ones = torch.ones(len(used_RN))
        found = regressions(problem, space, sorted(L2, reverse=True), ones, ITERATIONS)
        return space, torch.stack([weight for weight, _ in found][::-1])


class Neighbours:
    """The votes of kNN, which has no likelihood."""

    name = "knn"
    evaluation = KNN()
    ks = knn.PROTOCOLS["majority"]
    size = len(ks)

    def features(self, model: EvaluatedModel) -> tuple[Tensor, Tensor]:
        """Of train and of test, as they are."""
        pool = pool_for(model, None, "mean")
        train, test = (model.features(split, None, pool) for split in SPLITS)
        return train, test

    def held_out(
        self, model: EvaluatedModel, x_ND: Tensor, used_RN: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Right or wrong of what each round holds out, (G, held), and nothing in place of more."""
        labels = model.labels("train")
        for used_N in used_RN:
            right = self._right(x_ND[used_N], labels[used_N], x_ND[~used_N], labels[~used_N])
            yield right, torch.zeros(right.shape)

    def tested(self, model: EvaluatedModel, x_ND: Tensor, test_TD: Tensor) -> Tensor:
        """Right or wrong on test with all of train to vote, (G, T)."""
        return self._right(x_ND, model.labels("train"), test_TD, model.labels("test"))

    def _right(self, bank: Tensor, labels: Tensor, queries: Tensor, true: Tensor) -> Tensor:
        votes = knn.votes_for(bank, labels, queries, list(self.ks))
        return torch.stack([votes[k][:, 0] == true for k in self.ks])


SPLITS = ("train", "test")
Head = Probe | Neighbours


def outcomes(data: Data, model: LoadedModel, head: Head, kept: Path) -> dict[str, Any]:
    """Outcomes of every repeat of five folds and of as many tenths, and on test."""
    kept.mkdir(parents=True, exist_ok=True)
    stem = f"{data.name.replace(', ', '-').replace(',', '')} {model.kind} {head.name}"
    subject = EvaluatedModel(model, head.evaluation, model.splits, 0)
    loaded: list[tuple[Tensor, Tensor]] = []  # read where something is missing

    def features() -> tuple[Tensor, Tensor]:
        if not loaded:
            loaded.append(head.features(subject))
        return loaded[0]

    def once(name: str, make: Callable[[], dict[str, Array]]) -> dict[str, Array]:
        path = kept / f"{stem} {name}.npz"
        if not path.exists():
            began = time.process_time()
            made = make() | {"seconds": np.float64(time.process_time() - began)}
            beside = path.with_name(f"{path.stem}.part.npz")
            np.savez_compressed(beside, **made)
            beside.rename(path)
            print(f"{path.stem}: {made['seconds']:.0f} s", file=sys.stderr, flush=True)
        with np.load(path) as packed:
            return dict(packed)

    repeats = [
        once(f"{number:02}", lambda number=number: repeat(head, model, features()[0], number))
        for number in range(data.repeats)
    ]
    tested = once("test", lambda: {"right": head.tested(subject, *features()).numpy()})
    spent = sum(float(part["seconds"]) for part in (*repeats, tested))
    return {"repeats": repeats, "tested": tested["right"].mean(1), "seconds": spent}


def repeat(head: Head, model: LoadedModel, x_ND: Tensor, number: int) -> dict[str, Array]:
    """Five folds and a tenth of one draw."""
    labels = EvaluatedModel(model, head.evaluation, model.splits, 0).labels("train")
    # of few images a seed has two repeats
    per_seed = len(Folds.of(labels, 0).held) // FOLDS
    subject = EvaluatedModel(model, head.evaluation, model.splits, number // per_seed)
    folds_RN = Folds.of(labels, subject.seed).held.split(FOLDS)[number % per_seed]
    tenth_N = torch.zeros(len(labels), dtype=torch.bool)
    # as before: class-balanced, one split
    tenth_N[EvaluatedModel(model, head.evaluation, model.splits, number).holdout()[1]] = True
    *folds, tenth = head.held_out(subject, x_ND, ~torch.cat([folds_RN, tenth_N[None]]))
    right_GN = torch.zeros(head.size, len(labels), dtype=torch.bool)
    likelihood_GN = torch.zeros(head.size, len(labels))
    for held_N, (right, likelihood) in zip(folds_RN, folds, strict=True):
        right_GN[:, held_N], likelihood_GN[:, held_N] = right, likelihood
    return {
        "right": right_GN.numpy(),
        "likelihood": likelihood_GN.numpy(),
        "first": folds_RN[0].numpy(),
        "tenth": tenth[0].numpy(),
    }


# ---- the rules


def best(right: Array, likelihood: Array, head: str) -> int:
    """The most right, of equals the middle: what the evaluations do."""
    scores = torch.from_numpy(right)
    edges = knn.edges(list(Neighbours.ks), right.mean(1).tolist()) if head == "knn" else None
    return maebench.choose(scores, edges).index


def middle_of_alike(right: Array, likelihood: Array, head: str) -> int:
    """The middle of all that cannot be told from the best."""
    (alike,) = indistinguishable(right, best(right, likelihood, head)).nonzero()
    return int(alike[len(alike) // 2])


def log_loss(right: Array, likelihood: Array, head: str) -> int:
    """The most likely."""
    return int(likelihood.mean(1).argmax())


def one_standard_error(right: Array, likelihood: Array, head: str) -> int:
    """The strongest penalty, or most neighbours, within one standard error of the best."""
    means = right.mean(1)
    top = int(means.argmax())
    error = right[top].std(ddof=1) / math.sqrt(right.shape[1])
    return int(np.flatnonzero(means >= means[top] - error)[-1])


def chosen(data: Data, kind: str, head: str, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per rule and draw: the test accuracy of what it chose, and of the best there is."""
    repeats: Sequence[dict[str, Array]] = found["repeats"]
    curve = np.convolve(
        np.pad(found["tested"], SMOOTH // 2, "edge"), np.ones(SMOOTH) / SMOOTH, "valid"
    )
    for draw in range(len(repeats)):
        own = repeats[draw]

        def pooled(name: str, count: int, draw: int = draw) -> Array:
            parts = [repeats[(draw + i) % len(repeats)][name] for i in range(count)]
            mean: Array = np.mean([part.astype(np.float64) for part in parts], axis=0)
            return mean

        def take(rule: Rule, count: int) -> int:
            return rule(pooled("right", count), pooled("likelihood", count), head)

        rules = {
            "a tenth": best(own["tenth"].astype(float), own["tenth"], head),
            "a fifth": best(own["right"][:, own["first"]].astype(float), own["right"], head),
            "5 folds": take(best, 1),
            "2 x 5 folds": take(best, 2),
            "4 x 5 folds": take(best, 4),
            "own, middle of all alike": take(middle_of_alike, data.product),
            "own, one standard error": take(one_standard_error, data.product),
        }
        if head != "knn":
            rules["own, log loss"] = take(log_loss, data.product)
        for rule, index in rules.items():
            yield {
                **{"data": data.name, "model": kind, "head": head, "rule": rule, "draw": draw},
                **{"test": 100 * found["tested"][index], "best": 100 * curve.max()},
            }


# ---- the tables


def accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and deviation over draws, a column per model."""
    ((of, cells),) = [
        (("head", "rule"), rows.groupby(["head", "rule", "data", "model"], sort=False))
    ]
    text = cells["test"].agg(lambda x: f"{x.mean():.2f}, {x.std():.2f}")
    return text.unstack(["data", "model"]).pipe(flat, of)


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Pretrained minus untrained: mean and deviation over draws, and both over the data sets."""
    index = ["head", "rule", "data", "draw"]
    wide = rows.pivot_table(index=index, columns="model", values="test", sort=False)
    apart = (wide["run"] - wide["untrained"]).groupby(level=index[:3], sort=False)
    means, spread = apart.mean().unstack("data"), apart.std().unstack("data")
    table = means.map("{:.2f}".format) + ", " + spread.map("{:.2f}".format)
    table["deviation, root mean square"] = ((spread**2).mean(axis=1) ** 0.5).round(2)
    moved = means - means.xs(REFERENCE, level="rule").reindex(means.index, level="head")
    table["moved, mean absolute"] = moved.abs().mean(axis=1).round(2)
    return table.pipe(flat, index[:2])


def costs(rows: pd.DataFrame) -> pd.DataFrame:
    """Points behind the best of the smoothed grid: pretrained, untrained, and how they differ."""
    behind = rows.assign(cost=rows["best"] - rows["test"])
    cells = (
        behind.groupby(["head", "rule", "data", "model"], sort=False)["cost"]
        .mean()
        .unstack("model")
    )
    apart = cells["run"] - cells["untrained"]
    text = cells.apply(lambda x: f"{x['run']:.2f}, {x['untrained']:.2f}", axis=1).unstack("data")
    text["mean cost"] = (
        cells[["run", "untrained"]].mean(axis=1).groupby(level=[0, 1], sort=False).mean().round(2)
    )
    text["mean |difference|"] = apart.abs().groupby(level=[0, 1], sort=False).mean().round(2)
    return text.pipe(flat, ("head", "rule"))


def flat(table: pd.DataFrame, index: Sequence[str]) -> pd.DataFrame:
    """The table with its index as columns and one line of names."""
    table.columns = [", ".join(c) if isinstance(c, tuple) else c for c in table.columns]
    return table.reset_index().fillna("")


if __name__ == "__main__":
    main(*sys.argv[1:])
