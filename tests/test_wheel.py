"""What is installed is what the repository holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_the_core_and_its_evaluations_and_nothing_else(tmp_path):
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
    ]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        files = set(packed.namelist())
        entry_points = packed.read(
            next(f for f in files if f.endswith("entry_points.txt"))
        ).decode()
    modules = {f for f in files if f.endswith(".py")}
    wanted = {str(p.relative_to(ROOT)) for p in (ROOT / "maebench").rglob("*.py")}
    evaluations = ROOT / "plugins" / "maebench_evals"
    wanted |= {f"maebench_evals/{p.name}" for p in evaluations.glob("*.py")}
    assert modules == wanted
    recipes = {str(p.relative_to(ROOT)) for p in (ROOT / "maebench").rglob("*.yaml")}
    assert {f for f in files if f.endswith(".yaml")} == recipes != set()
    assert {f.split("/")[0] for f in files} == {
        "maebench",
        "maebench_evals",
        next(f for f in files if f.endswith("METADATA")).split("/")[0],
    }
    assert "maebench = maebench.cli:main" in entry_points
    assert "maebench-evals = maebench_evals" in entry_points
