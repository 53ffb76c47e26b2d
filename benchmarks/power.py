"""By which power of a direction's variance a linear probe's penalty is weighed: what test says.

    OMP_NUM_THREADS=2 python benchmarks/power.py DIR [--draws N] [--write]

DIR holds Fashion-MNIST's files. Untrained encoders, and some after a short pretraining, are probed
on balanced subsets of train with the penalty chosen on folds, as `linear-probe` does; several draws
of each. Prints Markdown; --write puts it into results/reference/power.md. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import timing
import torch
from probes import Data, features_of, pretrained
from torch import Tensor

import maebench
from maebench_evals.frozen import standardised
from maebench_evals.heads import probe
from maebench_evals.linear_probe import L2

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
FEW = {"digits": (100, 200, 500, 1400), "fashion-mnist": (200, 500, 2000, 10_000)}
# one update is as good as none: an untrained encoder
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits, untrained": ("digits", {"budget": "steps=1"}),
    "digits, 600 updates": ("digits", {"budget": "steps=600"}),
    "Fashion-MNIST, untrained": ("fashion-mnist", {"budget": "steps=1"}),
    "Fashion-MNIST, 60 updates": ("fashion-mnist", {"budget": "steps=60"}),
}
FASHION: dict[str, Any] = {"encoder": {"name": "vit-tiny", "depth": 2}, "batch": 64}
CLASSES = 10


def encoded(dataset: str, folder: Path, settings: dict[str, Any]) -> Data:
    """Features of an encoder that was pretrained so."""
    if dataset == "fashion-mnist":
        settings = {**settings, **FASHION, "data_dir": folder, "limit": max(FEW[dataset])}
    with tempfile.TemporaryDirectory() as results:
        return features_of(pretrained(Path(results), dataset=dataset, **settings))


def subset(data: Data, number: int, draw: int) -> tuple[Tensor, Tensor]:
    """So many images of train, as many of each class, in a random order of its own."""
    train, labels, *_ = data
    generator = torch.Generator().manual_seed(draw)
    order = torch.randperm(len(train), generator=generator)
    each = [order[labels[order] == c][: number // CLASSES] for c in range(CLASSES)]
    index = torch.cat(each).sort().values
    return train[index], labels[index]


def accuracy(data: Data, number: int, draw: int, power: float) -> float:
    """Test accuracy in percent of the head that folds of a subset choose."""
    x, labels = subset(data, number, draw)
    x, test = standardised(x, data[2])
    folds = maebench.Folds.of(labels, draw)
    found = probe(x, labels, test, sorted(L2), CLASSES, folds, power=power)
    best = maebench.choose(found.held_out).index
    return 100 * (found.predicted[best] == data[3]).double().mean().item()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="Fashion-MNIST's files")
    parser.add_argument("--draws", type=int, default=5, help="subsets of each size, default 5")
    parser.add_argument("--write", action="store_true", help="into results/reference/power.md")
    asked = parser.parse_args()
    rows = []
    for title, (dataset, settings) in RUNS.items():
        timing.say(title)
        data = encoded(dataset, asked.folder, settings)
        for number in FEW[dataset]:
            whole = number > len(data[0]) // 2  # of nearly all of train one draw is as another
            row: dict[str, object] = {"encoder": title, "images of train": f"{number:,}"}
            for power in POWERS:
                draws = range(1 if whole else asked.draws)
                each = [accuracy(data, number, draw, power) for draw in draws]
                row[f"power {power:g}"] = f"{statistics.mean(each):.2f}"
            rows.append(row)
    command = shlex.join(["python", "benchmarks/power.py", *sys.argv[1:]])
    about = (
        "Test accuracy in percent of `linear-probe`'s head, its penalty chosen on folds of the "
        f"same images, means over {asked.draws} draws of them (one of the largest number). The "
        "penalty is l2 / 2 * the sum over uncorrelated directions of |w|^2 * variance^power; power "
        "0 is |W|^2, as in scikit-learn, 1 is whitening. Encoders: vit-nano, and vit-tiny with two "
        "blocks; 64 and 192 features. `linear-probe`, `layers` and `low-shot` take .5."
    )
    text = "\n\n".join([timing.machine(command), about, timing.table(rows)])
    print(text)
    if asked.write:
        title = "# By which power of the variance a probe's penalty is weighed"
        (timing.REFERENCE / "power.md").write_text(f"{title}\n\n{text}\n")


if __name__ == "__main__":
    main()
