"""`maebench doctor`: what a run would stumble over on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maebench.cli.flags import results_option

if TYPE_CHECKING:
    from maebench.report.libraries import Checked

STYLES = {"ok": None, "warning": "yellow", "error": "bold red"}


@click.command("doctor")
@click.option("--quick", is_flag=True, help="leave out torch.compile, which takes longest")
@results_option
def doctor_command(results: Path | None, quick: bool) -> None:
    """Look for what would stop a run here, and say what to do.

    Looks at Python, system, processor, threads, memory, GPUs, libraries, plugins, the folder for
    results and the clock, and tries what can be tried: 64 MiB are written there and removed. The
    exit code is 1 where something would stop a run or make its numbers wrong, else 0.

    \b
    Examples:
      maebench doctor
      maebench doctor --quick --results /mnt/share/results
    """  # noqa: D301 - click wants the character \b itself
    from maebench.pretraining.runs import results_folder

    if not shown(_machine(results_folder(results), quick)):
        raise click.exceptions.Exit(1)


def _machine(results: Path, quick: bool) -> Iterator[Checked]:
    """What is found; of libraries alone where the rest cannot be imported for want of them."""
    from maebench.report.libraries import Checked, in_short, libraries

    found = list(libraries())
    try:
        from maebench.report.doctor import machine
    except Exception as error:  # a library that is too old or broken raises what it likes
        yield from found
        advice = "Install what is missing or broken, and call again"
        yield Checked("maebench", f"cannot be imported ({in_short(error)})", "error", advice)
        return
    yield from machine(found, results, quick)


def shown(found: Iterable[Checked]) -> bool:
    """Prints each line as soon as it is known, then a summary; whether there is no error."""
    from maebench.report.printed import Line

    seen = []
    for each in found:
        Line(each.line(), STYLES[each.verdict], whole=True).show()
        seen.append(each)
    Line(summary(seen)).show()
    return not any(each.verdict == "error" for each in seen)


def summary(found: Iterable[Checked]) -> str:
    """How many things are wrong, in one line."""
    number = Counter(each.verdict for each in found)
    if not number["error"] + number["warning"]:
        return "nothing is wrong"
    counts = [
        f"{number[verdict]} {verdict}{'s' * (number[verdict] != 1)}"
        for verdict in ("error", "warning")
        if number[verdict]
    ]
    ends = "" if number["error"] else ": nothing that stops a run"
    return f"{' and '.join(counts)}{ends}"
