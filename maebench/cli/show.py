"""`maebench list` and `maebench plugins`."""

from __future__ import annotations

import click

from maebench.component import Component


@click.command("list")
@click.argument("kind", default="")
def list_command(kind: str) -> None:
    """List what can be chosen, with every option.

    KIND is maskings, encoders, objectives, datasets, evaluations, trackers or reports; all of
    them where it is left out.
    """
    from maebench.plugins import KINDS, installed, kind_of

    kinds = [kind_of(kind)] if kind else list(KINDS)
    names = installed()
    for chosen in kinds:
        click.echo(f"{chosen}s")
        for name, cls in names.table[chosen].items():
            origin = names.origin(cls)
            package = "" if origin.package == "maebench" else f"  (from {origin.package})"
            colon = f":{cls.spec.upper()}" if cls.spec else ""
            click.echo(f"  {name}{colon}{package}\n      {cls.help()}")
            for key, field in cls.model_fields.items():
                if key != cls.spec:
                    option = f"-o {_part(chosen, name)}.{key}={as_typed(field.default)}"
                    click.echo(f"      {option}  {field.description}")
        for (kind_, name), packages in names.conflicts.items():
            if kind_ == chosen:
                click.echo(f"  {name}  unusable: claimed by {' and '.join(packages)}")
        if not names.table[chosen]:
            click.echo("  none installed")


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


@click.command("plugins")
@click.argument("action", default="list")
def plugins_command(action: str) -> None:
    """List installed plugins and why any failed.

    MAEBENCH_PLUGINS="" loads no third-party plugin, MAEBENCH_PLUGINS=a,b only those.
    """
    from maebench.errors import ConfigError, unknown
    from maebench.plugins import installed

    if action != "list":
        raise ConfigError(unknown("action", action, ["list"], "maebench plugins"))
    names = installed()
    for plugin in names.plugins:
        mark = "FAILED" if plugin.problem else "ok"
        click.echo(f"{mark:7}{plugin.name}  ({plugin.package} {plugin.version})")
        if plugin.problem:
            click.echo(f"       {plugin.problem}")
        for cls in plugin.components:
            disputed = (cls.kind, cls.name) in names.conflicts
            click.echo(f"       {cls.kind} {cls.name}" + ("  (claimed twice)" if disputed else ""))
    for (kind, name), packages in names.conflicts.items():
        click.echo(f"DISPUTE {kind} {name!r} is claimed by {' and '.join(packages)}: unusable")
    if any(plugin.problem for plugin in names.plugins) or names.conflicts:
        raise click.exceptions.Exit(1)
