"""`maebench plugins`: components are checked without a test, new packages work as they are."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from test_cli import HEAVY, call, loaded_by, refused

import maebench
from maebench.cli import plugins as command
from maebench.component import check_class
from maebench.plugins import KINDS, SELECT, installed
from maebench.testing.contract import Finding, examine
from maebench.testing.packages import COMMANDS, CONTRACTS, contents, contract_for

ROOT = Path(maebench.__file__).parent
number = itertools.count()


def imported(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # pydantic looks there
    spec.loader.exec_module(module)
    return module


def component(module, kind):
    (cls,) = getattr(module, f"register_{kind}s")()
    return cls


# The templates.


def test_there_is_a_template_a_contract_and_a_command_for_every_kind():
    templates = {path.stem for path in (ROOT / "testing" / "templates").glob("*.py")} - {"__init__"}
    assert set(KINDS) == templates == set(CONTRACTS) == set(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_template_keeps_to_its_contract(kind):
    cls = component(import_module(f"maebench.testing.templates.{kind}"), kind)
    findings = list(examine(contract_for(cls)))
    assert [f for f in findings if f.status == "fail"] == []
    assert sum(f.status == "pass" for f in findings) >= 10


TEMPLATES = [ROOT / "testing" / "templates" / f"{kind}.py" for kind in KINDS]
AUTHORS = [
    *TEMPLATES,
    *(ROOT.parent / "docs" / "examples").glob("*.py"),
    *(ROOT.parent / "plugins").glob("maebench-*/*.py"),
    *(ROOT.parent / "tests" / "packages").glob("*/*.py"),
]


@pytest.mark.parametrize("path", AUTHORS, ids=lambda path: path.stem)
def test_what_authors_read_stands_at_the_top_and_is_typed_without_any(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom | ast.ClassDef)]
    assert [n.lineno for n in found if n not in tree.body] == []
    assert re.findall(r"TYPE_CHECKING|\bAny\b|Field\((?!\s*default=)", text) == []
    # a default is one for type checkers by its keyword alone; of maebench public names are used
    imports = [n for n in found if isinstance(n, ast.ImportFrom) and "maebench" in n.module]
    assert {n.module for n in imports} == {"maebench"}
    assert {alias.name for n in imports for alias in n.names} <= set(maebench.__all__)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_imports_what_maebench_needs_itself(path):
    top = ast.parse(path.read_text(encoding="utf-8")).body
    names = [n.module for n in top if isinstance(n, ast.ImportFrom)]
    names += [n.names[0].name for n in top if isinstance(n, ast.Import)]
    there = {*sys.stdlib_module_names, "torch", "pandas", "pydantic", "maebench"}
    assert {name.split(".")[0] for name in names} <= there


# What `new` writes.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["mine", "my-own.thing", "3d", "View", "field", "module", "pixels"]
)
def test_the_text_of_a_new_package_is_valid(kind, name, tmp_path):
    written = contents(name, kind)
    module = "maebench_" + re.sub(r"\W", "_", name).lower()
    tests = f"tests/test_{module.removeprefix('maebench_')}.py"
    assert set(written) == {f"{module}.py", tests, "pyproject.toml", "README.md", ".gitignore"}
    assert [text for text in written.values() if re.search(r"<[A-Z]+>", text)] == []

    (tmp_path / f"{module}.py").write_text(written[f"{module}.py"])
    cls = component(imported(tmp_path / f"{module}.py", f"{module}_{next(number)}"), kind)
    assert check_class(cls, KINDS[kind]) is None and cls.name == name
    old = component(import_module(f"maebench.testing.templates.{kind}"), kind)
    assert not re.search(
        rf'\b{old.__name__}\b|"{old.name}"|--\w+ {old.name}\b', written[f"{module}.py"]
    )
    assert cls.__name__ != old.__name__ and cls.__name__.isidentifier()

    compile(written[tests], tests, "exec")
    assert f"from {module} import {cls.__name__}\n" in written[tests]
    assert (
        f"component = {cls.__name__}\n" in written[tests] and CONTRACTS[kind][1] in written[tests]
    )
    project = tomllib.loads(written["pyproject.toml"])
    assert project["project"]["name"] == f"maebench-{name}"
    assert project["project"]["entry-points"]["maebench"] == {name: module}
    for line in ("pip install -e", "python -m pytest", COMMANDS[kind].replace("NAME", name)):
        assert line in written["README.md"]


def test_new_writes_a_package_and_says_what_is_next(tmp_path):
    ran = call("plugins", "new", "dots", "--kind", "masking", "--folder", tmp_path / "below")
    root = tmp_path / "below" / "maebench-dots"
    assert (ran.code, ran.err) == (0, "") and str(root) in ran.out
    for line in (f"pip install -e {root}", "plugins check dots", "maebench run --masking dots"):
        assert line in ran.out
    found = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
    assert {name: p.read_text(encoding="utf-8") for name, p in found.items()} == contents(
        "dots", "masking"
    )
    message = refused("plugins", "new", "dots", "--kind", "report", "--folder", tmp_path / "below")
    assert "maebench-dots exists already" in message
    assert "class Dots(Masking)" in (root / "maebench_dots.py").read_text()


def test_new_writes_into_the_working_directory_where_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("plugins", "new", "dots", "--kind", "reports").code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["maebench-dots"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a b", "--kind", "masking"], ["name 'a b'", "letters, digits"]),
        (["../up", "--kind", "masking"], ["name '../up'"]),
        (["dots-", "--kind", "masking"], ["name 'dots-'", "first and last"]),
        (["", "--kind", "masking"], ["name ''"]),
        (["class", "--kind", "masking"], ["'class'", "Python's own"]),
        (["none", "--kind", "masking"], ["'none'", "Python's own"]),
        (["random", "--kind", "masking"], ["masking 'random' exists already"]),
        (["knn", "--kind", "evaluation"], ["evaluation 'knn' exists already"]),
        (["evals", "--kind", "masking"], ["maebench_evals is installed already"]),
        (["dots", "--kind", "maskin"], ["unknown kind 'maskin'", "Did you mean 'masking'?"]),
        (["dots", "--kind", "masking", "--folder", "/dev/null"], ["cannot write", "/dev/null"]),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_new_refuses_what_cannot_become_a_package(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused("plugins", "new", *arguments)
    assert [word for word in words if word not in message] == [], message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["new", "dots"], ["new", "--kind", "masking"], ["new", "--x"]]
)
def test_new_wants_a_name_and_a_kind(arguments):
    refused("plugins", *arguments, code=2)


# What `check` finds.

HEADER = """
    from typing import ClassVar
    from pydantic import Field
    from maebench import Masking, hookimpl

    class Good(Masking):
        '''Hides any patches.'''
        name: ClassVar[str] = "good"
        def scores(self, view):
            return view.draws.uniform(view.length)

    class Bad(Masking):
        '''Hides whatever torch likes.'''
        name: ClassVar[str] = "bad"
        def scores(self, view):
            import torch
            return torch.rand(view.batch, view.length)

    @hookimpl
    def register_maskings():
        return [CLASS]
