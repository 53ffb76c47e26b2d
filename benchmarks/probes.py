"""What evaluations of frozen features cost: heads against the official one, kNN against FAISS.

    python benchmarks/probes.py DIR [--results DIR] [--rounds N] [--small] [--write]

DIR holds Fashion-MNIST's files. An encoder of 192 channels and 6 blocks after 40 updates gives the
features; with --results it and they are kept for the next call. Prints Markdown; --write also puts
it into results/reference/speed-probes.md. --small tries the script on a tenth of everything.

- Heads: the whole grid of fourteen penalties, its choice on train included, against the official
  head of one rate on the same kept features, and against scikit-learn's for some penalties.
- Through the encoder: features once and the whole grid, against the official way, which encodes new
  crops in each of its ninety epochs: one of them is measured, since all are alike.
- kNN: five k by one search of random features, against FAISS's plain flat search for the largest;
  memory is what a process of its own needs above what it held when the search began.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import timing
import torch
from timing import say
from torch import Tensor

import maebench
from maebench.evaluating.features import features
from maebench.evaluating.model import EvaluatedModel
from maebench.models.load import trained_model
from maebench.models.model import LoadedModel
from maebench.plugins import installed
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare
from maebench_evals import official_probe as official
from maebench_evals.frozen import standardised
from maebench_evals.heads import probe
from maebench_evals.knn import votes_for
from maebench_evals.linear_probe import L2, LinearProbe

SETTINGS: dict[str, Any] = {
    "dataset": "fashion-mnist",
    "encoder": {"name": "vit-tiny", "depth": 6},
    "budget": "steps=40",
    "batch": 256,
}
FEW = 10_000  # images, beside all 60,000
# as many images as ninety epochs of 60,000: what brings the official head as far on few (protocols)
EPOCHS = {60_000: (official.EPOCHS,), FEW: (official.EPOCHS, 540)}
SKLEARN = (1e-5, 1e-4, 1e-2)  # penalties; scikit-learn takes minutes for less
KS = (1, 5, 10, 20, 50)
BANK, QUERIES, WIDTH = 50_000, 10_000, 768

Data = tuple[Tensor, Tensor, Tensor, Tensor]  # train and its labels, test and its labels


def pretrained(results: Path, **settings: Any) -> LoadedModel:
    """An encoder that was pretrained so."""
    names = installed()
    config = maebench.RunConfig(names, device="cpu", evals=("knn",), **settings)
    plan = prepare(config, results)
    for _ in pretrain(plan):
        pass
    return trained_model(plan.run, "cpu", names)


def features_of(model: LoadedModel) -> Data:
    """Features of both splits, and their labels."""
    found: list[Tensor] = []
    for split in ("train", "test"):
        images = model.splits.load(split)
        say(f"features of {split}")
        labels = images.info.labels
        assert labels is not None
        found += [features(model, images), labels]
    train, right, test, truth = found
    return train, right, test, truth


def some(data: Data, number: int) -> Data:
    """So many random images of train, and all of test."""
    train, labels, test, truth = data
    index = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:number]
    return train[index], labels[index], test, truth


def grid(data: Data, l2: tuple[float, ...] = L2, choose: bool = True) -> float:
    """Test accuracy in percent of the head that folds choose, of the whole grid."""
    train, labels, test, truth = data
    x, other = standardised(train, test)
    folds = maebench.Folds.of(labels, 0) if choose else None
    found = probe(x, labels, other, sorted(l2), int(labels.max()) + 1, folds)
    best = maebench.choose(found.held_out).index if choose else 0
    return percent(found.predicted[best], truth)


def official_head(data: Data, epochs: int) -> float:
    """Test accuracy in percent of MAE's own head, as of linear-probe/mae without crops."""
    train, labels, test, truth = data
    batch = min(official.BATCH, len(labels))
    steps = official.length(len(labels), epochs, batch)
    head = official.Head(train.shape[1], int(labels.max()) + 1)
    draws = maebench.Draws(0, "probes", torch.zeros(1, dtype=torch.int64))
    official.train(head, official.cached_batches(train, labels, batch, steps, draws), steps, batch)
    return percent(official.predict(head, test), truth)


