"""Pictures of reconstructions: examples, and the error by the distance to what is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maebench import Mask, Model, Reconstruction, Result, unpatchify
from maebench_evals.hidden import hidden_pixels, pasted, patch_of

if TYPE_CHECKING:
    from torch import Tensor


def examples(model: Model, normal: Tensor, mask: Mask, made: Reconstruction) -> None:
    """Writes original, masked, prediction and paste-over of a few images as one PNG."""
    import torch
    from matplotlib.figure import Figure
    from torch.nn.functional import pad

    if made.pixels is None:
        return
    hidden = hidden_pixels(mask, normal)
    patches = made.pixels[: len(normal)]
    predicted = unpatchify(patches, mask.grid, patch_of(mask, normal))
    grey = torch.full_like(model.pixels(normal), 0.5)
    rows = {
        "original": model.pixels(normal),
        "masked": torch.where(hidden, grey, model.pixels(normal)),
        "prediction": model.pixels(predicted),
        "paste-over": model.pixels(pasted(patches, normal, mask)),
    }
    # one image of all: axes for each would take longer to draw than all the rest takes to measure
    gap = max(1, normal.shape[3] // 14)
    lines = [pad(images.clamp(0, 1), (0, gap, 0, gap), value=1.0) for images in rows.values()]
    board = torch.cat([torch.cat([*line], 2) for line in lines], 1)[:, :-gap, :-gap].cpu()
    shown = board[0] if len(board) == 1 else board.permute(1, 2, 0)
    figure = Figure(figsize=(1.1 * len(normal) + 1.2, 4.9), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    height = normal.shape[2]
    middles = [height / 2 - 0.5 + i * (height + gap) for i in range(len(rows))]
    axes.set_yticks(middles, list(rows), rotation=90, va="center")
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_frame_on(False)
    figure.suptitle(f"{model.name}\n{made.how or 'prediction in pixels'}", fontsize=8)
    model.picture("reconstruction", figure)


def distance_curves(model: Model, errors: Sequence[Result], masks: str) -> None:
    """Writes the error of the model and the baselines over the distance as a PNG."""
    from matplotlib.figure import Figure

    curves: dict[str, list[Result]] = {}
    for result in errors:
        curves.setdefault(result.where.get("baseline", "the model"), []).append(result)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, found in curves.items():
        axes.plot(
            [r.where["distance"] for r in found],
            [float(r.value) for r in found],  # type: ignore[arg-type]
            marker="o",
            linewidth=2.2 if name == "the model" else 1.2,
            label=name,
        )
    axes.axhline(1, color="0.6", linestyle=":", label="the mean of all hidden targets")
    there = [(r.where["distance"], r.where["patches"]) for r in next(iter(curves.values()))]
    axes.set_xticks([d for d, _ in there], [f"{d}\n({n:,})" for d, n in there])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("patches to the nearest seen one (hidden patches there)")
    axes.set_ylabel("squared error / variance of hidden targets")
    axes.set_title(f"{model.name}\n{masks}", fontsize=8)
    axes.legend(fontsize=8)
    model.picture("reconstruction-distance", figure)
