"""Settings that were published, or measured by us, by name; and what is changed beside them.

A recipe is a YAML file of this folder: settings as `--config` takes them, each with its source in
a comment, below a header that says what it is, how to run it and what to expect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from maebench.component import Component
from maebench.config.overrides import differing
from maebench.config.run import Recipe, RunConfig
from maebench.config.sources import from_sources, read_yaml
from maebench.errors import ConfigError, unknown
from maebench.files import short_hash
from maebench.plugins import Names, installed

FOLDER = Path(__file__).parent
# what a header says, in this order, below its first line
HEADER = ("command", "hardware", "hours", "expected", "source")
# the seed is a repetition of the recipe and no other one
COMPARED = tuple(field for field in RunConfig.IDENTITY if field != "seed")


def recipe_names() -> list[str]:
    """The names of all recipes, in the order of the alphabet and of their numbers."""

    def place(name: str) -> str:
        return re.sub(r"\d+", lambda digits: digits[0].zfill(9), name)

    return sorted((file.stem for file in FOLDER.glob("*.yaml")), key=place)


def recipe(name: str) -> dict[str, Any]:
    """The settings of a recipe, for `RunConfig(**maebench.recipe("mae-digits"))`.

    Raises:
        ConfigError: there is no such recipe; names the nearest and all.
    """
    return read_yaml(_file(name))


def header(name: str) -> dict[str, str]:
    """What the head of a recipe's file says: title, command, hardware, hours, expected, source."""
    found: dict[str, str] = {}
    key = "title"
    for line in _file(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        begins = re.match(rf"({'|'.join(HEADER)}): ", text)
        if begins:
            key, text = begins[1], text[begins.end() :]
        found[key] = f"{found[key]} {text}" if key in found else text
    return found


def from_recipe(
    name: str,
    flags: Mapping[str, Any],
    options: Iterable[str] = (),
    file: Path | None = None,
    names: Names | None = None,
    override: bool = False,
) -> RunConfig:
    """A recipe's config with what is given beside it, which has to say the same.

    Data, device, seed and which evaluations run are free; what else differs needs `override`,
    and is kept in the config.

    Raises:
        ConfigError: no such recipe, a bad setting, or one that differs without `override`.
    """
    names, settings = names or installed(), recipe(name)
    said = from_sources({}, names=names, recipe=settings)
    given = from_sources(flags, options, file, names, settings)
    found = differences(said, given)
    if found and not override:
        raise ConfigError(
            f"--recipe {name} says otherwise: {'; '.join(differing(found))}. "
            "--override runs it all the same and keeps a note of it"
        )
    origin = Recipe(name=name, hash=short_hash(settings), overrides=found)
    return given.model_copy(update={"recipe": origin})


def differences(said: RunConfig, given: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Each setting that counts and differs: what the recipe says and what was given."""
    found: dict[str, tuple[Any, Any]] = {}
    for field in COMPARED:
        found |= _compare(field, getattr(said, field), getattr(given, field))
    found |= _compare(
        "machine.precision", said.machine.precision, given.machine.precision
    )  # nothing else of the machine changes numbers
    ours = {evaluation.name: evaluation for evaluation in said.evals}
    for evaluation in given.evals:
        if evaluation.name in ours:  # of others a recipe says nothing
            found |= _compare(evaluation.name, ours[evaluation.name], evaluation)
    return found


def _compare(place: str, said: Any, given: Any) -> dict[str, tuple[Any, Any]]:
    """One difference, or one per option of a part that is the same one in both."""
    if said == given:
        return {}
    if isinstance(said, Component) and said.name != given.name:
        return {place: (said.changed(), given.changed())}
    left, right = (_plain(value) for value in (said, given))
    if not isinstance(left, dict):
        return {place: (left, right)}
    return {
        f"{place}.{key}": (left[key], right[key]) for key in left if left[key] != right.get(key)
    }


def _plain(value: Any) -> Any:
    """A setting as JSON values, so that a file gives back what was compared."""
    dumped = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return list(dumped) if isinstance(dumped, tuple) else dumped


def _file(name: str) -> Path:
    """The file of a recipe."""
    if name in recipe_names():
        return FOLDER / f"{name}.yaml"
    if re.search(r"[/\\]|\.ya?ml$|^\.", name):
        raise ConfigError(
            f"--recipe {name}: a recipe is one of maebench's own; a file is read by --config. "
            f"There is: {', '.join(recipe_names())}"
        )
    raise ConfigError("--recipe: " + unknown("recipe", name, recipe_names()))


__all__ = ["differences", "differing", "from_recipe", "header", "recipe", "recipe_names"]
