"""What this machine is to a run: system, processor, threads, memory, devices and clock."""

from __future__ import annotations

import ctypes
import importlib.metadata
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch
from packaging.specifiers import SpecifierSet

from maebench.pretraining.hardware import HAS_BF16, card, cpu_has_bf16, processor, unfit
from maebench.report.libraries import Checked

# What a run of the default settings with its evaluations takes, as measured for
# pretraining.hardware.keep_memory: 1.93 GB.
MEMORY = 2e9
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # cgroups(7)
FIRST_YEAR = 2026  # maebench was written then: a clock before it is wrong
LAST_YEAR = 2100  # a clock that far ahead is wrong too
# Between two clocks, while everything else is looked at: more is no rounding and no correction by
# NTP, which moves a clock by half a thousandth at most.
DRIFT_SECONDS = 1.0


def python() -> Checked:
    """Which Python runs, where it lies, and whether maebench is made for it."""
    text = f"{platform.python_version()} ({sys.executable})"
    try:
        wanted = importlib.metadata.metadata("maebench")["Requires-Python"] or ""
    except importlib.metadata.PackageNotFoundError:
        wanted = ""
    if SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return Checked("python", text)
    advice = f"Make an environment with a Python {wanted}"
    return Checked("python", f"{text}; maebench is made for {wanted}", "error", advice)


def system() -> Checked:
    """The system and the processor."""
    return Checked("system", platform.platform())


def cpu() -> Checked:
    """The processor, which of its instructions torch uses, and whether it multiplies in bf16."""
    uses = torch.backends.cpu.get_cpu_capability()
    has = "with" if cpu_has_bf16() else "without"
    text = f"{processor() or platform.machine()}; torch uses {uses}, {has} bf16"
    # DEFAULT is what torch calls kernels for any processor; on ARM they are made for NEON
    if uses in ("DEFAULT", "NO AVX") and platform.machine() in ("x86_64", "AMD64"):
        return Checked("processor", f"{text}: slow", "warning", "Nothing but another machine helps")
    return Checked("processor", text)


def threads() -> Checked:
    """How many threads torch computes on, and how many cores this process may use."""
    number, there = torch.get_num_threads(), cores()
    asked = os.environ.get("OMP_NUM_THREADS")
    named = f" (OMP_NUM_THREADS={asked})" if asked else ""
    text = f"{number}{named}, cores that this process may use: {there}"
    if number > there:
        advice = f"Set OMP_NUM_THREADS={there}"
        return Checked("threads", f"{text}; threads wait for each other", "warning", advice)
    # by itself torch takes a thread per core and not per hyper-thread, of which there are two
    if asked and number < there:
        advice = "Unset OMP_NUM_THREADS unless several processes share the cores"
        return Checked("threads", text, "warning", advice)
    return Checked("threads", text)


