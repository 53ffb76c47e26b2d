"""A plugin as a package: the contract of each component, and the files that a new one begins with.

The modules of maebench/testing/templates are the source of a new package; their class and name are
replaced.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Iterable, Mapping
from importlib import import_module, resources
from pathlib import Path

from maebench import files
from maebench.component import Component
from maebench.errors import ConfigError, unknown
from maebench.files import SAFE_NAME
from maebench.outputs import FORMATS
from maebench.testing.contract import Contract

# kind -> the module of maebench.testing that holds its contract, imported when it is asked for
CONTRACTS: Mapping[str, tuple[str, str]] = {
    "masking": ("masking", "MaskingContract"),
    "encoder": ("encoder", "EncoderContract"),
    "objective": ("objective", "ObjectiveContract"),
    "dataset": ("dataset", "DatasetContract"),
    "evaluation": ("evaluation", "EvaluationContract"),
    "tracker": ("tracker", "TrackerContract"),
    "report": ("report", "ReportContract"),
}
# kind -> how a component is used; NAME stands for its name
COMMANDS: Mapping[str, str] = {
    "masking": "maebench run --masking NAME",
    # a template is short: fine-tuning drops branches only where there is a set_drop_path
    "encoder": "maebench run --encoder NAME -o finetune.drop_path=0",
    "objective": "maebench run --objective NAME",
    "dataset": "maebench run --dataset NAME",
    "evaluation": "maebench run --evals knn,NAME",
    "tracker": "maebench run -o machine.trackers=NAME",
    "report": "maebench table --format NAME",
}


def contract_for(component: type[Component]) -> type[Contract]:
    """The contract of a component's kind, with this component as what it checks."""
    module, name = CONTRACTS[component.kind]
    base = getattr(import_module(f"maebench.testing.{module}"), name)
    made: type[Contract] = type(f"Test{component.__name__}", (base,), {"component": component})
    return made


def write_package(folder: Path, name: str, kind: str, taken: Mapping[str, Iterable[str]]) -> Path:
    """Writes a whole package with one component into FOLDER/maebench-NAME, and gives that folder.

    Args:
        folder: where to write it.
        name: of the component; the package's begins with `maebench-`.
        kind: what it is.
        taken: {kind: names} of the components that there are.

    Raises:
        ConfigError: no such kind, a name that cannot be used, or a folder that is there already.
    """
    if kind not in CONTRACTS:
        raise ConfigError(unknown("kind", kind, CONTRACTS, "--kind"))
    check_name(name, kind, taken)
    root = folder / f"maebench-{name}"
    if root.exists():
        raise ConfigError(f"{root} exists already: choose another name, or another --folder")
    files.make_folder(root, "--folder")
    for path, text in contents(name, kind).items():
        files.write_text(root / path, text)
    return root


def check_name(name: str, kind: str, taken: Mapping[str, Iterable[str]]) -> None:
    """Refuses a name that would make no component, module or package.

    Raises:
        ConfigError: says why it cannot be used.
    """
    if not SAFE_NAME.fullmatch(name) or not name[-1].isalnum():
        raise ConfigError(
            f"name {name!r} cannot be used: letters, digits, '.', '_' and '-' are allowed, first "
            "and last a letter or digit"
        )
    if keyword.iskeyword(name) or keyword.iskeyword(name.capitalize()):
        raise ConfigError(f"name {name!r} cannot be used: it is a word of Python's own")
    if name == "maebench":
        raise ConfigError(f"name {name!r} cannot be used: it is maebench's own")
    if name in taken.get(kind, ()) or (kind == "report" and name in FORMATS):
        raise ConfigError(f"{kind} {name!r} exists already: choose another name")
    if importlib.util.find_spec(module_name(name)):
        raise ConfigError(
            f"name {name!r} cannot be used: a module {module_name(name)} is installed already"
        )


def contents(name: str, kind: str) -> dict[str, str]:
    """The files of a new package: {path: text}."""
    source = (
        resources.files("maebench")
        .joinpath("testing", "templates", f"{kind}.py")
        .read_text("utf-8")
    )
    found = re.search(
        rf'^class (\w+)\({kind.capitalize()}\):.*?^    name: ClassVar\[str\] = "([^"]+)"',
        source,
        re.DOTALL | re.MULTILINE,
    )
    assert found is not None, f"the template of kind {kind!r} has no class with a name"
    cls = class_name(name, kind, {*re.findall(r"\w+", source), CONTRACTS[kind][1]} - {found[1]})
    module = module_name(name)
    source = re.sub(rf"\b{found[1]}\b", cls, source)
    # the name in quotes, and as one types it; in a sentence the word is just a word
    source = re.sub(rf'(?<=")({found[2]})(?=")|(?<=--{kind} ){found[2]}\b', name, source)
    words = {
        "NAME": name,
        "MODULE": module,
        "CLASS": cls,
        "KIND": kind,
        "CONTRACT": CONTRACTS[kind][1],
        "COMMAND": COMMANDS[kind].replace("NAME", name),
    }
    return {
        f"{module}.py": source,
        f"tests/{module.replace('maebench_', 'test_', 1)}.py": _filled(TEST, words),
        "pyproject.toml": _filled(PYPROJECT, words),
        "README.md": _filled(README, words),
        ".gitignore": GITIGNORE,
    }


def module_name(name: str) -> str:
    """The module that a package of this name brings."""
    return "maebench_" + re.sub(r"\W+", "_", name).lower()


def class_name(name: str, kind: str, used: set[str]) -> str:
    """The class of a component: its name without dashes, after its kind where that is no name.

    A class that pytest would take for tests, by the first letters of its name, is none either.
    """
    plain = "".join(part[:1].upper() + part[1:] for part in re.split(r"[-._]+", name))
    good = plain.isidentifier() and plain not in used and not plain.startswith("Test")
    return plain if good else kind.capitalize() + plain


def _filled(text: str, words: Mapping[str, str]) -> str:
    """A text with the words in <angle brackets> replaced."""
    return re.sub(r"<([A-Z]+)>", lambda match: words[match[1]], text)


TEST = '''"""Does <NAME> keep to what maebench asks of its kind?"""

from <MODULE> import <CLASS>

from maebench.testing import <CONTRACT>


class Test<CLASS>(<CONTRACT>):
    component = <CLASS>
'''
PYPROJECT = """[build-system]
requires = ["hatchling>=1.25"]
build-backend = "hatchling.build"

[project]
name = "maebench-<NAME>"
version = "0.1.0"
description = "<NAME>, one more <KIND> for maebench"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["maebench>=0.1"]

[project.optional-dependencies]
dev = ["pytest>=8.3"]

# how maebench finds it: the module is asked for what its @hookimpl functions return
[project.entry-points.maebench]
"<NAME>" = "<MODULE>"

[tool.hatch.build.targets.wheel]
only-include = ["<MODULE>.py"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""
README = """# maebench-<NAME>

`<NAME>`, one more <KIND> for maebench. All of it is in [<MODULE>.py](<MODULE>.py).

Install it beside maebench, so that changes count at once:

    pip install -e '.[dev]'
    maebench plugins

Try it:

    <COMMAND>

Test it; the contract tells whether it does what maebench counts on:

    python -m pytest
    maebench plugins check <NAME>
"""
GITIGNORE = """__pycache__/
*.egg-info/
.pytest_cache/
.venv/
build/
dist/
/results/
"""