"""


def package(folder, name, entry, code):
    """An installed distribution with one module and one entry point."""
    module = f"checked_{next(number)}"
    (folder / f"{module}.py").write_text(textwrap.dedent(code))
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[maebench]\n{entry} = {module}\n")


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, "good-package", "good-entry", HEADER.replace("CLASS", "Good"))
    package(tmp_path, "bad-package", "bad-entry", HEADER.replace("CLASS", "Bad"))
    package(tmp_path, "broken-package", "broken-entry", "import no_such_module")
    monkeypatch.setenv(SELECT, "good-entry,bad-entry,broken-entry")  # not what else is installed


@pytest.mark.slow
def test_a_good_plugin_is_checked_without_a_test(third_party):
    ran = call("plugins", "check", "Good_Package")  # a name as pip takes it
    assert (ran.code, ran.err) == (0, "")
    first, *rest = ran.out.splitlines()
    assert re.fullmatch(r"masking good: (\d\d) passed, 0 failed, (\d+) not checked", first)
    assert all(line.startswith("  not checked  ") for line in rest)


@pytest.mark.slow
def test_passed_checks_are_listed_where_that_is_asked_for(third_party):
    ran = call("plugins", "check", "good-entry", "--verbose")
    count = int(re.search(r"(\d+) passed", ran.out)[1])
    assert ran.out.count("\n  passed       ") == count >= 10
    assert "  passed       it is documented and can be registered\n" in ran.out


@pytest.mark.slow
def test_a_bad_plugin_is_reported_with_the_reason_and_is_code_1(third_party):
    ran = call("plugins", "check", "bad-package")
    assert ran.code == 1
    assert re.match(r"masking bad: \d+ passed, [1-9]\d* failed, \d+ not checked\n", ran.out)
    assert re.search(r"^  FAILED       the same seed gives the same scores: .+$", ran.out, re.M)


def test_a_name_that_two_packages_claim_is_reported_and_is_code_1(third_party, monkeypatch):
    names = installed()
    disputed = dataclasses.replace(names, conflicts={("masking", "good"): ("one", "two")})
    monkeypatch.setattr("maebench.plugins.installed", lambda: disputed)
    ran = call("plugins", "check", "good-package")
    assert ran.code == 1
    assert ran.out.startswith("FAILED masking 'good' is claimed by one and two: unusable\n")


def test_one_reason_of_several_failures_is_said_once():
    findings = [Finding(f"check {n}", "fail", "one cause") for n in range(3)]
    assert command.lines(findings, False) == ["FAILED       3 checks: one cause"]
    assert command.lines(findings, True)[:3] == [
        f"FAILED       check {n}: one cause" for n in range(3)
    ]


def test_a_plugin_that_does_not_load_is_reported_and_is_code_1(third_party):
    ran = call("plugins", "check", "broken-entry")
    assert ran.code == 1
    assert ran.out.splitlines()[0] == "FAILED broken-entry (broken-package 1.0) does not load:"
    assert "No module named 'no_such_module'" in ran.out


@pytest.mark.slow
def test_all_third_party_packages_are_checked_where_none_is_named(third_party):
    ran = call("plugins", "check")
    assert ran.code == 1
    assert [f"masking {name}: " in ran.out for name in ("good", "bad", "random")] == [
        True,
        True,
        False,
    ]
    assert "broken-entry" in ran.out


def test_nothing_installed_is_said(monkeypatch):
    monkeypatch.setenv(SELECT, "")
    ran = call("plugins", "check")
    assert (ran.code, ran.out) == (0, f"{SELECT}='' leaves no third-party plugin to check\n")
    monkeypatch.delenv(SELECT)
    monkeypatch.setattr(command, "chosen", lambda names, package: [])
    ran = call("plugins", "check")
    assert ran.code == 0 and ran.out.startswith("no third-party plugin is installed")


def test_an_unknown_package_is_one_line_with_the_nearest_match(third_party):
    message = refused("plugins", "check", "goodpackage")
    assert "unknown package 'goodpackage'" in message and "Did you mean 'good-package'?" in message


def test_the_built_in_components_are_checked_by_the_name_of_the_package():
    names = installed()
    found = [cls.name for plugin in command.chosen(names, "maebench") for cls in plugin.components]
    assert {"random", "vit-nano", "mae", "digits", "knn"} <= set(found)
    (evals,) = command.chosen(names, "maebench-evals")
    assert {cls.kind for cls in evals.components} == {"evaluation"}


def test_checks_that_one_reason_prevents_are_said_together():
    findings = [Finding(f"check {i}", "not checked", "no files") for i in range(3)]
    findings += [
        Finding("a", "not checked", "no GPU"),
        Finding("b", "fail", "x"),
        Finding("c", "pass"),
    ]
    expected = ["FAILED       b: x", "not checked  3 checks: no files", "not checked  a: no GPU"]
    assert command.lines(findings, verbose=False) == expected
    assert len(command.lines(findings, verbose=True)) == 6


# The group.


def test_plugins_alone_lists_them():
    assert call("plugins") == call("plugins", "list")
    assert call("plugins").out.startswith("ok     maebench  (maebench ")


def test_help_of_plugins_imports_nothing_heavy():
    commands = [["plugins", *action, "--help"] for action in ([], ["list"], ["check"], ["new"])]
    for code, loaded in loaded_by(*commands):
        assert code == 0
        assert loaded & {*HEAVY, "pandas", "pydantic", "numpy"} == set()


def test_help_shows_what_plugins_can_do():
    shown = call("plugins", "--help").out
    assert re.findall(r"^  (list|check|new)  ", shown, re.M) == ["check", "list", "new"]
    assert "\n  Example:\n    maebench plugins new" in call("plugins", "new", "--help").out


# A new package, the whole way.

RUN = ("run", "--budget", "steps=2", "--limit", "100")
TRIES = {
    "masking": [(*RUN, "--masking", "fresh", "--evals", "knn")],
    "encoder": [(*RUN, "--encoder", "fresh", "-o", "finetune.drop_path=0")],
    "objective": [(*RUN, "--objective", "fresh", "--evals", "knn")],
    "dataset": [(*RUN, "--dataset", "fresh", "--evals", "knn")],
    "evaluation": [(*RUN, "--evals", "fresh")],
    "tracker": [(*RUN, "--evals", "knn", "-o", "machine.trackers=fresh")],
    "report": [(*RUN, "--evals", "knn"), ("table", "--format", "fresh")],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_built_passes_its_tests_and_is_used(kind, tmp_path):
    assert call("plugins", "new", "fresh", "--kind", kind, "--folder", tmp_path).code == 0
    root, site = tmp_path / "maebench-fresh", tmp_path / "site"
    paths = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, SELECT: "fresh"}
    environment["MAEBENCH_RESULTS"] = str(tmp_path / "results")

    def python(*arguments):
        ran = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{arguments}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    python("build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), ".")
    (wheel,) = (tmp_path / "dist").glob("maebench_fresh-0.1.0-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        modules = [name for name in packed.namelist() if name.endswith(".py")]
        packed.extractall(site)
    assert modules == ["maebench_fresh.py"]
    (root / "maebench_fresh.py").unlink()  # what is installed is tested, not what lies about

    assert re.search(r"[1-9]\d passed", python("pytest", "-q", "-p", "no:cacheprovider"))
    assert f"{kind} fresh: " in python("maebench", "plugins", "check", "maebench-fresh")
    for arguments in TRIES[kind]:
        shown = python("maebench", *arguments)
    if kind == "evaluation":
        assert re.search(r"fresh top1 \(%\)", shown)
    if kind == "report":
        assert shown.startswith("| model") and "knn top1 (%)" in shown
    if kind == "tracker":
        (numbers,) = (tmp_path / "results").glob("runs/*/fresh.csv")
        assert numbers.read_text().splitlines()[0] == "step,loss,lr"
        assert len(numbers.read_text().splitlines()) == 3