def cores() -> int:
    """How many cores this process may use: those of its affinity and of its container's quota."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = []
    for file in _of_cgroup("cpu.max", "cpu", "cpu.cfs_quota_us"):
        quota, *period = file.read_text().split()
        if quota not in ("max", "-1"):  # microseconds in each period
            each = period or (file.parent / "cpu.cfs_period_us").read_text().split()
            quotas.append(math.ceil(int(quota) / int(each[0])))
    return max(1, min([there or 1, *quotas]))


def memory() -> Checked:
    """How much memory there is and how much of it can be had now, in a container its limit too."""
    total, free = _memory()
    kept = _of_cgroup("memory.max", "memory", "memory.limit_in_bytes")
    limits = [int(text) for file in kept if (text := file.read_text().strip()) != "max"]
    bound = min(limits, default=total)
    text = f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB of it available"
    if bound < total:  # of no limit version 1 says a number near 2^63
        text += f"; this container may use {bound / 2**30:.1f} GiB"
        free = min(free, bound)
    if free < MEMORY:
        advice = "End other programs, or set a higher limit"
        wanted = f"a run of the default settings takes {MEMORY / 2**30:.1f} GiB"
        return Checked("memory", f"{text}; {wanted}", "warning", advice)
    return Checked("memory", text)


def devices() -> Iterator[Checked]:
    """Each GPU: whether it computes, its memory, precisions, driver and CUDA; or why there is none.

    No line is an error, for without a GPU a run takes the CPU, which may be what is wanted.
    """
    with warnings.catch_warnings(record=True) as said:  # an old driver is but a warning of torch's
        warnings.simplefilter("always")
        number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    built = f"torch {torch.__version__} is built " + (
        f"for CUDA {torch.version.cuda}"
        if torch.version.cuda
        else f"for ROCm {torch.version.hip}"
        if torch.version.hip
        else "without CUDA"
    )
    known = driver_cuda()
    driver = f"the driver knows CUDA {known[0]}.{known[1]}" if known else "no NVIDIA driver is here"
    if not number:
        if known:
            why = f" ({str(said[0].message).partition(chr(10))[0]})" if said else ""
            text = f"no GPU is used{why}: {built}, {driver}"
            yield Checked("device", text, "warning", "docs/gpu.md says what to install")
        else:
            yield Checked("device", f"the CPU: {built}, {driver}")
        return
    for index in range(number):
        yield _gpu(f"cuda:{index}", f"{built}, {driver}", known)


def _gpu(device: str, built: str, known: tuple[int, int] | None) -> Checked:
    if why := unfit(device):
        return Checked(device, f"{why} [{built}]", "warning", "Or take --device cpu")
    free, total = (number / 2**30 for number in torch.cuda.mem_get_info(device))
    new = torch.cuda.get_device_capability(device) >= HAS_BF16
    precisions = "bf16 and TF32" if new else "neither bf16 nor TF32"
    if torch.version.hip:
        precisions = "bf16"
    text = f"{card(device)}, {free:.1f} of {total:.1f} GiB free, {precisions}; {built}"
    if known and torch.version.cuda and known[0] < int(torch.version.cuda.split(".")[0]):
        advice = "Install a newer driver, or a torch for its CUDA: docs/gpu.md"
        return Checked(device, f"{text}: the driver is older", "warning", advice)
    return Checked(device, text)


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the NVIDIA driver knows; None where there is no driver."""
    number = ctypes.c_int(0)
    try:
        # CUDA driver API, cuDriverGetVersion: 1000 times the major version and 10 times the minor
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return number.value // 1000, number.value % 1000 // 10


class Clock:
    """Two clocks, read at the start and again by `checked`."""

    def __init__(self) -> None:
        self._wall, self._steady = time.time(), time.monotonic()

    def checked(self) -> Checked:
        """Whether the time of day can be true, and goes as fast as the clock that nobody sets."""
        now, steady = time.time(), time.monotonic()
        text = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC"
        advice = "Set the clock"
        if not FIRST_YEAR <= datetime.fromtimestamp(now, UTC).year < LAST_YEAR:
            text += " cannot be: it tells which run is the newest, and whether a file has changed"
            return Checked("clock", text, "error", advice)
        drift = (now - self._wall) - (steady - self._steady)
        if abs(drift) > DRIFT_SECONDS:
            text += f", set by {drift:+.1f} s within the last {steady - self._steady:.0f} s"
            return Checked("clock", text, "warning", "Let NTP set it once, then call again")
        return Checked("clock", text)


def _memory() -> tuple[int, int]:
    """Bytes of memory in all, and of those that can be had."""
    info = Path("/proc/meminfo")
    if not info.exists():  # macOS, which says nothing of what can be had
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    kib = {name: int(value.split()[0]) for name, value in lines.items()}
    return kib["MemTotal"] * 1024, kib.get("MemAvailable", kib["MemFree"]) * 1024


def _of_cgroup(name: str, controller: str, older: str) -> list[Path]:
    """The files with a limit of this process's control group and of those above it, which bind too.

    Args:
        name: of the file in version 2.
        controller: the folder of version 1.
        older: of the file in version 1.
    """
    found = []
    for line in OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top, file = (CGROUPS / controller, older) if controllers else (CGROUPS, name)
        place = top / path.lstrip("/")  # in a container it may not be there, but the top is
        above = [folder for folder in (place, *place.parents) if folder.is_relative_to(top)]
        found += [folder / file for folder in above if (folder / file).is_file()]
    return found