def sklearn_heads(data: Data) -> float:
    """Test accuracy in percent of the last of scikit-learn's heads, each from the one before."""
    from sklearn.linear_model import LogisticRegression

    train, labels, test, truth = data
    x, other = (part.double().numpy() for part in standardised(train, test))
    model = LogisticRegression(max_iter=1000, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a thousand iterations may not do, which is its affair
        for l2 in sorted(SKLEARN, reverse=True):
            model.set_params(C=1 / (l2 * len(labels))).fit(x, labels.numpy())
    return percent(torch.from_numpy(model.predict(other)), truth)


def percent(predicted: Tensor, truth: Tensor) -> float:
    """Share of right classes."""
    return 100 * (predicted == truth).double().mean().item()


def compared(work: dict[str, Callable[[], float]], rounds: int) -> str:
    """A table of variants in turn, the first of which the others are compared with."""
    found = timing.in_turn(work, rounds)
    first = next(iter(found.values()))
    return timing.table(
        [
            {
                "": name,
                "seconds": f"{timing.seconds(samples):.2f}",
                "takes as long as the first, times": timing.faster(samples, first),
                "test accuracy, %": f"{work[name]():.2f}",
                "clean": timing.share(samples),
            }
            for name, samples in found.items()
        ]
    )


def heads(data: Data, number: int, rounds: int) -> str:
    """The grid against the official head, with as many images."""
    part = some(data, number)
    epochs = EPOCHS.get(number, (official.EPOCHS,))
    work: dict[str, Callable[[], float]] = {
        "linear-probe/fast, 14 penalties and the choice": lambda: grid(part)
    }
    for many in epochs:
        work[f"linear-probe/mae, {many} epochs"] = lambda many=many: official_head(part, many)
    return compared(work, rounds)


def through_encoder(model: LoadedModel, rounds: int) -> str:
    """What a probe costs with its passes through the encoder, against an epoch of the official."""

    def once() -> None:
        folder = Path(tempfile.mkdtemp(dir=model.folder.parent))  # nothing is kept there yet
        grid(features_of(replace(model, folder=folder)))
        shutil.rmtree(folder)

    def epoch() -> None:
        probe = LinearProbe(protocol="mae", epochs=1)
        list(probe.run(EvaluatedModel(model, probe, model.splits, 0)))

    found = timing.in_turn({"once": once, "epoch": epoch}, rounds)
    whole = [replace(one, seconds=official.EPOCHS * one.seconds) for one in found["epoch"]]
    said = (
        ("linear-probe/fast, with its features", found["once"], found["once"]),
        (f"linear-probe/mae, {official.EPOCHS} epochs on crops", found["epoch"], whole),
    )
    return timing.table(
        [
            {
                "": name,
                "seconds measured": f"{timing.seconds(measured):,.1f}",
                "seconds of all": f"{timing.seconds(all_of):,.0f}",
                "takes as long as the first, times": timing.faster(all_of, found["once"]),
                "clean": timing.share(measured),
            }
            for name, measured, all_of in said
        ]
    )


def optima(data: Data, number: int, rounds: int) -> str:
    """Some penalties at their optimum, without a choice, against scikit-learn."""
    part = some(data, number)
    work: dict[str, Callable[[], float]] = {
        "heads": lambda: grid(part, SKLEARN, choose=False),
        "scikit-learn": lambda: sklearn_heads(part),
    }
    return compared(work, rounds)


# ---- kNN


def vectors(bank: int, queries: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random features, some to vote and some to ask, and classes of the former."""
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(n, WIDTH, generator=generator) for n in (bank, queries)]
    return found[0], found[1], torch.arange(bank) % 10


def flat(bank: Tensor, queries: Tensor) -> Any:
    """FAISS's flat search of normalised features, which are not its affair: it gets them."""
    import faiss

    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank.numpy())
    return index.search(queries.numpy(), max(KS))


def memory(name: str, bank: int, queries: int) -> int:
    """Most bytes above those held before, in this process, which has done nothing else."""
    x, other, labels = vectors(bank, queries)
    if name == "flat":
        flat(x[:100], other[:100])  # libraries and threads are there
    else:
        votes_for(x[:100], labels[:100], other[:100], [1])
    timing.forget_peak()
    before = timing.memory("VmRSS")
    flat(x, other) if name == "flat" else votes_for(x, labels, other, list(KS))
    return timing.memory("VmHWM") - before


def neighbours(bank: int, queries: int, rounds: int) -> str:
    """The votes of five k against one search."""
    x, other, labels = vectors(bank, queries)
    unit = [torch.nn.functional.normalize(part) for part in (x, other)]
    found = timing.in_turn(
        {
            "flat": lambda: flat(unit[0], unit[1]),
            "votes": lambda: votes_for(x, labels, other, list(KS)),
        },
        rounds,
    )
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as alone:
        extra = {name: alone.submit(memory, name, bank, queries).result() for name in found}
    said = {
        "flat": f"FAISS, flat inner product, k {max(KS)}, of normalised features",
        "votes": f"knn: normalised, searched, votes of k {', '.join(map(str, KS))}",
    }
    return timing.table(
        [
            {
                "": said[name],
                "seconds": f"{timing.seconds(samples):.2f}",
                "speed of FAISS, times": timing.faster(found["flat"], samples),
                "extra memory, MB": f"{extra[name] / 1e6:,.0f}",
                "clean": timing.share(samples),
            }
            for name, samples in found.items()
        ]
    )


def main() -> None:
    """Measures and prints, and where asked writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="Fashion-MNIST's files")
    parser.add_argument("--results", type=Path, help="where the encoder and its features are kept")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each, default 5")
    parser.add_argument("--threads", type=int, help="default: torch's own")
    parser.add_argument("--small", action="store_true", help="a tenth of everything, as a try")
    parser.add_argument("--write", action="store_true", help="write the tables")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    shrink = 10 if asked.small else 1
    with tempfile.TemporaryDirectory() as aside:
        where = {"data_dir": asked.folder, "limit": 60_000 // shrink}
        measure(asked, pretrained(asked.results or Path(aside), **where, **SETTINGS), shrink)


def measure(asked: argparse.Namespace, model: LoadedModel, shrink: int) -> None:
    """All sections, each printed and written when it is done."""
    data = features_of(model)
    made: dict[str, Callable[[], str]] = {}
    for number in (60_000 // shrink, FEW // shrink):
        made[f"Heads, {number:,} x {data[0].shape[1]}, 10 classes"] = lambda number=number: heads(
            data, number, asked.rounds
        )
    made[f"Through the encoder, {60_000 // shrink:,}"] = lambda: through_encoder(
        model, min(2, asked.rounds)
    )
    few, bank, queries = FEW // shrink, BANK // shrink, QUERIES // shrink
    made[f"Heads against scikit-learn's, l2 {', '.join(f'{l2:g}' for l2 in SKLEARN)}, {few:,}"] = (
        lambda: optima(data, few, min(3, asked.rounds))
    )
    made[f"kNN, {bank:,} x {queries:,} x {WIDTH}"] = lambda: neighbours(bank, queries, asked.rounds)
    command = shlex.join(["python", "benchmarks/probes.py", *sys.argv[1:]])
    for heading, work in made.items():
        say(heading)
        text = "\n\n".join([timing.machine(command), work()])
        title = "What evaluations of frozen features cost"
        timing.publish("speed-probes.md", title, {heading: text}, asked.write)


if __name__ == "__main__":
    main()
