"""From the flags of a run to its config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from maebench.config.overrides import differing
from maebench.config.recipes import from_recipe
from maebench.config.run import RunConfig
from maebench.config.sources import from_sources
from maebench.errors import ConfigError


def read(settings: dict[str, Any]) -> RunConfig:
    """The config of flags, -o, --config and --recipe; prints what differs from the recipe.

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
    config = from_recipe(recipe, flags, options, path, override=override)
    for line in differing(config.recipe.overrides if config.recipe else {}):
        click.echo(f"override: {line}", err=True)
    return config
