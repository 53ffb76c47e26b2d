"""`maebench features`."""

from __future__ import annotations

from pathlib import Path

import click

from maebench.cli.flags import device_option, key_map_option, option, results_option
from maebench.cli.values import COUNT, OUT, OneOf


@click.command("features")
@click.argument("model", default="")
@option("--out", type=OUT, metavar="FILE.npz", required=True, help="file to write")
@option(
    "--split",
    type=OneOf("split", ["train", "test"]),
    metavar="NAME",
    default="test",
    help="train or test",
    show_default=True,
)
@option("--pool", metavar="NAME", default="mean", help="mean or cls", show_default=True)
@option(
    "--layer",
    type=COUNT,
    metavar="N",
    help="block to take features after",
    shown="the last norm",
)
@device_option
@key_map_option
@option("--download", is_flag=True, help="fetch weights of a hub")
@results_option
def features_command(
    model: str,
    out: Path,
    split: str,
    pool: str,
    layer: int | None,
    device: str,
    key_map: str | None,
    download: bool,
    results: Path | None,
) -> None:
    """Write a model's features to a file.

    The .npz holds `features` float32 (N, D), `ids` int64 (N,) and, where there are any, `labels`
    int64 (N,) and `class_names`. MODEL is as in `maebench eval`; it defaults to the newest run.
    """
    import numpy as np

    from maebench import files
    from maebench.cli.progress import shown
    from maebench.evaluating.features import features
    from maebench.models.load import load_model

    loaded = load_model(model, results, device, key_map=key_map, download=download)
    if loaded.verdict is not None:
        click.echo(f"weights: {loaded.verdict}", err=True)
    images = loaded.splits.load(split)
    found = features(loaded, images, layer, pool, shown)
    arrays = {"features": found.numpy(), "ids": images.info.ids.numpy()}
    if images.info.labels is not None:
        arrays["labels"] = images.info.labels.numpy()
        arrays["class_names"] = np.array(images.info.class_names)

    def fill(beside: Path) -> None:
        with beside.open("wb") as file:  # numpy would add .npz to a name
            np.savez(file, **arrays)  # type: ignore[arg-type]

    files.write(out, fill)
    click.echo(f"{out}: features {found.shape[0]}x{found.shape[1]} of {loaded.name}, {split}")
