"""`maebench run` and `maebench pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from maebench.cli.settings import read, run_options

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
    from maebench import records, suite
    from maebench.cli.progress import shown
    from maebench.plugins import installed
    from maebench.report import terminal

    names = installed()
    models = suite.family(plan, names)
    paths = [
        suite.evaluate(model, evaluation, plan.config.seed, names=names, progress=shown)
        for model in models
        for evaluation in plan.config.evals
    ]
    results = plan.run.folder.parent.parent
    table = records.load_records(results)
    place = {str(path): i for i, path in enumerate(paths)}  # the order of --evals
    table = table[table["file"].isin(place)].sort_values(
        "file", key=lambda f: f.map(place), kind="stable"
    )
    terminal.print_run(table, [model.name for model in models], plan)
    failed = table[table["status"] == "failed"]
    if not failed.empty:
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
    results = settings["results"]
    config = read(settings)
    from maebench import runs
    from maebench.cli.progress import decoding, follow
    from maebench.pretrain import prepare, pretrain
    from maebench.report import plots

    for line in config.dataset.notes():
        click.echo(line, err=True)
    plan = prepare(config, runs.results_folder(Path(results) if results else None), decoding)
    if not plan.finished:
        length = f"{plan.steps:,} steps" if plan.steps else CLOCK.format(config.budget.amount)
        click.echo(f"{plan.run.name}: {length} on {plan.device}", err=True)
        follow(plan, pretrain(plan))
    curve = plan.run.folder / "pictures" / "loss.png"
    if not curve.exists():
        plots.loss_curve(plan.run, curve)
    return plan
