"""One model under many masks: a fixed and hashed set of maskings and ratios, the same for all.

An error under a run's own masks is not comparable between maskings; these are a common yardstick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from maebench import (
    Block,
    Centred,
    ConfigError,
    Grid,
    InverseBlock,
    MaebenchError,
    Masking,
    Model,
    Random,
    Result,
)
from maebench_evals.hidden import Similarity, TargetVariance, hidden_of, pasted

MASKINGS = (Random(), Block(), Grid(), InverseBlock(), Centred())  # each with its default options
RATIOS = (0.5, 0.75, 0.9)  # less than MAE's .75, that, and the .9 of VideoMAE, arXiv 2203.12602
DIGITS = 10  # of the hash in a row: 2^40 values, and it is only ever compared within one column


@dataclass
class Cell:
    """One masking at one ratio, and what has been measured under it; `refused` is why it is not."""

    masking: Masking
    ratio: float
    refused: str = ""
    grid: tuple[int, int] = (0, 0)
    variance: TargetVariance = field(default_factory=TargetVariance)
    errors: list[Tensor] = field(default_factory=list)
    pixels: Similarity = field(default_factory=Similarity)
    hidden: list[Tensor] = field(default_factory=list)  # bool (B, L) of each batch


class AcrossMasks:
    """Every masking at every ratio; batches are added, results read off at the end."""

    def __init__(self, model: Model, ids: Tensor) -> None:
        self.model, self.ids = model, ids
        self.cells = [Cell(masking, ratio) for masking in MASKINGS for ratio in RATIOS]
        for cell in self.cells:
            try:
                cell.grid = model.masks(ids[:1], cell.masking, cell.ratio).grid
            except ConfigError as error:  # a ratio or masking that this grid does not allow
                cell.refused = str(error)

    def add(self, ids: Tensor, normal: Tensor) -> None:
        """Scores a batch of normalised images under each of the masks."""
        for cell in self.cells:
            if cell.refused:
                continue
            mask = self.model.masks(ids, cell.masking, cell.ratio)
            made = self.model.reconstruct(normal, mask)
            truth_BMT = hidden_of(made.target, mask).double()
            error_BMT = (hidden_of(made.prediction, mask).double() - truth_BMT).square()
            cell.variance.add(truth_BMT)
            cell.errors.append(error_BMT.sum((1, 2)).cpu())
            cell.hidden.append(mask.hidden.cpu())
            if made.pixels is not None:
                filled = pasted(made.pixels, normal, mask)
                cell.pixels.add(self.model, normal, filled, mask, window=False)

    def results(self) -> Iterator[Result]:
        """Yields both metrics of every cell, and writes the heat map."""
        found = [result for cell in self.cells for result in self._of(cell)]
        heat_map(self.model, found)
        yield from found

    def _of(self, cell: Cell) -> Iterator[Result]:
        where = {"masking": cell.masking.name, "ratio": cell.ratio}
        if cell.refused:
            yield Result("across_r2", None, where, cell.refused)
            yield Result("across_psnr", None, where, cell.refused)
            return
        where["masks"] = hash_of(torch.cat(cell.hidden), self.ids, cell.grid)
        try:
            r2 = 1 - torch.cat(cell.errors) / cell.variance.per_image()
            yield Result("across_r2", r2, where)
        except MaebenchError as error:  # all targets under these masks are equal
            yield Result("across_r2", None, where, str(error))
        yield from cell.pixels.results(where, ("across_psnr",))


def hash_of(hidden_BL: Tensor, ids: Tensor, grid: tuple[int, int]) -> str:
    """The first digits of a SHA-256 of the grid and the hidden bits of all images, by id."""
    bits = np.packbits(hidden_BL[ids.cpu().argsort(stable=True)].numpy(), axis=1)
    found = hashlib.sha256(f"{grid[0]}x{grid[1]}:".encode() + bits.tobytes())
    return found.hexdigest()[:DIGITS]


def heat_map(model: Model, results: list[Result]) -> None:
    """Writes both metrics by masking and ratio as a PNG; what is not possible stays empty."""
    from matplotlib.figure import Figure

    names = [masking.name for masking in MASKINGS]
    shown = {"across_r2": ("R2", 3), "across_psnr": ("PSNR in dB", 1)}
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    for axes, (metric, (title, digits)) in zip(figure.subplots(1, 2), shown.items(), strict=True):
        values = np.full((len(names), len(RATIOS)), np.nan)
        for result in results:
            if result.metric == metric and result.value is not None:
                at = names.index(result.where["masking"]), RATIOS.index(result.where["ratio"])
                values[at] = float(result.value.mean())  # type: ignore[union-attr]
        axes.imshow(values, aspect="auto", cmap="viridis")
        for (row, column), value in np.ndenumerate(values):
            text = "-" if np.isnan(value) else f"{value:.{digits}f}"
            # the middle of the scale parts what white and what black can be read on
            dark = np.isfinite(value) and value < (np.nanmax(values) + np.nanmin(values)) / 2
            axes.text(column, row, text, ha="center", va="center", color="w" if dark else "k")
        axes.set_xticks(range(len(RATIOS)), [f"{ratio:g}" for ratio in RATIOS])
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="ratio hidden", title=title)
    figure.suptitle(f"{model.name} under the common masks", fontsize=8)
    model.picture("reconstruction-across", figure)
