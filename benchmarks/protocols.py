"""Fast protocols against the slow ones that they stand for, on the same cached features.

    python benchmarks/protocols.py                      digits, a short pretraining of its own
    python benchmarks/protocols.py RESULTS [MODEL]      a model of yours, such as results ""
    python benchmarks/protocols.py RESULTS MODEL logistic    the pairs whose name holds this word

One line per pair: both scores with their 95 % intervals over test images, the paired difference
(fast minus slow), the seconds of both and how many times faster the fast one is. A new pair is a
line in `pairs`; both are evaluated anew, features are there before the clock starts. What the
official probe costs with crops, which no cache can serve, is a line of its own, and so is one
search for all k against scikit-learn's one per k.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import maebench
from maebench.analysis.stats import paired_difference
from maebench.component import parse
from maebench.evaluating import records
from maebench.evaluating.features import features
from maebench.evaluation import Evaluation
from maebench.models.load import load_model
from maebench.plugins import installed
from maebench.pretraining import runs
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare
from maebench_evals.knn import votes_for

# As many images as ninety epochs of 60,000: fewer leave LARS's head near its random start.
IMAGES = 90 * 60_000
KS = (1, 5, 10, 20, 50)


def pairs(num_images: int) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What is compared; fast, then slow, each an evaluation and its options."""
    official = {"name": "linear-probe", "protocol": "mae", "crops": False}
    longer = {**official, "epochs": max(90, math.ceil(IMAGES / num_images))}
    return {
        "linear probe, class token, 90 epochs": ({"name": "linear-probe", "pool": "cls"}, official),
        "linear probe, class token": ({"name": "linear-probe", "pool": "cls"}, longer),
        "linear probe, mean of patches": ({"name": "linear-probe"}, {**longer, "pool": "mean"}),
        "linear probe, scikit-learn": ({"name": "linear-probe"}, {"name": "logistic"}),
        "logistic": (
            {"name": "logistic", "pool": "cls"},
            {"name": "logistic", "protocol": "dinov2"},
        ),
        "attentive probe": (
            {"name": "attentive-probe"},
            {"name": "attentive-probe", "protocol": "capi"},
        ),
    }


EPOCHS = 5  # with crops: enough to see what one costs
SETTINGS = {"dataset": "digits", "masking": "random", "ratio": 0.75, "budget": "steps=1200"}


def main(results: str = "", model: str = "", word: str = "") -> None:
    """Prints one line per pair."""
    if results:
        compare(runs.results_folder(results), model, word)
        return
    with tempfile.TemporaryDirectory() as folder:
        for _ in pretrain(prepare(maebench.RunConfig(**SETTINGS), Path(folder))):
            pass
        compare(Path(folder), "")


def compare(results: Path, spec: str, word: str = "") -> None:
    """Every pair on a model; where none is named, on its floor and control too."""
    names = installed()
    for kind in (spec,) if spec else ("", "untrained:", "pixels:"):
        model = load_model(kind, results, "auto", names)
        print(f"{model.name} on {model.device}")
        images = len(model.splits.load("train"))
        chosen = {what: pair for what, pair in pairs(images).items() if word in what}
        for what, pair in chosen.items():
            evaluations = [parse(Evaluation, one, names.context(), what) for one in pair]
            # a first pass keeps the features of both splits, which neither is to be charged for
            warm = parse(Evaluation, {"name": "knn"}, names.context(), what)
            maebench.evaluate(model, warm, names=names)
            fast, slow = (headline(model, one, names) for one in evaluations)
            if fast is None or slow is None:
                continue
            (row, mine), (other, theirs) = fast, slow
            found = paired_difference(*mine, *theirs)
            print(
                f"  {what}: {score(row)} in {row['seconds']:.1f} s, {score(other)} in "
                f"{other['seconds']:.1f} s ({other['seconds'] / row['seconds']:.1f} x); difference "
                f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
            )
        if not word:
            knn_cost(model)
            crops_cost(model, names)


def knn_cost(model: Any) -> None:
    """One search for every k, and scikit-learn's search for each."""
    from sklearn.neighbors import KNeighborsClassifier

    train, test = (
        features(model, model.splits.load(split), None, model.pools()[0])
        for split in ("train", "test")
    )
    labels, right = (model.splits.load(split).info.labels for split in ("train", "test"))
    started = time.monotonic()
    votes = votes_for(train, labels, test, list(KS))
    ours = time.monotonic() - started
    started, found = time.monotonic(), {}
    for k in KS:
        sklearn = KNeighborsClassifier(k, algorithm="brute", metric="cosine").fit(train, labels)
        found[k] = sklearn.predict(test.numpy())
    theirs = time.monotonic() - started
    top1 = ", ".join(
        f"k={k} {100 * (votes[k][:, 0] == right).double().mean():.1f}/"
        f"{100 * float((found[k] == right.numpy()).mean()):.1f}"
        for k in KS
    )
    print(
        f"  knn, all k in one search: {ours:.2f} s, one per k {theirs:.2f} s "
        f"({theirs / ours:.1f} x); top1 ours/scikit-learn's: {top1}"
    )


def crops_cost(model: Any, names: Any) -> None:
    """What the official probe costs with its crops, which are encoded anew in every epoch."""
    made = {"name": "linear-probe", "protocol": "mae", "epochs": EPOCHS}
    found = headline(model, parse(Evaluation, made, names.context(), "crops"), names)
    if found:
        seconds = found[0]["seconds"] / EPOCHS
        print(
            f"  with crops linear-probe/mae takes {seconds:.2f} s an epoch (of {EPOCHS}), so about "
            f"{seconds * 90:.0f} s for its 90"
        )


def headline(model: Any, evaluation: Evaluation, names: Any) -> tuple[dict[str, Any], Any] | None:
    """The main row of an evaluation that is made anew, and its values per test image."""
    path = maebench.evaluate(model, evaluation, names=names, again=True)
    row = next(row for row in records.read(path) if row["main"])
    if row["status"] != "ok":
        print(f"  {row['options']}: {row['status']}, {row['reason']}")
        return None
    return row, records.values(path, row)


def score(row: dict[str, Any]) -> str:
    """The protocol and its score in percent with the interval."""
    low, value, high = (100 * row[key] for key in ("low", "value", "high"))
    return f"{row['protocol']} {value:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main(*sys.argv[1:])
