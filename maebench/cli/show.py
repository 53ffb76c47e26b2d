"""`maebench list`."""

from __future__ import annotations

import inspect
import textwrap

import click

from maebench.component import Component

RECIPES = "recipes"  # no plugins: files of maebench's own
EXPLAINED = ("objective",)  # kinds whose parts are told whole where they are asked for alone


@click.command("list")
@click.argument("kind", default="")
def list_command(kind: str) -> None:
    """List what can be chosen, with every option.

    KIND is maskings, encoders, objectives, datasets, evaluations, trackers, reports or recipes;
    all of them where it is left out. Objectives alone are told with formula and source.
    """
    from maebench.plugins import KINDS, installed, kind_of

    if kind in ("recipe", RECIPES):
        return show_recipes()
    kinds = [kind_of(kind, RECIPES)] if kind else list(KINDS)
    names = installed()
    for chosen in kinds:
        click.echo(f"{chosen}s")
        for name, cls in names.table[chosen].items():
            origin = names.origin(cls)
            package = "" if origin.package == "maebench" else f"  (from {origin.package})"
            colon = f":{cls.spec.upper()}" if cls.spec else ""
            click.echo(f"  {name}{colon}{package}\n{explanation(cls, bool(kind))}")
            for key, field in cls.model_fields.items():
                if key != cls.spec:
                    option = f"-o {_part(chosen, name)}.{key}={as_typed(field.default)}"
                    click.echo(f"      {option}  {field.description}")
        for (kind_, name), packages in names.conflicts.items():
            if kind_ == chosen:
                click.echo(f"  {name}  unusable: claimed by {' and '.join(packages)}")
        if not names.table[chosen]:
            click.echo("  none installed")
    if not kind:
        show_recipes()


def explanation(cls: type[Component], whole: bool) -> str:
    """A component's help below its name: the first sentence, or all where `whole` is asked for."""
    told = cls.kind in EXPLAINED and whole
    text = inspect.cleandoc(cls.__doc__ or "") if told else cls.help()
    return textwrap.indent(text, " " * 6)


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
