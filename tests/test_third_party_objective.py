"""An objective from a package of somebody else's goes the whole way, installed as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "packages" / "maebench-jigsaw"
RUN = ("run", "--objective", "jigsaw", "--budget", "steps=3", "--limit", "100")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder as pip would fill it: the package's wheel, unpacked."""
    folder = tmp_path_factory.mktemp("jigsaw")
    copy = shutil.copytree(SOURCE, folder / "source")  # building leaves nothing in the repository
    code = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def maebench(site, tmp_path_factory):
    """`maebench ARGUMENTS` where the package is installed beside it."""
    results = tmp_path_factory.mktemp("results")
    paths = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "MAEBENCH_PLUGINS": "jigsaw"}
    environment |= {"MAEBENCH_RESULTS": str(results), "COLUMNS": "200"}

    def call(*arguments):
        command = [sys.executable, "-W", "error", "-m", "maebench", *arguments]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    call.results = results
    return call


def test_an_objective_is_at_most_fifty_lines_in_one_module():
    (module,) = SOURCE.rglob("*.py")
    lines = module.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 50


@pytest.mark.slow
def test_it_is_listed_with_its_package_and_its_explanation(maebench):
    shown = maebench("list", "objectives")
    assert re.search(r"^  jigsaw  \(from maebench-jigsaw\)\n      Sees all patches", shown, re.M)
    own = shown[shown.index("  jigsaw  (") :]
    assert "      loss = cross entropy" in own and "      Source: Noroozi" in own
    assert maebench("plugins").rstrip().endswith("objective jigsaw")


@pytest.mark.slow
def test_it_keeps_to_the_contract(maebench):
    shown = maebench("plugins", "check", "maebench-jigsaw")
    assert re.match(r"objective jigsaw: [1-9]\d passed, 0 failed, \d+ not checked\n", shown)


@pytest.mark.slow
def test_it_is_pretrained_evaluated_and_recorded_under_its_package(maebench):
    shown = maebench(*RUN, "--evals", "knn,reconstruction")
    assert "knn top1 (%)" in shown
    runs = [json.loads(path.read_text()) for path in maebench.results.glob("runs/*/records/*.json")]
    rows = {row["evaluation"]: row for found in runs for row in found["rows"] if row["main"]}
    assert rows["knn"]["status"] == "ok"
    reason = "objective 'jigsaw' does not reconstruct: it learns where patches belong, not pixels"
    row = rows["reconstruction"]
    assert (row["status"], row["reason"]) == ("not applicable", reason)
