"""A step of pretraining against other libraries, and a run against its own steps.

    python benchmarks/peers.py [--rounds N] [--only SETTING] [--threads N] [--data DIR] [--write]

Times the masked autoencoder of maebench, transformers, lightly and stable-pretraining (those that
are installed), and the published algorithm written out plainly, which is the reference, with the
same weights, images and precision. They must agree on loss and gradient first. Variants take turns;
samples during which other processes worked are left out. Prints Markdown; --write also puts it into
results/reference/speed-step.md and speed-end-to-end.md. All settings take about half an hour.

With ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 a machine that
has more instructions shows about what one without them would; that is a section of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timing
import torch
from implementations import PEERS, RATIO, TOLERANCE, Peer, Plain, Size, of_decoder
from step import Step, noise_plan
from timing import say
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maebench import Batch, Draws, RunConfig
from maebench.encoders import ViTNano
from maebench.masking import hide
from maebench.pretraining.hardware import BF16_WIDTH, find_precision, keep_memory
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare
from maebench.rng import isolated

SETTINGS = {
    "small": Size(32, 4, 3, 256, 192, 6, 3, 96, 2, 3),
    "vit-base": Size(224, 16, 3, 16, 768, 12, 12, 512, 8, 16),
    "digits": Size(8, 2, 1, 64, 64, 3, 4, 32, 1, 1),  # the default run's
}
TINY = {"tiny": Size(16, 4, 3, 8, 32, 2, 2, 16, 1, 1)}  # to try this script
END_TO_END = "end-to-end"
CHECKED = 8  # images that implementations must agree on
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PLAIN, OURS = "plain algorithm", "maebench"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist


class Theirs:
    """The plain algorithm or a library's, with an optimiser of its own.

    Args:
        size: of the model.
        weights: of the plain one.
        peer: the library; None for the plain one.
    """

    def __init__(self, size: Size, weights: dict[str, Tensor], peer: Peer | None = None) -> None:
        self.peer = peer
        if peer is None:
            self.module: Any = Plain(size)
            self.module.load_state_dict(weights)
        else:
            self.module = peer.build(size, weights)
        self.module.train()
        self.images = torch.randn(size.batch, size.channels, size.image, size.image)
        # the official code's betas, decay and groups (main_pretrain.py), for all the same
        groups = param_groups_weight_decay(self.module, 0.05)
        fused = {"fused": True} if peer is not None and peer.fused else {}
        self.adam = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), **fused)

    def loss(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """The loss of a batch."""
        if self.peer is None:
            return self.module(images, noise)
        return self.peer.loss(self.module, images, noise)

    def __call__(self, precision: str, fused: bool = True) -> None:
        """One step."""
        timing.usual_memory()
        if self.peer is None:
            self.module.set_attention(fused)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = self.loss(self.images, None)
        loss.backward()
        self.adam.step()
        self.adam.zero_grad()
        loss.item()


class Ours(Step):
    """maebench's step with the plain one's weights."""

    def __init__(self, size: Size, weights: dict[str, Tensor]) -> None:
        encoder = ViTNano(width=size.width, depth=size.depth, heads=size.heads, patch=size.patch)
        decoder = {
            "decoder_width": size.decoder_width,
            "decoder_depth": size.decoder_depth,
            "decoder_heads": size.decoder_heads,
        }
        settings: dict[str, Any] = {"encoder": encoder, "objective": {"name": "mae", **decoder}}
        settings |= {"batch": size.batch, "ratio": RATIO}
        super().__init__(noise_plan(size.batch, size.image, size.channels, **settings))
        shutil.rmtree(self.plan.run.results)  # steps alone write nothing
        found = {("decoder." if of_decoder(n) else "encoder.") + n: t for n, t in weights.items()}
        found["decoder.decoder_pos_embed"] = weights["decoder_pos_embed"][:, 1:]
        self.module.load_state_dict(found)

    def __call__(self, precision: str = "", compiled: bool = False) -> None:
        """One step, with memory kept as a run keeps it."""
        keep_memory()
        super().__call__(precision, compiled)

    def loss(self, images: Tensor, noise: Tensor) -> Tensor:
        """The loss of a batch."""
        ids, length = torch.arange(len(images)), noise.shape[1]
        mask = hide(noise, length - int(length * (1 - RATIO)), self.module.encoder.grid)
        return self.module(Batch(images, ids, Draws(0, "check", ids), mask))["loss"]


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Args:
        who: whose implementation.
        precision: "fp32" or "bf16".
        how: what else distinguishes it.
        settings: what its step is called with beside the precision.
    """

    who: str
    precision: str
    how: str = ""
    settings: tuple[tuple[str, bool], ...] = ()

    @property
    def name(self) -> str:
        """As in the table."""
        return ", ".join(filter(None, (self.who, self.precision, self.how)))


