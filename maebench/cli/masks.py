"""`maebench masks`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maebench.cli.flags import flag, option, results_option
from maebench.cli.values import COUNT, FOLDER, RATIO, SHARE, Several
from maebench.errors import plain

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from maebench.config.run import RunConfig
    from maebench.masking.mask import Masking
    from maebench.plugins import Names

FLAGS = ("dataset", "data_dir", "download", "image_size", "encoder", "seed", "device", "limit")
# the settings of a run that its masks depend on, beside masking and ratio
READ = (*FLAGS, "on_bad_image", "objective", "augment", "batch", "machine")
# column of the statistics -> its head and its decimal places
SHOWN = {
    "realised_ratio": ("realised", 3),
    "rate_min": ("least often", 3),
    "rate_max": ("most often", 3),
    "autocorrelation": ("autocorr.", 3),
    "components": ("components", 1),
    "size_1": ("in 1", 2),
    "size_2": ("in 2-4", 2),
    "size_5": ("in 5-16", 2),
    "size_17": ("in 17+", 2),
    "distance": ("distance", 2),
    "overlap": ("overlap", 3),
    "ms_per_256": ("ms/256", 1),
}
LEGEND = """\
least, most often: how often the position is hidden that is hidden least, and most, often.
autocorr.: of the visible map with itself one patch away. components: visible pieces of an image;
in 1 ... in 17+: share of the seen patches in pieces of so many. distance: of a hidden patch to the
nearest seen one, in patches. overlap: share of hidden patches that are hidden in the next epoch
too. ms/256: milliseconds for 256 images on this device, with what is asked of a model."""


def flags(command: Any) -> Any:
    """Adds the flags of a run that say which images and which grid."""
    for name in reversed(FLAGS):
        command = flag(name)(command)
    return command


@click.command("masks")
@option(
    "--masking",
    type=Several(example="random,block"),
    metavar="NAMES",
    help="strategies, separated by commas",
    shown="all",
)
@option(
    "--ratio",
    type=Several(RATIO, example="0.5,0.75"),
    metavar="LIST",
    default="0.5,0.75,0.9",
    help="shares hidden",
    show_default=True,
)
@flags
@option("--model", metavar="MODEL", help="run that learned strategies ask", shown="step 0")
@option(
    "--image",
    type=COUNT,
    metavar="N",
    default=0,
    help="number of the image shown",
    show_default=True,
)
@option(
    "--progress",
    type=SHARE,
    metavar="X",
    default=1,
    help="how far training is",
    show_default=True,
)
@option(
    "--out", type=FOLDER, metavar="DIR", help="folder to write to", shown="masks/ in the results"
)
@option(
    *("-o", "options"),
    metavar="PART.KEY=VALUE",
    multiple=True,
    help="any other setting; repeatable",
)
@results_option
def masks_command(**settings: Any) -> None:
    """Show masking strategies: a picture and statistics.

    Writes a PNG, each strategy at each ratio over a real training image, and a CSV, and prints the
    statistics. -o masking.KEY=VALUE reaches every chosen strategy that has the option.

    \b
    Examples:
      maebench masks
      maebench masks --masking random,block,green-noise --ratio 0.6,0.75
      maebench masks --dataset fashion-mnist --data-dir DIR --masking attention,hard --model RUN
    """  # noqa: D301 - click wants the character \b itself
    from maebench import files
    from maebench.cli.progress import shown
    from maebench.plugins import installed
    from maebench.pretraining import runs
    from maebench.report import formats, masks, terminal

    names = installed()
    said, own = settings_of(settings, names)
    wanted = chosen_maskings(settings["masking"], own, names)
    ratios, image, progress = settings["ratio"], settings["image"], settings["progress"]
    results = runs.results_folder(settings["results"])
    config, module = base(said, settings, names, results)
    out = settings["out"]
    folder = files.make_folder(out, "--out") if out else files.make_folder(results / "masks")
    sampler = masks.MaskSampler(config, module)
    masks.check_image(sampler, image)
    chosen = sampler.maskings(wanted)
    table = masks.mask_statistics(chosen, ratios, sampler=sampler, progress=progress, shown=shown)
    spec = [table["masking"].tolist(), ratios, image, progress, config.dump(), settings["model"]]
    name = files.safe_name(f"{config.dataset.name}-{config.encoder.name}-{files.short_hash(spec)}")
    files.write_text(folder / f"{name}.csv", formats.csv(table))
    masks.gallery(sampler, chosen, ratios, folder / f"{name}.png", image, progress)
    terminal.print_table(readable(table))
    click.echo(LEGEND)
    for row in table[table["reason"] != ""].to_dict("records"):
        click.echo(plain(f"{row['masking']} {row['ratio']:g}: not there: {row['reason']}"))
    click.echo(f"picture   {folder / name}.png\ntable     {folder / name}.csv")
    if (table["reason"] != "").all():
        raise click.exceptions.Exit(1)


def settings_of(settings: dict[str, Any], names: Names) -> tuple[dict[str, Any], dict[str, Any]]:
    """What flags and -o say of the run, and what -o says of maskings.

    Raises:
        ConfigError: an option that changes no mask, or that a flag of this command sets.
    """
    from maebench.config.run import merge
    from maebench.config.sources import read_options
    from maebench.errors import ConfigError

    options = read_options(settings["options"], dict(names.table["evaluation"]))
    own = options.pop("masking", {})
    if not isinstance(own, dict):
        raise ConfigError("-o masking=...: strategies are chosen by --masking")
    if "ratio" in options:
        raise ConfigError("-o ratio=...: ratios are chosen by --ratio")
    if idle := sorted(options.keys() - set(READ)):
        raise ConfigError(
            f"-o {idle[0]}: it changes no mask here; what does: masking, {', '.join(sorted(READ))}"
        )
    return merge(options, {k: settings[k] for k in FLAGS if settings[k] not in (None, False)}), own


def chosen_maskings(
    asked: Sequence[str] | None, own: dict[str, Any], names: Names
) -> list[Masking] | None:
    """The chosen strategies, each with those of the options that it has.

    Args:
        asked: names, with PATH after a colon where one needs a file; None for all.
        own: options of maskings.
        names: what is installed.

    Raises:
        ConfigError: an unknown name, or an option that none of them has.
    """
    from maebench.component import parse
    from maebench.errors import ConfigError, unknown
    from maebench.masking.mask import Masking

    if asked is None and not own:
        return None
    found, used, known = [], set[str](), set[str]()
    for item in asked or names.table["masking"]:
        cls = names.get("masking", item.partition(":")[0])
        if cls.spec and ":" not in item and asked is None:
            continue
        mine = {k: v for k, v in own.items() if k in cls.model_fields}
        known |= cls.model_fields.keys()
        used |= mine.keys()
        found.append(parse(Masking, {"name": item, **mine}, names.context(), "masking"))
    if missing := sorted(own.keys() - used):
        raise ConfigError(unknown("option", missing[0], known, "the chosen maskings"))
    return found


def base(
    said: dict[str, Any], settings: dict[str, Any], names: Names, results: Path
) -> tuple[RunConfig, nn.Module | None]:
    """The run whose images and grid are used, and the module that learned strategies ask.

    Raises:
        ConfigError: --model beside settings of its own, or a model that cannot be asked.
    """
    from maebench.config.run import RunConfig
    from maebench.errors import ConfigError
    from maebench.models.load import load_model

    if settings["model"] is None:
        return RunConfig(names, **said), None
    if both := sorted(said.keys() - {"device"}):
        flags = (
            f"--{k.replace('_', '-')}" if settings.get(k) is not None else f"-o {k}" for k in both
        )
        raise ConfigError(f"--model brings its own settings: leave out {', '.join(flags)}")
    device = said.get("device", "auto")
    model = load_model(settings["model"], results, device, names)
    if model.verdict is not None:
        raise ConfigError(f"--model {settings['model']}: only a run of maebench can be asked")
    if model.module is None:
        raise ConfigError(f"--model {settings['model']}: {model.name} has no encoder to ask")
    return model.config.model_copy(update={"device": device}), model.module


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table with as many digits as mean something, refused rows left to their reasons."""
    import pandas as pd

    rows = table[table["reason"] == ""]
    text = {
        "masking": rows["masking"],
        "grid": rows["grid"] if len(rows) else [],
        "ratio": [f"{v:g}" for v in rows["ratio"]],
    }
    for key, (head, places) in SHOWN.items() if len(rows) else ():
        text[head] = [f"{v:.{places}f}" for v in rows[key]]
    return pd.DataFrame(text)
