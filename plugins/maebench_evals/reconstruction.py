"""Reconstruction: how well are hidden patches guessed, under the same masks for every model?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from maebench import (
    Evaluation,
    MaebenchError,
    Mask,
    Masking,
    Metric,
    Model,
    Random,
    Reconstruction,
    Result,
    unpatchify,
)

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 256
WINDOW = 11  # SSIM's Gaussian window, Wang et al. 2004
SMALLEST_ERROR = 1e-10  # mean squared error below which PSNR is given as 100 dB
SHOWN = 8  # images in the picture
BASELINES = ("mean-colour", "interpolation")


@dataclass
class Sums:
    """What a pass over test leaves: errors per image, and sums for the deviation."""

    errors: list[Tensor]
    pixel_errors: list[Tensor]
    ssim: list[Tensor]


class ReconstructionQuality(Evaluation):
    """Error on hidden patches under held-out masks that are the same for every model.

    r2 is in the model's own target space: one minus an image's squared error over the mean squared
    deviation of hidden targets from their mean in test, so that its mean is the usual R2. psnr and
    ssim are in pixels and use no true statistic of a hidden patch; `how` says how they were made.
    Baselines: the mean colour of the seen pixels, and their interpolation.
    """

    name: ClassVar[str] = "reconstruction"
    splits: ClassVar[tuple[str, ...]] = ("test",)
    metrics: ClassVar[dict[str, Metric]] = {
        "r2": Metric(
            "share of the hidden targets' variance explained", "", True, None, 1, True, True
        ),
        "psnr": Metric("peak signal to noise ratio of hidden pixels", "dB", True, None, 100),
        "ssim": Metric("structural similarity around hidden pixels", "", True, -1, 1),
    }

    ratio: float = Field(0.75, gt=0, lt=1, description="share of patches hidden for the test")
    masking: Masking = Field(Random(), description="strategy that hides them")

    def run(self, model: Model) -> Iterator[Result]:
        """Yields r2, psnr and ssim of the model and of both baselines, and writes the picture."""
        import torch

        images = model.images("test")
        ids = images.about.ids
        model.masks(ids[:1], self.masking, self.ratio)  # "not applicable" before anything is done
        sums = {name: Sums([], [], []) for name in ("model", *BASELINES)}
        total = torch.zeros(1, dtype=torch.float64)
        square, count, done = total.clone(), 0, 0
        how = ""
        steps = -(-len(images) // BATCH)
        with torch.no_grad():
            for part in model.progress(
                images.whole(BATCH), steps, f"reconstruction of {model.kind}"
            ):
                mask = model.masks(ids[done : done + len(part)], self.masking, self.ratio)
                normal = model.normalise(part)
                made = model.reconstruct(normal, mask)
                truth = hidden_of(made.target, mask).double()
                total = total + truth.sum((0, 1)).cpu()
                square = square + truth.square().sum((0, 1)).cpu()
                count += truth.shape[0] * truth.shape[1]
                how = made.how
                for name, guess, filled in self._guesses(model, made, normal, mask):
                    error = (hidden_of(guess, mask).double() - truth).square()
                    sums[name].errors.append(error.sum((1, 2)).cpu())
                    if filled is not None:
                        self._pixels(model, sums[name], normal, filled, mask)
                if done == 0:
                    draw_picture(model, normal[:SHOWN], first(mask, SHOWN), made)
                done += len(part)
        deviation = (square - total.square() / count).sum().item() / len(images)
        if deviation <= 0:
            raise MaebenchError("reconstruction: all hidden targets are equal, there is no R2")
        for name, found in sums.items():
            where = {} if name == "model" else {"baseline": name}
            yield Result("r2", 1 - torch.cat(found.errors) / deviation, where)
            yield from self._in_pixels(found, where, how if name == "model" else "")

    def _guesses(
        self, model: Model, made: Reconstruction, normal: Tensor, mask: Mask
    ) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Name, guess in the target space, and pixels pasted over the hidden ones."""
        import torch

        hidden = hidden_pixels(mask, normal)
        guess = None
        if made.pixels is not None:
            guess = torch.where(
                hidden, unpatchify(made.pixels, mask.grid, patch_of(mask, normal)), normal
            )
        yield "model", made.prediction, guess
        for name, fill in (("mean-colour", mean_colour), ("interpolation", interpolation)):
            filled = torch.where(hidden, fill(normal, hidden), normal)
            # the target of a filled image is the baseline's guess in the same space
            yield name, model.reconstruct(filled, mask).target, filled

    def _pixels(self, model: Model, sums: Sums, normal: Tensor, filled: Tensor, mask: Mask) -> None:
        """Adds squared errors and similarities of hidden pixels, clipped to 0..1."""
        hidden = hidden_pixels(mask, normal).expand_as(normal)
        true, guess = model.pixels(normal).clamp(0, 1), model.pixels(filled).clamp(0, 1)
        count = hidden.sum((1, 2, 3))
        error = ((true - guess).square() * hidden).sum((1, 2, 3)) / count
        sums.pixel_errors.append(error.double().cpu())
        if min(normal.shape[2:]) < WINDOW:
            return
        # its import takes seconds
        from torchmetrics.functional.image import structural_similarity_index_measure as ssim

        _, map_BCHW = ssim(guess, true, data_range=1.0, reduction="none", return_full_image=True)
        sums.ssim.append(((map_BCHW * hidden).sum((1, 2, 3)) / count).double().cpu())

    def _in_pixels(self, found: Sums, where: dict[str, str], how: str) -> Iterator[Result]:
        import torch

        where = {**where, "how": how} if how else where
        if not found.pixel_errors:
            yield Result("psnr", None, where, "the objective gives no pixels")
            yield Result("ssim", None, where, "the objective gives no pixels")
            return
        error = torch.cat(found.pixel_errors).clamp(min=SMALLEST_ERROR)
        yield Result("psnr", -10 * error.log10(), where)
        if found.ssim:
            yield Result("ssim", torch.cat(found.ssim).clamp(-1, 1), where)
        else:
            why = f"the image is smaller than SSIM's window of {WINDOW} pixels"
            yield Result("ssim", None, where, why)


