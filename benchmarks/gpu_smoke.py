"""What works on this machine's GPU, and how fast: one table, in about ten minutes.

    python benchmarks/gpu_smoke.py [--device NAME] [--only CHECK] [--small] [--write]

Each check is a row, with what was found and whether it is as it should be; the exit code is 1 where
one is not. Compared with the CPU are masks, first losses and nearest neighbours; a run is stopped
and goes on; memory runs out on purpose; steps of ViT-B/16 and ViT-L/16 are timed beside the
published algorithm written out plainly. With --device cpu the script itself can be tried, with
--small on tiny models. --write puts the table into results/reference/gpu-smoke.md.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from data import made
from implementations import Plain, Size
from step import Noise
from torch import Tensor

import maebench
from maebench import ConfigError, MaebenchError, RunConfig
from maebench.analysis.run import evaluate_run
from maebench.data.preprocess import Normaliser
from maebench.masking import BUILT_IN as MASKINGS
from maebench.objectives import BUILT_IN as OBJECTIVES
from maebench.plugins import installed
from maebench.pretraining import checkpoints
from maebench.pretraining.batches import sample
from maebench.pretraining.hardware import card, environment, find_device, find_precision, mixed
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import Plan, prepare
from maebench.pretraining.speed import matmul_peak, measure
from maebench.pretraining.state import begin
from maebench_evals import nearest

STEPS = 20
GRID, PATCH, IMAGES = (14, 14), (16, 16), 256
# First losses of one batch with the same weights and masks: float32 sums in another order differ by
# 1e-6, and bfloat16 has 8 bits.
LOSS = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 1e-2}
SAME = 0.999  # of masks or neighbours: nearly equal scores may change places
TINY = {"name": "vit-nano", "width": 32, "depth": 2}

HOW = "Each row is a check; seconds are its own, the first of a kind with what it loads."

Found = tuple[str, bool]  # what is said, and whether it is as it should be


def config(device: str, **settings: Any) -> RunConfig:
    """A small run on digits."""
    own = {"encoder": TINY, "limit": 256, "budget": f"steps={STEPS}", "device": device}
    return RunConfig(installed(), **{**own, **settings})


def run_of(settings: RunConfig, folder: Path, steps: int | None = None) -> tuple[Plan, list[float]]:
    """A run's losses, up to a step."""
    plan, losses = prepare(settings, folder), []
    going = pretrain(plan)
    for step in going:
        losses.append(step.loss)
        if len(losses) == steps:
            break
    going.close()
    return plan, losses


# ---- the checks


def device_and_precision(device: str, folder: Path, small: bool) -> Iterator[tuple[str, Found]]:
    """What is here."""
    taken = find_precision("auto", device, 768)
    faiss = nearest.way(torch.device(device), 20).__name__
    yield "card", (card(device) if device != "cpu" else environment()["processor"], True)
    yield "precision for ViT-B", (taken, True)
    yield "nearest neighbours", (faiss, True)


def masks(device: str, folder: Path, small: bool) -> Iterator[tuple[str, Found]]:
    """Masks that a run draws for 256 images, with the same weights on both devices."""
    maps = folder / "maps.npy"
    folder.mkdir()
    np.save(maps, np.random.default_rng(0).integers(0, 6, (1797, 8, 8)).astype("uint8"))
    for cls in MASKINGS:
        strategy: Any = {"name": cls.name, **({"file": maps} if cls.name == "label-map" else {})}
        hidden = []
        for place in ("cpu", device):
            chosen = config(place, masking=strategy, machine={"precision": "fp32"})
            plan = prepare(chosen, folder / place)
            facts, module = plan.run.facts, begin(plan).module
            normalise = Normaliser(facts["mean"], facts["std"], place)
            hidden.append(sample(plan.config, module, plan.images, normalise, place).hidden)
        same = (hidden[0] == hidden[1]).all(2).double().mean().item()
        least = 1.0 if cls.drawn_ahead() else SAME
        how = "drawn on the CPU" if cls.drawn_ahead() else "drawn there"
        yield f"masks of {cls.name}", (f"{same:.2%} equal the CPU's, {how}", same >= least)


