"""What the machine has, and how its memory is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from platform import libc_ver

import pytest

PROGRAM = """
import resource
import torch
from maebench.pretraining.hardware import keep_memory

def step():
    held = [torch.ones(2**22) for _ in range(8)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

{kept}
for _ in range(5):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


def page_faults(kept):
    """How often a step's memory had to be fetched from the system, in a process of its own."""
    # otherwise the library moves its threshold as it goes, and at times keeps memory by chance
    gives_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    program = [sys.executable, "-c", PROGRAM.format(kept=kept)]
    return int(subprocess.run(program, env=gives_back, capture_output=True, check=True).stdout)


@pytest.mark.skipif(libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
def test_memory_that_a_step_frees_is_kept_for_the_next():
    assert page_faults("keep_memory()") < page_faults("") / 20
