"""The documentation speaks of the code as it is."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import click
import pytest
from test_cli import call, refused

from maebench.cli import COMMANDS, cli
from maebench.config.run import RunConfig
from maebench.plugins import HOOKS, KINDS, installed
from maebench.testing import examine
from maebench.testing.packages import contract_for

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("results/reference/*.md")]
}


def generator(name="generate"):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(text, language):
    """The text in each of a page's fences of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


# --- pages that the code makes


def test_the_reference_is_what_the_code_says_now():
    assert generator().generate() == REFERENCE, "run python docs/generate.py"


def test_the_page_of_recipes_is_what_their_headers_say_now():
    module = generator("recipes")
    assert module.page() == module.PAGE.read_text("utf-8"), "run python docs/generate.py"


def test_the_page_of_recipes_shows_the_line_that_a_difference_is_refused_with():
    line = refused("run", "--recipe", "mae-digits", "--ratio", "0.5")
    assert line in PAGES["docs/recipes.md"]


EXTEND = sorted((DOCS / "extend").glob("*.md"))


@pytest.mark.parametrize("page", EXTEND, ids=lambda page: page.stem)
def test_a_page_of_an_extension_point_is_what_the_code_says_now(page):
    pages = generator("extend").pages()
    assert set(pages) == set(EXTEND), "run python docs/generate.py"
    assert pages[page] == page.read_text(encoding="utf-8"), "run python docs/generate.py"


@pytest.mark.parametrize("page", EXTEND, ids=lambda page: page.stem)
def test_the_first_example_of_a_page_is_the_template_whose_contract_is_tested(page):
    template = ROOT / "maebench" / "testing" / "templates" / f"{page.stem}.py"
    shown, *_ = blocks(page.read_text(encoding="utf-8"), "python")
    assert shown.strip() == template.read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_heading_with_its_signature(hook):
    base = HOOKS[hook].__name__
    assert f"### {hook}() -> list[type[{base}]]" in REFERENCE


@pytest.mark.parametrize("name", RunConfig.FLAGS)
def test_every_flag_of_run_is_in_the_reference(name):
    help_text = REFERENCE.split("### maebench run")[1].split("### maebench pretrain")[0]
    assert f"--{name.replace('_', '-')} " in help_text


# --- plugins that are shown


def keeps_to_its_contract(module, kind):
    (component,) = getattr(module, f"register_{kind}s")()
    return [f for f in examine(contract_for(component)) if f.status == "fail"] == []


EXAMPLES = {"spiral_arms": ("masking", 30), "cluster_vote": ("evaluation", 40)}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_keeps_to_its_contract(name, monkeypatch):
    monkeypatch.syspath_prepend(DOCS / "examples")
    assert keeps_to_its_contract(importlib.import_module(name), EXAMPLES[name][0])


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name):
    text = (DOCS / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) <= EXAMPLES[name][1]


def plugin_of_the_readme():
    (text,) = [block for block in blocks(README, "python") if "@hookimpl" in block]
    return text


def test_the_plugin_of_the_readme_is_fifteen_lines():
    lines = [line for line in plugin_of_the_readme().splitlines() if line.strip()]
    assert len(lines) == 15
    assert "A plugin in 15 lines" in README