def objectives(device: str, folder: Path, small: bool) -> Iterator[tuple[str, Found]]:
    """Twenty steps of everything that is learnt, the first loss beside the CPU's."""
    kinds: dict[str, dict[str, Any]] = {cls.name: {"objective": cls.name} for cls in OBJECTIVES}
    fields = maebench.MAE.model_fields
    for option in ("target", "decoder"):
        for value in fields[option].annotation.__args__:
            size = {"image_size": 16} if value == "hog" else {}
            kinds[f"mae, {option}={value}"] = {"objective": {"name": "mae", option: value}, **size}
    for masking in ("attention", "hard", "parts"):
        kinds[f"masking {masking}"] = {"masking": masking}
    for name, settings in kinds.items():
        fp32 = {"machine": {"precision": "fp32", "compile": False}}
        try:
            expected = run_of(config("cpu", **settings, **fp32), folder / "cpu" / name, 1)[1][0]
        except ConfigError as error:
            yield name, (f"not for digits: {error}", True)
            continue
        for precision in dict.fromkeys(("fp32", find_precision("auto", device, 768))):
            machine = {"machine": {"precision": precision, "compile": False}}
            place = folder / precision / name
            _, losses = run_of(config(device, **settings, **machine), place)
            off = abs(losses[0] / expected - 1)
            said = f"first loss {off:.1e} off the CPU's, {losses[0]:.3f} -> {losses[-1]:.3f}"
            yield f"{name}, {precision}", (said, off < LOSS[precision] and len(losses) == STEPS)


def going_on(device: str, folder: Path, small: bool) -> Iterator[tuple[str, Found]]:
    """A run that is stopped and goes on, here and from the CPU."""
    often = {"checkpoint_seconds": 1e-9, "compile": False, "deterministic": True}
    ends = []
    for name, stop in (("once", None), ("twice", 7)):
        plan, _ = run_of(config(device, machine=often), folder / name, stop)
        run_of(config(device, machine=often), folder / name)
        ends.append((checkpoints.newest(plan.checkpoints) or {})["sha256"])
    same = ends[0] == ends[1]
    yield "stopped and gone on, deterministic", ("bit for bit" if same else "differs", same)
    precise = {**often, "precision": "fp32"}
    run_of(config("cpu", machine=precise), folder / "moved", 7)
    plan, losses = run_of(config(device, machine=precise), folder / "moved")
    last = (checkpoints.newest(plan.checkpoints) or {})["step"]
    said = f"{len(losses)} of {STEPS} steps, to step {last}"  # from the newest checkpoint on
    yield "begun on the CPU, ended here", (said, len(losses) < STEPS == last)


def evaluations(device: str, folder: Path, small: bool) -> Iterator[tuple[str, Found]]:
    """Every evaluation of one run."""
    every = tuple(installed().table["evaluation"])
    plan, _ = run_of(config(device, evals=every), folder)
    rows = evaluate_run(plan)
    for name, some in rows.groupby("evaluation", sort=False):
        failed = some[some["status"] == "failed"]
        took = some.groupby("model")["seconds"].first().sum()  # each row has those of all
        said = f"{took:.1f} s for {some['model'].nunique()} models"
        said = said if failed.empty else failed["reason"].iloc[0]
        yield f"evaluation {name}", (said, failed.empty)


def another(device: str, folder: Path, small: bool) -> Iterator[tuple[str, Found]]:
    """The second GPU, where there is one."""
    if device == "cpu" or torch.cuda.device_count() < 2:
        yield "cuda:1", ("there is none", True)
        return
    _, losses = run_of(config("cuda:1"), folder)
    yield "cuda:1", (f"{len(losses)} steps", len(losses) == STEPS)


def no_memory(device: str, folder: Path, small: bool) -> Iterator[tuple[str, Found]]:
    """A batch that cannot fit."""
    if device == "cpu":
        yield "out of memory", ("only on a GPU", True)
        return
    held = torch.empty(torch.cuda.mem_get_info(device)[0] - 2**29, dtype=torch.uint8, device=device)
    try:
        run_of(config(device, batch=2**16, limit=None), folder)
        said = "it fitted"
    except MaebenchError as error:
        said = str(error)
    del held
    torch.cuda.empty_cache()
    yield "out of memory", (said, "What fits" in said)


def neighbours(device: str, folder: Path, small: bool) -> Iterator[tuple[str, Found]]:
    """Nearest neighbours of random features, and how long they take."""
    number, asked, width = (2_000, 500, 64) if small else (200_000, 20_000, 768)
    x = torch.randn(number, width, generator=torch.Generator().manual_seed(0))
    few = torch.arange(min(asked, 1_000))
    places = {}
    for place in ("cpu", device):
        parts = nearest.all_neighbours(x, torch.arange(number), x, few, 20, place)
        places[place] = torch.cat([found for found, _ in parts])
    same = (places["cpu"] == places[device]).double().mean().item()
    began = time.perf_counter()
    for _ in nearest.all_neighbours(x, torch.arange(number), x, torch.arange(asked), 20, device):
        pass
    took = time.perf_counter() - began
    said = f"{same:.2%} equal the CPU's; {number:,} x {asked:,} x {width}: {took:.2f} s"
    yield "neighbours", (said, same >= SAME)


