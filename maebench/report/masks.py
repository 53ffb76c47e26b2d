"""Masking strategies side by side: a table of their statistics and a picture of their masks."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maebench.component import parse
from maebench.config.run import RunConfig, Schedule
from maebench.data.augment import Augment
from maebench.data.images import statistics_of
from maebench.data.preprocess import Normaliser
from maebench.encoders.inputs import IMAGES
from maebench.errors import ConfigError
from maebench.masking.mask import Masking
from maebench.masking.statistics import STATISTICS, Sample, describe
from maebench.outputs import write_figure
from maebench.plugins import contained, installed
from maebench.pretraining.batches import sample
from maebench.pretraining.hardware import find_device, find_precision
from maebench.pretraining.plan import build, check_needs, check_plane

if TYPE_CHECKING:
    import pandas as pd

WHOLE = Augment(scale=(1.0, 1.0), aspect=(0.01, 100.0), flip=False)  # the image as it is
PER_BAND = 6  # strategies beside each other: with three ratios a page in width
SIDE = 1.5  # inches of a picture
HIDDEN = torch.tensor([0.62, 0.55, 0.45])  # a brownish gray: neither a black nor a white patch
SEEN = torch.ones(3)
LINES = 32  # windows that are shown of what has no pixels


@contained()
def mask_statistics(
    maskings: Iterable[Masking | str] | None = None,
    ratios: Sequence[float] = (0.75,),
    config: RunConfig | None = None,
    model: Any = None,
    progress: float = 1.0,
    sampler: MaskSampler | None = None,
    shown: Callable[[Iterable[Any], int, str], Iterable[Any]] = lambda steps, total, what: steps,
) -> pd.DataFrame:
    """Statistics of masking strategies on real images, one row per strategy and ratio.

    Args:
        maskings: objects or names; all that need no file by default.
        ratios: shares of hidden patches.
        config: data set, encoder (for the grid), crops, seed and device; digits by default.
        model: what learned strategies ask: a module that an objective built; the config's own at
            step 0 by default.
        progress: how far pretraining is, for what changes with it.
        sampler: images and model in place of config and model, where several tables share them.
        shown: goes through the work and shows it.

    Returns:
        Columns masking, ratio, those of `describe`, and reason: why a strategy refuses a ratio or
        grid, in which case the others are empty.

    Raises:
        ConfigError: an argument is of another kind, an unknown strategy, or progress out of range.
    """
    import pandas as pd

    ratios = check_arguments(maskings, ratios, progress)
    sampler = sampler or MaskSampler(config or RunConfig(), model)
    work = [(m, r) for m in sampler.maskings(maskings) for r in ratios]
    rows = []
    for chosen, ratio in shown(work, len(work), "masks"):
        row: dict[str, Any] = {"masking": _name(chosen), "ratio": ratio}
        try:
            row |= describe(sampler.sample(chosen, ratio, progress)) | {"reason": ""}
        except ConfigError as error:
            row["reason"] = str(error)
        rows.append(row)
    return pd.DataFrame(rows, columns=["masking", "ratio", *STATISTICS, "reason"])


def check_arguments(
    maskings: Iterable[Masking | str] | None, ratios: Sequence[float], progress: float
) -> list[float]:
    """The ratios, where all arguments are of the right kind.

    Raises:
        ConfigError: one is not.
    """
    if isinstance(maskings, str | Masking):
        raise ConfigError(f"maskings: a list is wanted, such as [{maskings!r}]")
    if not isinstance(ratios, Iterable) or not all(isinstance(r, int | float) for r in ratios):
        raise ConfigError(f"ratios: a list of numbers is wanted, given {ratios!r}")
    if not 0 <= progress <= 1:  # NaN too
        raise ConfigError(f"progress: a number from 0 to 1 is wanted, given {progress!r}")
    return list(ratios)


class MaskSampler:
    """Images and a model, on which strategies can be tried one after the other."""

    def __init__(self, config: RunConfig, model: Any = None) -> None:
        self.config, self.device = config, find_device(config.device)
        self.images = config.splits().load("train")
        info = self.images.info
        module = model or build(config, info.inputs)
        self.model = module.to(self.device)
        self.normalise = Normaliser(*statistics_of(self.images), self.device)

    def maskings(self, chosen: Iterable[Any] | None) -> list[Any]:
        """Objects for names, in a list; one that needs a file, and has none, stays a name.

        Raises:
            ConfigError: an unknown name.
        """
        names = installed()
        table = names.table["masking"]
        found = []
        for one in list(table) if chosen is None else chosen:
            alone = isinstance(one, str) and one in table and table[one].spec is not None
            read = not isinstance(one, Masking) and not alone
            found.append(parse(Masking, one, names.context(), "masking") if read else one)
        return found

    def sample(
        self, chosen: Masking | str, ratio: float, progress: float, **options: Any
    ) -> Sample:
        """Masks of one strategy at one ratio.

        Raises:
            ConfigError: it refuses the grid or the ratio, or needs a file.
        """
        if isinstance(chosen, str):
            raise ConfigError(f"masking {chosen!r} needs a file: give {chosen}:PATH")
        changes = {"masking": chosen, "ratio": ratio, "schedule": Schedule()}
        config = self.config.model_copy(update={**changes, **options.pop("changes", {})})
        check_needs(config, self.model)
        check_plane(config, self.model.encoder)
        chosen.check_ids(self.images.info.ids)
        return sample(
            config,
            self.model,
            self.images,
            self.normalise,
            self.device,
            progress,
            find_precision(config.machine.precision, self.device, self.model.encoder.width),
            **options,
        )


def _name(chosen: Masking | str) -> str:
    return chosen if isinstance(chosen, str) else chosen.changed()


def gallery(
    sampler: MaskSampler,
    maskings: Sequence[Masking | str],
    ratios: Sequence[float],
    path: Path,
    image: int = 0,
    progress: float = 1.0,
) -> None:
    """Writes a PNG: each strategy at each ratio over one real image, hidden patches in gray.

    A strategy that refuses a ratio or grid has its reason in place of the picture.

    Raises:
        ConfigError: there is no such image.
    """
    from matplotlib.figure import Figure

    check_image(sampler, image)
    columns = min(PER_BAND, len(maskings))
    bands = -(-len(maskings) // columns)
    size = (SIDE * (columns + 0.2), SIDE * 1.12 * bands * len(ratios))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(bands * len(ratios), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, chosen in enumerate(maskings):
        band, column = divmod(number, columns)
        for row, ratio in enumerate(ratios):
            axis = axes[band * len(ratios) + row, column]
            label = f"{_name(chosen)}\n{ratio:g}" if row == 0 else f"{ratio:g}"
            axis.set_title(label, fontsize=7, pad=2)
            try:
                picture, text = _masked(sampler, chosen, ratio, image, progress), ""
            except ConfigError as error:
                picture, text = torch.ones(*_blank(sampler), 3), textwrap.fill(str(error), 26)
            axis.imshow(picture.numpy(), vmin=0, vmax=1, interpolation="nearest")
            middle = [(side - 1) / 2 for side in picture.shape[:2]]
            axis.text(middle[1], middle[0], text, fontsize=5, ha="center", va="center")
    write_figure(figure, path, dpi=150)


def check_image(sampler: MaskSampler, image: int) -> None:
    """Refuses the number of an image that is not there.

    Raises:
        ConfigError: says which are.
    """
    if not 0 <= image < len(sampler.images):
        raise ConfigError(f"--image {image}: train has images 0 to {len(sampler.images) - 1}")


def _blank(sampler: MaskSampler) -> tuple[int, int]:
    """Rows and columns of a picture that there is none of."""
    inputs = sampler.images.info.inputs
    return inputs.image_size if inputs.kind == IMAGES else (LINES, sampler.model.encoder.grid[1])


def _masked(
    sampler: MaskSampler, chosen: Masking | str, ratio: float, image: int, progress: float
) -> Tensor:
    """The image with its hidden patches in a gray that no image has, (H, W, 3) in 0..1.

    Of what has no pixels, such as text, the masks of some windows from this one on, one a row.
    """
    pictured = sampler.images.info.inputs.kind == IMAGES
    index = torch.arange(image, min(image + (1 if pictured else LINES), len(sampler.images)))
    found = sampler.sample(
        chosen, ratio, progress, epochs=1, index=index, changes={"augment": WHOLE}
    )
    if not pictured:
        lines = found.hidden[0].view(-1, found.grid[1])
        return torch.where(lines[..., None], HIDDEN, SEEN)
    pixels = found.images[0] / 255
    shown = pixels.expand(3, -1, -1) if len(pixels) == 1 else pixels[:3]
    (h, w), (_, H, W) = found.grid, shown.shape
    hidden = found.hidden[0, 0].view(h, w).repeat_interleave(H // h, 0).repeat_interleave(W // w, 1)
    return torch.where(hidden, HIDDEN[:, None, None], shown).permute(1, 2, 0)
