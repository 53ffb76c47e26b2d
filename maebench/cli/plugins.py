"""`maebench plugins`: what is installed, whether it keeps to its contracts, a new one."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maebench.cli.flags import option
from maebench.cli.values import OUT, Kind
from maebench.errors import ConfigError, unknown

if TYPE_CHECKING:
    from maebench.component import Component
    from maebench.plugins import Names, Plugin
    from maebench.testing.contract import Finding


class Actions(click.Group):
    """A group that answers an unknown action as maebench answers any unknown name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The action, or the nearest match of one that does not exist."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise ConfigError(unknown("action", args[0], self.commands, ctx.command_path))
        return super().resolve_command(ctx, args)


@click.group("plugins", cls=Actions, invoke_without_command=True)
@click.pass_context
def plugins_command(ctx: click.Context) -> None:
    """List installed plugins and why any failed; check them; begin one.

    MAEBENCH_PLUGINS="" loads no third-party plugin, MAEBENCH_PLUGINS=a,b only those.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_command)


@plugins_command.command("list")
def list_command() -> None:
    """List installed plugins and why any failed."""
    from maebench.plugins import installed

    names = installed()
    for plugin in names.plugins:
        mark = "FAILED" if plugin.problem else "ok"
        click.echo(f"{mark:7}{plugin.name}  ({plugin.package} {plugin.version})")
        for line in [plugin.problem] * bool(plugin.problem) + plugin.remarks:
            click.echo(f"       {line}")
        for cls in plugin.components:
            disputed = (cls.kind, cls.name) in names.conflicts
            click.echo(f"       {cls.kind} {cls.name}" + ("  (claimed twice)" if disputed else ""))
    for (kind, name), packages in names.conflicts.items():
        click.echo(f"DISPUTE {kind} {name!r} is claimed by {' and '.join(packages)}: unusable")
    if any(plugin.problem for plugin in names.plugins) or names.conflicts:
        raise click.exceptions.Exit(1)


@plugins_command.command("check")
@click.argument("package", default="")
@click.option("--verbose", is_flag=True, help="list the checks that passed, too")
def check_command(package: str, verbose: bool) -> None:
    """Check that the components of plugins do what maebench counts on.

    PACKAGE is a package's or a plugin's name, or maebench for what is built in; all third-party
    packages where it is left out. The checks are those of maebench.testing.
    """
    from maebench.plugins import SELECT, installed

    names = installed()
    plugins = chosen(names, package)
    if not plugins and os.environ.get(SELECT) is not None:
        click.echo(f"{SELECT}={os.environ[SELECT]!r} leaves no third-party plugin to check")
    elif not plugins:
        click.echo("no third-party plugin is installed; `maebench plugins new` begins one")
    failed = False
    for plugin in plugins:
        if plugin.problem:
            failed = True
            click.echo(f"FAILED {plugin.name} ({plugin.package} {plugin.version}) does not load:")
            click.echo(f"  {plugin.problem}")
        if plugin.remarks:
            failed = failed or bool(plugin.changed)
            mark = "FAILED" if plugin.changed else "note"
            click.echo(f"{mark} {plugin.name} ({plugin.package} {plugin.version})")
            for remark in plugin.remarks:
                click.echo(f"  {remark}")
        for cls in plugin.components:
            if packages := names.conflicts.get((cls.kind, cls.name)):
                failed = True
                several = " and ".join(packages)
                click.echo(f"FAILED {cls.kind} {cls.name!r} is claimed by {several}: unusable")
            failed = not check(cls, verbose) or failed
    if failed:
        raise click.exceptions.Exit(1)


def chosen(names: Names, package: str) -> list[Plugin]:
    """The plugins of a package; all but maebench's own where none is named.

    Raises:
        ConfigError: there is no such package.
    """
    if not package:
        return [plugin for plugin in names.plugins if plugin.package != "maebench"]
    found = [
        plugin
        for plugin in names.plugins
        if _normal(package) in (_normal(plugin.package), _normal(plugin.name))
    ]
    if not found:
        there = {name for plugin in names.plugins for name in (plugin.package, plugin.name)}
        raise ConfigError(unknown("package", package, there - {"unknown"}, "maebench plugins"))
    return found


def _normal(package: str) -> str:
    """A package's name as indexes compare it: my_package and My-Package are one."""
    return re.sub(r"[-_.]+", "-", package).lower()


def check(cls: type[Component], verbose: bool) -> bool:
    """Prints what the contract of a component finds; True where nothing failed."""
    from maebench.cli.progress import shown
    from maebench.testing.contract import examine
    from maebench.testing.packages import contract_for

    contract, title = contract_for(cls), f"{cls.kind} {cls.name}"
    findings = list(shown(examine(contract), len(contract.checks()), f"checking {title}"))
    count = Counter(finding.status for finding in findings)
    click.echo(
        f"{title}: {count['pass']} passed, {count['fail']} failed, "
        f"{count['not checked']} not checked"
    )
    for line in lines(findings, verbose):
        click.echo(f"  {line}")
    return not count["fail"]


def lines(findings: list[Finding], verbose: bool) -> list[str]:
    """A line for each finding that is worth one; what one reason prevents stands in one."""
    found = []
    for status, word in (("fail", "FAILED"), ("not checked", "not checked")):
        by_reason: dict[str, list[str]] = {}
        for finding in findings:
            if finding.status == status:
                by_reason.setdefault(finding.reason, []).append(finding.check)
        for reason, checks in by_reason.items():
            alone = len(checks) == 1 or verbose
            what = checks if alone else [f"{len(checks)} checks"]
            found += [f"{word:<11}  {one}: {reason}" for one in what]
    passed = [f"passed       {f.check}" for f in findings if f.status == "pass"]
    return [*found, *(passed if verbose else [])]


@plugins_command.command("new")
@click.argument("name")
@option(
    "--kind",
    type=Kind(),
    metavar="KIND",
    required=True,
    help="masking, encoder, objective, dataset, evaluation, tracker or report",
)
@option(
    "--folder",
    type=OUT,
    metavar="DIR",
    default=".",
    help="where to write it",
    show_default=True,
)
def new_command(name: str, kind: str, folder: Path) -> None:
    """Write a whole package with one small component that works.

    It goes into DIR/maebench-NAME: a module to change, its test, and what pip needs.

    \b
    Example:
      maebench plugins new my-stripes --kind masking
    """  # noqa: D301 - click wants the character \b itself
    from maebench.plugins import installed
    from maebench.testing.packages import COMMANDS, module_name, write_package

    root = write_package(folder, name, kind, installed().table)
    click.echo(f"{root}: one {kind} that works, to be changed in {module_name(name)}.py")
    click.echo(f"  install  pip install -e {root}")
    click.echo(f"  check    maebench plugins check {name}")
    click.echo(f"  try      {COMMANDS[kind].replace('NAME', name)}")
