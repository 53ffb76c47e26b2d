"""An objective from a package of somebody else's goes the whole way, installed as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from installed_beside import beside

SOURCE = Path(__file__).parent / "packages" / "maebench-jigsaw"
RUN = ("run", "--objective", "jigsaw", "--budget", "steps=3", "--limit", "100")


@pytest.fixture(scope="module")
def maebench(tmp_path_factory):
    return beside(SOURCE, tmp_path_factory.mktemp("jigsaw"))


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