def speed(device: str, folder: Path, small: bool) -> Iterator[tuple[str, Found]]:
    """Images a second, beside the plain algorithm under the same precision."""
    sizes = {
        "ViT-B/16": Size(224, 16, 3, 256, 768, 12, 12, 512, 8, 16),
        "ViT-L/16": Size(224, 16, 3, 256, 1024, 24, 16, 512, 8, 16),
    }
    if small:
        sizes = {"tiny": Size(32, 4, 3, 16, 64, 2, 2, 32, 1, 1)}
    for name, size in sizes.items():
        precision = find_precision("auto", device, size.width)
        encoder = {"name": "vit-nano", "width": size.width, "depth": size.depth}
        encoder |= {"heads": size.heads, "patch": size.patch}
        decoder = {"decoder_width": size.decoder_width, "decoder_depth": size.decoder_depth}
        decoder |= {"decoder_heads": size.decoder_heads}
        noise = Noise(number=4 * size.batch, side=size.image)
        for compiled, dataset in ((False, noise), (True, noise), (False, jpegs(folder))):
            machine = {"precision": precision, "compile": compiled, "memory_gb": 0.5}
            if dataset is not noise:
                machine["memory_gb"] = 0
            found = measure(
                RunConfig(
                    installed(),
                    dataset=dataset,
                    image_size=size.image,
                    encoder=encoder,
                    objective={"name": "mae", **decoder},
                    batch=size.batch,
                    device=device,
                    machine=machine,
                    data={"cache_gb": 0},
                )
            )
            from_files = ", from JPEG files" * (dataset is not noise)
            how = f"{name}, {precision}{', compiled' * compiled}{from_files}"
            said = f"{found.images_per_second:,.0f} images/s, {found.share_of_peak:.0%} of the peak"
            said += f", {found.memory / 2**30:.1f} GiB"
            yield how, (said, True)
        yield f"{name}, plain algorithm", (plain(device, size, precision), True)
    yield "peak", (f"{matmul_peak(device, precision) / 1e12:.1f} TFLOP/s {precision}", True)


def jpegs(folder: Path) -> str:
    """Files as large as photographs, decoded anew each time."""
    there = folder / "files"
    if not there.exists():
        there.mkdir(parents=True)
        made(there)
    return f"folder:{there}"


def plain(device: str, size: Size, precision: str) -> str:
    """The published algorithm under the same autocast, with fused attention and optimiser."""
    module = Plain(size).to(device).train()
    module.set_attention(True)
    adam = torch.optim.AdamW(module.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    images = torch.randn(size.batch, size.channels, size.image, size.image, device=device)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=precision == "fp16")

    def step() -> float:
        began = time.perf_counter()
        with mixed(device, precision):
            loss: Tensor = module(images, None)
        scaler.scale(loss).backward()
        scaler.step(adam)
        scaler.update()
        adam.zero_grad()
        loss.item()
        return time.perf_counter() - began

    took = statistics.median([step() for _ in range(STEPS)][STEPS // 4 :])
    return f"{size.batch / took:,.0f} images/s"


CHECKS: dict[str, Callable[[str, Path, bool], Iterator[tuple[str, Found]]]] = {
    "device": device_and_precision,
    "masks": masks,
    "objectives": objectives,
    "resume": going_on,
    "evaluations": evaluations,
    "second": another,
    "memory": no_memory,
    "neighbours": neighbours,
    "speed": speed,
}


def rows_of(name: str, device: str, folder: Path, small: bool) -> list[dict[str, str]]:
    """The rows of one check; what is raised is one that says so."""
    rows: list[dict[str, str]] = []

    def row(what: str, found: Found, began: float) -> None:
        took = time.perf_counter() - began
        verdict = "ok" if found[1] else "WRONG"
        rows.append({"check": what, "found": found[0], "": verdict, "s": f"{took:.1f}"})
        timing.say(f"{what}: {found[0]} ({verdict}, {took:.1f} s)")

    began = time.perf_counter()
    try:
        for what, found in CHECKS[name](device, folder, small):
            row(what, found, began)
            began = time.perf_counter()
    except Exception as error:
        traceback.print_exc()
        row(name, (f"{type(error).__name__}: {error}".partition("\n")[0], False), began)
    return rows


def main() -> None:
    """Runs the checks, prints the table, and ends with 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="default cuda")
    parser.add_argument("--only", choices=CHECKS, action="append", help="default: all")
    parser.add_argument("--small", action="store_true", help="tiny models, to try this script")
    parser.add_argument("--write", action="store_true", help="write the table")
    asked = parser.parse_args()
    device = find_device(asked.device)
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name in asked.only or CHECKS:
            rows += rows_of(name, device, Path(folder) / name, asked.small)
    command = shlex.join(["python", "benchmarks/gpu_smoke.py", *sys.argv[1:]])
    what = card(device) if device != "cpu" else "no GPU: the script was tried on a CPU"
    text = f"{what}. {timing.machine(command)}\n\n{timing.table(rows)}"
    timing.publish("gpu-smoke.md", "A GPU, tried", {what: text}, asked.write, HOW)
    sys.exit(any(row[""] != "ok" for row in rows))


if __name__ == "__main__":
    main()
