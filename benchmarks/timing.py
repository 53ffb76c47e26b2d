"""Times on a machine that others use too: variants in turn, what else ran meanwhile, and tables.

A sample is clean where other processes used little of the cores meanwhile. Read from /proc, so on
Linux alone.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from maebench.pretraining.hardware import MMAP_THRESHOLD, TRIM_THRESHOLD, environment

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
# Of one core. The kernel counts in ticks of 10 ms, so two ticks of a second are 2 %.
OTHERS = 0.05
LEAST = 1.0  # seconds of a sample
SIDE = 2048  # of the matrices whose product stands for the hardware's peak
# By which torch's own kernels, oneDNN and MKL are kept from newer instructions (their names)
HELD = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Sample:
    """One turn of a variant.

    Args:
        seconds: of one step, the mean over the steps of the turn.
        others: what other processes used of the cores meanwhile, in cores.
    """

    seconds: float
    others: float

    @property
    def clean(self) -> bool:
        """Whether others used too little to matter."""
        return self.others <= OTHERS


def busy() -> float:
    """Seconds that all cores together have worked since the machine started, stolen ones too."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def timed(work: Callable[[], object], steps: int = 1) -> Sample:
    """One turn: so many steps, and what others used meanwhile."""
    worked, own, began = busy(), sum(os.times()[:4]), time.perf_counter()
    for _ in range(steps):
        work()
    seconds = time.perf_counter() - began
    others = (busy() - worked) - (sum(os.times()[:4]) - own)
    return Sample(seconds / steps, others / seconds)


def in_turn(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[Sample]]:
    """Round after round each variant gets a turn, so that a slow moment hits all of them.

    Three steps warm each up: what is loaded, compiled and allocated once is in no sample. A turn
    lasts a second or longer; where that is several steps, one more comes before them uncounted.
    """
    counts = {}
    for name, work in variants.items():
        work(), work()  # the second still compiles
        counts[name] = max(1, math.ceil(LEAST / timed(work).seconds))
        say(f"warm: {name}, {counts[name]} steps a turn")
    found: dict[str, list[Sample]] = {name: [] for name in variants}
    for number in range(rounds):
        for name, work in variants.items():
            if counts[name] > 1:
                work()
            found[name].append(timed(work, counts[name]))
        say(f"round {number + 1} of {rounds}")
    return found


def seconds(samples: Sequence[Sample]) -> float:
    """The median over clean samples, or over all where none is clean."""
    return statistics.median(
        [s.seconds for s in samples if s.clean] or [s.seconds for s in samples]
    )


def faster(reference: Sequence[Sample], samples: Sequence[Sample]) -> str:
    """How many times as fast as the reference: the median over rounds, the least and the most.

    Of rounds where both samples are clean, or of all where there is no such round.
    """
    rounds = list(zip(reference, samples, strict=True))
    both = [(a, b) for a, b in rounds if a.clean and b.clean] or rounds
    ratios = [a.seconds / b.seconds for a, b in both]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def share(samples: Sequence[Sample]) -> str:
    """Clean samples of all."""
    return f"{sum(s.clean for s in samples)}/{len(samples)}"


def usual_memory() -> None:
    """Undoes `keep_memory`: what the GNU C library comes to by itself once a large block was freed.

    Its limits are then twice that of the largest (mallopt(3), M_MMAP_THRESHOLD), at most these.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, 2**26)
        mallopt(MMAP_THRESHOLD, 2**25)


def matmul(dtype: torch.dtype) -> Callable[[], object]:
    """A product of two square matrices, the most that the hardware gives in a precision."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    return lambda: a @ b


def memory(name: str) -> int:
    """Bytes of this process: VmRSS, what it holds, or VmHWM, the most since `forget_peak`."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def forget_peak() -> None:
    """From now on VmHWM is the most from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def held_to() -> str:
    """Names the instructions that the environment keeps libraries to, or nothing."""
    return ", ".join(f"{name}={os.environ[name]}" for name in HELD if name in os.environ)


def machine(command: str) -> str:
    """Processor, instruction sets, threads, versions and the command, as the head of a table."""
    there = environment()
    info = Path("/proc/cpuinfo").read_text()
    flags = set(info.partition("flags")[2].partition("\n")[0].split())
    sets = [name for name in INSTRUCTIONS if name in flags]
    return (
        f"{there['processor']}, {os.cpu_count()} cores, {', '.join(sets) or 'no AVX2'}"
        f"{f' (with {held})' if (held := held_to()) else ''}; "
        f"{torch.get_num_threads()} threads; torch {torch.__version__}, Python {there['python']}. "
        f"Made by `{command}`."
    )


HOW = (
    f"Variants take turns of {LEAST:g} s or more. A sample is clean where other processes used at "
    f"most {OTHERS:.0%} of one core meanwhile (/proc/stat less this process's own times); medians "
    "and ratios are of clean samples, or of all where the table says 0 clean. Ratios are of the "
    "same round: median (least-most). Not measured on a GPU."
)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table."""
    return pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)


def publish(
    file: str, title: str, sections: Mapping[str, str], write: bool, how: str = HOW
) -> None:
    """Prints sections, and where asked puts each in its place in a page of the reference tables.

    Sections of the page that were not measured now stay as they are: each names its own machine.
    """
    for heading, text in sections.items():
        print(f"\n## {heading}\n\n{text}")
    if not write:
        return
    path = REFERENCE / file
    _, *old = re.split(r"^## ", path.read_text() if path.exists() else "", flags=re.MULTILINE)
    kept = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in old} | sections
    body = "".join(f"\n## {heading}\n\n{text}\n" for heading, text in kept.items())
    path.write_text(f"# {title}\n\n{how}\n{body}")
    say(f"written: {path}")


def say(what: str) -> None:
    """One line of progress."""
    print(what, file=sys.stderr, flush=True)
