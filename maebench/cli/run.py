"""`maebench run` and `maebench pretrain`."""

from __future__ import annotations

from typing import Any

import click

from maebench.cli.flags import run_options

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
    plan = _pretrain(settings)
    from maebench.analysis.run import evaluate_run
    from maebench.cli.progress import shown
    from maebench.report.run import print_run

    rows = evaluate_run(plan, shown)
    print_run(rows, plan)
    if (rows["status"] == "failed").any():
        raise click.exceptions.Exit(1)


@click.command("pretrain")
@run_options
def pretrain_command(**settings: Any) -> None:
    """Pretrain one encoder.

    Takes the same options as `maebench run`; evaluate it with `maebench eval`.
    """
    plan = _pretrain(settings)
    click.echo(f"{plan.run.name}\n  weights  {plan.run.folder / 'checkpoint'}")
    click.echo("  next     maebench eval linear-probe")


def _pretrain(settings: dict[str, Any]) -> Any:
    from maebench.cli.progress import decoding, follow
    from maebench.cli.settings import read
    from maebench.pretraining import runs
    from maebench.pretraining.loop import pretrain
    from maebench.pretraining.plan import prepare
    from maebench.report import plots
    from maebench.report.data import summary

    results = settings.pop("results")
    config = read(**settings)
    for line in config.dataset.notes():
        click.echo(line, err=True)
    plan = prepare(config, runs.results_folder(results), decoding)
    if not plan.finished:
        plan.splits.look_at_test(decoding)  # one that goes on has not loaded it
        for line in summary(plan.splits):
            click.echo(line, err=True)
        length = f"{plan.steps:,} steps" if plan.steps else CLOCK.format(config.budget.amount)
        click.echo(f"{plan.run.name}: {length} on {plan.device}", err=True)
        follow(plan, pretrain(plan))
    curve = plan.run.folder / "pictures" / "loss.png"
    if not curve.exists():
        plots.loss_curve(plan.run, curve)
    return plan
