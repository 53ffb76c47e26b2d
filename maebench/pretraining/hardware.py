"""Which device and precision a run takes on this machine, and what else is known of it."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from maebench.errors import ConfigError, DeviceError
from maebench.state import float32_products

# From this width on bf16 beats fp32 on a CPU that has it (benchmarks/precision.py).
BF16_WIDTH = 192

# mallopt(3) of the GNU C library, malloc.h: the free memory above which some goes back to the
# system, and the size from which a block is fetched from it alone; values to try, for older
# libraries refuse the first.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER, LARGE = 2**31 - 1, (2**30, 2**25)


# Where maebench computes. Others that torch knows lack what it needs: mps has no float64, in which
# random numbers and statistics are made.
DEVICES = ("cpu", "cuda")
# The first with tensor cores for bf16, Ampere's compute capability (CUDA C++ Programming Guide,
# table "Arithmetic Instructions"); before it torch emulates, and is slower than in fp32.
HAS_BF16 = (8, 0)
# cuBLAS, "Results reproducibility": eight buffers of 4 MiB. It and torch read it at the first
# product of a process, so it is set when a GPU is chosen, whether or not a run is deterministic.
CUBLAS, WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
T = TypeVar("T")
# What torch says of it beside torch.OutOfMemoryError: its allocator on a CPU, CUDA, and libraries
# that allocate for themselves.
NO_MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory|ALLOC_FAILED")
REASON = 200  # characters of a driver's message


def find_device(name: str) -> str:
    """The device a name means; "auto" takes a GPU if there is one that works.

    Raises:
        ConfigError: no such device here, or one that does not compute.
    """
    if name == "cpu":
        return name
    with warnings.catch_warnings(record=True) as said:  # an old driver is but a warning of torch's
        warnings.simplefilter("always")
        number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        why = unfit("cuda") if number else _shortened("; ".join(str(each.message) for each in said))
        if why:
            warnings.warn(f"no GPU is used: {why}", stacklevel=2)
        return "cuda" if number and not why else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(_not_here(name, number, said)) from error
    if device.type == "cuda" and (device.index or 0) < number:
        if why := unfit(name):
            raise ConfigError(f"--device {name}: {why}")
        return name
    if device.type not in DEVICES or name.startswith("cpu:"):
        there = "auto, cpu, cuda and cuda:N"
        raise ConfigError(f"--device {name}: maebench does not compute there. It does on: {there}")
    raise ConfigError(_not_here(name, number, said))


def _not_here(name: str, number: int, said: list[warnings.WarningMessage]) -> str:
    there = ", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(number))])
    why = f" ({_shortened(str(said[0].message))})" if said else ""
    if not why and torch.version.cuda is None and torch.version.hip is None:
        why = f" (torch {torch.__version__} is built without CUDA: docs/gpu.md says which is not)"
    return f"--device {name}: not here{why}. There is: {there}"


def unfit(device: str) -> str:
    """Why a GPU does not compute, in a line that says what to install; empty where it does."""
    os.environ.setdefault(CUBLAS, WORKSPACE)
    try:
        one = torch.ones(1, device=device)
        return "" if (one + one).item() == 2 else f"{card(device)} computes 1 + 1 wrongly"
    except (RuntimeError, AssertionError) as error:
        if out_of_memory(error):
            return f"{card(device)} has no memory left: others use it"
        made_for = ", ".join(torch.cuda.get_arch_list()) or "none"
        return (
            f"{card(device)} does not run torch {torch.__version__} (CUDA {torch.version.cuda}, "
            f"for {made_for}): {_shortened(str(error))}. See docs/gpu.md for what to install, or "
            "take --device cpu"
        )


def check_answers(device: str) -> None:
    """Refuses to go on with a GPU that has failed: whatever is asked of it then is an error.

    Raises:
        DeviceError: in one line.
    """
    if torch.device(device).type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise DeviceError(
            f"{device} does not answer any more ({_shortened(str(error))}). What was measured "
            "before is kept: call again, and what is left is done"
        ) from error


def card(device: str) -> str:
    """A GPU's name, compute capability and driver, as far as they can be known."""
    info = Path("/proc/driver/nvidia/version")
    driver = ""
    if info.exists():
        # NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 ...
        numbers = [word for word in info.read_text().split() if word[0].isdigit() and "." in word]
        driver = f", driver {numbers[0]}" if numbers else ""
    try:
        major, minor = torch.cuda.get_device_capability(device)
        name = torch.cuda.get_device_name(device)
    except (RuntimeError, AssertionError):
        return f"the GPU ({device}{driver})"
    return f"{name} ({device}, compute capability {major}.{minor}{driver})"


