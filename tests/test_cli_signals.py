"""Signals end a command in order: the step is finished, what is done is kept and goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from attempts import Attempt, attempt
from safetensors import SafetensorError
from soaked import DATA

from maebench import files
from maebench.encoders import ViTNano
from maebench.errors import DataError
from maebench.evaluating import suite
from maebench.pretraining import checkpoints, loop, stopping
from maebench.pretraining.log import Log
from maebench.pretraining.plan import prepare

LONG = ("pretrain", "--budget", "steps=100000", *DATA, "-o", "machine.checkpoint_seconds=1000")


def start(results: Path, **how: Any) -> Attempt:
    return attempt([*LONG, "--results", str(results)], results / "said", **how)


def logged(results: Path) -> int:
    """The last step that is in the log."""
    for log in results.glob("runs/*/log.jsonl"):
        rows = files.read_lines(log, "step", of=log.parent.name)
        return int(rows[-1]["step"]) if rows else 0
    return 0


def wait_for_step(results: Path, step: int, process: Attempt) -> None:
    assert process.until(lambda: logged(results) >= step), process.said


def kept(results: Path) -> int:
    """The step of the newest checkpoint."""
    found = [checkpoints.newest(folder) for folder in results.glob("runs/*/checkpoint")]
    return int(found[0]["step"]) if found and found[0] else 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_finishes_the_step_saves_and_says_which_command_goes_on(name, tmp_path):
    number = getattr(signal, name)
    process = start(tmp_path, real=name == "SIGTERM")
    wait_for_step(tmp_path, 30, process)
    process.send(number)
    assert process.wait(60) == 128 + number
    said = process.said
    assert f"stopped by {name}; what is done is kept, and goes on by: maebench pretrain" in said
    assert f"{name}: ends after this step" in said and "Traceback" not in said
    assert kept(tmp_path) == logged(tmp_path) >= 30, "no step is lost"
    process = start(tmp_path)
    wait_for_step(tmp_path, kept(tmp_path) + 5, process)
    process.send(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_sigusr1_saves_and_goes_on(tmp_path):
    process = start(tmp_path)
    wait_for_step(tmp_path, 10, process)
    before = kept(tmp_path)
    process.send(signal.SIGUSR1)
    assert process.until(lambda: kept(tmp_path) > before, 30), process.said
    wait_for_step(tmp_path, logged(tmp_path) + 5, process)
    process.send(signal.SIGKILL)
    process.wait()


def test_a_second_signal_ends_the_process_at_once_whatever_it_is_in():
    code = """
        import os, signal, time
        from maebench.pretraining import stopping
        with stopping.listening(), stopping.steps():
            os.kill(os.getpid(), signal.SIGTERM)
            print(stopping.ending(), flush=True)
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(100)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGHUP and done.stdout == "True\n"
    assert done.stderr == "SIGTERM: ends after this step; again: at once\n"


