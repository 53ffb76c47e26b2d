"""Which libraries are installed, whether they are new enough and can be imported; which FAISS.

Imports neither torch nor numpy: it says so where they are missing.
"""

from __future__ import annotations

import importlib.metadata
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

from packaging.requirements import Requirement

# An error would stop a run or make its numbers wrong; a warning costs time, or will.
Verdict = Literal["ok", "warning", "error"]
SHOWN = 160  # characters of another library's message
# What is imported to see whether it can be: it holds compiled code, which may not fit the others.
# In this order, and the first fault alone is named: torchvision fails at an unfit torch, and timm
# at an unfit torchvision.
IMPORTED = {
    **{"numpy": "numpy", "torch": "torch", "torchvision": "torchvision", "timm": "timm"},
    **{"scipy": "scipy.stats", "scikit-learn": "sklearn", "pandas": "pandas"},
    **{"safetensors": "safetensors.torch", "pydantic": "pydantic", "tokenizers": "tokenizers"},
    **{"matplotlib": "matplotlib", "pillow": "PIL.Image", "pluggy": "pluggy"},
}
OPTIONAL = ("fast", "parquet", "hf")  # extras that a run can do without
# The first two are ours (pyproject.toml); the others bring the same module under other names.
FAISS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss")


@dataclass(frozen=True)
class Checked:
    """One thing that was looked at.

    Args:
        what: its name, in a word.
        text: what was found.
        verdict: whether it is fine.
        advice: what to do where it is not.
    """

    what: str
    text: str
    verdict: Verdict = "ok"
    advice: str = ""

    def line(self) -> str:
        """All of it in one line."""
        advice = f". {self.advice}" if self.advice else ""
        return f"{self.verdict:<8}{self.what:<13}{self.text}{advice}"


def libraries() -> Iterator[Checked]:
    """The versions of what maebench needs, then a line for each that is wrong.

    Those of pyproject.toml, as the installed package's metadata holds them.
    """
    try:
        asked = [Requirement(text) for text in importlib.metadata.requires("maebench") or ()]
    except importlib.metadata.PackageNotFoundError:
        advice = "pip install 'maebench[cpu]', or -e '.[cpu]' in a clone of it"
        text = "maebench itself is not installed: its own evaluations are not found"
        yield Checked("libraries", text, "error", advice)
        return
    needed = [each for each in asked if not each.marker or each.marker.evaluate({"extra": ""})]
    versions = {each.name: version_of(each.name) for each in needed}
    listed = ", ".join(f"{name} {version or '(none)'}" for name, version in versions.items())
    yield Checked("libraries", f"maebench {version_of('maebench')}, {listed}")
    for each in needed:
        if wrong := outside(each):
            yield Checked(each.name, wrong, "error", f"pip install '{each.name}{each.specifier}'")
    yield from _imported({each.name: f"{each.name}{each.specifier}" for each in needed})
    for each in _of_extras(asked):
        if version_of(each.name) and (wrong := outside(each)):
            text = f"{wrong}; it is used where it is asked for alone"
            yield Checked(each.name, text, "warning", f"pip install '{each.name}{each.specifier}'")


def faiss(gpu: bool) -> Iterator[Checked]:
    """Which FAISS is installed: it finds nearest neighbours, on a CPU it alone.

    Args:
        gpu: whether there is a GPU, on which torch finds them where FAISS is missing.
    """
    found = {name: version for name in FAISS if (version := version_of(name))}
    spec = find_spec("faiss")
    origin = spec.origin if spec else None
    listed = " and ".join(f"{name} {version}" for name, version in found.items())
    if len(found) > 1:
        advice = f"pip uninstall {' '.join(found)}, then pip install 'maebench[cpu]' or [gpu]"
        text = f"{listed} are both the module faiss ({origin}): the later one overwrote the other"
        yield Checked("faiss", text, "error", advice)
    elif not spec:
        if gpu:
            text = "none is installed: neighbours are found by torch on the GPU, exactly too"
            yield Checked("faiss", text)
        else:
            text = "none is installed: evaluations of nearest neighbours fail"
            yield Checked("faiss", text, "error", "pip install 'maebench[cpu]'")
    elif why := _unfit("faiss"):
        advice = f"pip install --force-reinstall {' '.join(found) or 'faiss-cpu'}"
        yield Checked("faiss", f"{listed or origin} {why}", "error", advice)
    elif wrong := _old_faiss(found):
        advice = f"pip install --upgrade {' '.join(found)}"
        yield Checked("faiss", wrong, "error", advice)
    else:
        yield Checked("faiss", f"{listed or 'not from a package of pip'} ({origin})")


def version_of(name: str) -> str | None:
    """The installed version of a distribution; None where it is not installed."""
    try:
        # of a folder that a broken installation left behind there is no version
        return importlib.metadata.metadata(name)["Version"]
    except importlib.metadata.PackageNotFoundError:
        return None


def outside(asked: Requirement) -> str:
    """What is wrong with the installed version; empty where it is within its bounds."""
    version = version_of(asked.name)
    if version is None:
        return f"not installed; {asked.specifier} is needed"
    if asked.specifier.contains(version, prereleases=True):
        return ""
    return f"{version} is installed; {asked.specifier} is needed"


def _old_faiss(found: dict[str, str]) -> str:
    """What is wrong with the version of the FAISS that is installed."""
    asked = [Requirement(text) for text in importlib.metadata.requires("maebench") or ()]
    return next((outside(each) for each in asked if each.name in found), "")


def _of_extras(asked: list[Requirement]) -> list[Requirement]:
    """What is asked for by the extras that a run can do without."""
    some = [each for each in asked if each.marker and not each.marker.evaluate({"extra": ""})]
    return [
        each
        for each in some
        if each.marker and any(each.marker.evaluate({"extra": extra}) for extra in OPTIONAL)
    ]


def _imported(asked: dict[str, str]) -> Iterator[Checked]:
    """The first library that is there and cannot be imported; later ones may fail by it alone."""
    for name, module in IMPORTED.items():
        version = version_of(name) if name in asked else None
        if version and (why := _unfit(module)):
            advice = f"pip install --force-reinstall '{asked[name]}', and call again"
            yield Checked(name, f"{version} {why}", "error", advice)
            return


def _unfit(module: str) -> str:
    """Why a module cannot be imported; empty where it can, or none is to be."""
    try:
        if module:
            import_module(module)
    except Exception as error:  # a library that does not fit another raises what it likes
        return f"cannot be imported ({in_short(error)})"
    return ""


def in_short(error: Exception) -> str:
    """An exception of another library in one line."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", SHOWN)
