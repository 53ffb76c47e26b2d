"""Plugins: each is found, loaded and checked alone; a broken one takes nothing else with it."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import fakes
import pytest

import maebench_evals
from maebench.cli.evaluate import chosen_evaluation
from maebench.cli.show import as_typed
from maebench.component import check_class
from maebench.config.run import RunConfig
from maebench.config.sources import from_sources
from maebench.errors import ConfigError
from maebench.plugins import HOOKS, SELECT, installed, plugin_manager

HEADER = """
    from typing import ClassVar
    from pydantic import Field
    from maebench import Masking, hookimpl

    class Checks(Masking):
        '''Hides every other patch.'''
        name: ClassVar[str] = "checks"
        phase: int = Field(0, ge=0, description="where it begins")

    class Stripes(Masking):
        '''Hides every other row.'''
        name: ClassVar[str] = "stripes"

    class Squatter(Masking):
        '''Calls itself as a built-in one.'''
        name: ClassVar[str] = "random"

    class Mute(Masking):
        name: ClassVar[str] = "mute"

    class Lost(Masking):
        '''Is of no kind that there is.'''
        kind: ClassVar[str] = "maskings"
        name: ClassVar[str] = "lost"
"""
GOOD = """
    @hookimpl
    def register_maskings():
        return [Checks]