def ignoring() -> None:
    """As nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    process = start(tmp_path, first=ignoring)
    wait_for_step(tmp_path, 5, process)
    process.send(signal.SIGHUP)
    wait_for_step(tmp_path, logged(tmp_path) + 5, process)
    process.send(signal.SIGKILL)
    process.wait()


def test_signals_are_answered_while_it_is_listened_and_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(stopping.Stopped) as caught, stopping.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert caught.value.code == 143 and str(caught.value) == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before


def interrupted_by(number, kind=ValueError):
    """As code in C does that a signal interrupts: the error is one of its own."""
    try:
        os.kill(os.getpid(), number)
        time.sleep(1)
    except KeyboardInterrupt as error:
        raise kind("could not determine the shape") from error


def test_a_signal_that_code_in_c_made_an_error_of_its_own_of_ends_the_work_all_the_same():
    with pytest.raises(stopping.Stopped) as caught, stopping.listening():
        interrupted_by(signal.SIGTERM)
    assert caught.value.code == 143 and isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(stopping.Stopped), stopping.listening():
        with contextlib.suppress(ValueError):
            interrupted_by(signal.SIGHUP)
    with pytest.raises(ZeroDivisionError), stopping.listening():
        1 / 0  # noqa: B018
    with pytest.raises(ZeroDivisionError), stopping.listening(), stopping.steps():
        os.kill(os.getpid(), signal.SIGTERM)
        1 / 0  # noqa: B018 - what goes wrong while it saves is said


def test_an_import_is_through_before_a_signal_ends_the_work(tmp_path, monkeypatch):
    """Modules in C++ abort the process where an exception interrupts theirs."""
    code = (
        "import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.1); whole = 1"
    )
    (tmp_path / "imported_slowly.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGALRM)
    began = time.monotonic()
    with pytest.raises(stopping.Stopped) as caught, stopping.listening():
        import imported_slowly

        time.sleep(60)
    assert caught.value.code == 143 and sys.modules.pop("imported_slowly").whole
    assert imported_slowly.whole and time.monotonic() - began < 30
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


class Collected:
    """An object in whose end a signal falls."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def of_weak_reference():
    key = ViTNano()
    reference = weakref.ref(key, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del key
    return reference


@pytest.mark.parametrize("falls", [Collected, of_weak_reference])
def test_a_signal_where_python_collects_garbage_ends_the_work_a_moment_later(capsys, falls):
    """What is raised there is passed over, with a traceback."""
    before, began = sys.unraisablehook, time.monotonic()
    with pytest.raises(stopping.Stopped), stopping.listening():
        falls()
        time.sleep(60)
    assert time.monotonic() - began < 30 and sys.unraisablehook is before
    assert "ignored" not in capsys.readouterr().err


def test_what_else_goes_wrong_there_is_said_as_before(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)

    class Wrong:
        def __del__(self):
            raise ValueError("in the end")

    with stopping.listening():
        Wrong()
    assert [str(each.exc_value) for each in said] == ["in the end"]


def test_a_callers_own_timer_goes_on():
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1000)
        with stopping.listening():
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_such_an_error_is_no_damage(tmp_path, monkeypatch):
    folder = tmp_path / "run" / "checkpoint"
    checkpoints.store(folder, 3, {"a": torch.ones(3)}, {})
    with monkeypatch.context() as patch:
        made = lambda path: interrupted_by(signal.SIGTERM, SafetensorError)  # noqa: E731
        patch.setattr(checkpoints, "load_file", made)
        with pytest.raises(stopping.Stopped), stopping.listening():
            checkpoints.load_newest(folder)
    found, _ = checkpoints.load_newest(folder)
    assert found["a"].equal(torch.ones(3)), "it was not moved aside"


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, DataError])
def test_such_an_error_is_no_failure_of_an_evaluation(tmp_path, kind):
    tiny.plan(tmp_path)
    model = tiny.load(tmp_path)
    evaluation = tiny.evaluation(lambda model: interrupted_by(signal.SIGTERM, kind))
    with pytest.raises(stopping.Stopped), stopping.listening():
        suite.evaluate(model, evaluation)
    assert not list(model.folder.glob("records/*"))


def test_a_step_is_finished_before_a_signal_ends_the_work():
    done = []
    with pytest.raises(stopping.Stopped), stopping.listening(), stopping.steps():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.asked() and stopping.ending()
        done.append("the step")
    assert done == ["the step"]


@pytest.mark.parametrize("where", ["gradients", "set_rate", "note_batch", "said", "read_numbers"])
def test_wherever_in_a_step_a_signal_comes_the_last_step_is_saved(tmp_path, monkeypatch, where):
    before, calls = getattr(loop, where), []

    def interrupted(*arguments, **named):
        calls.append(where)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return before(*arguments, **named)

    monkeypatch.setattr(loop, where, interrupted)
    monkeypatch.setattr(Log, "due", True)
    plan = prepare(tiny.config(budget="steps=1000"), tmp_path)
    with pytest.raises(stopping.Stopped), stopping.listening():
        for _ in loop.pretrain(plan):
            pass
    last = logged(tmp_path)
    assert 3 <= last <= 4
    names = [path.name for path in plan.checkpoints.glob("step-*")]
    assert names == [checkpoints.folder_name(last)]


def test_what_is_asked_to_save_is_said_once_and_passed_on():
    told = []
    with stopping.listening(), stopping.telling(told.append):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stopping.asked() and not stopping.asked() and not stopping.ending()
    assert told == [signal.SIGUSR1]
