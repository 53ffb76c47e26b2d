"""What a waiting person sees: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from maebench.errors import plain
from maebench.report.printed import NamesAsText
from maebench.report.streams import as_text, raw

if TYPE_CHECKING:
    from maebench.analysis.comparison import Comparison
    from maebench.pretraining.loop import Step
    from maebench.pretraining.plan import Plan

T = TypeVar("T")
LINE_SECONDS = 10.0  # between plain lines
DECODED = 2000  # images from which on decoding is shown: fewer take a second or two
DECODED_STEP = 1000  # between two numbers on a terminal
REST = 0.9  # how much of the running mean stays at a step


def follow(plan: Plan, steps: Iterable[Step]) -> None:
    """Goes through pretraining and shows loss, images per second and the time left."""
    loss = rate = 0.0
    first = True
    whole = plan.steps or 100  # by the clock: per cent of the time
    from maebench.evaluating.records import examples_of

    each = examples_of([plan.config.dataset.gives])
    shown = f"loss {{task.fields[loss]:.4f}} {{task.fields[rate]:,.0f}} {each}/s"
    with bar("pretraining", whole, shown) as show:
        for step in steps:
            speed = step.images / max(step.seconds, 1e-9)
            loss = step.loss if first else REST * loss + (1 - REST) * step.loss
            rate = speed if first else REST * rate + (1 - REST) * speed
            first = False
            show(step.number if step.total else int(100 * step.done), loss=loss, rate=rate)
            if step.note:
                show.say(step.note)


def shown(steps: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same steps under a bar; short ones are not worth one."""
    if total < 2:
        yield from steps
        return
    with bar(what, total) as show:
        for done, step in enumerate(steps, 1):
            yield step
            show(done)


class _Decoding:
    """Called while images are decoded: one line at a terminal, elsewhere one now and then.

    What else is written in between begins in a line's first column.
    """

    def __init__(self) -> None:
        self.done, self.last = 0, 0.0

    def __call__(self, done: int, total: int) -> None:
        """Shows how far it is, where it takes a while."""
        now, ends = time.monotonic(), done == total
        if done <= self.done:  # another split
            self.last = now
        self.done = done
        if total < DECODED:
            return
        text = f"decoding {done:,}/{total:,} images"
        if sys.stderr.isatty():
            if done % DECODED_STEP == 0 or ends:
                # past what shows a name's carriage return as text: this one is ours
                click.echo(text + ("" if ends else "\r"), file=raw(sys.stderr), nl=ends)
        elif now - self.last >= LINE_SECONDS or ends:
            self.last = now
            click.echo(text, err=True)


decoding = _Decoding()


def terminal() -> NamesAsText:
    """Standard error; a terminal only where it is one, whatever FORCE_COLOR says of colours."""
    forced = None if sys.stderr.isatty() else False
    return NamesAsText(file=raw(sys.stderr), force_terminal=forced)


@contextlib.contextmanager
def showing(progress: Progress) -> Iterator[Progress]:
    """A bar on the terminal; what is written above it meanwhile is text."""
    with progress, as_text():  # rich reads colours and links out of what others write
        yield progress


class bar:  # noqa: N801 - used as a function
    """A progress bar as a context, called with the number of steps done and its fields."""

    def __init__(self, what: str, total: int, extra: str = "") -> None:
        self.what, self.total, self.extra = what, total, extra
        self.console = terminal()
        self.last = self.began = time.monotonic()
        self.first: int | None = None

    def __enter__(self) -> bar:
        if self.console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                *([TextColumn(self.extra, markup=False)] if self.extra else []),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            what = plain(self.what)
            self.task = self.progress.add_task(what, total=self.total, loss=0.0, rate=0.0)
            self.shown = showing(self.progress)
            self.shown.__enter__()
        return self

    def __call__(self, done: int, **values: Any) -> None:
        """Shows how far it is."""
        if self.console.is_terminal:
            self.progress.update(self.task, completed=done, **values)
            return
        now = time.monotonic()
        self.first = done - 1 if self.first is None else self.first
        if now - self.last >= LINE_SECONDS:
            self.last = now
            left = (now - self.began) / (done - self.first) * (self.total - done)
            text = "".join(f", {k} {v:,.4g}" for k, v in values.items()).replace("rate", "images/s")
            sys.stderr.write(f"{plain(self.what)}: {done}/{self.total}{text}, {left:.0f} s left\n")

    def say(self, text: str) -> None:
        """Writes a line above the bar."""
        self.console.print(plain(text), soft_wrap=True)

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.shown.__exit__(None, None, None)


@contextlib.contextmanager
def grid(comparison: Comparison) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows the cells of a comparison while they run: a bar on a terminal, lines elsewhere."""
    from maebench.evaluating.records import CONTROLS

    cells = {cell.name: cell for cell in comparison.cells}
    left = [name for name, cell in cells.items() if cell.state != "done"]
    console = terminal()
    began = time.monotonic()
    ended: list[str] = []
    now: dict[str, str] = {}

    def title(name: str) -> str:
        cell = cells[name]
        arm = {"untrained": "untrained", **CONTROLS}.get(cell.kind, cell.arm)
        return f"{arm} seed {cell.seed}"

    def say(event: dict[str, Any]) -> None:
        name, what = event["task"], event["what"]
        if what == "step":
            now[name] = f"{title(name)} {100 * event['share']:.0f} %"
        elif what == "evaluation":
            now[name] = f"{title(name)} {event['evaluation']}"
        elif what == "started":
            now[name] = title(name)
        else:
            ended.append(now.pop(name, ""))
            reason = f": {event['reason']}" if what == "failed" else ""
            spent = time.monotonic() - began
            rest = spent / len(ended) * (len(left) - len(ended))
            line = f"{len(ended)}/{len(left)} {title(name)} {what}{reason}, {rest:.0f} s left"
            console.print(plain(line), soft_wrap=True)
        if bar is not None:
            bar.update(task, completed=len(ended), description=plain(", ".join(now.values())))

    if not left or not console.is_terminal:
        bar = None
        yield say
        return
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with showing(Progress(*columns, console=console, transient=True)) as bar:
        task = bar.add_task("", total=len(left))
        yield say
