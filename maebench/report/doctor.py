"""What `maebench doctor` looks at, one thing after the other, and what each is found to be."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from maebench.plugins import Names, installed
from maebench.pretraining.kernels import missing_compiler
from maebench.report import machine as here
from maebench.report.libraries import SHOWN, Checked, faiss
from maebench.report.storage import storage

# One line took 18 to 41 s on two shared cores, most of it for imports and headers of C++.
COMPILE_SECONDS = 60.0
# No pool of torch's own processes, which would outlive a compiler that is ended.
COMPILING = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
COMPILED = """
import torch
x = torch.arange(8.0, device={device!r})
y = torch.compile(lambda x: x.sin() * x)(x)
assert torch.allclose(y, x.sin() * x), "it computes something else"
"""


def machine(found: Sequence[Checked], results: Path, quick: bool = False) -> Iterator[Checked]:
    """All that a run needs of this machine, each as soon as it is known.

    Args:
        found: what `libraries` found, before this module and torch could be imported.
        results: the folder that runs go to.
        quick: leave out what takes longest: whether torch.compile works.
    """
    clock = here.Clock()
    yield from (here.python(), here.system(), here.cpu(), here.threads(), here.memory())
    gpus = list(here.devices())
    yield from gpus
    yield from found
    gpu = any(each.what.startswith("cuda") and each.verdict == "ok" for each in gpus)
    yield from faiss(gpu)
    with warnings.catch_warnings():  # what it warns of stands in the lines
        warnings.simplefilter("ignore")
        names = installed()
    yield from plugins(names)
    yield from storage(results)
    if not quick:
        yield compiling("cuda" if gpu else "cpu")
    yield clock.checked()


def plugins(names: Names) -> Iterator[Checked]:
    """What is loaded, and each plugin that is not or that has a fault.

    A third party's takes nothing but itself away, so it is no error unless it is asked for.
    """
    loaded = [each for each in names.plugins if not each.problem and each.package != "maebench"]
    listed = ", ".join(f"{each.name} ({each.package} {each.version})" for each in loaded)
    yield Checked("plugins", listed or "none of third parties")
    for each in names.plugins:
        who = f"{each.name} ({each.package} {each.version})"
        if each.problem and each.package == "maebench":
            advice = "pip install --force-reinstall maebench"
            yield Checked("plugins", f"{who} does not load: {each.problem}", "error", advice)
        elif each.problem:
            advice = f"Ask its author, or pip uninstall {each.package}"
            yield Checked("plugins", f"{who} does not load: {each.problem}", "warning", advice)
        for remark in each.remarks:
            yield Checked("plugins", f"{who}: {remark}", "warning", "Ask its author")
    if not any(each.package == "maebench" and each.name != "maebench" for each in names.plugins):
        advice = "pip install --force-reinstall maebench, or -e . in a clone of it"
        yield Checked("plugins", "maebench's own evaluations are not found", "error", advice)
    for (kind, name), packages in names.conflicts.items():
        text = f"{kind} {name!r} is claimed by {' and '.join(packages)}: unusable"
        yield Checked("plugins", text, "warning", "Uninstall one of them")


def compiling(device: str, seconds: float = COMPILE_SECONDS) -> Checked:
    """Whether torch.compile works; in a process of its own, for a compiler can crash or hang.

    Args:
        device: on which it is tried.
        seconds: after which it is ended.
    """
    advice = "Runs go on without it and are slower; -o machine.compile=false does not try"
    if lacks := missing_compiler(device):
        return Checked("compile", f"torch.compile does not work: {lacks}", "warning", advice)
    began = time.monotonic()
    why = _ended(COMPILED.format(device=device), seconds)
    if why:
        return Checked("compile", f"torch.compile does not work: {why}", "warning", advice)
    took = time.monotonic() - began
    return Checked("compile", f"torch.compile works on {device} ({took:.0f} s for one line)")


def _ended(program: str, seconds: float) -> str:
    """Why a program ended otherwise than well; empty where it did not."""
    with tempfile.TemporaryDirectory() as folder:  # what was compiled before would not be tried
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **COMPILING, "TORCHINDUCTOR_CACHE_DIR": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # so that the compilers that it starts end with it
        )
        try:
            said = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            return f"not done after {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode < 0:
        return f"it crashed ({signal.Signals(-process.returncode).name})"
    lines = [line for line in said.splitlines() if line.strip()]
    # of a chain of exceptions the last one; torch adds how to debug it
    errors = [line for line in lines if line[:1].isalpha() and ": " in line] or lines[-1:]
    why = textwrap.shorten(errors[-1] if errors else "it says nothing", SHOWN)
    return why if process.returncode else ""
