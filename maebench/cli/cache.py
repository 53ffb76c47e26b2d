"""`maebench cache`: what is kept between commands to save time, and its removal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from maebench.cli.flags import option
from maebench.cli.plugins import Actions
from maebench.cli.values import Number
from maebench.errors import plain

if TYPE_CHECKING:
    from maebench.data.kept import Part


@click.group("cache", cls=Actions, invoke_without_command=True)
@click.pass_context
def cache_command(ctx: click.Context) -> None:
    """Show what is kept between commands to save time; remove it.

    It lies below MAEBENCH_CACHE, or the user's cache folder. Numbers never depend on it: what is
    missing is found out again, such as images that were decoded.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_command)


@cache_command.command("list")
def list_command() -> None:
    """Show what is kept: sizes, when it was last used, of which images."""
    from maebench.data import kept
    from maebench.files import cache_folder, size_text

    found = kept.parts()
    for part in found:
        click.echo(f"{size_text(part.size):>10}  {_age(part.age()):>9}  {plain(_named(part))}")
    click.echo(f"{size_text(sum(part.size for part in found)):>10}  {cache_folder()}")


@cache_command.command("clean")
@option(
    "--older-than",
    type=Number(min=0),
    metavar="DAYS",
    help="only what was not used for so many days",
    shown="all of it",
)
def clean_command(older_than: float | None) -> None:
    """Remove what is kept.

    A command that uses it meanwhile goes on without.

    \b
    Example:
      maebench cache clean --older-than 30
    """  # noqa: D301 - click wants the character \b itself
    from maebench.data import kept
    from maebench.files import size_text

    found = [part for part in kept.parts() if older_than is None or part.age() >= older_than]
    for part in found:
        kept.remove(part)
        click.echo(f"removed {size_text(part.size):>10}  {plain(_named(part))}")
    click.echo(f"removed {size_text(sum(part.size for part in found)):>10}  in all")


def _named(part: Part) -> str:
    from maebench.data.kept import WHAT

    name = "" if part.path.name == part.kind else f" {part.path.stem[:10]}"
    return f"{WHAT[part.kind]}{name}" + (f", {part.title}" if part.title else "")


def _age(days: float) -> str:
    return f"{days:.0f} days" if days >= 2 else f"{24 * days:.0f} hours"
