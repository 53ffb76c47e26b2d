"""The flags of a run, made from the fields of RunConfig: told once, there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from maebench.config.run import DEFAULT_EVALUATIONS, RunConfig
from maebench.config.sources import from_sources
from maebench.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
PRESET = ("image_size", "encoder", "budget", "batch", "lr", "augment")  # come from the data set
results_option = click.option(
    "--results", metavar="DIR", help="folder for results  [default: MAEBENCH_RESULTS or ./results]"
)


def run_options(command: F) -> F:
    """Adds --results, --config, -o and a flag for each of RunConfig.FLAGS."""
    command = click.option(
        "-o",
        "options",
        metavar="PART.KEY=VALUE",
        multiple=True,
        help="any other setting, such as masking.aspect=0.5 or knn.k=1,5; repeatable",
    )(command)
    command = click.option(
        "--override", is_flag=True, help="run although settings differ from those of --recipe"
    )(command)
    command = click.option(
        "--recipe",
        metavar="NAME",
        help="published settings, below all others; `maebench list recipes`",
    )(command)
    command = click.option("--config", metavar="FILE", help="settings from a YAML file")(command)
    command = results_option(command)
    for name in reversed(RunConfig.FLAGS):
        command = flag(name)(command)
    return command


def flag(name: str) -> Callable[[F], F]:
    """The flag of one field of RunConfig."""
    field = RunConfig.model_fields[name]
    written = "--" + name.replace("_", "-")
    text = field.description or ""
    if field.annotation is bool:
        return click.option(written, name, is_flag=True, default=None, help=text)
    if name in PRESET:
        text += "  [default: by data set]"
    elif name == "evals":
        text += f"  [default: {','.join(DEFAULT_EVALUATIONS)}]"
    elif field.default is not None:
        text += f"  [default: {field.default}]"
    return click.option(written, name, metavar=METAVARS.get(name, "NAME"), help=text)


METAVARS = {
    **dict.fromkeys(("data_dir",), "DIR"),
    **dict.fromkeys(("batch", "seed", "limit"), "N"),
    **dict.fromkeys(("ratio", "lr"), "X"),
    "image_size": "N|H,W",
    "budget": "UNIT=N",
    "on_bad_image": "fail|skip",
    "evals": "NAMES",
}


def read(settings: dict[str, Any]) -> RunConfig:
    """The config that flags, -o, --config and --recipe give together; what differs is told.

    Raises:
        ConfigError: a bad setting, or one that differs from the recipe without --override.
    """
    options, file = settings.pop("options"), settings.pop("config")
    recipe, override = settings.pop("recipe"), settings.pop("override")
    settings.pop("results", None)
    flags = {key: value for key, value in settings.items() if value is not None}
    path = Path(file) if file else None
    if recipe is None:
        if override:
            raise ConfigError("--override: it belongs to --recipe NAME, and none is given")
        return from_sources(flags, options, path)
    from maebench.config.recipes import differing, from_recipe

    config = from_recipe(recipe, flags, options, path, override=override)
    for line in differing(config.recipe.overrides if config.recipe else {}):
        click.echo(f"override: {line}", err=True)
    return config