"""
STRIPES = GOOD.replace("Checks", "Stripes")
number = itertools.count()


def package(folder, name, code, entry=None, version="1.2", attribute=""):
    """An installed distribution: a module, its metadata and its entry point."""
    module = f"plugin_{next(number)}_{name.replace('-', '_')}"  # sys.modules keeps what it has
    text = textwrap.dedent(HEADER) + textwrap.dedent(code)
    (folder / f"{module}.py").write_text(text)
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    entries = f"[maebench]\n{entry or name} = {module}{attribute}\n"
    (metadata / "entry_points.txt").write_text(entries)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on sys.path to install distributions into."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def pristine():
    """What there is without any of these packages."""
    return {kind: set(classes) for kind, classes in installed().table.items()}


def choices(names):
    return {kind: set(classes) for kind, classes in names.table.items()}


def plugin(names, package_name):
    (found,) = [p for p in names.plugins if p.package == package_name]
    return found


def refused(names, **settings):
    with pytest.raises(ConfigError) as caught:
        RunConfig(names, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what works


def test_what_a_package_registers_is_chosen_as_a_built_in_is(site, pristine):
    package(site, "good-plugin", GOOD)
    names = installed()
    assert names.table["masking"].keys() == {*pristine["masking"], "checks"}
    config = RunConfig(names, masking={"name": "checks", "phase": "1"})
    assert config.masking.changed() == "checks(phase=1)"
    assert RunConfig(names, **config.dump()) == config
    origin = names.origin(type(config.masking))
    assert (origin.package, origin.version, origin.problem) == ("good-plugin", "1.2", None)
    assert "checks (good-plugin)" in refused(names, masking="x")
    assert "Did you mean 'checks'?" in refused(names, masking="check")


def test_a_class_or_an_object_may_be_the_plugin(site, pristine):
    package(
        site,
        "an-object",
        """
        class Plugin:
            @hookimpl
            def register_maskings(self):
                return (Checks,)
        plugin = Plugin()
        """,
        attribute=":plugin",
    )
    assert choices(installed())["masking"] == {*pristine["masking"], "checks"}


def test_every_built_in_component_keeps_the_contract():
    for hook, base in HOOKS.items():
        for cls in installed().table[base.kind].values():
            assert check_class(cls, base) is None, (hook, cls)


def test_our_own_evaluations_come_through_their_entry_point():
    ours = [p for p in installed().plugins if p.name == "maebench-evals"]
    assert [p.package for p in ours] == ["maebench"]
    assert {c.name for c in ours[0].components} >= {"linear-probe", "finetune", "knn"}


# --- what does not


BAD = {
    "that cannot be imported": ("import no_such_module", "No module named 'no_such_module'"),
    "with a syntax error": ("def f(:", "SyntaxError"),
    "that ends the interpreter": ("raise SystemExit('bye')", "SystemExit: bye"),
    "that exits in silence": ("import sys; sys.exit()", "SystemExit"),
    "with a misspelt hook": (
        GOOD.replace("maskings", "masking"),
        "unknown hook 'register_masking'. Did you mean 'register_maskings'? There is:",
    ),
    "with a hook that wants more": (GOOD.replace("()", "(names)"), "register_maskings"),
    "that returns a class": (GOOD.replace("[Checks]", "Checks"), "must return a list of classes"),
    "that returns nothing": (GOOD.replace("[Checks]", "None"), "must return a list of classes"),
    "that returns names": (
        GOOD.replace("Checks", "'checks'"),
        "not a subclass of maebench.Masking",
    ),
    "that returns an object": (GOOD.replace("Checks", "Checks()"), "not a subclass"),
    "of another kind": (GOOD.replace("maskings", "encoders"), "not a subclass of maebench.Encoder"),
    "without a docstring": (GOOD.replace("Checks", "Mute"), "Mute has no docstring"),
    "with a kind of its own": (GOOD.replace("Checks", "Lost"), "Lost.kind must stay 'masking'"),
    "with a hook that is not marked": (
        GOOD.replace("@hookimpl", ""),
        "register_maskings() has no @maebench.hookimpl",
    ),
    "with a need misspelt": (
        GOOD.replace("Checks", "type('C', (Checks,), {'__doc__': 'C.', 'needs': {'attentoin'}})"),
        "C.needs is {'attentoin'}: a frozenset of 'attention'",
    ),
    "with a need that is a word": (
        GOOD.replace("Checks", "type('C', (Checks,), {'__doc__': 'C.', 'needs': 'attention'})"),
        "C.needs is 'attention': a frozenset of",
    ),
    "that nobody answers": (
        GOOD.replace(
            "Checks",
            "type('C', (Checks,), {'__doc__': 'C.', '__annotations__': {'answered_by': ClassVar[str]}, 'answered_by': 'techer'})",
        ),
        "C.answered_by is 'techer'; there is teacher and encoder",
    ),
    "that raises on several lines": (
        GOOD.replace("return", "raise RuntimeError('one\\ntwo'); return"),
        "RuntimeError: one two (plugin_",
    ),
    "that raises": (GOOD.replace("return", "1 / 0; return"), "ZeroDivisionError"),
    "that exits late": (GOOD.replace("return", "raise SystemExit(2);"), "SystemExit: 2"),
    "without hooks": ("", "registers nothing"),
    "with an empty list": (GOOD.replace("Checks", ""), "registers nothing"),
    "with a built-in's name": (GOOD.replace("Checks", "Squatter"), "is a built-in's name"),
    "with a format's name": (
        """
        from maebench import Report
        class Csv(Report):
            '''Says it is a format.'''
            name: ClassVar[str] = "csv"
        @hookimpl
        def register_reports():
            return [Csv]
        """,
        "report 'csv' is a built-in's name",
    ),
    "that says it twice": (GOOD.replace("Checks", "Checks, Checks"), "registered twice"),
    "good in one of two": (GOOD + STRIPES.replace("maskings", "encoders"), "not a subclass"),
}


@pytest.mark.parametrize("code", BAD)
def test_a_plugin_is_reported_and_takes_nothing_with_it(site, pristine, code):
    code, reason = BAD[code]
    package(site, "aaa-bad-plugin", code, version="0.1")
    package(site, "neighbour", STRIPES)
    manager = plugin_manager()
    names = installed(manager)
    assert choices(names) == {**pristine, "masking": {*pristine["masking"], "stripes"}}
    bad = plugin(names, "aaa-bad-plugin")
    assert reason in bad.problem and (bad.name, bad.version) == ("aaa-bad-plugin", "0.1")
    assert bad.components == ()
    assert plugin(names, "neighbour").problem is None
    assert RunConfig(names, masking="stripes").masking.name == "stripes"
    assert RunConfig(names).masking.name == "random"
    if "built-in" not in reason and "twice" not in reason:  # these are found out at the end
        assert not manager.has_plugin("aaa-bad-plugin:aaa-bad-plugin")
        assert manager.has_plugin("neighbour:neighbour")


def test_an_entry_point_to_what_is_not_there_is_reported(site):
    package(site, "gone", GOOD, attribute=":missing")
    assert "missing" in plugin(installed(), "gone").problem


def test_a_name_that_two_packages_claim_is_nobodys_until_one_goes(site, pristine, monkeypatch):
    package(site, "one", GOOD)
    package(site, "two", GOOD, entry="second")
    names = installed()
    assert choices(names) == pristine
    assert names.conflicts == {("masking", "checks"): ("one (one)", "two (second)")}
    message = refused(names, masking="checks")
    assert "one (one)" in message and "two (second)" in message
    assert RunConfig(names, masking="block").masking.name == "block"
    monkeypatch.setenv(SELECT, "second")
    assert RunConfig(installed(), masking="checks").masking.name == "checks"


def test_a_conflict_costs_the_two_packages_nothing_else(site, pristine):
    package(site, "one", GOOD)
    package(site, "two", GOOD.replace("[Checks]", "[Checks, Stripes]"))
    assert choices(installed())["masking"] == {*pristine["masking"], "stripes"}


# --- which are loaded


@pytest.mark.parametrize(
    ("chosen", "loaded"),
    [
        (None, {"checks", "stripes"}),
        ("", set()),
        ("first", {"checks"}),
        ("first,second", {"checks", "stripes"}),
        (" second , first ", {"checks", "stripes"}),
        ("one", set()),  # the entry point's name counts, not the package's
    ],
)
def test_the_environment_says_which_plugins_load(site, monkeypatch, pristine, chosen, loaded):
    package(site, "one", GOOD, entry="first")
    package(site, "two", STRIPES, entry="second")
    package(site, "three", "raise RuntimeError('loaded')", entry="third")
    if chosen is not None:
        monkeypatch.setenv(SELECT, chosen)
    names = installed()
    assert choices(names)["masking"] == pristine["masking"] | loaded
    assert choices(names)["evaluation"] == pristine["evaluation"], "our own always load"
    assert any(p.package == "three" for p in names.plugins) == (chosen is None)


def test_what_is_not_chosen_is_not_even_imported(site, monkeypatch):
    package(site, "noisy", GOOD)
    monkeypatch.setenv(SELECT, "other")
    before = set(sys.modules)
    installed()
    assert not [m for m in set(sys.modules) - before if m.startswith("plugin_")]


def test_a_manager_is_fresh_each_time_and_holds_only_what_it_was_given(pristine):
    mine, other = plugin_manager(), plugin_manager()
    assert mine is not other
    mine.register(fakes.Fakes(), "fakes")
    assert choices(installed(mine))["masking"] == pristine["masking"] | {"worst", "attended"}
    assert choices(installed(other)) == pristine == choices(installed())


# --- from end to end


def maebench(site, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}
    command = [sys.executable, "-W", "error", "-m", "maebench", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_command_line_lists_good_and_bad_plugins(tmp_path):
    package(tmp_path, "good-plugin", GOOD.replace("Checks", "Stripes"))
    package(tmp_path, "bad-plugin", "import no_such_module", version="0.1")
    package(tmp_path, "exiting", "raise SystemExit(7)")
    package(tmp_path, "squatting", GOOD.replace("Checks", "Squatter"))
    package(tmp_path, "one", GOOD)
    package(tmp_path, "two", GOOD)
    ran = maebench(tmp_path, "plugins")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert re.search(
        r"^ok +good-plugin +\(good-plugin 1\.2\)\n +masking stripes$", ran.stdout, re.M
    )
    for bad, reason in {
        r"bad-plugin +\(bad-plugin 0\.1\)": "ModuleNotFoundError: No module named 'no_such_module'",
        r"exiting +\(exiting 1\.2\)": "SystemExit: 7",
        r"squatting +\(squatting 1\.2\)": "masking 'random' is a built-in's name",
    }.items():
        assert re.search(rf"^FAILED +{bad}\n +{re.escape(reason)}", ran.stdout, re.M), bad
    assert "'checks' is claimed by one (one) and two (two): unusable" in ran.stdout

    ran = maebench(tmp_path, "list", "maskings")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.search(
        r"^  stripes +\(from good-plugin\)\n +Hides every other row\.$", ran.stdout, re.M
    )
    assert re.search(
        r"^  checks +unusable: claimed by one \(one\) and two \(two\)$", ran.stdout, re.M
    )
    assert re.search(r"^  random$", ran.stdout, re.M) and "Calls itself" not in ran.stdout


def test_a_plugin_that_the_environment_names_and_nobody_brings_is_reported(monkeypatch):
    monkeypatch.setenv("MAEBENCH_PLUGINS", "typo")
    (missing,) = [p for p in installed().plugins if p.problem]
    assert missing.name == "typo"
    assert missing.problem == "MAEBENCH_PLUGINS names it; no installed package has it"


# --- what our own evaluations say


def options_said():
    """Every `-o PART.KEY` in a text of our evaluations."""
    folder = Path(maebench_evals.__file__).parent
    texts = [
        node.value
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return sorted({o for text in texts for o in re.findall(r"-o ([\w.-]+)", text)})


@pytest.mark.parametrize("option", options_said())
def test_an_option_to_change_is_spelt_as_run_and_eval_both_take_it(option):
    part, _, key = option.partition(".")
    names = installed()
    default = names.get("evaluation", part).model_fields[key].default
    value = as_typed(default)
    config = from_sources({"evals": part}, [f"{option}={value}"], names=names)
    assert config.evals == (chosen_evaluation(part, ((option, value),), names),)