def _shortened(message: str) -> str:
    """The first line: torch explains in further ones how to debug a kernel."""
    first = message.partition("\n")[0].partition(" (Triggered internally")[0]
    return textwrap.shorten(first, REASON)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and NO_MEMORY.search(str(error)) is not None


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
    """fp32, bf16 or fp16; auto takes what the hardware multiplies in.

    Args:
        name: machine.precision.
        device: where the run computes.
        width: of the encoder: on a CPU bf16 is for wide ones.
    """
    if name != "auto":
        return name
    if device == "cpu":
        has = torch.backends.cpu.get_cpu_capability() == "AVX512" and cpu_has_bf16()
        return "bf16" if has and width >= BF16_WIDTH else "fp32"
    return "bf16" if gpu_has_bf16(device) else "fp16"


def gpu_has_bf16(device: str) -> bool:
    """Whether this GPU multiplies in bf16; torch's own answer counts emulation, and the current."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= HAS_BF16


def precision_note(asked: str, taken: str, device: str) -> str:
    """What is to be said of a precision on a GPU, or nothing."""
    if torch.device(device).type != "cuda":
        return ""
    if asked == "auto" and taken == "fp16":
        return (
            f"{card(device)} does not multiply in bf16: fp16 with loss scaling is taken "
            "(-o machine.precision=fp32 does without)"
        )
    if taken == "bf16" and not gpu_has_bf16(device):
        return f"bf16 is emulated on {card(device)}, and slow: machine.precision=fp16 is not"
    return ""


def mixed(device: str, precision: str) -> torch.autocast:
    """Mixed precision for what is inside; none for fp32.

    Args:
        device: its kind alone counts.
        precision: "fp32", "bf16" or "fp16".
    """
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype, precision != "fp32")


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies in bf16, as far as Linux says so."""
    info = Path("/proc/cpuinfo")
    return info.exists() and "avx512_bf16" in info.read_text()


def evaluation_precision(name: str, device: str) -> str:
    """What frozen features are computed in: "fp32", "tf32" or "bf16".

    Args:
        name: machine.evaluation.
        device: where the model lies.

    Raises:
        ConfigError: TF32 where nothing has it.
    """
    has = torch.device(device).type == "cuda" and torch.version.hip is None
    has = has and torch.cuda.get_device_capability(device) >= HAS_BF16  # Ampere brought both
    if name == "tf32" and not has:
        raise ConfigError(f"machine.evaluation=tf32: {device} has none. There is: auto, fp32, bf16")
    return ("tf32" if has else "fp32") if name == "auto" else name


@contextlib.contextmanager
def at_precision(device: str, precision: str) -> Iterator[None]:
    """Frozen features that are made inside are made in this precision."""
    with mixed(device, "bf16" if precision == "bf16" else "fp32"):
        if precision != "tf32":
            yield
            return
        with float32_products("tf32"):
            yield


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Kernels that give the same last bit each time, for what is inside; all of a CPU's do.

    Without it a GPU adds in the order in which its threads end, in a few kernels.

    Raises:
        RuntimeError: of torch, by name: a kernel has no such way.
    """
    if not wanted:
        yield
        return
    filling: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        filling.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True)
    filling.fill_uninitialized_memory = False  # it finds mistakes, for its time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        filling.fill_uninitialized_memory = before[2]


def all_deterministic(made: Iterator[T], wanted: bool) -> Iterator[T]:
    """The same, each of them made by deterministic kernels, of which a caller sees nothing."""
    while True:
        with deterministic(wanted):
            try:
                one = next(made)
            except StopIteration:
                return
        yield one


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions and hardware, for the record; nothing secret, so no environment variables.

    Args:
        device: where the work is done: a GPU that is not used is neither asked nor named.
    """
    # each access parses the file again
    about = [found.metadata for found in importlib.metadata.distributions()]
    packages = {each["Name"]: each["Version"] for each in about if each["Name"]}
    gpus = [torch.cuda.get_device_name(device)] if torch.device(device).type == "cuda" else []
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
