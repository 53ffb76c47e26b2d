"""`maebench eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from maebench.cli.flags import results_option


@click.command("eval")
@click.argument("name")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("-o", "options", metavar="KEY=VALUE", multiple=True, help="an option; repeatable")
@click.option("--dataset", metavar="NAME", help="test on other images  [default: the model's own]")
@click.option("--data-dir", metavar="DIR", help="folder that holds the data set's files")
@click.option("--download", is_flag=True, help="fetch missing images, and weights of a hub")
@click.option("--image-size", metavar="N|H,W", help="pixels of a side  [default: the model's]")
@click.option("--limit", metavar="N", help="number of training images  [default: the model's]")
@click.option("--seed", metavar="N", default="0", help="seed of the evaluation  [default: 0]")
@click.option("--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:N  [default: auto]")
@click.option(
    "--key-map", metavar="FILE.yaml", help="regular expressions for the names of file: weights"
)
@click.option("--across", is_flag=True, help="score under the common masks too: -o across=true")
@click.option("--again", is_flag=True, help="run it even if its result is there")
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
      maebench eval reconstruction RUN RUN --across
    """  # noqa: D301 - click wants the character \b itself
    from maebench.errors import ConfigError
    from maebench.plugins import installed

    names = installed()
    evaluation = chosen_evaluation(name, settings["options"], settings["across"], names)
    if not settings["seed"].isdecimal():
        raise ConfigError(f"--seed: a whole number from 0 is wanted, given {settings['seed']!r}")

    from maebench.cli.progress import shown
    from maebench.evaluating import suite
    from maebench.models.load import load_model
    from maebench.pretraining import runs

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
        seed = int(settings["seed"])
        paths.append(
            suite.evaluate(model, evaluation, seed, splits, names, shown, settings["again"])
        )
    show(paths, loaded, results)


def show(paths: list[Path], loaded: list[Any], results: Path) -> None:
    """Prints what was measured, and what could not be.

    Raises:
        MaebenchError: nothing was measured.
    """
    import pandas as pd

    from maebench.analysis.records import load_records
    from maebench.errors import MaebenchError
    from maebench.report import across, terminal
    from maebench.report.table import by_model, mixed

    # a run given by its folder keeps its records there, under whichever results folder
    rows = pd.concat([load_records(folder) for folder in dict.fromkeys(map(home, paths))])
    rows = rows[rows["file"].isin([str(path) for path in paths])].reset_index(drop=True)
    bad = rows[rows["status"] != "ok"].drop_duplicates(["model", "evaluation", "metric"])
    reasons = [
        f"{row['evaluation']} of {row['model']}: {row['status']}: {row['reason']}"
        for row in bad[bad["main"].astype(bool)].to_dict("records")
    ]
    if len(reasons) == len(loaded):  # nothing was measured
        raise MaebenchError("; ".join(reasons))
    terminal.print_table(by_model(rows))
    for line in [*reasons, *terminal.edges(rows), *(f"note: {note}" for note in mixed(rows))]:
        click.echo(line)
    click.echo(terminal.protocols(rows))
    for path in paths:
        click.echo(f"record    {path}")
    if across.has_cells(rows):
        picture = results / "pictures" / "across.png"
        across.heat_map(rows, picture)
        for band in across.bands(across.matrix(rows), terminal.console().width):
            terminal.print_table(band)
        click.echo(f"R2 under common masks; {across.OWN} what a run was trained with")
        click.echo(f"picture   {picture}")
    if (rows["status"] == "failed").any():
        raise click.exceptions.Exit(1)


def home(path: Path) -> Path:
    """The results folder that a file of rows lies in: <results>/runs/<run>/records/<file>."""
    return path.parents[3]


def data_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What flags say of the images to test on."""
    given = ("dataset", "data_dir", "image_size", "limit", "download")
    return {key: settings[key] for key in given if settings[key]}


def chosen_evaluation(name: str, options: tuple[str, ...], across: bool, names: Any) -> Any:
    """The evaluation by its name, with what -o and --across set.

    Raises:
        ConfigError: an unknown evaluation or option, or a value that is not allowed.
    """
    from maebench.component import parse
    from maebench.config.run import merge
    from maebench.errors import ConfigError
    from maebench.evaluation import Evaluation

    chosen: dict[str, Any] = {"name": name}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"-o {text!r}: write key=value, such as k=1,5,20")
        chosen = merge(chosen, {key.strip().removeprefix(f"{name}."): value})
    evaluation = parse(Evaluation, chosen, names.context(), "eval")
    if not across:
        return evaluation
    table = names.table["evaluation"]
    if "across" not in type(evaluation).model_fields:
        having = sorted(n for n, cls in table.items() if "across" in cls.model_fields)
        raise ConfigError(
            f"--across: evaluation {name!r} has no option 'across'; there is: {', '.join(having)}"
        )
    if "across" in chosen and not evaluation.across:
        raise ConfigError(f"--across: -o across={chosen['across']} says the opposite; leave one")
    return parse(Evaluation, {**chosen, "across": True}, names.context(), "eval")


def other_splits(model: Any, data: dict[str, Any], names: Any) -> Any:
    """The images to test on where flags ask for others than the model's own; None for its own."""
    if not data or model.verdict is not None:  # one from elsewhere was loaded for these images
        return None
    from maebench.config.run import RunConfig
    from maebench.models.load import merged_data

    own = model.config
    base = {"dataset": own.dataset, "data_dir": own.data_dir, "limit": own.limit}
    kept = merged_data({**base, "on_bad_image": own.on_bad_image}, data, names)
    return RunConfig(names, **{"image_size": own.size, **kept}).splits()
