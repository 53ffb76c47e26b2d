"""Segmentation on scenes made of Fashion-MNIST: encoders, and what colour and place alone tell.

    python benchmarks/segmentation.py DIR [RESULTS] [SEEDS]

DIR holds Fashion-MNIST's files, RESULTS (default: results) the scenes and the runs, SEEDS (default:
0,1) which are made. A scene is three garments at random places on 64x64 pixels of noise, some over
others; its label map has background, the ten classes, and 255 at the edge of a garment. Train
scenes are made of train images, test scenes of test images. What is done is found there and not
done again. It ends with a Markdown table: means ± standard deviation over seeds (± half the mean
95 % interval over test images).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from encoders import cell_of
from numpy.typing import NDArray
from objectives import say
from PIL import Image

import maebench
from maebench.analysis.records import load_records
from maebench.analysis.run import models_of
from maebench.component import parse
from maebench.data import Request
from maebench.evaluation import Evaluation
from maebench.plugins import installed
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

SIDE, GARMENTS = 64, 3
SCENES = {"train": 2_000, "test": 500}
EDGE = (16, 64)  # grey levels between background and garment, of no class
NOISE = 96  # levels of the background end below it: garments are not told by being bright alone
SETTINGS: dict[str, Any] = {"budget": "flops=4e12", "device": "cpu"}
ENCODERS: dict[str, dict[str, Any]] = {
    "vit-nano": {"encoder": {"name": "vit-nano", "patch": 4}},
    "hiera-nano": {"encoder": {"name": "hiera-nano", "patch": 2}},
    "convnext-nano": {"encoder": {"name": "convnext-nano", "patch": 2}},
}
COLUMNS = {
    "IoU": ("segmentation", "iou"),
    "mIoU": ("segmentation", "miou"),
    "IoU, kNN": ("segmentation", "knn_iou"),
    "mIoU, kNN": ("segmentation", "knn_miou"),
    "ceiling": ("segmentation", "ceiling"),
}


def main(folder: str, results: str = "results", seeds: str = "0,1") -> None:
    """Makes what is missing and prints the table."""
    names = installed()
    began = time.monotonic()
    scenes = Path(results) / "scenes"
    if not scenes.exists():
        make_scenes(Path(folder), scenes)
        say(began, f"scenes in {scenes}")
    evaluation = parse(Evaluation, {"name": "segmentation"}, names.context(), "benchmark")
    made: dict[str, tuple[str, str]] = {}
    for seed in map(int, seeds.split(",")):
        for encoder, own in ENCODERS.items():
            config = maebench.RunConfig(dataset=f"folder:{scenes}", seed=seed, **SETTINGS, **own)
            plan = prepare(config, Path(results))
            for _ in pretrain(plan):
                pass
            for model in models_of(plan, names):
                if model.kind == "pixels" and any(who == "pixels" for _, who in made.values()):
                    continue
                path = maebench.evaluate(model, evaluation, seed, names=names)
                made[str(path)] = (encoder, "masked" if model.kind == "run" else model.kind)
                say(began, f"seed {seed}: {encoder} {made[str(path)][1]}")
    rows = load_records(results)
    rows = rows[rows["file"].isin(made)].copy()
    rows["encoder_of"], rows["who"] = zip(*rows["file"].map(made), strict=True)
    print(table(rows).to_markdown(index=False))


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per encoder and way of training it, and one for what needs no model on its grid."""
    where = rows["where"]
    rows = rows.assign(baseline=where.map(lambda w: w.get("baseline", "")))
    # of a grid of k what was chosen; of all else there is one row
    rows = rows[where.map(lambda w: "k" not in w or bool(w.get("chosen")))]
    rows = rows[~rows["metric"].str.startswith("validation")]
    lines = []
    for encoder in ENCODERS:
        of = rows[rows["encoder_of"] == encoder]
        for who in ("masked", "untrained", "pixels"):
            mine = of[(of["who"] == who) & (of["baseline"] == "")]
            if len(mine):
                lines.append(line(encoder if who != "pixels" else "", who, mine))
        for baseline in ("colour", "position"):
            mine = of[(of["who"] == "masked") & (of["baseline"] == baseline)]
            lines.append(line(encoder, f"{baseline} of its patches", mine))
    return pd.DataFrame(lines).fillna("")


def line(encoder: str, who: str, rows: pd.DataFrame) -> dict[str, Any]:
    """The numbers of some rows."""
    found: dict[str, Any] = {"encoder": encoder, "features": who}
    for title, (evaluation, metric) in COLUMNS.items():
        found[title] = cell_of(rows, evaluation, metric)
    return found


# ---- scenes


def make_scenes(folder: Path, scenes: Path) -> None:
    """Writes images and label maps of both splits as PNG, beside and then renamed."""
    beside = scenes.with_name("scenes.unfinished")
    for number, (split, count) in enumerate(SCENES.items()):
        images = maebench.FashionMNIST().load(Request(split, data_dir=folder))
        pixels = images.pick(range(len(images)))[:, 0].numpy()
        assert images.info.labels is not None
        labels = images.info.labels.numpy()
        numbers = np.random.default_rng(number)
        for scene in range(count):
            made, classes = scene_of(pixels, labels, numbers)
            for where, one in ((beside / split, made), (beside / "masks" / split, classes)):
                where.mkdir(parents=True, exist_ok=True)
                Image.fromarray(one).save(where / f"{scene:04}.png")
    beside.rename(scenes)


def scene_of(
    pixels: NDArray[np.uint8], labels: NDArray[np.int64], numbers: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Garments at random places over noise, and of each pixel its class."""
    image = numbers.integers(0, NOISE, (SIDE, SIDE), dtype=np.uint8)
    classes = np.zeros((SIDE, SIDE), np.uint8)
    for which in numbers.integers(0, len(pixels), GARMENTS):
        one = pixels[which]
        h, w = one.shape
        row, column = numbers.integers(0, SIDE - h + 1), numbers.integers(0, SIDE - w + 1)
        at = np.s_[row : row + h, column : column + w]
        solid, edge = one >= EDGE[1], (one >= EDGE[0]) & (one < EDGE[1])
        image[at] = np.where(one >= EDGE[0], one, image[at])
        classes[at] = np.where(solid, labels[which] + 1, np.where(edge, 255, classes[at]))
    return image, classes


if __name__ == "__main__":
    main(*sys.argv[1:])
