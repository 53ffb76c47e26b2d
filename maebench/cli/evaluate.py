"""`maebench eval`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maebench.cli.flags import device_option, key_map_option, option, results_option
from maebench.cli.values import COUNT, FOLDER, POSITIVE, ImageSize, KeyValue
from maebench.errors import plain

if TYPE_CHECKING:
    import pandas as pd

    from maebench.data.dataset import Splits
    from maebench.evaluation import Evaluation
    from maebench.models.model import LoadedModel
    from maebench.plugins import Names

# of -o, whatever the evaluation: how image files are read, and what features are kept in
READING, PRECISIONS = "data.", ("machine.features", "machine.evaluation")


@click.command("eval")
@click.argument("name")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@option(
    *("-o", "options"),
    type=KeyValue(),
    metavar="KEY=VALUE",
    multiple=True,
    help="an option; data.KEY, how image files are read; machine.features or machine.evaluation, "
    "the precision of features; repeatable",
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
    import pandas as pd

    from maebench.analysis.records import records_at
    from maebench.cli.uses import say_whose
    from maebench.errors import DeviceError
    from maebench.models.load import load_model
    from maebench.plugins import installed
    from maebench.pretraining import runs

    names = installed()
    evaluation = chosen_evaluation(name, settings["options"], names)
    say_whose([evaluation], names)
    results = runs.results_folder(settings["results"])
    data = data_settings(settings)
    how = {key: settings[key] for key in ("device", "key_map", "download")}
    loaded = [load_model(spec, results, names=names, data=data, **how) for spec in models or ("",)]
    loaded = [with_features(model, settings["options"]) for model in loaded]
    parts = [(m.config.dataset, m.config.encoder, m.config.objective) for m in loaded]
    say_whose(parts, names)  # not its masking: no evaluation asks it
    with tempfile.TemporaryDirectory() as aside:
        kept: dict[Path, pd.DataFrame] = {}
        lost = ""
        for model in loaded:
            splits = other_splits(model, data, names)
            try:
                path = measured(model, evaluation, settings, splits, aside)
            except DeviceError as error:
                if not kept:
                    raise
                lost = str(error)
                break
            kept[path] = records_at([path], model.folder.parents[1])
        rows = pd.concat(kept.values(), ignore_index=True)
        show(rows, [None if path.is_relative_to(aside) else path for path in kept])
        show_summaries(evaluation, rows, results)
    if lost:
        click.echo(plain(lost), err=True)
    if lost or (rows["status"] == "failed").any():
        raise click.exceptions.Exit(1)


def measured(
    model: LoadedModel,
    evaluation: Evaluation,
    settings: dict[str, Any],
    splits: Splits | None,
    aside: str,
) -> Path:
    """The file of a model's rows, in a folder aside where its own cannot be written to."""
    from maebench.analysis.cells import is_done
    from maebench.cli.progress import shown
    from maebench.evaluating import suite

    click.echo(f"{evaluation.name} of {model.name}", err=True)
    if model.verdict is not None:
        click.echo(plain(f"  weights: {model.verdict}"), err=True)
    seed, again = settings["seed"], settings["again"]
    done = suite.record_path(model, evaluation, splits or model.splits, seed)
    if again or not is_done(done):
        model = beside_read_only(model, Path(aside))
    return suite.evaluate(model, evaluation, seed, splits, progress=shown, again=again)


def beside_read_only(model: LoadedModel, aside: Path) -> LoadedModel:
    """The model, with a folder aside where nothing can be written to its own."""
    from dataclasses import replace

    from maebench import files
    from maebench.errors import ReadOnlyError

    try:
        files.check_writable(model.folder / "records")
        return model
    except ReadOnlyError as error:
        click.echo(f"  its record is not kept: {error}", err=True)
    return replace(model, folder=aside / "results" / model.folder.parent.name / model.folder.name)


