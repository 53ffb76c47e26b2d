"""What `maebench data check` prints, and the picture that it writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from maebench import files
from maebench.data.check import Check, Looked, class_counts
from maebench.data.dataset import Splits
from maebench.data.images import Images, channel_statistics
from maebench.data.label_maps import VOID, LabelMaps
from maebench.data.on_disk import BLOCK
from maebench.encoders.inputs import IMAGES
from maebench.errors import plain
from maebench.evaluating.records import examples_of
from maebench.rng import permutation

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

CLASSES = 40  # rows of the table and of the picture; the others are counted
PER_ROW = {"train": 8, "test": 4}  # images of a class in the picture
TILE, GAP, LABEL = 64, 4, 160  # pixels of an image, between two, and of a class's name
PAPER = "#dddddd"  # on which white and black pictures have an edge
LETTERS = 24  # of a name that fit


def class_table(check: Check) -> pd.DataFrame:
    """The number of images of each class in each split; of many classes the first."""
    import pandas as pd

    counts = {split: class_counts(one.images) for split, one in check.looked.items()}
    table = pd.DataFrame(counts).rename_axis("class").reset_index()
    if len(more := table[CLASSES:]):
        rest = {split: more[split].sum() for split in counts}
        last = pd.DataFrame([{"class": f"and {len(more):,} more classes", **rest}])
        table = pd.concat([table[:CLASSES], last], ignore_index=True)
    return table


def lines(check: Check, splits: Splits) -> Iterator[str]:
    """What is said below the table of classes."""
    for split, one in check.looked.items():
        yield f"{split:<9} {len(one.images):,} {one.noun}s; {summary_of_files(one)}"
    info = check.looked["train"].images.info
    if info.inputs.kind == IMAGES:
        mean, std = channel_statistics(check.looked["train"].images)
        rows, columns = info.size
        yield (
            f"{'brought to':<9} {rows}x{columns}, {info.channels} channel(s), mean "
            f"{_rounded(mean)}, deviation {_rounded(std)} of pixels in 0..1"
        )
    else:
        shape = "x".join(map(str, info.inputs.shape))
        tokens = f" tokens, of {info.inputs.vocabulary:,}" if info.inputs.vocabulary else ""
        yield f"{'each of':<9} {shape}{tokens}"
    for split, one in check.looked.items():
        yield f"{'content':<9} {split} {one.images.info.fingerprint}"
    for split, one in check.looked.items():
        if (maps := one.images.info.maps) is not None:
            yield f"{'maps':<9} {split} {len(maps):,} label maps; classes {classes_in(maps)}"
    for finding in check.findings:
        yield f"{finding.severity:<9} {finding}"


def classes_in(maps: LabelMaps) -> str:
    """The classes of some label maps, every one of which is read.

    Raises:
        DataError: one is wrong; names it.
    """
    found: set[int] = set()
    for part in torch.arange(len(maps)).split(BLOCK):
        found |= set(maps.pick(part.tolist()).unique().tolist())
    return ", ".join(str(c) for c in sorted(found) if c != VOID)


def _rounded(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def summary_of_files(one: Looked) -> str:
    """Sizes and kinds of a split's files."""
    if not one.headers:
        return "not from single files"
    heights, widths = (np.array([header[i] for header in one.headers]) for i in (0, 1))
    low, high = (f"{f(heights)}x{f(widths)}" for f in (np.min, np.max))
    middle = f"{np.median(heights):.0f}x{np.median(widths):.0f}"
    kinds = Counter(header.kind for header in one.headers).most_common()
    text = ", ".join(f"{count:,} {kind}" for kind, count in kinds)
    return f"{low} to {high} pixels, median {middle}; {text}"


def summary(splits: Splits) -> Iterator[str]:
    """The first lines of a run on new data: how many images and classes, and what was found."""
    counts = {split: splits.load(split) for split in ("train", "test") if splits.has(split)}
    text = ", ".join(f"{split} {len(images):,}" for split, images in counts.items())
    examples = examples_of([splits.dataset.gives])
    yield f"{splits.dataset.title}: {text} {examples}; {_classes(counts, examples)}"
    for split, remark in splits.remarks():
        yield f"  {split}: {remark}" if split else f"  {remark}"


def _classes(splits: dict[str, Images], examples: str) -> str:
    counts = class_counts(splits["train"])
    if splits["train"].info.labels is None:
        return "no labels" if splits["train"].info.maps is None else "label maps, no labels"
    low, high = min(counts.values()), max(counts.values())
    each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{len(counts):,} classes of {each} train {examples}"


# ---- the picture


def contact_sheet(check: Check, path: Path) -> None:
    """Writes a PNG with a row per class: some images of train, then some of test."""
    picture = drawn(check)
    files.write(path, lambda beside: picture.save(beside, format="png"))


def drawn(check: Check) -> Image:
    """The picture: its rows are the first classes, or a few rows of images without labels."""
    from PIL import Image, ImageDraw

    names = list(check.looked["train"].images.info.class_names)
    labelled = check.looked["train"].images.info.labels is not None
    rows = names[:CLASSES] if labelled else [""] * 4
    step = TILE + GAP
    width = LABEL + sum(PER_ROW.values()) * step + 2 * GAP
    whole = Image.new("RGB", (width, (len(rows) + 1) * step), PAPER)
    draw = ImageDraw.Draw(whole)
    left = LABEL
    for split, count in PER_ROW.items():
        draw.text((left, step - 20), split, fill="black")
        for row in range(len(rows)):
            if left == LABEL:
                draw.text((GAP, (row + 1) * step + TILE // 2 - 6), _cut(rows[row]), fill="black")
            for place, tile in enumerate(_tiles(check.looked[split], row, count, labelled)):
                whole.paste(tile, (left + place * step, (row + 1) * step))
        left += count * step + 2 * GAP
    return whole


def _cut(name: str) -> str:
    """A class's name as long as there is room for it."""
    name = plain(name)
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


def _tiles(one: Looked, row: int, count: int, labelled: bool) -> Iterator[Image]:
    """Some images of a class, the same each time; of a row, where there are no labels."""
    from PIL import Image

    labels = one.images.info.labels
    order = permutation(len(one.images), 0, "contact sheet")
    if labels is not None and labelled:
        chosen = order[labels[order] == row][:count].tolist()
    else:
        chosen = order[row * count : (row + 1) * count].tolist()
    for pixels in one.images.pick(chosen) if chosen else ():
        array = pixels.permute(1, 2, 0).squeeze(-1).numpy()
        image = Image.fromarray(array).convert("RGB")
        scale = TILE / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        # enlarged pixels stay pixels
        way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
        yield image.resize(size, way)
