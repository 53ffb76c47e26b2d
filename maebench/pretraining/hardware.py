"""Which device and precision a run takes on this machine, and what else is known of it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from maebench.errors import ConfigError

# From this width on bf16 beats fp32 on a CPU that has it (benchmarks/precision.py).
BF16_WIDTH = 192

# mallopt(3) of the GNU C library, malloc.h: the free memory above which some goes back to the
# system, and the size from which a block is fetched from it alone; values to try, for older
# libraries refuse the first.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER, LARGE = 2**31 - 1, (2**30, 2**25)


def find_device(name: str) -> str:
    """The device a name means; "auto" takes a GPU if there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        there = ", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise ConfigError(f"--device {name}: not here. There is: {there}") from error
    return name


def keep_memory() -> None:
    """Has the C library keep freed memory for the next step, where it is the GNU one.

    What a step computes is freed and asked for again. By itself the library gives most of it back
    in between, and the system has to map and zero it anew, page by page: a tenth of a step's time
    (results/reference/speed-step.md). It is the whole process's, as torch's own keeping of a GPU's
    memory is; the most that one holds grew by up to a sixth (1.65 to 1.93 GB, with evaluations).
    """
    mallopt = (
        getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    )
    if mallopt is None:
        return
    mallopt(TRIM_THRESHOLD, NEVER)
    any(mallopt(MMAP_THRESHOLD, size) for size in LARGE)


def find_precision(name: str, device: str, width: int) -> str:
    """fp32 or bf16; auto takes bf16 where the hardware has it and the model is wide enough."""
    if name != "auto":
        return name
    if device == "cpu":
        has = torch.backends.cpu.get_cpu_capability() == "AVX512" and _cpu_has_bf16()
        return "bf16" if has and width >= BF16_WIDTH else "fp32"
    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"


def _cpu_has_bf16() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and "avx512_bf16" in info.read_text()


def environment() -> dict[str, Any]:
    """Versions and hardware, for the record; nothing secret, so no environment variables."""
    # each access parses the file again
    about = [found.metadata for found in importlib.metadata.distributions()]
    packages = {each["Name"]: each["Version"] for each in about if each["Name"]}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def processor() -> str:
    """The processor's name, or what little the system says of it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