def with_features(model: LoadedModel, options: Sequence[tuple[str, str]]) -> LoadedModel:
    """The model, its features computed and kept in what -o machine.KEY says.

    Raises:
        ConfigError: a value that is not allowed.
    """
    from dataclasses import replace

    from pydantic import ValidationError

    from maebench.component import explain
    from maebench.config.parts import Machine

    asked = {key.removeprefix("machine."): v for key, v in options if key in PRECISIONS}
    if not asked:
        return model
    try:
        machine = Machine(**{**dict(model.config.machine), **asked})
    except ValidationError as error:
        raise explain(error, "machine") from error
    return replace(model, config=model.config.model_copy(update={"machine": machine}))


def show(rows: pd.DataFrame, paths: Sequence[Path | None]) -> None:
    """Prints what was measured, and what could not be.

    Args:
        rows: of all models.
        paths: of their records; None for one that is not kept.

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
    if not (rows["status"] == "ok").any():
        raise MaebenchError("; ".join(reasons))
    table = by_model(rows)
    terminal.print_table(table)
    notes = [f"note: {note}" for note in [*mixed(rows), *left_out(rows, by=False)]]
    for line in [*footnotes(headlines(rows), table), *reasons, *terminal.edges(rows), *notes]:
        terminal.say(line)
    terminal.say(terminal.protocols(rows))
    for path in paths:
        terminal.say(f"record    {path or 'not kept: its folder is read-only'}", whole=True)


def show_summaries(evaluation: Evaluation, rows: pd.DataFrame, results: Path) -> None:
    """Prints what an evaluation shows of its models beside the table, and writes its figures."""
    from maebench import files
    from maebench.errors import ReadOnlyError
    from maebench.outputs import write_figure
    from maebench.report import terminal
    from maebench.report.printed import console

    for summary in evaluation.summary(rows):
        for band in terminal.bands(summary.table, console().width):
            terminal.print_table(band)
        for note in summary.notes:
            terminal.say(note)
        if summary.figure is not None:
            picture = results / "pictures" / f"{files.safe_name(summary.name)}.png"
            try:
                write_figure(summary.figure, picture)
                terminal.say(f"picture   {picture}", whole=True)
            except ReadOnlyError as error:
                terminal.say(f"picture   not kept: {error}", whole=True)


def data_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """What flags, and -o data.KEY, say of the images to test on."""
    flags = ("dataset", "data_dir", "image_size", "limit", "download")
    reading = {
        key.removeprefix(READING): value
        for key, value in settings["options"]
        if key.startswith(READING)
    }
    return {key: settings[key] for key in flags if settings[key]} | (
        {"data": reading} if reading else {}
    )


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
        if key.startswith(READING) or key in PRECISIONS:
            continue
        chosen = merge(chosen, {key.removeprefix(f"{name}."): value})
    evaluation: Evaluation = parse(Evaluation, chosen, names.context(), "eval")
    return evaluation


def other_splits(model: LoadedModel, data: dict[str, Any], names: Names) -> Splits | None:
    """The images to test on where flags ask for others than the model's own; None for its own."""
    if not data or model.verdict is not None:  # one from elsewhere was loaded for these images
        return None
    from maebench.component import parse
    from maebench.config.run import RunConfig
    from maebench.data.dataset import Dataset
    from maebench.encoders.inputs import IMAGES
    from maebench.models.load import merged_data
    from maebench.pretraining import runs

    own = model.config
    base: dict[str, Any] = {"dataset": own.dataset, "data_dir": own.data_dir, "limit": own.limit}
    base |= {"on_bad_image": own.on_bad_image, "data": own.data.model_dump()}
    # which images are copies, and by what their fingerprint goes
    base |= {"machine": own.machine}
    asked = parse(Dataset, data.get("dataset", own.dataset), names.context(), "--dataset")
    if own.dataset.gives == asked.gives == IMAGES:
        kept = merged_data({**base, "augment": own.augment}, data, names)
        return RunConfig(names, **{"image_size": own.image_size, **kept}).splits()
    # text is cut as the model was taught to read it, and as a control has counted it
    own_kept = runs.read_kept(model.run) if model.run else {}
    if model.run is None and asked.gives == own.dataset.gives:
        own_kept = dict(model.splits.load("train").info.kept)
    return RunConfig(names, **merged_data(base, data, names)).splits(own_kept)
