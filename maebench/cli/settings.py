"""From the flags of a run to its config."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from maebench.config.overrides import differing
from maebench.config.recipes import from_recipe
from maebench.config.run import RunConfig
from maebench.config.sources import from_sources
from maebench.errors import ConfigError, plain


def read(
    options: Iterable[str] = (),
    config: Path | None = None,
    recipe: str | None = None,
    override: bool = False,
    **flags: Any,
) -> RunConfig:
    """The config of flags, -o, --config and --recipe; prints what differs from the recipe.

    Args:
        options: texts of -o.
        config: the file of --config.
        recipe: the name of --recipe.
        override: whether settings may differ from the recipe's.
        flags: settings by the names of RunConfig's fields; None for a flag that is not set.

    Raises:
        ConfigError: a bad setting, or one that differs from the recipe without --override.
    """
    flags = {key: value for key, value in flags.items() if value is not None}
    if recipe is None:
        if override:
            raise ConfigError("--override: it belongs to --recipe NAME, which is missing")
        return from_sources(flags, options, config)
    found = from_recipe(recipe, flags, options, config, override=override)
    for line in override_lines(found):
        click.echo(plain(line), err=True)
    return found


def override_lines(config: RunConfig) -> list[str]:
    """What is said of each setting that differs from the recipe's."""
    return [f"override: {x}" for x in differing(config.recipe.overrides if config.recipe else {})]
