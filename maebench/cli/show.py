"""`maebench list`."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING

import click

from maebench.cli.values import KINDS, RECIPES, Kind
from maebench.component import Component

if TYPE_CHECKING:
    from maebench.plugins import Names

EXPLAINED = ("objective",)  # kinds whose parts are explained whole where they are listed alone


@click.command("list")
@click.argument("kind", type=Kind(RECIPES, plural=True), metavar="[KIND]", required=False)
def list_command(kind: str | None) -> None:
    """List what can be chosen, with every option.

    KIND is maskings, encoders, objectives, datasets, evaluations, trackers, reports or recipes;
    all of them where it is left out. Objectives alone are listed with formula and source.
    """
    if kind != RECIPES:
        from maebench.plugins import installed

        names = installed()
        for chosen in [kind] if kind else KINDS:
            show_kind(chosen, names, whole=kind in EXPLAINED)
    if kind in (None, RECIPES):
        show_recipes()


def show_kind(kind: str, names: Names, whole: bool) -> None:
    """Every component of a kind with its options; `whole` for all of its docstring."""
    click.echo(f"{kind}s")
    for name, cls in names.table[kind].items():
        origin = names.origin(cls)
        package = "" if origin.package == "maebench" else f"  (from {origin.package})"
        colon = f":{cls.spec.upper()}" if cls.spec else ""
        text = inspect.cleandoc(cls.__doc__ or "") if whole else cls.help()
        click.echo(f"  {name}{colon}{package}\n{textwrap.indent(text, ' ' * 6)}")
        for key, field in cls.model_fields.items():
            if key != cls.spec:
                option = f"-o {_part(kind, name)}.{key}={as_typed(field.default)}"
                click.echo(f"      {option}  {field.description}")
    for (disputed, name), packages in names.conflicts.items():
        if disputed == kind:
            click.echo(f"  {name}  unusable: claimed by {' and '.join(packages)}")
    if not names.table[kind]:
        click.echo("  none installed")


def show_recipes() -> None:
    """Each recipe's name and what it is."""
    from maebench.config.recipes import header, recipe_names

    click.echo(RECIPES)
    for name in recipe_names():
        click.echo(f"  {name}\n      {header(name)['title']}")


def _part(kind: str, name: str) -> str:
    return name if kind == "evaluation" else kind


def as_typed(value: object) -> str:
    """A default as one would type it after -o."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(as_typed(v) for v in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value.changed() if isinstance(value, Component) else str(value)
