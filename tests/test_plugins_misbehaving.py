"""Plugins that misbehave: what one does at import or at work is named, and ends nothing else."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
import types
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tiny
import torch
from test_cli import Ran, call, command_package, refused
from test_plugins import GOOD, STRIPES, package, plugin
from test_plugins import site as site

from maebench import (
    MAE,
    Evaluation,
    Masking,
    Metric,
    Report,
    RunConfig,
    Tracker,
    mask_statistics,
    run,
)
from maebench import plugins as module
from maebench.config.run import Machine
from maebench.data.digits import Digits
from maebench.encoders import ViTNano
from maebench.errors import ConfigError, PluginError
from maebench.plugins import installed
from maebench.pretraining import runs
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

# ---- at import

CHANGES = """
    import os, random, sys, warnings
    import numpy, torch
    os.chdir("/")
    os.environ["MAEBENCH_RESULTS"] = "/"
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    random.seed(0)
    torch.manual_seed(0)
    torch.rand = torch.zeros
    print("hello from", __name__)
"""
CHANGED = [
    "the working directory",
    "environment variables MAEBENCH_RESULTS",
    "torch's default dtype (torch.float32 to torch.float64)",
    "Python's random state",
    "torch's random state",
    "torch.rand",
    "the filters of warnings",
]


def state():
    return (
        *(Path.cwd(), dict(os.environ), torch.get_default_dtype(), random.getstate(), torch.rand),
        *(torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
        list(warnings.filters),
    )


@pytest.mark.parametrize("end", ["", "1 / 0", "raise SystemExit(0)"], ids=["", "fails", "exits"])
def test_what_an_import_changes_is_put_back_and_told_with_its_name(site, capsys, end):
    package(site, "rude", CHANGES + f"\n    {end}\n" + ("" if end else GOOD))
    before = state()
    with pytest.warns(UserWarning, match="plugin rude .rude 1.2.: its import changed") as caught:
        names = installed()
    assert state() == before
    (said,) = [str(w.message) for w in caught if "its import changed" in str(w.message)]
    found = plugin(names, "rude")
    assert [w for w in CHANGED if w not in said or not any(w in c for c in found.changed)] == []
    assert "/ to" not in said.split("MAEBENCH_RESULTS")[1].split(",")[0], "values may be secret"
    assert bool(found.problem) == bool(end)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("hello from plugin_")
    # it is imported once and warned of once, and known of later
    assert plugin(installed(), "rude").changed == found.changed
    again = capsys.readouterr()
    assert again.out == "" and (end or again.err == ""), "what has failed is tried again"


def test_what_a_hook_changes_is_put_back_each_time(site):
    code = GOOD.replace("return", "__import__('os').chdir('/'); return")
    package(site, "rude", code)
    with pytest.warns(UserWarning, match="the working directory"):
        installed()
    before = state()
    installed()
    assert state() == before


def test_a_plugin_that_changes_nothing_is_not_named(site):
    package(site, "good", GOOD)
    found = plugin(installed(), "good")
    assert (found.changed, found.remarks) == ((), []) and found.seconds < 2


def test_a_slow_import_is_told(site, monkeypatch):
    clock = types.ModuleType("clock_of_a_test")  # a real one would tell of this machine
    clock.now = 0.0
    monkeypatch.setitem(sys.modules, clock.__name__, clock)
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    package(site, "slow", "\n    import clock_of_a_test as c; c.now += 2.5\n" + GOOD)
    package(site, "brisk", "\n    import clock_of_a_test as c; c.now += 1.5\n" + GOOD)
    with pytest.warns(UserWarning, match=r"plugin slow .*its import took 2\.5 s") as caught:
        names = installed()
    assert len(caught) == 1
    assert (plugin(names, "slow").seconds, plugin(names, "brisk").seconds) == (2.5, 1.5)


ENDS = {
    "SystemExit": "raise SystemExit(0)",
    "GeneratorExit": "raise GeneratorExit('enough')",
    "Leave": "raise Leave('gone')",
}
LEAVE = "class Leave(BaseException): pass\n"


@pytest.mark.parametrize("error", ENDS)
@pytest.mark.parametrize("where", ["import", "hook"])
def test_an_import_that_would_end_the_program_is_reported(site, error, where):
    code = textwrap.dedent(GOOD).replace("return", ENDS[error] + ";")
    code = LEAVE + (ENDS[error] if where == "import" else code)
    package(site, "aaa-bad", code)
    package(site, "neighbour", STRIPES)
    names = installed()
    assert plugin(names, "aaa-bad").problem.startswith(f"{error}: ")
    assert plugin(names, "neighbour").problem is None


def test_ctrl_c_while_a_plugin_is_imported_still_ends(site):
    package(site, "asked", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        installed()


def test_an_unknown_name_mentions_who_may_bring_it(site):
    package(site, "bad-plugin", "import no_such_module")
    names = installed()
    for kind in ("masking", "encoder", "objective", "dataset"):
        with pytest.raises(ConfigError) as caught:
            RunConfig(names, **{kind: "stars"})
        text = str(caught.value)
        assert f"unknown {kind} 'stars'" in text and text.count("Not loaded") == 1
        assert "may bring it: bad-plugin (bad-plugin): ModuleNotFoundError" in text
    assert "may bring it: bad-plugin" in refused("table", "--format", "stars")
    assert "may bring it: bad-plugin" in refused("eval", "stars")


def test_without_a_plugin_that_failed_an_unknown_name_mentions_none():
    with pytest.raises(ConfigError) as caught:
        RunConfig(installed(), masking="stars")
    assert "Not loaded" not in str(caught.value)


@pytest.mark.slow
def test_a_run_that_names_none_of_them_is_the_run_without_them(tmp_path):
    """Its results lie where they belong and hold the same numbers."""
    rude, home = tmp_path / "site", tmp_path / "home"
    rude.mkdir(), home.mkdir()
    package(rude, "rude", CHANGES + GOOD)
    package(rude, "leaving", "raise SystemExit(0)")
    asked = ("pretrain", "--budget", "steps=3", "--limit", "40", "--encoder", "vit-nano")
    asked = [sys.executable, "-m", "maebench", *asked, "--device", "cpu"]
    losses = []
    for name, path in (("with", rude), ("without", tmp_path / "nothing")):
        (home / name).mkdir()
        environment = {**os.environ, "PYTHONPATH": str(path)}
        ran = subprocess.run(
            asked, env=environment, capture_output=True, text=True, cwd=home / name, timeout=120
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr.count("plugin rude (rude 1.2): its import changed") == (name == "with")
        assert "hello from" not in ran.stdout
        (log,) = (home / name / "results" / "runs").glob("*/log.jsonl")
        losses.append([row["loss"] for row in runs.read_log(log, None)])
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_the_command_line_lists_what_an_import_did(site):
    package(site, "rude", "\n    import os; os.chdir('/')\n" + GOOD)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        ran = call("plugins")
        assert ran.code == 0
        line = r"^ok +rude +\(rude 1\.2\)\n +its import changed the working directory.*: put back$"
        assert re.search(line, ran.out, re.M), ran.out
        checked = call("plugins", "check", "rude")
        assert checked.code == 1
        assert re.search(r"^FAILED rude \(rude 1\.2\)\n  its import changed", checked.out, re.M)


# ---- at work


class Leave(BaseException):
    """What no code of maebench expects."""


@pytest.fixture(params=[(SystemExit, 0), (SystemExit, "bye"), (GeneratorExit, 1), (Leave, "gone")])
def error(request):
    """What the components below raise, as it is said."""
    kind, text = RAISED[:] = request.param
    return f"{kind.__name__}: {text}"


RAISED: list[object] = []


def leave():
    kind, text = RAISED
    raise kind(text)


class BadMasking(Masking):
    """Ends the program."""

    name: ClassVar[str] = "bad-masking"

    def scores(self, view):
        leave()


class BadEncoder(ViTNano):
    """Ends the program."""

    name: ClassVar[str] = "bad-encoder"

    def build(self, inputs):
        leave()


class BadObjective(MAE):
    """Ends the program."""

    name: ClassVar[str] = "bad-objective"

    def build(self, encoder, inputs):
        leave()


class BadDataset(Digits):
    """Ends the program."""

    name: ClassVar[str] = "bad-dataset"

    def load(self, request):
        leave()


class BadEvaluation(Evaluation):
    """Ends the program."""

    name: ClassVar[str] = "bad-evaluation"
    metrics: ClassVar[dict[str, Metric]] = {"score": Metric.accuracy("a share")}

    def run(self, model):
        leave()
        yield


class BadTracker(Tracker):
    """Ends the program, by `open`, `log` or `close`."""

    name: ClassVar[str] = "bad-tracker"
    at: str = "log"

    def open(self, folder, config):
        if self.at == "open":
            leave()
        return AtWork(self.at)


class AtWork:
    def __init__(self, at):
        self.at = at

    def log(self, step, values):
        if self.at == "log":
            leave()

    def close(self):
        if self.at == "close":
            leave()


class BadReport(Report):
    """Ends the program."""

    name: ClassVar[str] = "bad-report"

    def render(self, table):
        sys.exit(0)


PARTS = {
    "masking": BadMasking(),
    "encoder": BadEncoder(width=16, depth=1, heads=2),
    "objective": BadObjective(),
    "dataset": BadDataset(),
}


@pytest.mark.parametrize("kind", PARTS)
def test_a_component_that_would_end_the_program_is_an_error_with_its_name(kind, error, tmp_path):
    with pytest.raises(PluginError) as caught:
        run(tiny.config(evals=(), **{kind: PARTS[kind]}), tmp_path)
    text = str(caught.value)
    assert f"{kind} 'bad-{kind}' of test_plugins_misbehaving raised {error} (" in text
    assert "(test_plugins_misbehaving.py:" in text and "\n" not in text
    assert type(caught.value.__cause__).__name__ == error.split(":")[0]


def test_each_way_in_from_python_says_so(error, tmp_path):
    config = tiny.config(masking=BadMasking())
    with pytest.raises(PluginError, match="masking 'bad-masking'"):
        list(pretrain(prepare(config, tmp_path)))
    list(pretrain(prepare(tiny.config(), tmp_path)))  # nothing is left locked
    with pytest.raises(PluginError, match="masking 'bad-masking'"):
        mask_statistics([BadMasking()], config=tiny.config())


def test_an_evaluation_that_would_end_the_program_has_failed(error, tmp_path):
    table = run(tiny.config(evals=(BadEvaluation(), "knn")), tmp_path)
    bad = table[table["evaluation"] == "bad-evaluation"]
    assert set(bad["status"]) == {"failed"} and len(bad) == 3
    assert all("evaluation 'bad-evaluation' of test_plugins" in reason for reason in bad["reason"])
    assert set(table[(table["evaluation"] == "knn") & table["main"]]["status"]) == {"ok"}


@pytest.mark.parametrize("at", ["open", "log", "close"])
def test_a_tracker_that_would_end_the_program_is_dropped_and_the_run_goes_on(at, error, tmp_path):
    machine = Machine(trackers=(BadTracker(at=at),))
    with pytest.warns(UserWarning, match=f"tracker 'bad-tracker' .*{error}"):
        steps = list(pretrain(prepare(tiny.config(machine=machine), tmp_path)))
    assert steps[-1].done == 1


def test_ctrl_c_in_a_tracker_or_an_evaluation_ends_the_run(tmp_path):
    RAISED[:] = KeyboardInterrupt, ""
    machine = Machine(trackers=(BadTracker(),))
    with pytest.raises(KeyboardInterrupt):
        list(pretrain(prepare(tiny.config(machine=machine), tmp_path)))
    with pytest.raises(KeyboardInterrupt):
        run(tiny.config(evals=(BadEvaluation(),)), tmp_path)


class Slow(Masking):
    """Is at work when a signal comes."""

    name: ClassVar[str] = "slow"

    def scores(self, view):
        time.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        return view.draws.uniform(view.length)


def test_an_exit_that_is_not_a_components_stays_what_it_is(tmp_path):
    """A program may end itself by a signal, as those on clusters do."""
    handler = {"__name__": "the_callers_program"}
    exec("def leave(*_):\n    raise SystemExit(143)", handler)
    before = signal.signal(signal.SIGTERM, handler["leave"])
    try:
        with pytest.raises(SystemExit) as caught:
            run(tiny.config(masking=Slow(), evals=()), tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 143


class Loud(Masking):
    """Raises what is no exit."""

    name: ClassVar[str] = "loud"

    def scores(self, view):
        raise ZeroDivisionError("of mine")


def test_a_plain_exception_of_a_component_keeps_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError, match="of mine"):
        run(tiny.config(masking=Loud(), evals=()), tmp_path)


# ---- on the command line

ENDING = """
    class Ending(Masking):
        '''Ends the program in silence.'''
        name: ClassVar[str] = "ending"
        def scores(self, view):
            raise SystemExit(0)

    from maebench import Report
    class Blank(Report):
        '''Ends the program in silence.'''
        name: ClassVar[str] = "blank"
        def render(self, table):
            import argparse
            argparse.ArgumentParser().exit(0)

    @hookimpl
    def register_maskings():
        return [Ending]
    @hookimpl
    def register_reports():
        return [Blank]