@pytest.mark.slow
def test_the_plugin_of_the_readme_keeps_to_its_contract(tmp_path, monkeypatch):
    (tmp_path / "maebench_diagonals.py").write_text(plugin_of_the_readme(), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert keeps_to_its_contract(importlib.import_module("maebench_diagonals"), "masking")


def test_the_page_of_plugins_shows_the_third_party_package_whole():
    folder = ROOT / "plugins" / "maebench-checkerboard"
    for name in ("maebench_checkerboard.py", "pyproject.toml"):
        assert (folder / name).read_text(encoding="utf-8").strip() in PAGES["docs/plugins.md"], name


# --- what pages say


def test_the_readme_is_about_a_thousand_words():
    assert len(README.split()) <= 1100


def test_every_page_is_in_the_index():
    index = PAGES["docs/README.md"]
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert [page for page in pages if page != "README.md" and f"]({page})" not in index] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_index(command):
    assert f"\nmaebench {command}" in PAGES["docs/README.md"]


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_somewhere(name):
    text = re.sub(r"^```.*?^```", "", PAGES[name], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), target


def typed_commands():
    """Each line of a page that begins with maebench, without its comment."""
    for name, text in PAGES.items():
        for block in blocks(text, "sh"):
            for line in block.splitlines():
                words = line.split(" #")[0].split()
                if words[:1] == ["maebench"]:
                    yield pytest.param(words[1:], id=f"{name}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(typed_commands()))
def test_every_command_on_a_page_has_the_flags_that_it_shows(words):
    context = click.Context(cli, **cli.context_settings)
    command = cli.get_command(context, words[0])
    assert command is not None
    if isinstance(command, click.Group) and words[1:2] and words[1] in command.commands:
        command = command.commands[words[1]]
    known = {flag for param in command.params for flag in param.opts} | {"--help"}
    assert {word for word in words if word.startswith("-")} <= known


TABLES = {
    "masking": "docs/maskings.md",
    "objective": "docs/objectives.md",
    "evaluation": "docs/protocols.md",
}


def built_in(kind):
    names = installed(entry_points=generator().ours())
    return [
        f"{name}:{cls.spec.upper()}" if cls.spec else name
        for name, cls in names.table[kind].items()
    ]


@pytest.mark.parametrize("kind", TABLES)
def test_every_one_that_ships_is_a_row_of_its_page(kind):
    rows = re.findall(r"^\| `([^`]+)` \|", PAGES[TABLES[kind]], re.MULTILINE)
    assert {name for name in built_in(kind) if name not in rows} == set()


def test_the_readme_counts_the_maskings():
    words = {16: "sixteen", 17: "seventeen", 18: "eighteen", 19: "nineteen"}
    assert f"There are {words[len(built_in('masking'))]} strategies" in README


def test_every_data_set_is_on_its_page():
    page = PAGES["docs/data.md"]
    assert [name for name in built_in("dataset") if f"`{name}`" not in page] == []


def test_every_kind_of_plugin_has_a_page():
    assert {page.stem for page in EXTEND} == set(KINDS)


def test_every_benchmark_that_a_comment_or_a_page_names_exists():
    sources = [*ROOT.glob("maebench/**/*.py"), *ROOT.glob("plugins/**/*.py")]
    texts = [*(source.read_text(encoding="utf-8") for source in sources), *PAGES.values()]
    named = {name for text in texts for name in re.findall(r"benchmarks/\w+\.py", text)}
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


# --- the page on architecture

ARCHITECTURE = PAGES["docs/architecture.md"]


def test_the_rooms_of_the_page_are_those_that_there_are():
    rooms = re.findall(r"^\| `(\w+)` \|", ARCHITECTURE, re.MULTILINE)
    found = {path.name.removesuffix(".py") for path in (ROOT / "maebench").iterdir()}
    assert sorted(rooms) == sorted(found - {"__init__", "__main__", "__pycache__", "py.typed"})
    importlib.import_module("test_layers")
    assert rooms == [room for room in sys.modules["test_layers"].ORDER if room != "__main__"]


def files_on_the_way(monkeypatch, arguments, module, function):
    """The files that are on the stack when a command comes to a function, the command's first."""
    ways = []
    original = getattr(importlib.import_module(module), function)

    def seen(*positional, **named):
        way, frame = [original.__code__.co_filename], sys._getframe(1)
        while frame is not None:
            way.append(frame.f_code.co_filename)
            frame = frame.f_back
        ways.append(way[::-1])
        return original(*positional, **named)

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules[module], function, seen)
        assert call(*arguments).code == 0
    # where each package is installed, and where it stands in the repository
    homes = {"maebench": ROOT / "maebench", "maebench_evals": ROOT / "plugins" / "maebench_evals"}
    found = []
    for path in map(Path, dict.fromkeys(ways[-1])):
        for name, home in homes.items():
            installed = Path(importlib.import_module(name).__file__).parent
            if path.is_relative_to(installed):
                found.append(home / path.relative_to(installed))
    return [path for path in found if path != ROOT / "maebench" / "cli" / "__init__.py"]


def test_the_ways_through_the_code_go_by_the_files_that_the_page_names(tmp_path, monkeypatch):
    monkeypatch.setenv("MAEBENCH_RESULTS", str(tmp_path))
    pretrain = ("pretrain", "--ratio", "0.75", "--budget", "steps=1", "--limit", "100")
    for beginning, arguments, module, function in (
        ("From `maebench pretrain --ratio 0.75`", pretrain, "maebench.masking.mask", "hide"),
        ("From `maebench eval knn`", ("eval", "knn"), "maebench_evals.knn", "vote"),
    ):
        (paragraph,) = [p for p in ARCHITECTURE.split("\n\n") if p.startswith(beginning)]
        way = paragraph.split(" The ratio travels")[0]
        named = [(DOCS / target).resolve() for target in re.findall(r"\]\(([^)]+)\)", way)]
        assert files_on_the_way(monkeypatch, arguments, module, function) == named
