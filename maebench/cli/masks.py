"""`maebench masks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maebench.cli.flags import flag, results_option

if TYPE_CHECKING:
    import pandas as pd

    from maebench.config.run import RunConfig
    from maebench.masking.mask import Masking
    from maebench.plugins import Names

FLAGS = ("dataset", "data_dir", "download", "image_size", "encoder", "seed", "device", "limit")
# the settings of a run that its masks depend on, beside masking and ratio
READ = (*FLAGS, "on_bad_image", "objective", "augment", "batch", "machine")
RATIOS = "0.5,0.75,0.9"
LEGEND = """\
least, most often: how often the position is hidden that is hidden least, and most, often.
autocorr.: of the visible map with itself one patch away. components: visible pieces of an image;
in 1 ... in 17+: share of the seen patches in pieces of so many. distance: of a hidden patch to the
nearest seen one, in patches. overlap: share of hidden patches that are hidden in the next epoch
too. ms/256: milliseconds for 256 images on this device, with what is asked of a model."""


def flags(command: Any) -> Any:
    """The flags of a run that say which images and which grid."""
    for name in reversed(FLAGS):
        command = flag(name)(command)
    return command


@click.command("masks")
@click.option("--masking", metavar="NAMES", help="strategies, separated by commas  [default: all]")
@click.option("--ratio", metavar="LIST", default=RATIOS, help=f"shares hidden  [default: {RATIOS}]")
@flags
@click.option("--model", metavar="MODEL", help="run that learned strategies ask  [default: step 0]")
@click.option("--image", metavar="N", default="0", help="number of the image shown  [default: 0]")
@click.option("--progress", metavar="X", default="1", help="how far training is  [default: 1]")
@click.option("--out", metavar="DIR", help="folder to write to  [default: masks/ in the results]")
@click.option(
    "-o", "options", metavar="PART.KEY=VALUE", multiple=True, help="any other setting; repeatable"
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
    from maebench.plugins import installed

    names = installed()
    given, own = read_given(settings, names)
    wanted = read_maskings(settings["masking"], own, names)
    ratios = [number("--ratio", text, 0, 1) for text in settings["ratio"].split(",")]
    progress = number("--progress", settings["progress"], 0, 1, ends=True)
    image = int(number("--image", settings["image"], 0, None, ends=True, whole=True))

    from maebench import files
    from maebench.cli.progress import shown
    from maebench.pretraining import runs
    from maebench.report import masks, terminal

    results = runs.results_folder(settings["results"])
    config, module = base(given, settings, names, results)
    out = settings["out"]
    folder = files.make_folder(Path(out), "--out") if out else files.make_folder(results / "masks")
    bench = masks.MaskSampler(config, module)
    masks.check_image(bench, image)
    chosen = bench.maskings(wanted)
    table = masks.mask_statistics(chosen, ratios, bench=bench, progress=progress, shown=shown)
    spec = [table["masking"].tolist(), ratios, image, progress, config.dump(), settings["model"]]
    name = files.safe_name(f"{config.dataset.name}-{config.encoder.name}-{files.short_hash(spec)}")
    files.write_text(folder / f"{name}.csv", table.to_csv(index=False))
    masks.gallery(bench, chosen, ratios, folder / f"{name}.png", image, progress)
    terminal.print_table(readable(table))
    click.echo(LEGEND)
    for row in table[table["reason"] != ""].to_dict("records"):
        click.echo(f"{row['masking']} {row['ratio']:g}: not there: {row['reason']}")
    click.echo(f"picture   {folder / name}.png\ntable     {folder / name}.csv")
    if (table["reason"] != "").all():
        raise click.exceptions.Exit(1)


def read_given(settings: dict[str, Any], names: Names) -> tuple[dict[str, Any], dict[str, Any]]:
    """What flags and -o say of the run, and what -o says of maskings."""
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


def read_maskings(text: str | None, own: dict[str, Any], names: Names) -> list[Masking] | None:
    """The chosen strategies, each with those of the options that it has.

    Raises:
        ConfigError: an unknown name, or an option that none of them has.
    """
    from maebench.component import parse
    from maebench.errors import ConfigError, unknown
    from maebench.masking.mask import Masking

    if text is None and not own:
        return None
    table = names.table["masking"]
    chosen = [t.strip() for t in text.split(",") if t.strip()] if text is not None else list(table)
    if not chosen:
        raise ConfigError(f"--masking: names are wanted, such as random,block; given {text!r}")
    found = []
    used: set[str] = set()
    known: set[str] = set()
    for item in chosen:
        cls = names.get("masking", item.partition(":")[0])
        mine = {k: v for k, v in own.items() if k in cls.model_fields}
        if cls.spec and ":" not in item and text is None:
            continue
        known |= cls.model_fields.keys()
        used |= mine.keys()
        found.append(parse(Masking, {"name": item, **mine}, names.context(), "masking"))
    if missing := sorted(own.keys() - used):
        raise ConfigError(unknown("option", missing[0], known, "the chosen maskings"))
    return found


def number(
    flag: str, text: str, low: float, high: float | None, ends: bool = False, whole: bool = False
) -> float:
    """A number between bounds.

    Raises:
        ConfigError: says which are allowed.
    """
    from maebench.errors import ConfigError

    try:
        value = float(text)
        good = value >= low if ends else value > low
        good &= high is None or (value <= high if ends else value < high)
        good &= not whole or value.is_integer()
    except ValueError:
        good = False
    if not good:
        kind = "a whole number" if whole else "a number"
        bounds = f"from {low:g}" if high is None else f"from {low:g} to {high:g}"
        beside = "" if ends else ", ends excluded,"
        raise ConfigError(f"{flag}: {kind} {bounds}{beside} is wanted, given {text!r}")
    return value


def base(
    given: dict[str, Any], settings: dict[str, Any], names: Names, results: Path
) -> tuple[RunConfig, Any]:
    """The run whose images and grid are used, and the module that learned strategies ask."""
    from maebench.config.run import RunConfig
    from maebench.errors import ConfigError

    if settings["model"] is None:
        return RunConfig(names, **given), None
    if given.keys() - {"device"}:
        said = (
            f"--{k.replace('_', '-')}" if settings.get(k) else f"-o {k}"
            for k in sorted(given.keys() - {"device"})
        )
        raise ConfigError(f"--model brings its own settings: leave out {', '.join(said)}")
    from maebench.models.load import load_model

    device = given.get("device", "auto")
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
    digits = {
        "realised_ratio": 3,
        "rate_min": 3,
        "rate_max": 3,
        "autocorrelation": 3,
        "components": 1,
        "size_1": 2,
        "size_2": 2,
        "size_5": 2,
        "size_17": 2,
        "distance": 2,
        "overlap": 3,
        "ms_per_256": 1,
    }
    heads = {
        "realised_ratio": "realised",
        "rate_min": "least often",
        "rate_max": "most often",
        "autocorrelation": "autocorr.",
        **{"size_1": "in 1", "size_2": "in 2-4", "size_5": "in 5-16", "size_17": "in 17+"},
        "ms_per_256": "ms/256",
    }
    for key, places in digits.items() if len(rows) else ():
        text[heads.get(key, key)] = [f"{v:.{places}f}" for v in rows[key]]
    return pd.DataFrame(text)
