"""`maebench data check`: look at a data set before it is learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from maebench.cli.flags import flag, option, results_option
from maebench.cli.values import OUT
from maebench.errors import plain

EXIT = {"note": 0, "warning": 3, "error": 4}  # 1 and 2 are a wrong value and an unknown flag


@click.group("data")
def data_command() -> None:
    """Look at a data set: counts, sizes, copies, a picture."""


@data_command.command("check")
@click.argument("dataset")
@flag("data_dir")
@flag("download")
@flag("image_size")
@option(
    *("-o", "options"),
    metavar="PART.KEY=VALUE",
    multiple=True,
    help="how files are read, such as data.exif=ignore or dataset.groups=folder; repeatable",
)
@option(
    "--out",
    type=OUT,
    metavar="FILE",
    help="PNG with a row of images per class",
    shown="a file below results/pictures",
)
@results_option
def check_command(
    dataset: str, options: tuple[str, ...], out: Path | None, results: Path | None, **flags: Any
) -> None:
    """Look at every image of a data set.

    Prints counts per class and split, sizes and kinds of files, what is lost when they are read,
    files that cannot be read, images that are twice in a split or in both, and images that look
    alike across splits; writes a picture with a row per class. The exit code is 0 where nothing is
    worse than a note, 3 for warnings and 4 for errors, which make numbers wrong.

    \b
    Examples:
      maebench data check folder:PATH
      maebench data check fashion-mnist --data-dir DIR
    """  # noqa: D301 - click wants the character \b itself
    from maebench import files
    from maebench.cli.progress import decoding
    from maebench.cli.settings import read
    from maebench.data.check import SEVERITIES, check
    from maebench.encoders.inputs import IMAGES
    from maebench.errors import ConfigError
    from maebench.pretraining import runs
    from maebench.report import data as report
    from maebench.report.printed import console
    from maebench.report.terminal import print_table

    config = read(options, dataset=dataset, on_bad_image="skip", **flags)
    pictured = config.dataset.gives == IMAGES
    if out is not None and not pictured:
        raise ConfigError(f"--out: dataset {config.dataset.name!r} yields {config.dataset.gives}")
    splits = config.splits()
    found = check(splits, decoding)
    mark = found.looked["train"].images.info.fingerprint[:8]
    name = files.safe_name(f"data-{config.dataset.name}-{mark}")
    sheet = out or runs.results_folder(results) / "pictures" / f"{name}.png"
    say = console()
    say.print(plain(config.dataset.changed()), style="bold")
    if found.looked["train"].images.info.labels is not None:
        print_table(report.class_table(found))
    for line in report.lines(found, splits):
        say.print(plain(line))
    if pictured:
        report.contact_sheet(found, sheet)
        say.print(f"{'picture':<9} {sheet}")
    counts = [sum(f.severity == severity for f in found.findings) for severity in SEVERITIES]
    many = [
        f"{n} {severity}{'s' * (n != 1)}" for severity, n in zip(SEVERITIES, counts, strict=True)
    ]
    say.print(", ".join(reversed(many)))
    raise click.exceptions.Exit(EXIT[found.worst])
