"""What is looked at, and torch.compile in a process that ends in every way that there is."""

import sys
import time
from pathlib import Path

import pytest

from maebench.masking.grids import Random
from maebench.plugins import Names, Plugin
from maebench.report import doctor, libraries, storage
from maebench.report.libraries import Checked

OURS = Plugin("maebench-evals", "maebench", "0.1", None, (Random,))


def names(*plugins, conflicts=None):
    return Names({}, plugins, conflicts or {})


def wrong(found):
    return [(each.verdict, each.text) for each in found if each.verdict != "ok"]


# --- plugins


def test_plugins_that_are_loaded_are_listed():
    found = [*doctor.plugins(names(OURS, Plugin("stripes", "my-stripes", "2.0")))]
    assert [each.text for each in found] == ["stripes (my-stripes 2.0)"]


def test_a_broken_plugin_is_a_warning_with_its_reason_and_ours_is_an_error():
    found = wrong(doctor.plugins(names(OURS, Plugin("a", "b", "1", "ImportError: no c (b.py:3)"))))
    assert found == [("warning", "a (b 1) does not load: ImportError: no c (b.py:3)")]
    found = wrong(doctor.plugins(names(Plugin("maebench-evals", "maebench", "0.1", "broken"))))
    assert found == [("error", "maebench-evals (maebench 0.1) does not load: broken")]


def test_evaluations_that_are_not_found_are_an_error():
    ((verdict, text),) = wrong(doctor.plugins(names(Plugin("maebench", "maebench", "0.1"))))
    assert verdict == "error" and "evaluations are not found" in text


def test_names_in_dispute_and_remarks_are_warnings():
    slow = Plugin("a", "b", "1", changed=("torch's threads",))
    disputed = names(OURS, slow, conflicts={("masking", "x"): ("b (a)", "c (d)")})
    assert wrong(doctor.plugins(disputed)) == [
        ("warning", "a (b 1): its import changed torch's threads: put back"),
        ("warning", "masking 'x' is claimed by b (a) and c (d): unusable"),
    ]


# --- torch.compile


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A compiler is here; no library is imported that takes long; fewer bytes are tried."""
    monkeypatch.setattr(libraries, "IMPORTED", {})
    monkeypatch.setattr(storage, "TRIED", 2**20)
    monkeypatch.setattr(doctor, "missing_compiler", lambda device: "")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit(0)", ""),
        ("import sys; sys.exit(3)", "it says nothing"),
        ("raise RuntimeError('no\\nheaders')", "RuntimeError: no"),
        ("import os; os.kill(os.getpid(), 11)", "it crashed (SIGSEGV)"),
    ],
)
def test_a_compiler_that_ends_badly_is_told(monkeypatch, program, why):
    monkeypatch.setattr(doctor, "COMPILED", program.replace("{", "{{").replace("}", "}}"))
    found = doctor.compiling("cpu")
    assert found.verdict == ("warning" if why else "ok") and found.text.endswith(
        why or "for one line)"
    )


@pytest.mark.slow
def test_a_compiler_that_hangs_is_ended_with_what_it_started(monkeypatch, tmp_path):
    program = f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({str(tmp_path / "child")!r}).write_text(str(child.pid))
time.sleep(60)
"""
    monkeypatch.setattr(doctor, "COMPILED", program)
    began = time.monotonic()
    found = doctor.compiling("cpu", seconds=2)
    assert time.monotonic() - began < 30
    assert found.verdict == "warning" and found.text.endswith("not done after 2 s")
    status = Path(f"/proc/{(tmp_path / 'child').read_text()}/status")
    if sys.platform == "linux" and status.exists():  # ended, and not yet waited for by anyone
        assert "State:\tZ" in status.read_text()


def test_a_missing_compiler_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "missing_compiler", lambda device: "no C++ compiler is here")
    found = doctor.compiling("cpu")
    assert found.verdict == "warning" and "no C++ compiler is here" in found.line()


@pytest.mark.slow
def test_what_is_compiled_by_torch_gives_the_same():
    found = doctor.compiling("cpu", seconds=300)
    assert found.verdict == "ok", found.line()


# --- all together


def test_each_thing_is_looked_at_in_its_order(tmp_path):
    found = [
        each.what for each in doctor.machine([Checked("libraries", "all")], tmp_path, quick=True)
    ]
    order = "python system processor threads memory device libraries faiss plugins results space"
    assert [each for each in found if each in order.split()][:5] == order.split()[:5]
    assert found.index("libraries") < found.index("faiss") < found.index("space")
    assert found[-1] == "clock" and "compile" not in found


def test_compiling_is_tried_unless_it_is_to_be_quick(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "compiling", lambda device: Checked("compile", device))
    assert [each.what for each in doctor.machine([], tmp_path)][-2:] == ["compile", "clock"]
