"""`maebench features`."""

from __future__ import annotations

from pathlib import Path

import click

from maebench.cli.flags import results_option


@click.command("features")
@click.argument("model", default="")
@click.option("--out", metavar="FILE.npz", required=True, help="file to write")
@click.option("--split", metavar="NAME", default="test", help="train or test  [default: test]")
@click.option("--pool", metavar="NAME", default="mean", help="mean or cls  [default: mean]")
@click.option("--layer", metavar="N", help="block to take features after  [default: the last norm]")
@click.option("--device", metavar="NAME", default="auto", help="cpu, cuda, cuda:N  [default: auto]")
@click.option(
    "--key-map", metavar="FILE.yaml", help="regular expressions for the names of file: weights"
)
@click.option("--download", is_flag=True, help="fetch weights of a hub")
@results_option
def features_command(
    model: str,
    out: str,
    split: str,
    pool: str,
    layer: str | None,
    device: str,
    key_map: str | None,
    download: bool,
    results: str | None,
) -> None:
    """Write a model's features to a file.

    The .npz holds `features` float32 (N, D), `ids` int64 (N,) and, where there are any, `labels`
    int64 (N,) and `class_names`. MODEL is as in `maebench eval`; it defaults to the newest run.
    """
    import numpy as np

    from maebench import files
    from maebench.cli.progress import shown
    from maebench.errors import ConfigError, unknown
    from maebench.evaluating.features import features
    from maebench.models.load import load_model

    if split not in ("train", "test"):
        raise ConfigError(unknown("split", split, ["train", "test"], "--split"))
    if layer is not None and not layer.isdecimal():
        raise ConfigError(f"--layer: a block number is wanted, given {layer!r}")
    loaded = load_model(model, results, device, key_map=key_map, download=download)
    if loaded.verdict is not None:
        click.echo(f"weights: {loaded.verdict}", err=True)
    images = loaded.splits.load(split)
    found = features(loaded, images, int(layer) if layer else None, pool, shown)
    arrays = {"features": found.numpy(), "ids": images.info.ids.numpy()}
    if images.info.labels is not None:
        arrays["labels"] = images.info.labels.numpy()
        arrays["class_names"] = np.array(images.info.class_names)

    def fill(beside: Path) -> None:
        with beside.open("wb") as file:  # numpy would add .npz to a name
            np.savez(file, **arrays)  # type: ignore[arg-type]

    files.write(Path(out), fill)
    click.echo(f"{out}: features {found.shape[0]}x{found.shape[1]} of {loaded.name}, {split}")
