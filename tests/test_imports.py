"""What a command loads: what takes seconds to import waits until it is needed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# of use to some evaluations, data sets and statistics, or to steps that are compiled
LATER = {"timm", "torchvision", "sklearn", "scipy", "matplotlib", "pandas", "transformers"}
LATER |= {"statsmodels", "networkx", "faiss", "torch._dynamo", "torch._inductor"}


def loaded_by(code):
    """The names of all modules that a fresh interpreter has loaded after this code."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('LOADED', *sys.modules)"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].split())


def test_the_package_alone_imports_no_other():
    loaded = {name.split(".")[0] for name in loaded_by("import maebench")}
    assert loaded & {*LATER, "torch", "numpy", "pydantic", "rich", "click", "PIL"} == set()


@pytest.mark.slow
def test_the_first_step_of_a_run_waits_for_what_it_needs_alone(tmp_path):
    """Data, model, costs, optimiser and the step itself; neither scikit-learn nor the compiler."""
    loaded = loaded_by(f"""
from pathlib import Path
from maebench.cli.progress import decoding
from maebench.cli.settings import read
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare
from maebench.report.data import summary
plan = prepare(read(device="cpu"), Path({str(tmp_path)!r}), decoding)
summary(plan.splits)
steps = pretrain(plan)
assert next(steps).number == 1
""")
    assert "torch" in loaded
    assert loaded & LATER == set()
