"""Which device and precision a run takes on this machine."""

from __future__ import annotations

from pathlib import Path

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
