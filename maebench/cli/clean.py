"""`maebench clean`."""

from __future__ import annotations

from pathlib import Path

import click

from maebench.cli.flags import option, results_option
from maebench.cli.values import Several


@click.command("clean")
@option(
    "--only",
    type=Several(example="temporary"),
    metavar="KINDS",
    help="temporary, damaged, partial, features, cache; separated by commas",
    shown="all",
)
@click.option("--remove", is_flag=True, help="remove it; without this it is only listed")
@results_option
def clean_command(only: tuple[str, ...] | None, remove: bool, results: Path | None) -> None:
    """Show what can go of results and caches, with sizes; remove it.

    Records, weights, logs and pictures stay. What is removed is made again when it is needed, but
    for what was moved aside because it could not be read.

    \b
    Examples:
      maebench clean
      maebench clean --only temporary,damaged --remove
    """  # noqa: D301 - click wants the character \b itself
    from maebench.analysis.spare import WHAT, spare_below
    from maebench.errors import ConfigError, unknown
    from maebench.files import size_text
    from maebench.pretraining.runs import results_folder

    for kind in only or ():
        if kind not in WHAT:
            raise ConfigError(unknown("kind", kind, WHAT, "--only"))
    folder = results_folder(results)
    total = 0
    for kind, words in WHAT.items():
        if only and kind not in only:
            continue
        found = [spare for spare in spare_below(folder) if spare.what == kind]
        if not found:
            continue
        click.echo(f"{size_text(sum(s.size for s in found)):>10}  {kind}: {words}")
        for spare in found:
            if remove:
                spare.remove()
            click.echo(f"{size_text(spare.size):>10}    {spare.path}")
            total += spare.size
    ends = "removed" if remove else "can go: add --remove"
    click.echo(f"{size_text(total):>10}  {ends}" if total else f"nothing to remove in {folder}")
