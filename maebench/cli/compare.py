"""`maebench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maebench.cli.flags import compare_options
from maebench.errors import plain

if TYPE_CHECKING:
    from maebench.analysis.comparison import Comparison
    from maebench.analysis.design import Design
    from maebench.plugins import Names

HERE = ("workers", "threads")  # of -o: how many processes, and threads of each


@click.command("compare")
@compare_options
def compare_command(**settings: Any) -> None:
    """Compare ways of pretraining over several seeds.

    --masking, --ratio, --encoder and --objective take lists, and so does any -o PART.KEY=A,B (with
    semicolons between values that hold commas themselves). Every combination is an arm; its runs
    differ in the seed alone. The plan is printed first. The same command again goes on where it
    stopped, and when all is done it only prints the results.

    \b
    Examples:
      maebench compare --masking random,block --ratio 0.5,0.75 --seeds 5
      maebench compare --masking random,block,grid --baseline random --evals knn
      maebench compare -o masking.aspect=0.3,0.5,1 --masking block --seeds 3-10
    """  # noqa: D301 - click wants the character \b itself
    from maebench.analysis.compare import carry_out, plan_comparison
    from maebench.cli.progress import grid
    from maebench.cli.uses import say_whose
    from maebench.plugins import installed
    from maebench.report import comparison as report
    from maebench.report.terminal import print_table

    names = installed()
    name, results = settings.pop("name"), settings.pop("results")
    dry_run, fail_fast = settings.pop("dry_run"), settings.pop("fail_fast")
    design, here = read(settings, names)
    say_whose([arm.config for arm in design.arms], names)
    found = plan_comparison(design, results, name, names, threads=here.get("threads"))
    show_plan(found, here.get("workers"))
    if dry_run:
        return
    with grid(found) as say:
        found = carry_out(
            found, workers=here.get("workers"), fail_fast=fail_fast, names=names, say=say
        )
    table = report.result_table(found)
    if len(table):
        print_table(table)
    for line in [*report.answers(found), *report.footnotes(found)]:
        click.echo(plain(line))
    report.write(found)
    click.echo(f"written   {found.folder}")
    if not found.finished:
        raise click.exceptions.Exit(1)


def show_plan(found: Comparison, workers: int | None) -> None:
    """Prints every cell with its reason, the tests, what they can detect, and the time."""
    from maebench.analysis.cells import estimate
    from maebench.analysis.compare import num_workers
    from maebench.report import plan as report
    from maebench.report.data import summary
    from maebench.report.terminal import print_table

    for line in report.plan_lines(found):
        click.echo(plain(line))
    for splits in {id(cell.plan.splits): cell.plan.splits for cell in found.cells}.values():
        for line in summary(splits):
            click.echo(plain(line))
    print_table(report.cells_table(found.cells))
    threads = int(found.machine["threads"])
    num = num_workers(workers, found.machine)
    for line in report.time_lines(estimate(found.cells, threads), found.cells, num):
        click.echo(plain(line))


def read(settings: dict[str, Any], names: Names) -> tuple[Design, dict[str, int]]:
    """The design of flags, -o and a YAML file, and how many workers and threads.

    Raises:
        ConfigError: a bad setting.
    """
    from maebench.analysis.compare import read_file
    from maebench.analysis.design import merged, read_design
    from maebench.config.sources import stated

    file: Path | None = settings.pop("config")
    filed, own = read_file(file) if file else ({}, {})
    own |= {key: settings.pop(key) for key in OWN_FLAGS if settings[key] is not None}
    for key in OWN_FLAGS:
        settings.pop(key, None)
    options, here = split_options(settings.pop("options"))
    flags = {key: value for key, value in settings.items() if value is not None}
    whole = merged(filed, stated(flags, options, None, names))
    return read_design(whole, names, **own), here


OWN_FLAGS = ("seeds", "baseline", "probe_seeds", "target", "margin")


def split_options(options: tuple[str, ...]) -> tuple[list[str], dict[str, int]]:
    """What -o says of runs, and what of the workers.

    Raises:
        ConfigError: no whole number above 0.
    """
    from maebench.errors import ConfigError

    rest, here = [], dict[str, int]()
    for text in options:
        key, equals, value = text.partition("=")
        if key.strip() not in HERE or not equals:
            rest.append(text)
        elif value.strip().isdecimal() and int(value) > 0:
            here[key.strip()] = int(value)
        else:
            raise ConfigError(f"-o {text!r}: a whole number above 0 is wanted")
    return rest, here
