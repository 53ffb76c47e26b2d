"""How seconds and memory grow with the number of images, of patches, and with the width.

    python benchmarks/growth.py [--rounds N] [--only SETTING] [--threads N] [--write]

One step of pretraining and one pass of features, in fp32 on images of noise; slopes of log seconds
against the log of what grows, by least squares with standard errors. Memory of pretraining against
images beyond their pixels: each number in a process of its own. Prints Markdown; --write also puts
it into results/reference/speed-growth.md. All settings take about five minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timing
import torch
from scipy import stats
from step import Step, noise_plan
from timing import Sample, say

from maebench.encoders import ViTNano
from maebench.evaluating.features import features
from maebench.models.load import untrained_model
from maebench.models.model import LoadedModel
from maebench.plugins import installed
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import Plan

# what grows: its values, and the settings of a run with one of them
IMAGES, PATCHES, WIDTH = "images", "patches", "width"
VALUES = {
    IMAGES: (1_000, 3_000, 10_000, 30_000, 100_000),
    PATCHES: (16, 64, 144, 256, 576, 1_024),
    WIDTH: (64, 128, 192, 384, 768),
}
TINY = {IMAGES: (50, 100, 200), PATCHES: (4, 16, 64), WIDTH: (32, 64, 128)}  # to try this script
PATCH, HEAD = 4, 32  # pixels of a patch's side; width of a head, as in the paper's decoder
FEW = 64  # images, where their number does not grow
STEPS = 20  # of pretraining whose memory is read


def plan_of(what: str, value: int) -> Plan:
    """A run in which one quantity has this value: otherwise 16 px, 16 patches, vit-nano's width."""
    number = value if what == IMAGES else FEW
    grid = round(value**0.5) if what == PATCHES else 4
    width = value if what == WIDTH else 64
    encoder = ViTNano(width=width, depth=3, heads=width // HEAD, patch=PATCH)
    machine = {"precision": "fp32", "compile": False}
    return noise_plan(number, grid * PATCH, encoder=encoder, batch=FEW, machine=machine)


def one_pass(model: LoadedModel) -> None:
    """Features of all images, in a folder where none are kept yet."""
    folder = Path(tempfile.mkdtemp(dir=model.folder.parent))
    features(replace(model, folder=folder), model.splits.load("train"))
    shutil.rmtree(folder)


def timed(
    what: str, values: Sequence[int], rounds: int
) -> tuple[dict[int, list[Sample]], dict[int, list[Sample]]]:
    """Samples of a step and of a pass, for each value."""
    work: dict[str, Any] = {}
    folders = []
    for value in values:
        plan = plan_of(what, value)
        results = plan.run.results
        folders.append(results)
        (results / "models").mkdir()
        model = untrained_model(plan.run, results, "cpu", installed(), plan.config, plan.splits)
        work[f"step, {value} {what}"] = Step(plan)
        work[f"features, {value} {what}"] = partial(one_pass, model)
    samples = timing.in_turn(work, rounds)
    for folder in folders:
        shutil.rmtree(folder)
    steps, passes = (
        {value: samples[f"{kind}, {value} {what}"] for value in values}
        for kind in ("step", "features")
    )
    return steps, passes


def held(number: int, threads: int) -> tuple[int, int]:
    """Bytes at most of pretraining on so many images beyond what the process had, and their pixels.

    Run in a fresh process.
    """
    torch.set_num_threads(threads)
    small = plan_of(IMAGES, FEW)
    steps = pretrain(small)
    next(steps), steps.close()  # imports
    shutil.rmtree(small.run.results)
    before = timing.memory("VmRSS")
    timing.forget_peak()
    plan = plan_of(IMAGES, number)
    steps = pretrain(plan)
    for _ in range(STEPS):
        next(steps)
    steps.close()
    shutil.rmtree(plan.run.results)
    pixels = number * plan.images.pick([0]).nbytes
    return timing.memory("VmHWM") - before, pixels


def memory_table(values: Sequence[int]) -> str:
    """Memory of pretraining against images, as text."""
    spawn, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        found = list(pool.map(held, values, [threads] * len(values)))
    lines = [
        {
            "images": f"{number:,}",
            "most MiB": f"{most / 2**20:,.1f}",
            "pixels MiB": f"{pixels / 2**20:,.1f}",
            "beyond pixels MiB": f"{(most - pixels) / 2**20:,.1f}",
        }
        for number, (most, pixels) in zip(values, found, strict=True)
    ]
    line = stats.linregress(values, [most - pixels for most, pixels in found])
    each = found[0][1] // values[0]
    said = (
        f"Beyond the {each} bytes of its pixels an image costs {line.slope:,.0f} bytes "
        f"(standard error {line.stderr:,.0f}; a straight line through all)."
    )
    return f"{timing.table(lines)}\n\n{said}"


def slope(found: Mapping[int, Sequence[Sample]]) -> str:
    """The slope of log seconds against log value, with its standard error."""
    values = torch.tensor(list(found), dtype=torch.float64).log().tolist()
    times = torch.tensor([timing.seconds(s) for s in found.values()]).double().log().tolist()
    line = stats.linregress(values, times)
    return f"{line.slope:.2f} ± {line.stderr:.2f}"


def text_of(what: str, values: Sequence[int], rounds: int, command: str) -> str:
    """The section of one quantity."""
    steps, passes = timed(what, values, rounds)
    lines = [
        {
            what: f"{value:,}",
            "step, ms": f"{1000 * timing.seconds(steps[value]):,.2f}",
            "features of all, s": f"{timing.seconds(passes[value]):,.3f}",
            "clean": f"{timing.share(steps[value])} and {timing.share(passes[value])}",
        }
        for value in values
    ]
    fixed = {
        IMAGES: "16 px, 16 patches, width 64, depth 3, batch 64",
        PATCHES: "64 images of 3 channels, patch 4, width 64, depth 3, batch 64",
        WIDTH: "64 images of 16 px, 16 patches, depth 3, heads of 32, batch 64",
    }[what]
    said = f"Slopes (± standard error): step {slope(steps)}, features {slope(passes)}."
    parts = [timing.machine(command), f"Fixed: {fixed}; fp32, not compiled.", timing.table(lines)]
    parts.append(said)
    if what == IMAGES:
        parts += [f"Memory of {STEPS} steps of pretraining:", memory_table(values)]
    return "\n\n".join(parts)


def main() -> None:
    """Measures and prints, and where asked writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each, default 5")
    parser.add_argument("--only", choices=[*VALUES, "tiny"], help="what grows; default all")
    parser.add_argument("--threads", type=int, help="default: torch's own")
    parser.add_argument("--write", action="store_true", help="write the tables")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    command = shlex.join(["python", "benchmarks/growth.py", *sys.argv[1:]])
    for what, values in (TINY if asked.only == "tiny" else VALUES).items():
        if asked.only in (None, what, "tiny"):
            say(f"{what}: {', '.join(map(str, values))}")
            text = text_of(what, values, asked.rounds, command)
            heading = f"The number of {what}" if what != WIDTH else "The width"
            timing.publish("speed-growth.md", "How cost grows", {heading: text}, asked.write)


if __name__ == "__main__":
    main()
