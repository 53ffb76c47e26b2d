"""Runs in an environment of its own, where the package is installed beside maebench."""

import json
import os
import subprocess
import sys

import pytest
import torch
from maebench_checkerboard import Checkerboard

from maebench import View
from maebench.masking import hide
from maebench.plugins import installed
from maebench.rng import Draws


def maebench(*arguments, results):
    environment = {**os.environ, "MAEBENCH_RESULTS": str(results)}
    command = [sys.executable, "-m", "maebench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_half_of_the_patches_hidden_is_one_colour_of_the_board():
    ids = torch.arange(64)
    view = View((4, 6), 12, ids, Draws(0, "masking", ids))
    hidden = hide(Checkerboard().scores(view), 12, (4, 6)).hidden.view(-1, 4, 6)
    board = (torch.arange(4)[:, None] + torch.arange(6)[None, :]) % 2 == 0
    same = (hidden == board).all((1, 2))
    other = (hidden == ~board).all((1, 2))
    assert bool((same ^ other).all())
    assert 0 < int(same.sum()) < 64


def test_maebench_finds_it_under_its_own_package():
    names = installed()
    origin = names.origin(names.table["masking"]["checkerboard"])
    assert (origin.package, origin.problem) == ("maebench-checkerboard", None)


def test_the_command_line_pretrains_with_it_and_records_its_evaluation(tmp_path):
    done = maebench(
        *("run", "--masking", "checkerboard", "--ratio", "0.5", "--budget", "steps=20"),
        *("--evals", "knn,effective-rank", "-o", "masking.noise=0.5"),
        results=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "effective-rank rank" in done.stdout
    records = list(tmp_path.glob("*/*/records/effective-rank-v1-*.json"))
    assert len(records) == 3  # the run, untrained and pixels
    row = json.loads(records[0].read_text())["rows"][0]
    assert (row["package"], row["package_version"]) == ("maebench-checkerboard", "0.1.0")
    assert 1 <= row["value"] <= 64


@pytest.mark.parametrize("command", [["list", "maskings"], ["plugins"]])
def test_listings_name_it(command, tmp_path):
    done = maebench(*command, results=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "checkerboard" in done.stdout


def test_it_is_not_there_where_third_party_plugins_are_turned_off(tmp_path, monkeypatch):
    monkeypatch.setenv("MAEBENCH_PLUGINS", "")
    done = maebench("run", "--masking", "checkerboard", results=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: masking: unknown masking 'checkerboard'")
