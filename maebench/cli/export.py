"""`maebench export`."""

from __future__ import annotations

from pathlib import Path

import click

from maebench.cli.flags import option, results_option
from maebench.cli.values import OUT, OneOf

# What an export to hf is made of: a folder that holds anything else is somebody's own.
FOLDER = {
    *("config.json", "preprocessor_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json"),
}
ENDINGS = {"official": ".pth", "timm": ".safetensors", "hf": ""}


@click.command("export")
@click.argument("model", metavar="[RUN]", default="")
@option(
    "--to",
    type=OneOf("format", list(ENDINGS)),
    metavar="official|timm|hf",
    required=True,
    help="whose files to write",
)
@option(
    "--out",
    type=OUT,
    metavar="PATH",
    help="file, or folder for hf",
    shown="RUN-TO in this folder",
)
@option("--force", is_flag=True, help="replace what is there")
@results_option
def export_command(
    model: str, to: str, out: Path | None, force: bool, results: Path | None
) -> None:
    """Write a run's weights in the files of others.

    They load as they are in the official MAE code, in timm or in Hugging Face's transformers. RUN
    is a run's name or folder, or untrained:RUN; it defaults to the newest run. What the other side
    cannot hold is refused with the reason.

    \b
    Examples:
      maebench export --to official
      maebench export RUN --to hf --out my-vit-mae
    """  # noqa: D301 - click wants the character \b itself
    from maebench.data.preprocess import AsItIs
    from maebench.errors import ConfigError
    from maebench.models.bert import to_bert
    from maebench.models.export import export
    from maebench.models.load import load_model
    from maebench.pretraining import runs

    loaded = load_model(model, results, "cpu")
    if loaded.run is None:
        raise ConfigError(f"{loaded.name} is no run: only what maebench trained is exported")
    path = out or Path(f"{loaded.name.replace(':', '-')}-{to}{ENDINGS[to]}")
    check_out(path, to, force)
    feed = loaded.preprocess
    if isinstance(feed, AsItIs):
        if to != "hf":
            raise ConfigError(f"{loaded.name} is fed {feed.kind}, which only --to hf can be")
        lines = to_bert(loaded.module, loaded.name, path, runs.read_kept(loaded.run))
        click.echo(f"{path}: {loaded.name} for {to}")
        for line in lines:
            click.echo(line)
        return
    lines = export(loaded.module, loaded.name, to, path, feed.mean, feed.std)
    click.echo(f"{path}: {loaded.name} for {to}")
    for line in lines:
        click.echo(line)
    click.echo(f"pre-processing: pixels / 255, minus {tuple(feed.mean)}, over {tuple(feed.std)}")


def check_out(path: Path, to: str, force: bool) -> None:
    """Refuses to replace what is there unasked, and ever what is no export.

    Raises:
        ConfigError: says what stands in the way.
    """
    from maebench.errors import ConfigError

    if ENDINGS[to] and path.suffix != ENDINGS[to]:
        raise ConfigError(f"--out {path}: a name that ends in {ENDINGS[to]} is wanted for {to}")
    if not path.exists():
        return
    if not force:
        raise ConfigError(f"--out {path} is there already: give another one, or --force")
    if path.is_dir() and (ENDINGS[to] or {inside.name for inside in path.iterdir()} - FOLDER):
        raise ConfigError(f"--out {path} is a folder that holds other files: give another one")