def variants(bf16: bool) -> list[Variant]:
    """The rows, the reference first."""
    rows = []
    for precision in ("fp32", "bf16") if bf16 else ("fp32",):
        rows += [
            Variant(PLAIN, precision, "fused attention", (("fused", True),)),
            Variant(PLAIN, precision, "explicit attention", (("fused", False),)),
            *(Variant(peer.package, precision) for peer in PEERS if peer.installed),
            Variant(OURS, precision),
            Variant(OURS, precision, "compiled", (("compiled", True),)),
        ]
    return rows


def implementation(who: str, size: Size) -> Theirs | Ours:
    """One of the implementations, each with the same weights."""
    with isolated(0, "benchmarks"):
        weights = Plain(size).state_dict()
    if who == OURS:
        return Ours(size, weights)
    peer = next((peer for peer in PEERS if peer.package == who), None)
    return Theirs(size, weights, peer)


def check(size: Size, found: Mapping[str, Theirs | Ours]) -> str:
    """Stops unless all have the plain one's loss and gradient in fp32, for one mask.

    Returns:
        How far they are from it, in a sentence.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (CHECKED, size.channels, size.image, size.image)
    images = torch.randn(shape, generator=generator)
    noise = torch.rand(CHECKED, size.grid**2, generator=generator)
    plain, worst = found[PLAIN].module, 0.0
    for who, one in found.items():
        # a decoder without the class token is compared with the plain one without
        peer = getattr(one, "peer", None)
        without = peer is not None and not peer.class_token
        wanted = measured(plain, partial(plain, images, noise, not without))
        got = measured(one.module, partial(one.loss, images, noise))
        for what, a, b in zip(("loss", "gradient's norm"), wanted, got, strict=True):
            off = abs(a - b) / abs(a)
            worst = max(worst, off)
            if not off <= TOLERANCE:
                raise SystemExit(
                    f"{who}: {what} {b:.8g}, of the plain algorithm {a:.8g}: they differ by "
                    f"{off:.1g} relative, allowed {TOLERANCE:g}. Nothing was timed."
                )
    return (
        f"With the same weights and masks the implementations have the same loss and norm of the "
        f"gradient in fp32, to {worst:.0e} relative."
    )


def measured(module: nn.Module, loss_of: Callable[[], Tensor]) -> tuple[float, float]:
    """A loss, and the norm of its gradient."""
    module.zero_grad()
    loss = loss_of()
    loss.backward()
    squares = [p.grad.double().square().sum() for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    return loss.item(), float(sum(squares)) ** 0.5


def flops(plain: Theirs) -> int:
    """Of the plain algorithm's step, in matrix products and convolutions."""
    plain.module.set_attention(False)
    with FlopCounterMode(display=False) as counter:
        plain.loss(plain.images, None).backward()
    plain.adam.zero_grad()
    return counter.get_total_flops()


def peak(size: Size, row: Variant, threads: int) -> int:
    """Bytes of a step beyond what a process has before; run in a fresh one."""
    torch.set_num_threads(threads)
    implementation(row.who, TINY["tiny"])(row.precision, **dict(row.settings))  # imports
    before = timing.memory("VmRSS")
    one = implementation(row.who, size)
    one(row.precision, **dict(row.settings))
    timing.forget_peak()  # what loading took
    for _ in range(2):
        one(row.precision, **dict(row.settings))
    return timing.memory("VmHWM") - before


def peaks(size: Size, rows: list[Variant]) -> dict[str, str]:
    """Peak memory of each variant in MiB; a compiled one's would be its compiler's."""
    spawn, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        asked = {
            row.name: pool.submit(peak, size, row, threads) for row in rows if row.how != "compiled"
        }
        return {name: f"{one.result() / 2**20:,.0f}" for name, one in asked.items()}


def step_table(name: str, size: Size, rounds: int, command: str) -> tuple[str, str]:
    """Heading and text of the table of one setting."""
    say(f"{name}: {size.text}")
    torch.compiler.reset()  # it compiles a function for eight models, then no more
    # whether the hardware multiplies in bf16, as a wide model asks
    bf16 = find_precision("auto", "cpu", BF16_WIDTH) == "bf16"
    rows = variants(bf16)
    found = {who: implementation(who, size) for who in dict.fromkeys(row.who for row in rows)}
    agreed, work = check(size, found), flops(found[PLAIN])
    steps = {row.name: partial(found[row.who], row.precision, **dict(row.settings)) for row in rows}
    products = {f"matmul {p}": timing.matmul(DTYPES[p]) for p in {r.precision: 0 for r in rows}}
    samples = timing.in_turn(steps | products, rounds)
    del found, steps  # before others are measured
    held = peaks(size, rows)
    rates = {
        name.removeprefix("matmul "): 2 * timing.SIDE**3 / timing.seconds(samples[name])
        for name in products
    }
    lines = []
    for row in rows:
        mine = samples[row.name]
        lines.append(
            {
                "variant": row.name,
                "ms per step": f"{1000 * timing.seconds(mine):,.1f}",
                "x reference": timing.faster(samples[rows[0].name], mine),
                "share of peak": f"{work / timing.seconds(mine) / rates[row.precision]:.0%}",
                "peak MiB": held.get(row.name, "-"),
                "clean": timing.share(mine),
            }
        )
    width = find_precision("auto", "cpu", size.width)
    products_text = ", ".join(
        f"{p} {rate / 1e9:,.0f} GFLOP/s ({timing.share(samples[f'matmul {p}'])} clean)"
        for p, rate in rates.items()
    )
    notes = [
        timing.machine(command),
        agreed,
        f"A step is {work / 1e9:,.1f} GFLOP of the plain algorithm, forward and backward, whatever "
        f"a variant leaves out; the peak is a product of {timing.SIDE} x {timing.SIDE} matrices in "
        f"the same rounds: {products_text}. A run of maebench would take {width}.",
        versions(bf16),
    ]
    return f"{name}: {size.text}", "\n\n".join([*notes, timing.table(lines)])


