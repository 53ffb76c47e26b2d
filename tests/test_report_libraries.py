"""Which libraries are there, by metadata that a test made up."""

import importlib.metadata
import sys
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from maebench.report import libraries
from maebench.report.libraries import Checked, faiss, outside

ASKED = [
    "numpy>=2.0",
    "torch>=2.6",
    "faiss-cpu>=1.10; extra == 'cpu'",
    "transformers>=5.0; extra == 'hf'",
    "ruff==0.17.6; extra == 'dev'",
]


@pytest.fixture
def there(monkeypatch):
    """{distribution: version} of what is installed, which a test changes."""
    versions = {"maebench": "0.1", "numpy": "2.1", "torch": "2.7.0+cpu", "faiss-cpu": "1.11"}

    def metadata(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return {"Version": versions[name]}

    monkeypatch.setattr(importlib.metadata, "metadata", metadata)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ASKED)
    return versions


def wrong(found):
    return [(each.what, each.verdict, each.line()) for each in found if each.verdict != "ok"]


@pytest.mark.slow
def test_what_is_installed_here_is_fine():
    assert wrong(libraries.libraries()) == wrong(faiss(gpu=False)) == []


def test_every_version_stands_in_the_first_line(there):
    (line,) = libraries.libraries()
    assert line == Checked("libraries", "maebench 0.1, numpy 2.1, torch 2.7.0+cpu")
    assert line.line() == "ok      libraries    maebench 0.1, numpy 2.1, torch 2.7.0+cpu"


def test_a_library_that_is_too_old_is_an_error_with_what_to_install(there):
    there["torch"] = "2.5.1"
    ((what, verdict, line),) = wrong(libraries.libraries())
    assert (what, verdict) == ("torch", "error")
    assert line.endswith("2.5.1 is installed; >=2.6 is needed. pip install 'torch>=2.6'")


def test_a_library_that_is_missing_is_an_error(there):
    del there["numpy"]
    ((what, verdict, line),) = wrong(libraries.libraries())
    assert (what, verdict) == ("numpy", "error") and "not installed; >=2.0 is needed" in line


def test_a_library_that_a_run_can_do_without_is_a_warning_and_none_of_a_developer(there):
    there |= {"transformers": "4.40", "ruff": "0.1"}
    ((what, verdict, _),) = wrong(libraries.libraries())
    assert (what, verdict) == ("transformers", "warning")


def test_a_library_that_cannot_be_imported_is_an_error(there, monkeypatch):
    def unfit(name):
        if name != "numpy":  # what needs torch fails after it
            raise RuntimeError("operator torchvision::nms\ndoes not exist")

    monkeypatch.setattr(libraries, "import_module", unfit)
    ((what, verdict, line),) = wrong(libraries.libraries())
    assert (what, verdict) == ("torch", "error") and "\n" not in line
    assert line.endswith("pip install --force-reinstall 'torch>=2.6', and call again")
    assert "cannot be imported (RuntimeError: operator torchvision::nms does not exist)" in line


def test_maebench_that_is_not_installed_is_an_error(monkeypatch):
    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", none)
    ((_, verdict, line),) = wrong(libraries.libraries())
    assert verdict == "error" and "pip install 'maebench[cpu]'" in line


@pytest.mark.parametrize(
    ("version", "fits"),
    [("2.6", True), ("2.6.0+cu130", True), ("2.7.0.dev1", True), ("2.5", False)],
)
def test_builds_and_releases_of_developers_are_read_as_versions(there, version, fits):
    there["torch"] = version
    assert (outside(Requirement("torch>=2.6")) == "") is fits


# --- faiss


def test_no_faiss_is_an_error_on_a_cpu_and_fine_on_a_gpu(there, monkeypatch):
    del there["faiss-cpu"]
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    ((_, verdict, line),) = wrong(faiss(gpu=False))
    assert verdict == "error" and line.endswith("pip install 'maebench[cpu]'")
    assert wrong(faiss(gpu=True)) == []


def test_both_faiss_are_an_error_that_names_both(there):
    there["faiss-gpu"] = "1.12"
    ((_, verdict, line),) = wrong(faiss(gpu=True))
    assert verdict == "error" and "faiss-cpu 1.11 and faiss-gpu 1.12 are both" in line
    assert "pip uninstall faiss-cpu faiss-gpu" in line


def test_a_faiss_that_is_too_old_is_an_error(there):
    there["faiss-cpu"] = "1.7.4"
    ((_, verdict, line),) = wrong(faiss(gpu=False))
    assert verdict == "error" and "1.7.4 is installed; >=1.10 is needed" in line


def test_a_faiss_that_cannot_be_imported_is_an_error(there, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(libraries, "find_spec", lambda name: SimpleNamespace(origin="x"))
    ((_, verdict, line),) = wrong(faiss(gpu=False))
    assert verdict == "error" and "cannot be imported" in line


def test_the_place_of_faiss_is_said(there):
    (line,) = faiss(gpu=False)
    assert line.text.startswith("faiss-cpu 1.11 (") and line.text.endswith("__init__.py)")
