"""`maebench eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maebench.cli.flags import device_option, key_map_option, option, results_option
from maebench.cli.values import COUNT, FOLDER, POSITIVE, ImageSize, KeyValue

if TYPE_CHECKING:
    import pandas as pd

    from maebench.data.dataset import Splits
    from maebench.evaluation import Evaluation
    from maebench.models.model import LoadedModel
    from maebench.plugins import Names


@click.command("eval")
@click.argument("name")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@option(
    *("-o", "options"),
    type=KeyValue(),
    metavar="KEY=VALUE",
    multiple=True,
    help="an option; repeatable",
)
@option("--dataset", metavar="NAME", help="test on other images", shown="the model's own")
@option("--data-dir", type=FOLDER, metavar="DIR", help="folder that holds the data set's files")
@option("--download", is_flag=True, help="fetch missing images, and weights of a hub")
@option(
    "--image-size", type=ImageSize(), metavar="N|H,W", help="pixels of a side", shown="the model's"
)
@option(
    "--limit", type=POSITIVE, metavar="N", help="number of training images", shown="the model's"
)
@option(
    "--seed", type=COUNT, metavar="N", default=0, help="seed of the evaluation", show_default=True
)
@device_option
@key_map_option
@option("--again", is_flag=True, help="run it even if its result is there")
@results_option
def eval_command(name: str, models: tuple[str, ...], **settings: Any) -> None:
    """Run one evaluation on models.

    MODEL is a run's name or folder; untrained:RUN, its encoder at step 0; pixels:DATASET, no
    encoder; file:PATH, a checkpoint of the official MAE code, of timm or of Hugging Face;
    timm:NAME or hf:NAME. It defaults to the newest run. What weights do not say follows the name:
    file:vit.pth,heads=6,target=pixels or timm:NAME,weights=FILE. `maebench list evaluations` shows
    names and options.

    \b
    Examples:
      maebench eval linear-probe
      maebench eval knn RUN untrained: pixels: -o k=1,5,20
      maebench eval knn file:mae_pretrain_vit_base.pth --dataset cifar10 --data-dir DIR
      maebench eval reconstruction RUN RUN -o across=true
    """  # noqa: D301 - click wants the character \b itself
    from maebench.cli.progress import shown
    from maebench.evaluating import suite
    from maebench.models.load import load_model
    from maebench.plugins import installed
    from maebench.pretraining import runs

    names = installed()
    evaluation = chosen_evaluation(name, settings["options"], names)
    results = runs.results_folder(settings["results"])
    data = data_settings(settings)
    loaded = [
        load_model(
            spec,
            results,
            settings["device"],
            names,
            data=data,
            key_map=settings["key_map"],
            download=settings["download"],
        )
        for spec in models or ("",)
    ]
    paths = []
    for model in loaded:
        click.echo(f"{name} of {model.name}", err=True)
        if model.verdict is not None:
            click.echo(f"  weights: {model.verdict}", err=True)
        splits = other_splits(model, data, names)
        seed, again = settings["seed"], settings["again"]
        paths.append(suite.evaluate(model, evaluation, seed, splits, names, shown, again))
    rows = rows_of(paths)
    show(rows, paths)
    show_summaries(evaluation, rows, results)
    if (rows["status"] == "failed").any():
        raise click.exceptions.Exit(1)


def rows_of(paths: list[Path]) -> pd.DataFrame:
    """The rows of these files, with the settings of their runs."""
    import pandas as pd

    from maebench.analysis.records import load_records

    # a run named by its folder keeps its records there, under whichever results folder
    rows = pd.concat([load_records(folder) for folder in dict.fromkeys(map(home, paths))])
    return rows[rows["file"].isin([str(path) for path in paths])].reset_index(drop=True)


def show(rows: pd.DataFrame, paths: list[Path]) -> None:
    """Prints what was measured, and what could not be.

    Raises:
        MaebenchError: nothing was measured.
    """
    from maebench.errors import MaebenchError
    from maebench.report import terminal
    from maebench.report.footnotes import footnotes
    from maebench.report.notes import left_out, mixed
    from maebench.report.table import by_model, headlines

    bad = rows[rows["status"] != "ok"].drop_duplicates(["model", "evaluation", "metric"])
    reasons = [
        f"{row['evaluation']} of {row['model']}: {row['status']}: {row['reason']}"
        for row in bad[bad["main"].astype(bool)].to_dict("records")
    ]
    if len(reasons) == len(paths):  # nothing was measured
        raise MaebenchError("; ".join(reasons))
    table = by_model(rows)
    terminal.print_table(table)
    notes = [f"note: {note}" for note in [*mixed(rows), *left_out(rows, by=False)]]
    for line in [*footnotes(headlines(rows), table), *reasons, *terminal.edges(rows), *notes]:
        click.echo(line)
    click.echo(terminal.protocols(rows))
    for path in paths:
        click.echo(f"record    {path}")


def show_summaries(evaluation: Evaluation, rows: pd.DataFrame, results: Path) -> None:
    """Prints what an evaluation shows of its models beside the table, and writes its figures."""
    from maebench import files
    from maebench.report import plots, terminal

    for summary in evaluation.summary(rows):
        for band in terminal.bands(summary.table, terminal.console().width):
            terminal.print_table(band)
        for note in summary.notes:
            click.echo(note)
        if summary.figure is not None:
            picture = results / "pictures" / f"{files.safe_name(summary.name)}.png"
            plots.write_figure(summary.figure, picture)
            click.echo(f"picture   {picture}")


def home(path: Path) -> Path:
    """The results folder that a file of rows lies in: <results>/runs/<run>/records/<file>."""
    return path.parents[3]


def data_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What flags say of the images to test on."""
    flags = ("dataset", "data_dir", "image_size", "limit", "download")
    return {key: settings[key] for key in flags if settings[key]}


def chosen_evaluation(name: str, options: tuple[tuple[str, str], ...], names: Names) -> Evaluation:
    """The evaluation by its name, with what -o sets.

    Raises:
        ConfigError: an unknown evaluation or option, or a value that is not allowed.
    """
    from maebench.component import parse
    from maebench.config.run import merge
    from maebench.evaluation import Evaluation

    chosen: dict[str, Any] = {"name": name}
    for key, value in options:
        chosen = merge(chosen, {key.removeprefix(f"{name}."): value})
    evaluation: Evaluation = parse(Evaluation, chosen, names.context(), "eval")
    return evaluation


def other_splits(model: LoadedModel, data: dict[str, Any], names: Names) -> Splits | None:
    """The images to test on where flags ask for others than the model's own; None for its own."""
    if not data or model.verdict is not None:  # one from elsewhere was loaded for these images
        return None
    from maebench.config.run import RunConfig
    from maebench.models.load import merged_data

    own = model.config
    base = {"dataset": own.dataset, "data_dir": own.data_dir, "limit": own.limit}
    kept = merged_data({**base, "on_bad_image": own.on_bad_image}, data, names)
    return RunConfig(names, **{"image_size": own.size, **kept}).splits()
