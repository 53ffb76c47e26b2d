"""`maebench speed`."""

from __future__ import annotations

import json
from typing import Any

import click

from maebench.cli.flags import flag, option, source_options
from maebench.cli.values import POSITIVE
from maebench.errors import plain

# the flags of a run that its speed depends on
FLAGS = (
    *("dataset", "data_dir", "download", "on_bad_image", "image_size", "encoder", "objective"),
    *("masking", "ratio", "batch", "seed", "device", "limit"),
)


def flags(command: Any) -> Any:
    """Adds the flags of a run that its speed depends on, --config, --recipe, --override and -o."""
    for add in reversed([*map(flag, FLAGS), *source_options]):
        command = add(command)
    return command


@click.command("speed")
@flags
@option(
    "--steps",
    type=POSITIVE,
    metavar="N",
    help="steps that are measured of each way, watched and unwatched",
    shown="as many as take 4 seconds",
)
@option("--json", "as_json", is_flag=True, help="every number, unrounded, as one JSON object")
def speed_command(steps: int | None, as_json: bool, **settings: Any) -> None:
    """Measure how fast pretraining is, phase by phase.

    Does the steps that a run with these settings begins with, and prints images, tokens and FLOPs
    per second, the share of what a large matrix product reaches here, peak memory, start-up, and
    the milliseconds of each phase. Writes nothing into the results.

    \b
    Examples:
      maebench speed
      maebench speed --masking block --ratio 0.6 --batch 128
      maebench speed -o machine.precision=bf16 -o machine.compile=true
      maebench speed --dataset fashion-mnist --data-dir DIR --device cuda --json
    """  # noqa: D301 - click wants the character \b itself
    from maebench.cli.progress import decoding
    from maebench.cli.settings import read
    from maebench.pretraining.speed import measure

    config = read(**settings)
    for line in config.dataset.notes():
        click.echo(plain(line), err=True)
    found = measure(config, steps, decoding)
    if as_json:
        click.echo(json.dumps(found.dump(), indent=1, allow_nan=False))
        return
    from maebench.report import speed
    from maebench.report.printed import console
    from maebench.report.terminal import print_table

    say = console()
    say.print(speed.title(found), style="bold")
    print_table(speed.rates(found))
    print_table(speed.phases(found))
    for line in speed.lines(found):
        say.print(plain(line))
