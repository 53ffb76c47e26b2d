"""Whose code a command is about to use is said before it is used."""

from __future__ import annotations

import importlib.metadata
import types
from typing import ClassVar

import pytest
from fakes import Fakes
from test_cli import call

import maebench
from maebench import Evaluation, Metric

SAID = "uses masking worst of other-package 1.2 (fakes:Worst)"


class Counting(Evaluation):
    """Counts."""

    name: ClassVar[str] = "counting"
    metrics: ClassVar[dict[str, Metric]] = {"count": Metric(help="Counts.", main=True)}

    def run(self, model):
        yield from ()


class More(Fakes):
    @maebench.hookimpl
    def register_evaluations(self):
        return [Counting]


@pytest.fixture
def other_package(monkeypatch):
    """An installed package of somebody else, and no other one."""
    entry = types.SimpleNamespace(
        name="fakes",
        value="fakes",
        load=More,
        dist=types.SimpleNamespace(name="other-package", version="1.2"),
    )
    ours = [
        e
        for e in importlib.metadata.entry_points(group="maebench")
        if e.dist is not None and e.dist.name == "maebench"
    ]
    true = importlib.metadata.entry_points
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda **which: [*ours, entry] if which == {"group": "maebench"} else true(**which),
    )


def no_folder(tmp_path):
    """A place for results where there can be none: a command ends before it trains anything."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "results"


@pytest.mark.parametrize(
    "command", ["run", "pretrain", pytest.param("compare", marks=pytest.mark.slow)]
)
def test_a_component_of_another_package_is_named_before_its_first_use(
    other_package, command, tmp_path
):
    maskings = "random,worst" if command == "compare" else "worst"
    ran = call(command, "--masking", maskings, "--results", no_folder(tmp_path))
    assert ran.code == 1
    assert ran.err.splitlines()[0] == SAID and ran.err.count("uses ") == 1


def test_an_evaluation_of_another_package_is_named_before_a_model_is_read(other_package, tmp_path):
    ran = call("eval", "counting", "none", "--results", tmp_path)
    said, error = ran.err.splitlines()
    assert said == "uses evaluation counting of other-package 1.2 (test_cli_uses:Counting)"
    assert (ran.code, error.startswith("Error: unknown run 'none'")) == (1, True)
    assert "uses " not in call("eval", "knn", "none", "--results", tmp_path).err


@pytest.mark.slow
def test_nothing_is_said_of_our_own(other_package, tmp_path):
    for command in ("run", "pretrain", "compare"):
        maskings = "random,block" if command == "compare" else "block"
        ran = call(command, "--masking", maskings, "--results", no_folder(tmp_path))
        assert ran.code == 1 and "uses " not in ran.err


def test_each_is_named_once_those_in_options_of_others_too(other_package, capsys):
    from maebench.cli.uses import say_whose
    from maebench.config.run import RunConfig
    from maebench.plugins import installed

    names = installed()
    config = RunConfig(names, masking="attended", encoder="dense", image_size=8)
    say_whose([config, {"other": (config,)}], names)
    assert capsys.readouterr().err.splitlines() == [
        "uses encoder dense of other-package 1.2 (fakes:Dense)",
        "uses masking attended of other-package 1.2 (fakes:Attended)",
    ]
