"""Writes docs/reference.md from the code: every command, flag, component, option and hook."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import click

from maebench import Digits, hookspecs
from maebench.cli import COMMANDS, cli
from maebench.cli.show import as_typed
from maebench.config.run import Augment, Budget, Machine, Optimiser, RunConfig, Schedule
from maebench.data.reading import Reading
from maebench.plugins import HOOKS, KINDS, installed

PARTS = {
    "schedule": Schedule,
    "augment": Augment,
    "data": Reading,
    "optimiser": Optimiser,
    "machine": Machine,
}
PRESET = Digits().preset().keys()  # what every data set says
PAGE = Path(__file__).with_name("reference.md")


def generate() -> str:
    """The whole page."""
    parts = [
        "# Reference",
        "Made by `python docs/generate.py` from the code; a test compares them.",
        *commands(),
        *settings(),
        *components(),
        *hooks(),
    ]
    return "\n\n".join(parts) + "\n"


def commands() -> list[str]:
    """Each command with its help text."""
    found = ["## Commands"]
    context = click.Context(cli, info_name="maebench", **cli.context_settings)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        shown = click.Context(command, context, info_name=name, terminal_width=100)
        found.append(f"### maebench {name}\n\n```\n{command.get_help(shown)}\n```")
        for inner in command.commands.values() if isinstance(command, click.Group) else ():
            below = click.Context(inner, shown, info_name=inner.name, terminal_width=100)
            text = f"#### maebench {name} {inner.name}\n\n```\n{inner.get_help(below)}\n```"
            found.append(text)
    return found


def settings() -> list[str]:
    """What `-o` and YAML reach beside components."""
    found = [
        "## Settings",
        "Flags beat `-o part.key=value`, `-o` beats `--config FILE`, the file beats "
        "`--recipe NAME`, the recipe beats the data set's preset. Every setting has the same name "
        "in all of them and in `maebench.RunConfig(...)`.",
        table(
            ["setting", "default", "meaning"],
            [
                [
                    f"`{key}`",
                    _default(key, field.default),
                    field.description or "",
                ]
                for key, field in RunConfig.model_fields.items()
            ],
        ),
    ]
    for part, cls in PARTS.items():
        found += [f"### {part}", (cls.__doc__ or "").strip(), options(cls, part)]
    found += ["### budget", (Budget.__doc__ or "").strip()]
    return found


def _default(key: str, value: object) -> str:
    """The default of a setting: a value, the data set's, or a table of its own."""
    if key in PARTS and key not in PRESET:
        return "see below"
    return "by data set" if key in PRESET else f"`{as_typed(value)}`"


def components() -> list[str]:
    """Every component that ships, with all options."""
    names = installed(entry_points=[e for e in ours()])
    found = []
    for kind in KINDS:
        found.append(f"## {kind.capitalize()}s")
        if not names.table[kind]:
            found.append("None ships; plugins bring them.")
        for name, cls in names.table[kind].items():
            colon = f":{cls.spec.upper()}" if cls.spec else ""
            found.append(f"### {name}{colon}\n\n{inspect.cleandoc(cls.__doc__ or '')}")
            part = name if kind == "evaluation" else kind
            if cls.model_fields.keys() - {cls.spec}:
                found.append(options(cls, part, skip=cls.spec))
            metrics = getattr(cls, "metrics", None)
            if metrics:
                found.append(
                    table(
                        ["metric", "unit", "meaning"],
                        [
                            [f"`{m}`" + (" (main)" if v.main else ""), v.unit, v.help]
                            for m, v in metrics.items()
                        ],
                    )
                )
    return found


def hooks() -> list[str]:
    """Every extension point."""
    found = ["## Hooks", inspect.cleandoc(hookspecs.__doc__ or "")]
    for hook, base in HOOKS.items():
        text = inspect.cleandoc(getattr(hookspecs, hook).__doc__ or "")
        found.append(f"### {hook}() -> list[type[{base.__name__}]]\n\n{text}")
        found.append(inspect.cleandoc(base.__doc__ or ""))
    return found


def options(cls: type, part: str, skip: str | None = None) -> str:
    """A table of the options of one class."""
    return table(
        ["option", "default", "meaning"],
        [
            [f"`-o {part}.{key}`", f"`{as_typed(field.default)}`", field.description or ""]
            for key, field in cls.model_fields.items()
            if key != skip
        ],
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(re.sub(r"\|", r"\\|", c) for c in line) + " |" for line in lines
    )


def ours() -> list[object]:
    """Our own entry points: other installed plugins are not in our docs."""
    import importlib.metadata

    return [
        e
        for e in importlib.metadata.entry_points(group="maebench")
        if e.dist and e.dist.name == "maebench"
    ]


if __name__ == "__main__":
    import extend
    import recipes

    recipes.PAGE.write_text(recipes.page(), encoding="utf-8")
    for path, text in extend.pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    PAGE.write_text(generate(), encoding="utf-8")