def versions(bf16: bool) -> str:
    """Which peers these are, and what was left out."""
    there = [peer.title for peer in PEERS if peer.installed]
    gone = [peer.package for peer in PEERS if not peer.installed]
    text = f"Peers: {', '.join(there) or 'none'}."
    text += f" Not installed: {', '.join(gone)}." if gone else ""
    if any(peer.installed and not peer.class_token for peer in PEERS):
        text += (
            " stable-pretraining's decoder does not see the class token; its loss is compared with "
            "the plain one's without it."
        )
    if not bf16:
        text += " bf16 was left out: this hardware does not multiply in it."
    return text


def end_to_end(name: str, folder: Path | None, compiled: bool, rounds: int) -> dict[str, str]:
    """The row of a run on real images against its pure steps."""
    torch.compiler.reset()
    with tempfile.TemporaryDirectory() as results:
        config = RunConfig(
            dataset=name,
            data_dir=folder,
            device="cpu",
            budget="steps=1000000",
            machine={"compile": compiled},
        )
        plan = prepare(config, Path(results))
        steps, pure = pretrain(plan), Step(plan, masks=False)
        work = {"end to end": partial(next, steps), "pure step": partial(pure, compiled=compiled)}
        samples = timing.in_turn(work, rounds)
        steps.close()
        rates = {what: config.batch / timing.seconds(found) for what, found in samples.items()}
        model = f"{config.encoder.name}, {config.image_size[0]} px, batch {config.batch}"
        how = f"{plan.run.facts['precision']}{', compiled' if compiled else ''}"
        return {
            "run": f"{name}: {model}, {how}",
            **{f"{what}, images/s": f"{rate:,.0f}" for what, rate in rates.items()},
            "end to end / pure": timing.faster(samples["pure step"], samples["end to end"]),
            "clean": " and ".join(timing.share(found) for found in samples.values()),
        }


def end_to_end_table(folder: Path, rounds: int, command: str) -> tuple[str, str]:
    """Heading and text of the table of runs."""
    asked: dict[str, Path | None] = {"digits": None}
    missing = ""
    if folder.is_dir():
        asked["fashion-mnist"] = folder
    else:
        missing = f" Left out: fashion-mnist, for there is no {folder}."
    lines = [
        end_to_end(name, where, compiled, rounds)
        for name, where in asked.items()
        for compiled in (False, True)
    ]
    notes = (
        "A run's steps as `maebench pretrain` makes them, one after the other: images, crops, "
        "masks, steps, the log, and a checkpoint every 10 s; its start and end, and compiling, are "
        "not in it. A pure step goes forward and backward and updates, on one batch and mask that "
        f"are there already.{missing}"
    )
    text = "\n\n".join([timing.machine(command), notes, timing.table(lines)])
    return "Runs against pure steps", text


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each variant, default 9")
    names = [*SETTINGS, END_TO_END]
    parser.add_argument("--only", choices=[*names, *TINY], metavar="SETTING", help=", ".join(names))
    parser.add_argument("--threads", type=int, help="default: torch's own")
    parser.add_argument("--data", type=Path, default=FASHION_MNIST, help="Fashion-MNIST's files")
    parser.add_argument("--write", action="store_true", help="write the tables")
    return parser.parse_args()


def main() -> None:
    """Measures and prints, and where asked writes."""
    asked = arguments()
    warnings.simplefilter("ignore")  # of peers' imports
    if asked.threads:
        torch.set_num_threads(asked.threads)
    command = shlex.join(["python", "benchmarks/peers.py", *sys.argv[1:]])
    for name, size in (SETTINGS | TINY).items():
        if asked.only == name or (asked.only is None and name in SETTINGS):
            heading, text = step_table(name, size, asked.rounds, command)
            heading += ", of fewer instructions" if timing.held_to() else ""
            timing.publish("speed-step.md", "A step of pretraining", {heading: text}, asked.write)
    if asked.only in (None, END_TO_END):
        heading, text = end_to_end_table(asked.data, asked.rounds, command)
        timing.publish("speed-end-to-end.md", "A run end to end", {heading: text}, asked.write)


if __name__ == "__main__":
    main()
