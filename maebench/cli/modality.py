"""`maebench modality`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from maebench.cli.flags import FLAGS, option, results_option
from maebench.cli.values import FOLDER, POSITIVE, Number, OneOf, Several
from maebench.errors import plain

if TYPE_CHECKING:
    import pandas as pd

    from maebench.analysis.comparison import Comparison
    from maebench.analysis.design import Design
    from maebench.plugins import Names

SIZES = ("nano", "micro", "tiny", "small", "base")
DEFAULT_RATIOS = "0.05,0.1,0.15,0.2,0.3,0.4,0.5,0.6,0.75,0.9"  # a test compares RATIOS


@click.command("modality")
@option("--text", metavar="NAME", help="text to learn from", default="kjv", show_default=True)
@option(
    "--images",
    metavar="NAME",
    help="images to learn from",
    default="fashion-mnist",
    show_default=True,
)
@option("--data-dir", type=FOLDER, metavar="DIR", help="folder that holds the images' files")
@option(
    "--ratio",
    type=Several(Number(min=0, max=1, min_open=True, max_open=True)),
    metavar="X,...",
    help="shares of patches that are hidden",
    default=DEFAULT_RATIOS,
    show_default=True,
)
@option(
    "--size",
    type=OneOf("size", SIZES),
    metavar="NAME",
    help=f"both transformers: {', '.join(SIZES)}",
    default="nano",
    show_default=True,
)
@option(
    "--budget",
    type=FLAGS["budget"].type,
    metavar="UNIT=N",
    help=FLAGS["budget"].help,
    default="steps=2000",
    show_default=True,
)
@option(
    "--batch",
    type=POSITIVE,
    metavar="N",
    help="images, or windows, per update",
    default=64,
    show_default=True,
)
@option(
    "--limit",
    type=POSITIVE,
    metavar="N",
    help="number of training images, and of windows",
    shown="10000, or all",
)
@option("--seeds", metavar="N|A-B", help="seeds of each ratio", default="3", show_default=True)
@option("--workers", type=POSITIVE, metavar="N", help="processes side by side", shown="one a core")
@results_option
def modality_command(**settings: Any) -> None:
    """Compare masking of words with masking of pictures.

    The same transformer is pretrained on text as BERT is and on images as a masked autoencoder (of
    pixels), with the same ratios and as many tokens as patches. For each ratio: how much of what is
    hidden is known without a model (from the seen neighbours of a word, from Laplace's equation
    between the seen pixels), how much the trained model knows, and what a linear probe gains over
    the untrained encoder. The same command again goes on where it stopped.

    \b
    Examples:
      maebench modality --data-dir /usr/share/datasets/fashion-mnist
      maebench modality --text pydoc --images digits --ratio 0.2,0.5,0.75 --budget steps=500
    """  # noqa: D301 - click wants the character \b itself
    from maebench.analysis import modality
    from maebench.analysis.compare import carry_out, plan_comparison
    from maebench.cli.progress import grid
    from maebench.plugins import installed

    names, folder = installed(), settings["results"]
    designs = designs_of(settings, names)
    found = {kind: plan_comparison(d, folder, None, names) for kind, d in designs.items()}
    for kind, planned in found.items():
        left = sum(cell.state != "done" for cell in planned.cells)
        click.echo(f"{kind}: {left} of {len(planned.cells)} cells are left, {planned.folder}")
        with grid(planned) as say:
            found[kind] = carry_out(planned, workers=settings["workers"], names=names, say=say)
    rows = modality.rows(found)
    if len(rows):
        show(rows, found)
    if not all(comparison.finished for comparison in found.values()):
        for comparison in found.values():
            for cell in comparison.cells:
                if cell.state != "done":
                    click.echo(plain(f"not done: {cell.name}: {cell.reason}"))
        raise click.exceptions.Exit(1)


def designs_of(settings: dict[str, Any], names: Names) -> dict[str, Design]:
    """Both comparisons; says which ratios are left out of them."""
    from maebench.analysis import modality

    size, data_dir = settings["size"], settings["data_dir"]
    sides = modality.Sides(
        {"dataset": settings["text"], "encoder": f"text-{size}"},
        {
            **{"dataset": settings["images"], "encoder": f"vit-{size}"},
            **({"data_dir": data_dir} if data_dir else {}),
        },
    )
    sides.check(names)
    length = sides.length(names)
    dropped = modality.apart(settings["ratio"], length)
    for ratio, same in dropped.items():
        click.echo(f"left out  {ratio:g}: of {length} patches it hides as many as {same:g}")
    ratios = [ratio for ratio in settings["ratio"] if ratio not in dropped]
    shared = {key: settings[key] for key in ("budget", "batch", "limit")}
    return sides.designs(names, ratios, settings["seeds"], shared)


def show(rows: pd.DataFrame, found: dict[str, Comparison]) -> None:
    """Prints table and answers, and writes them beside the comparisons with the picture."""
    from maebench import files
    from maebench.report import modality as report
    from maebench.report.terminal import print_table

    print_table(report.table(rows))
    for line in report.answers(rows):
        click.echo(plain(line))
    datasets = {kind: one.design.arms[0].config.dataset for kind, one in found.items()}
    own = files.short_hash({kind: one.folder.name for kind, one in found.items()})
    name = files.safe_name("-".join([*(dataset.name for dataset in datasets.values()), own]))
    where = next(iter(found.values())).folder.parents[1] / "modality" / name
    report.write(rows, {kind: dataset.title for kind, dataset in datasets.items()}, where)
    click.echo(f"written   {where}")