"""


@pytest.mark.slow
def test_a_plugin_that_exits_is_an_error_of_the_command_that_names_it(site, tmp_path):
    package(site, "ending", ENDING)
    tiny.plan(tmp_path / "results", evals=(fakes_score(),))
    run(tiny.config(evals=(fakes_score(),)), tmp_path / "results")
    quick = ("--budget", "steps=2", "--limit", "40", "--device", "cpu", "--results")
    for command in (
        ("run", "--masking", "ending", *quick, tmp_path / "results"),
        ("masks", "--masking", "ending", "--device", "cpu", "--results", tmp_path / "results"),
    ):
        ran = call(*command)
        assert ran.code == 1, ran
        last = ran.err.splitlines()[-1]
        assert (
            last.startswith("Error: ")
            and "masking 'ending' of ending 1.2 raised SystemExit: 0" in last
        )
    ran = call("table", "--format", "blank", "--results", tmp_path / "results")
    assert ran.code == 1 and "report 'blank' of ending 1.2 raised SystemExit: 0" in ran.err


def fakes_score():
    from maebench import Result

    return tiny.evaluation(lambda model: iter([Result("score", torch.ones(360).double())]), "fine")


def test_an_exit_from_nowhere_known_is_an_error_too(monkeypatch):
    elsewhere = {"__name__": "elsewhere"}
    exec("def leaving():\n    raise SystemExit(0)", elsewhere)
    monkeypatch.setattr("maebench.plugins.installed", elsewhere["leaving"])
    assert "list ended by SystemExit: 0" in refused("list")


def test_a_command_of_another_package_has_its_own_exit_codes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = "import click, sys\n@click.command()\ndef command():\n    sys.exit(3)\n"
    command_package(tmp_path, "three", "three", code)
    assert call("three") == Ran(3, "", "")
    for number, error in enumerate(ENDS):
        command_package(tmp_path, f"bad{number}", f"bad{number}", LEAVE + ENDS[error])
        assert f"command 'bad{number}' of bad{number} does not load: {error}" in refused(
            f"bad{number}"
        )
