"""Whose code a command is about to use, where it is not maebench's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from maebench.errors import plain

if TYPE_CHECKING:
    from maebench.component import Component
    from maebench.plugins import Names


def say_whose(values: Iterable[Any], names: Names | None = None) -> None:
    """Prints a line on stderr for each component of a third-party package.

    Args:
        values: configs, components, or whatever holds them.
        names: the installed components.
    """
    from maebench.plugins import installed

    names = names or installed()
    for line in dict.fromkeys(_line(type(one), names) for one in _components(values)):
        if line:
            click.echo(plain(line), err=True)


def _line(cls: type[Component], names: Names) -> str:
    """Such as "uses masking stripes of my-package 1.0 (my_module:Stripes)"; empty for our own."""
    origin = names.origin(cls)
    if origin.package == "maebench":
        return ""
    version = f" {origin.version}" if origin.version not in ("", "unknown") else ""
    where = f"{cls.__module__}:{cls.__qualname__}"
    return f"uses {cls.kind} {cls.name} of {origin.package}{version} ({where})"


def _components(value: Any) -> Iterator[Component]:
    """The components in configs, tuples and mappings, those in the options of others too."""
    from pydantic import BaseModel

    from maebench.component import Component

    if isinstance(value, Component):
        yield value
    if isinstance(value, BaseModel):
        value = [getattr(value, name) for name in type(value).model_fields]
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _components(part)
