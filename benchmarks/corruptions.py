"""Every corruption of images in its five severities: docs/corruptions.png.

    python benchmarks/corruptions.py DIR IMAGE [OUT]

DIR holds Fashion-MNIST's files: one of its images stands for small ones. IMAGE is any large one,
which is cut to 224 pixels; OUT is written.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from maebench import Draws, FashionMNIST
from maebench.data import Request
from maebench.data.decode import fit
from maebench_evals.corruptions import OF_IMAGES, SEVERITIES

SMALL = 4  # the image of Fashion-MNIST's train that is shown


def main(folder: str, image: str, out: str = "docs/corruptions.png") -> None:
    """Draws a line for each corruption, both images as they are and in five severities."""
    small = FashionMNIST().load(Request("train", data_dir=Path(folder))).pick([SMALL])
    with Image.open(image) as opened:
        under = Image.new("RGBA", opened.size, "white")
        under.alpha_composite(opened.convert("RGBA"))
        large = fit(under.convert("RGB"), (224, 224))[None]
    columns = 2 * (1 + len(SEVERITIES))
    figure = Figure(figsize=(columns, len(OF_IMAGES) * 1.05), layout="constrained")
    axes = figure.subplots(len(OF_IMAGES), columns, squeeze=False)
    for line, (name, corrupt) in zip(axes, OF_IMAGES.items(), strict=True):
        shown: list[Tensor] = []
        for pixels in (small, large):
            x = pixels.float() / 255
            ids = torch.zeros(1, dtype=torch.int64)
            shown.append(x)
            shown += [corrupt(x, s, Draws(0, name, ids)).clamp(0, 1) for s in SEVERITIES]
        for ax, one in zip(line, shown, strict=True):
            gray = one.shape[1] == 1
            picture = (one[0, 0] if gray else one[0].permute(1, 2, 0)).numpy()
            ax.imshow(picture, cmap="gray" if gray else None, vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=8)
    titles = ["as it is", *map(str, SEVERITIES)] * 2
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=8)
    figure.savefig(out, dpi=60)


if __name__ == "__main__":
    main(*sys.argv[1:])
