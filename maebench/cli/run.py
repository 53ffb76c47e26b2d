"""`maebench run` and `maebench pretrain`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maebench.cli.flags import run_options
from maebench.errors import plain

if TYPE_CHECKING:
    from maebench.config.run import RunConfig
    from maebench.pretraining.plan import Plan

CLOCK = (
    "{:g} seconds (by the clock: another machine makes another run, and an interrupted one does "
    "not go on bit for bit)"
)


@click.command("run")
@run_options
def run_command(**settings: Any) -> None:
    """Pretrain one encoder, run the evaluations, print the table.

    The same command again goes on where it stopped; when all is done it only prints the table.

    \b
    Examples:
      maebench run --masking random --ratio 0.75
      maebench run --dataset fashion-mnist --data-dir DIR --masking block --ratio 0.6
      maebench run --masking block -o masking.aspect=0.5 -o knn.k=1,5,20
    """  # noqa: D301 - click wants the character \b itself
    from maebench.cli import again

    command = again.asked(settings)
    if again.show(command):
        return
    results = settings.pop("results")
    with again.noting() as warned:
        config, said = _read(settings)
        before = again.look(command, config)
        plan = _prepare(config, results)
    _pretrain(plan)
    from maebench.analysis.run import evaluate_run
    from maebench.cli.progress import shown
    from maebench.report.run import ending

    rows = evaluate_run(plan, shown)
    parts = list(ending(rows, plan))
    for part in parts:
        part.show()
    if (rows["status"] == "failed").any():
        raise click.exceptions.Exit(1)
    if not warned:  # a warning is for each time, and may be of what another time is not
        again.keep(command, before, plan, dict.fromkeys(rows["file"]), said, parts)


@click.command("pretrain")
@run_options
def pretrain_command(**settings: Any) -> None:
    """Pretrain one encoder.

    Takes the same options as `maebench run`; evaluate it with `maebench eval`.
    """
    results = settings.pop("results")
    plan = _prepare(_read(settings)[0], results)
    _pretrain(plan)
    click.echo(f"{plan.run.name}\n  weights  {plan.run.folder / 'checkpoint'}")
    click.echo("  next     maebench eval linear-probe")


def _read(settings: Mapping[str, Any]) -> tuple[RunConfig, list[str]]:
    """The config, and what was said of it."""
    from maebench.cli.settings import override_lines, read
    from maebench.cli.uses import say_whose

    config = read(**settings)
    say_whose([config])
    notes = config.dataset.notes()
    for line in notes:
        click.echo(plain(line), err=True)
    return config, [*override_lines(config), *notes]


def _prepare(config: RunConfig, results: Path | None) -> Plan:
    from maebench.cli.progress import decoding
    from maebench.pretraining import runs
    from maebench.pretraining.plan import prepare

    return prepare(config, runs.results_folder(results), decoding)


def _pretrain(plan: Plan) -> None:
    from maebench.cli.progress import decoding, follow
    from maebench.pretraining.loop import pretrain
    from maebench.report import plots
    from maebench.report.data import summary

    if not plan.whole:
        plan.splits.look_at_test(decoding)  # one that goes on has not loaded it
        for line in summary(plan.splits):
            click.echo(plain(line), err=True)
        amount = plan.config.budget.amount
        length = f"{plan.steps:,} steps" if plan.steps else CLOCK.format(amount)
        click.echo(f"{plan.run.name}: {length} on {plan.device}", err=True)
        follow(plan, pretrain(plan))
    curve = plan.run.folder / "pictures" / "loss.png"
    if not curve.exists():
        plots.loss_curve(plan.run, curve)
