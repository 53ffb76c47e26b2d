"""Which device and precision a run takes on this machine, and what else is known of it."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from maebench.errors import ConfigError

# From this width on bf16 beats fp32 on a CPU that has it (benchmarks/precision.py).
BF16_WIDTH = 192


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
