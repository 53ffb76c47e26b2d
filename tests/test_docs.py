"""The documentation speaks of the code as it is."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from maebench.cli import COMMANDS
from maebench.config.run import RunConfig
from maebench.plugins import HOOKS
from maebench.testing import examine
from maebench.testing.packages import contract_for

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def generator(name="generate"):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says_now():
    assert generator().generate() == REFERENCE, "run python docs/generate.py"


def test_the_page_of_recipes_is_what_their_headers_say_now():
    module = generator("recipes")
    assert module.page() == module.PAGE.read_text("utf-8"), "run python docs/generate.py"


EXAMPLES = {"spiral_arms": ("masking", 30), "cluster_vote": ("evaluation", 40)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_keeps_to_its_contract(name, monkeypatch):
    kind, most = EXAMPLES[name]
    path = ROOT / "docs" / "examples" / f"{name}.py"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= most
    monkeypatch.syspath_prepend(path.parent)
    (component,) = getattr(importlib.import_module(name), f"register_{kind}s")()
    assert [f for f in examine(contract_for(component)) if f.status == "fail"] == []


EXTEND = sorted((ROOT / "docs" / "extend").glob("*.md"))


@pytest.mark.parametrize("page", EXTEND, ids=lambda page: page.stem)
def test_a_page_of_an_extension_point_is_what_the_code_says_now(page):
    pages = generator("extend").pages()
    assert set(pages) == set(EXTEND), "run python docs/generate.py"
    assert pages[page] == page.read_text(encoding="utf-8"), "run python docs/generate.py"


@pytest.mark.parametrize("page", EXTEND, ids=lambda page: page.stem)
def test_the_example_of_a_page_keeps_to_its_contract(page, tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1]
    (tmp_path / f"example_{page.stem}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(f"example_{page.stem}")
    (component,) = getattr(module, f"register_{page.stem}s")()
    findings = list(examine(contract_for(component)))
    assert [f for f in findings if f.status == "fail"] == []
    assert sum(f.status == "pass" for f in findings) > len(findings) / 2


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_heading_with_its_signature(hook):
    base = HOOKS[hook].__name__
    assert f"### {hook}() -> list[type[{base}]]" in REFERENCE


@pytest.mark.parametrize("name", RunConfig.FLAGS)
def test_every_flag_of_run_is_in_the_reference(name):
    help_text = REFERENCE.split("### maebench run")[1].split("### maebench pretrain")[0]
    assert f"--{name.replace('_', '-')} " in help_text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command):
    assert f"maebench {command}" in README


def test_the_readme_shows_the_third_party_package_whole():
    folder = ROOT / "plugins" / "maebench-checkerboard"
    for name in ("maebench_checkerboard.py", "pyproject.toml"):
        assert (folder / name).read_text(encoding="utf-8").strip() in README, name


def test_every_link_in_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_every_benchmark_that_a_comment_names_exists():
    sources = [*ROOT.glob("maebench/**/*.py"), *ROOT.glob("plugins/**/*.py")]
    named = {
        name
        for source in sources
        for name in re.findall(r"benchmarks/\w+\.py", source.read_text(encoding="utf-8"))
    }
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
