"""Pictures of reconstructions: examples, a model's own, and the error by the distance.

R rows and K columns of an image grid, C, H, W of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from maebench import Mask, Model, Reconstruction, Result, hidden_pixels, unpatchify
from maebench_evals.hidden import pasted, patch_of


def examples(model: Model, normal: Tensor, mask: Mask, made: Reconstruction) -> None:
    """Writes original, masked, prediction and paste-over of a few images as one PNG.

    Below them what the model makes of the whole images, where it learns from these.
    """
    if made.pixels is None and made.whole is None:
        return
    patch = patch_of(mask, normal)
    hidden = hidden_pixels(mask, patch)
    grey = torch.full_like(model.pixels(normal), 0.5)
    rows = {
        "original": model.pixels(normal),
        "masked": torch.where(hidden, grey, model.pixels(normal)),
    }
    if made.pixels is not None:
        patches = made.pixels[: len(normal)]
        rows["prediction"] = model.pixels(unpatchify(patches, mask.grid, patch))
        rows["paste-over"] = model.pixels(pasted(patches, normal, mask))
    if made.whole is not None:
        whole = unpatchify(made.whole[: len(normal)], mask.grid, patch)
        rows["given all"] = model.pixels(whole)
    images = torch.stack([*rows.values()])
    draw_images(model, "reconstruction", made.how, images, list(rows))


def own_pictures(model: Model, normal: Tensor, ids: Tensor) -> None:
    """Writes the pictures that the model has of its own, each as one PNG."""
    draws = model.draws("pictures", ids.to(normal.device))
    for name, made in model.pictures(normal, draws).items():
        title, pixels = name.replace("-", " "), model_pixels(model, made.images)
        draw_images(model, f"reconstruction-{name}", title, pixels, made.rows, made.columns)


def model_pixels(model: Model, images_RKCHW: Tensor) -> Tensor:
    """Normalised images of an image grid as pixels."""
    return model.pixels(images_RKCHW.flatten(0, 1)).view_as(images_RKCHW)


def draw_images(
    model: Model,
    name: str,
    title: str,
    pixels_RKCHW: Tensor,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> None:
    """Writes rows of images as one PNG, clipped to 0..1, with gaps and texts at two sides."""
    from matplotlib.figure import Figure

    R, K, _, H, W = pixels_RKCHW.shape
    # one image of all: axes for each would take longer to draw than all the rest takes to measure
    gap = max(1, W // 14)
    cells = pad(pixels_RKCHW.clamp(0, 1), (0, gap, 0, gap), value=1.0).cpu()
    canvas = cells.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)[:, :-gap, :-gap]
    shown = canvas[0] if len(canvas) == 1 else canvas.permute(1, 2, 0)
    figure = Figure(figsize=(1.1 * K + 1.2, 1.1 * R + 0.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    middles = [H / 2 - 0.5 + i * (H + gap) for i in range(len(rows))]
    axes.set_yticks(middles, list(rows), rotation=90, va="center")
    axes.tick_params(length=0)
    across = [W / 2 - 0.5 + i * (W + gap) for i in range(len(columns))]
    axes.set_xticks(across, list(columns))
    axes.set_frame_on(False)
    figure.suptitle(f"{model.name}\n{title}", fontsize=8)
    model.picture(name, figure)


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
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)  # inside it hides points
    model.picture("reconstruction-distance", figure)
