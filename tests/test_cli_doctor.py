"""`maebench doctor` as a user calls it, on machines with the faults that a test plants."""

import importlib
import os
import shutil
import sys
import time
import warnings
from collections import namedtuple

import pytest

from maebench import plugins
from maebench.cli import main
from maebench.cli.doctor import shown, summary
from maebench.report import doctor, libraries, storage
from maebench.report.libraries import Checked

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """This machine, whose storage has room; fewer bytes are tried, and no slow import is."""
    monkeypatch.setattr(libraries, "IMPORTED", {})
    monkeypatch.setattr(storage, "TRIED", 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**12))
    monkeypatch.setenv(plugins.SELECT, "")


def called(capsys, folder, *arguments):
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:  # main() shows its own
        main(["doctor", "--quick", "--results", str(folder), *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    return ended.value.code or 0, out.splitlines()


def lines(found, verdict):
    return [line for line in found if line.startswith(verdict)]


def test_a_machine_without_faults_is_described_line_by_line(capsys, tmp_path):
    code, out = called(capsys, tmp_path)
    assert code == 0 and lines(out, "error") == [] and list(tmp_path.iterdir()) == []
    assert {line.split()[0] for line in out[:-1]} <= {"ok", "warning"}
    assert out[0].startswith("ok      python") and out[-2].startswith("ok      clock")


def no_faiss(monkeypatch):
    known = libraries.version_of
    faiss = lambda name: None if "faiss" in name else known(name)  # noqa: E731
    monkeypatch.setattr(libraries, "version_of", faiss)
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)


def both_faiss(monkeypatch):
    known = libraries.version_of
    faiss = lambda name: "1.12" if name in libraries.FAISS[:2] else known(name)  # noqa: E731
    monkeypatch.setattr(libraries, "version_of", faiss)


def old_library(monkeypatch):
    known = libraries.version_of
    timm = lambda name: "0.9.2" if name == "timm" else known(name)  # noqa: E731
    monkeypatch.setattr(libraries, "version_of", timm)


def read_only_folder(monkeypatch):
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and may(path, mode))


def full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 0))


def clock_in_1970(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 3600.0)


@pytest.mark.parametrize(
    ("plant", "what", "advice"),
    [
        (no_faiss, "faiss", "pip install 'maebench[cpu]'"),
        (both_faiss, "faiss", "pip uninstall faiss-cpu faiss-gpu"),
        (old_library, "timm", "0.9.2 is installed; >=1.0.20 is needed. pip install 'timm>=1.0.20'"),
        (read_only_folder, "results", "Choose another folder with --results or MAEBENCH_RESULTS"),
        (full_disk, "space", "0 B free; a run of the default settings keeps"),
        (clock_in_1970, "clock", "1970-01-01 01:00:00 UTC cannot be"),
    ],
)
def test_what_stops_a_run_is_an_error_with_what_to_do(
    capsys, tmp_path, monkeypatch, plant, what, advice
):
    monkeypatch.setattr("maebench.report.machine.torch.cuda.is_available", lambda: False)
    plant(monkeypatch)
    code, out = called(capsys, tmp_path)
    (line,) = lines(out, "error")
    assert code == 1 and line.split()[1] == what and advice in line
    assert out[-1].startswith("1 error")


def test_a_broken_plugin_is_a_warning_and_stops_nothing(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "site" / "stripes-1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[maebench]\nstripes = no_such_module\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    monkeypatch.setenv(plugins.SELECT, "stripes")
    importlib.invalidate_caches()
    code, out = called(capsys, tmp_path)
    (line,) = [line for line in lines(out, "warning") if "plugins" in line]
    assert code == 0 and "stripes (stripes 1) does not load: ModuleNotFoundError" in line


def test_a_compiler_that_fails_is_a_warning_and_stops_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "COMPILED", "raise RuntimeError('no headers')")
    monkeypatch.setattr(doctor, "missing_compiler", lambda device: "")
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
        main(["doctor", "--results", str(tmp_path)])
    out = capsys.readouterr().out.splitlines()
    (line,) = [line for line in out if " compile " in line]
    assert not ended.value.code and line.startswith("warning")
    assert "RuntimeError: no headers. Runs go on without it" in line


def test_each_line_is_printed_as_soon_as_it_is_known(capsys):
    def found():
        yield Checked("a", "[one]")
        assert "[one]" in capsys.readouterr().out
        yield Checked("b", "two", "error", "Do this")

    assert shown(found()) is False
    assert capsys.readouterr().out.splitlines() == ["error   b            two. Do this", "1 error"]


def test_libraries_without_which_the_rest_cannot_be_imported_are_named(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "maebench.report.doctor", None)
    old_library(monkeypatch)
    code, out = called(capsys, tmp_path)
    old, rest = lines(out, "error")
    assert code == 1 and " timm " in old and " maebench " in rest
    assert rest.endswith("Install what is missing or broken, and call again")


@pytest.mark.parametrize(
    ("verdicts", "line"),
    [
        (["ok"], "nothing is wrong"),
        (["ok", "warning"], "1 warning: nothing that stops a run"),
        (["error", "warning", "error", "warning"], "2 errors and 2 warnings"),
        (["error"], "1 error"),
    ],
)
def test_the_summary_counts_what_is_wrong(verdicts, line):
    assert summary([Checked("a", "b", verdict) for verdict in verdicts]) == line


# ---- of results


def test_a_run_is_looked_at_by_its_name_and_repaired_only_where_that_is_asked(
    tmp_path, monkeypatch, capsys
):
    import tiny

    run = tiny.plan(tmp_path).run
    path = run.folder / "spent.json"
    path.write_text(path.read_text().replace('"steps": ', '"steps": 1'))
    damaged = path.read_bytes()

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *arguments, "--results", str(tmp_path)])
        return ended.value.code, *capsys.readouterr()

    code, out, _ = call(run.name)
    assert (
        code == 1 and "1 damaged, 0 of them lost for good" in out and path.read_bytes() == damaged
    )
    assert "spent.json: it is not as it was written; the last checkpoint says the same" in out
    assert call(str(tmp_path), "--repair")[0] == 0
    assert call(str(tmp_path))[:2][0] == 0
    code, _, err = call("nobody")
    assert code == 1 and "unknown run or folder of results 'nobody'" in err
    assert call("--repair")[0] == 2
