"""What the flags take: types that click reads, and that refuse a bad value in one line.

This module imports no torch; what a type has to ask of the rest is imported when a value comes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maebench.errors import ConfigError, unknown
from maebench.files import with_home

if TYPE_CHECKING:
    from maebench.outputs import Report

# a test compares them with the kinds that plugins register
KINDS = ("masking", "encoder", "objective", "dataset", "evaluation", "tracker", "report")
RECIPES = "recipes"  # of no plugin: files of maebench's own


class OnDisk(click.Path):
    """A path; a leading ~ is the home folder, where the shell has left it, as in `--out=~/a`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        if not str(value):
            self.fail("'' names no path", param, ctx)
        return super().convert(with_home(value), param, ctx)


FOLDER = OnDisk(file_okay=False, path_type=Path)  # which may be made
FILE = OnDisk(exists=True, dir_okay=False, path_type=Path)  # to read
OUT = OnDisk(path_type=Path)  # to write
POSITIVE = click.IntRange(min=1)
COUNT = click.IntRange(min=0)  # a seed, a block, an image: from 0


class Number(click.FloatRange):
    """A finite number between bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):  # NaN is between any bounds
            self.fail(f"{value!r} is not in the range {self._describe_range()}.", param, ctx)
        return number


RATIO = Number(0, 1, min_open=True, max_open=True)
SHARE = Number(0, 1)


class OneOf(click.Choice[str]):
    """A name out of a few; an unknown one is answered with the nearest.

    Args:
        what: the names are of, such as "format".
        names: that there are.
    """

    def __init__(self, what: str, names: Sequence[str]) -> None:
        super().__init__(names)
        self.what = what

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """The nearest match and all names."""
        return unknown(self.what, str(value), self.choices)


class Kind(OneOf):
    """A kind of component in singular or plural, read as its singular; `others` as they are."""

    def __init__(self, *others: str, plural: bool = False) -> None:
        super().__init__("kind", [*(f"{kind}s" if plural else kind for kind in KINDS), *others])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The kind in singular."""
        for name in (value, f"{value}s", value.removesuffix("s")):
            if name in self.choices:
                kind = name.removesuffix("s")
                return kind if kind in KINDS else name
        return super().convert(value, param, ctx)


class Several(click.ParamType):
    """Values separated by commas, as a tuple.

    Args:
        item: the type of each value.
        example: what a message shows where no value was written; empty where none is allowed.
    """

    name = "list"

    def __init__(self, item: click.ParamType = click.STRING, example: str = "") -> None:
        self.item, self.example = item, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The values, each of its type."""
        if isinstance(value, tuple):  # a default, which click converts too
            return value
        texts = [text.strip() for text in value.split(",") if text.strip()]
        if not texts and self.example:
            self.fail(f"{value!r}: write some, such as {self.example}", param, ctx)
        return tuple(self.item.convert(text, param, ctx) for text in texts)


class ImageSize(click.ParamType):
    """N for a square, or rows and columns as H,W or HxW."""

    name = "N|H,W"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Rows and columns."""
        match = re.fullmatch(r"\s*(\d+)\s*(?:[x,]\s*(\d+)\s*)?", value, re.ASCII)
        size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if 0 in size:
            self.fail(f"{value!r}: write N or H,W, such as 32 or 32,64", param, ctx)
        return size


class Budget(click.ParamType):
    """UNIT=N: how long to pretrain."""

    name = "UNIT=N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, which names a budget."""
        from pydantic import ValidationError

        from maebench.component import explain
        from maebench.config.length import Budget as Amount

        try:
            Amount.model_validate(value)
        except ValidationError as error:
            self.fail(str(explain(error, "")).removeprefix("config: "), param, ctx)
        return value


class KeyValue(click.ParamType):
    """KEY=VALUE: an option and what it is set to."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """The key and the value."""
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            self.fail(f"{value!r}: write key=value, such as k=1,5,20", param, ctx)
        return key.strip(), text


class TableFormat(click.ParamType):
    """A format of tables: one of our own by its name, or the report of a plugin.

    Plugins are loaded for a name that is not one of our own, and for no other.
    """

    name = "format"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | Report:
        """The name, or the plugin's report."""
        from maebench.component import parse
        from maebench.outputs import FORMATS, Report

        if value in FORMATS:
            return value
        from maebench.plugins import installed

        names = installed()
        if value not in names.table["report"]:
            allowed = [*FORMATS, *names.table["report"]]
            self.fail(unknown("format", value, allowed) + names.missing(), param, ctx)
        try:
            report: Report = parse(Report, value, names.context(), "format")
        except ConfigError as error:
            self.fail(str(error), param, ctx)
        return report
