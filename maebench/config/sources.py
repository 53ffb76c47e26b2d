"""What flags, `-o`, a YAML file and a recipe say together: one config."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from maebench.component import parse
from maebench.config.run import DEFAULT_EVALUATIONS, HIDING, RunConfig, default_objective, merge
from maebench.config.yaml_file import load_yaml
from maebench.errors import ConfigError, unknown
from maebench.evaluation import Evaluation
from maebench.objectives.objective import Objective
from maebench.plugins import Names, installed


def from_sources(
    flags: Mapping[str, Any],
    options: Iterable[str] = (),
    file: Path | None = None,
    names: Names | None = None,
    recipe: Mapping[str, Any] = MappingProxyType({}),
) -> RunConfig:
    """One config from flags, `-o part.key=value` and a YAML file; flags win over -o over YAML.

    Below all of them, and above the data set's preset, lie the settings of a recipe.

    Raises:
        ConfigError: what does not exist or is out of range, in one line.
    """
    names = names or installed()
    return config_of(stated(flags, options, file, names), names, recipe)


def stated(
    flags: Mapping[str, Any], options: Iterable[str], file: Path | None, names: Names
) -> dict[str, Any]:
    """What flags, -o and a YAML file say together, as nested settings that are not read yet.

    Raises:
        ConfigError: no such part, no YAML, or a recipe among the settings.
    """
    # first what one command line says: -o masking.aspect=0.5 means its --masking, not the file's
    typed = merge(read_options(options, names.table["evaluation"]), flags)
    found = merge(read_yaml(file) if file else {}, typed)
    if found.pop("recipe", None) is not None:
        raise ConfigError("recipe: choose one by --recipe NAME, it is no setting beside others")
    return found


def config_of(
    stated: Mapping[str, Any], names: Names, recipe: Mapping[str, Any] = MappingProxyType({})
) -> RunConfig:
    """The config of nested settings, over those of a recipe.

    Raises:
        ConfigError: what does not exist or is out of range, in one line.
    """
    parts = dict(names.table["evaluation"])
    merged = merge(recipe, stated)
    default = {"objective": default_objective(merged, names.context())}
    asked = merge(default, merged)["objective"]
    objective = parse(Objective, asked, names.context(), "objective")
    if not objective.hides:  # a recipe's masking is nobody's wish there
        merged = {k: v for k, v in merged.items() if k not in HIDING or k in stated}
    chosen = merged.get("evals")
    if chosen is None:
        chosen = DEFAULT_EVALUATIONS
    if isinstance(chosen, str):
        chosen = [e.strip() for e in chosen.split(",") if e.strip()]
    if not isinstance(chosen, list | tuple):
        raise ConfigError(f"evals: a list of names is wanted, got {chosen!r}")
    # which evaluations run is free: a recipe's options go with those that are asked for
    said = {_name(item): item for item in recipe.get("evals", ())}
    chosen = [merge({"e": said.get(_name(e), e)}, {"e": e})["e"] for e in chosen]
    # read one by one: an error then names the evaluation and not its number in the list
    merged["evals"] = [
        parse(Evaluation, _with_options(item, merged), names.context(), _name(item))
        for item in chosen
    ]
    for name in parts.keys() & merged.keys():
        if name not in [_name(item) for item in chosen]:
            raise ConfigError(f"-o {name}: the evaluation is not among --evals")
        del merged[name]
    return RunConfig(names, **merged)


def _with_options(item: Any, merged: Mapping[str, Any]) -> Any:
    extra = merged.get(_name(item))
    return merge({"e": item}, {"e": extra})["e"] if extra else item


def _name(item: Any) -> str:
    return str(item.get("name", "")) if isinstance(item, Mapping) else str(item)


def read_options(options: Iterable[str], parts: Mapping[str, Any]) -> dict[str, Any]:
    """`part.key=value` texts as nested settings.

    Raises:
        ConfigError: not of that form, or no such part.
    """
    settings: dict[str, Any] = {}
    for text in options:
        path, equals, value = text.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys) or len(keys) > 2:
            raise ConfigError(f"-o {text!r}: write part.key=value, such as masking.aspect=0.5")
        if keys[0] not in {*RunConfig.model_fields, *parts}:
            raise ConfigError(
                f"-o {text!r}: " + unknown("part", keys[0], {*RunConfig.model_fields, *parts})
            )
        layer = {keys[0]: value if len(keys) == 1 else {keys[1]: value}}
        settings = merge(settings, layer)
    return settings


def read_yaml(file: Path) -> dict[str, Any]:
    """The settings of a YAML file.

    Raises:
        ConfigError: it is missing, no YAML, no mapping, or a key is given twice.
    """
    value = load_yaml(file, "--config", _alike)
    if not isinstance(value, dict):
        raise ConfigError(f"--config {file}: a mapping of settings is wanted, got {value!r}")
    flags = {field.replace("_", "-"): field for field in RunConfig.model_fields}
    return {flags.get(str(key), str(key)): _keys_as_text(v) for key, v in value.items()}


def _alike(key: Hashable) -> Hashable:
    """A setting's name, however it is spelled: with dashes as a flag, or `on`, read as true."""
    return "on" if key is True else str(key).replace("-", "_")


def _keys_as_text(value: Any) -> Any:
    """An option `on` under the name that it was written with: YAML 1.1 reads the key as true."""
    if isinstance(value, list):
        return [_keys_as_text(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {"on" if key is True else key: _keys_as_text(item) for key, item in value.items()}