def patch_of(mask: Mask, images: Tensor) -> tuple[int, int]:
    """Rows and columns of a patch in pixels."""
    return images.shape[2] // mask.grid[0], images.shape[3] // mask.grid[1]


def hidden_of(patches_BLT: Tensor, mask: Mask) -> Tensor:
    """The hidden patches of each image, (B, M, T)."""
    return patches_BLT[mask.hidden].view(len(patches_BLT), mask.num_hidden, -1)


def hidden_pixels(mask: Mask, images: Tensor) -> Tensor:
    """Which pixels are hidden, bool (B, 1, H, W)."""
    h, w = patch_of(mask, images)
    grid = mask.hidden.view(-1, 1, *mask.grid)
    return grid.repeat_interleave(h, 2).repeat_interleave(w, 3)


def first(mask: Mask, count: int) -> Mask:
    """The masks of the first images."""
    return Mask(mask.hidden[:count], mask.seen[:count], mask.grid)


def mean_colour(images: Tensor, hidden: Tensor) -> Tensor:
    """The mean of each image's seen pixels per channel, (B, C, 1, 1)."""
    seen = ~hidden
    return (images * seen).sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True)


def interpolation(images: Tensor, hidden: Tensor) -> Tensor:
    """Seen pixels spread over the hidden ones: pull up a pyramid of means, push down bilinearly.

    Source: Gortler et al. 1996, "The Lumigraph", section 3.4.3 (pull-push).
    """
    import torch
    from torch.nn.functional import avg_pool2d, interpolate

    weight = (~hidden).to(images)
    if bool((weight > 0).all()) or max(images.shape[2:]) == 1:
        return images
    values = avg_pool2d(images * weight, 2, ceil_mode=True, count_include_pad=False)
    share = avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
    coarse = values / share.clamp(min=1e-6)  # where no pixel is seen the next level fills
    coarse = interpolation(coarse, share == 0)
    fine = interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(hidden, fine, images)


def draw_picture(model: Model, normal: Tensor, mask: Mask, made: Reconstruction) -> Any:
    """Writes original, masked, prediction and paste-over of a few images as one PNG."""
    import torch
    from matplotlib.figure import Figure

    if made.pixels is None:
        return None
    hidden = hidden_pixels(mask, normal)
    predicted = unpatchify(made.pixels[: len(normal)], mask.grid, patch_of(mask, normal))
    grey = torch.full_like(model.pixels(normal), 0.5)
    rows = {
        "original": model.pixels(normal),
        "masked": torch.where(hidden, grey, model.pixels(normal)),
        "prediction": model.pixels(predicted),
        "paste-over": model.pixels(torch.where(hidden, predicted, normal)),
    }
    figure = Figure(figsize=(1.1 * len(normal) + 1.2, 4.6), layout="constrained")
    axes = figure.subplots(len(rows), len(normal), squeeze=False)
    for line, (title, images) in zip(axes, rows.items(), strict=True):
        for cell, image in zip(line, images.clamp(0, 1).cpu(), strict=True):
            shown = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            cell.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            cell.set(xticks=[], yticks=[])
        line[0].set_ylabel(title)
    figure.suptitle(f"{model.name}\n{made.how or 'prediction in pixels'}", fontsize=8)
    return model.picture("reconstruction", figure)
