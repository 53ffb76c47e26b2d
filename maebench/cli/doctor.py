"""`maebench doctor`: what a run would stumble over on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maebench.cli.flags import results_option

if TYPE_CHECKING:
    from maebench.analysis.health import Damage
    from maebench.report.libraries import Checked

STYLES = {"ok": None, "warning": "yellow", "error": "bold red"}


@click.command("doctor")
@click.argument("target", required=False, metavar="[RUN|RESULTS]")
@click.option(
    "--repair", is_flag=True, help="make again what can be, move the rest of the damage aside"
)
@click.option("--quick", is_flag=True, help="leave out torch.compile, which takes longest")
@results_option
def doctor_command(target: str | None, results: Path | None, quick: bool, repair: bool) -> None:
    """Look for what would stop a run here, or for damage in results.

    Of a run or a folder of results every file is checked against its hash: what is lost is said,
    and what can be made again. Only --repair changes anything; what it replaces is kept as
    damaged-NAME, which `maebench clean` removes.

    Without one it looks at Python, system, processor, threads, memory, GPUs, libraries, plugins,
    the folder for results and the clock, and tries what can be tried: 64 MiB are written there and
    removed. The exit code is 1 where something would stop a run or make its numbers wrong, or is
    damaged, else 0.

    \b
    Examples:
      maebench doctor
      maebench doctor --quick --results /mnt/share/results
      maebench doctor results
      maebench doctor RUN --repair
    """  # noqa: D301 - click wants the character \b itself
    from maebench.pretraining.runs import results_folder

    if target is not None:
        if not looked_after(_place(target, results_folder(results)), repair):
            raise click.exceptions.Exit(1)
        return
    if repair:
        raise click.UsageError("--repair is of results: name a RUN or a folder of RESULTS")
    if not shown(_machine(results_folder(results), quick)):
        raise click.exceptions.Exit(1)


def _place(target: str, results: Path) -> Path:
    """The folder that is meant: of results, of a run or another model, or of a comparison.

    Raises:
        RunError: there is none of this name.
    """
    from maebench.errors import RunError, unknown
    from maebench.files import with_home

    inside = [results / kind / target for kind in ("runs", "models", "comparisons")]
    for place in (with_home(target), *inside):
        kinds = ("runs", "models", "comparisons")
        if place.is_dir() and (
            place.parent.name in kinds or any((place / k).is_dir() for k in kinds)
        ):
            return place.resolve()
    names = [path.name for kind in inside for path in kind.parent.glob("*") if path.is_dir()]
    raise RunError(unknown("run or folder of results", target, names, str(results)))


def looked_after(place: Path, repair: bool) -> bool:
    """Prints what is damaged and repairs it if that is asked for; whether all is well then."""
    from maebench.analysis.health import damage_below

    seen = 0

    def count(path: Path) -> None:
        nonlocal seen
        seen += 1

    found = list(damage_below(place, count))
    for damage in found:
        click.echo(f"{'lost' if damage.lost else 'damaged':<9}{damage.line()}")
    lost = sum(damage.lost for damage in found)
    click.echo(f"{seen:,} files checked: {len(found)} damaged, {lost} of them lost for good")
    if not found or not repair:
        if found:
            click.echo("nothing was changed: --repair makes again what can be")
        return not found
    return _repaired(found, place)


def _repaired(found: Sequence[Damage], place: Path) -> bool:
    """Repairs damage, run by run under its lock; whether all of it is."""
    from maebench import files
    from maebench.analysis.again import evaluated_again
    from maebench.cli.progress import shown as progress
    from maebench.errors import MaebenchError
    from maebench.plugins import installed

    good = True
    moved = []
    for damage in found:
        try:
            if damage.repair is None:
                raise MaebenchError(f"{damage.path} is left as it is")
            with files.lock(damage.home):
                damage.repair()
            click.echo(f"repaired {damage.path}")
        except MaebenchError as error:
            good = False
            click.echo(f"not repaired: {error}", err=True)
            continue
        if damage.path.parent.name == "records":
            moved.append(damage.path)
    homes = dict.fromkeys(path.parents[3] for path in moved)
    for results in homes:
        mine = [path for path in moved if path.is_relative_to(results)]
        left = evaluated_again(results, mine, installed(), progress)
        for path in mine:
            click.echo(
                f"not made again: {path}: {left[path]}" if path in left else f"made again {path}"
            )
        good = good and not left
    return good


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
