"""A split of anything but images: windows of token ids, or numbers of another kind, as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from maebench.data.augment import Augment, Crops, fits
from maebench.data.images import check_labels
from maebench.data.split_info import Remark, SplitInfo, digest, identity
from maebench.encoders.inputs import IMAGES, Inputs
from maebench.errors import PluginError
from maebench.masking.mask import moved


@dataclass(frozen=True)
class Rows:
    """A split in one tensor (N, *shape), which an encoder gets as it is (`maebench.Images`).

    Nothing is cut out of a row: the box of each is all of it, one row of as many columns as its
    last dimension.

    Args:
        values: all of them.
        info: what is known beside them.
    """

    values: Tensor
    info: SplitInfo

    def __len__(self) -> int:
        return len(self.values)

    def whole(self, batch: int) -> Iterator[Tensor]:
        """All rows in order."""
        yield from self.values.split(batch)

    def pick(self, index: Sequence[int]) -> Tensor:
        """Some rows."""
        return self.values[list(index)]

    def crops(
        self, plan: Iterable[tuple[Tensor, Tensor]], augment: Augment, seed: int, device: str
    ) -> Iterator[Crops]:
        """Batches on the device; `augment` is of images."""
        store = self.values.to(device) if fits(self.values, device) else None
        size = torch.tensor((1, self.values.shape[-1]))
        for index, epoch in plan:
            ids = self.info.ids[index]
            some = (
                moved(self.values[index], device) if store is None else store[moved(index, device)]
            )
            sizes = size.expand(len(ids), 2)
            boxes = torch.cat([torch.zeros(len(ids), 2), sizes.float()], 1)
            flips = torch.zeros(len(ids), dtype=torch.bool)
            yield Crops(some, index, ids, epoch, boxes, flips, sizes)

    def subset(self, index: Tensor) -> Rows:
        """The rows at these positions."""
        return Rows(self.values[index], self.info.at(index))


def from_rows(
    values: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str],
    kind: str,
    *,
    vocabulary: int = 0,
    mask_id: int = 0,
    class_id: int = 0,
    groups: np.ndarray | None = None,
    remarks: Sequence[Remark] = (),
    kept: Mapping[str, str] | None = None,
    skipped: Sequence[str] = (),
) -> Rows:
    """A split of another kind than images from an array.

    Args:
        values: floating point (N, ...), what the encoder is to get; or token ids, integers (N, L).
        labels: integers (N,), each the place of its class among the names; or None.
        class_names: one per class.
        kind: "text", or a name of your own, such as "signals", that encoders and objectives take.
        vocabulary: of token ids, how many there are, from 0.
        mask_id: of token ids, the one that stands in the place of a hidden token.
        class_id: of token ids, the one whose embedding is the class token.
        groups: integers (N,), equal for rows that belong together; or None.
        remarks: what was lost or found on the way.
        kept: texts to be kept beside a run, by file name; they count in the fingerprint.
        skipped: names of files that could not be read and were left out.

    Raises:
        PluginError: values or labels are of another kind or shape, or not finite, or no row is
            there.
    """
    _check_values(values, kind, vocabulary, (mask_id, class_id))
    check_labels(labels, len(values), class_names)
    rows = torch.from_numpy(values.astype("int64" if vocabulary else "float32"))
    info = SplitInfo(
        ids=torch.arange(len(rows)),
        labels=None if labels is None else torch.from_numpy(labels.astype("int64")),
        class_names=tuple(class_names),
        fingerprint="",
        inputs=Inputs(
            kind,
            tuple(rows.shape[1:]),
            rows.dtype,
            len(class_names) * (labels is not None),
            vocabulary,
            mask_id,
            class_id,
        ),
        groups=None if groups is None else torch.from_numpy(groups.astype("int64")),
        skipped=tuple(skipped),
        remarks=tuple(remarks),
        kept=kept or {},
    )
    mark = digest(*identity(info), rows.numpy().data.cast("B"))
    return Rows(rows, replace(info, fingerprint=mark))


def _check_values(values: np.ndarray, kind: str, vocabulary: int, special: tuple[int, int]) -> None:
    """Refuses what is no array of token ids or of finite numbers.

    Raises:
        PluginError: says what is wanted.
    """
    wanted = "iu" if vocabulary else "f"
    shape = "x".join(map(str, values.shape))
    if kind == IMAGES or values.dtype.kind not in wanted or values.ndim < 2 or not values.size:
        what = "token ids, integers (N, L)" if vocabulary else "numbers, floating point (N, ...)"
        raise PluginError(
            f"{kind}: {what} wanted, given {values.dtype} {shape}; images have pixels"
        )
    low, high = values.min(), values.max()
    if vocabulary and not (0 <= low and high < vocabulary):
        raise PluginError(f"{kind}: ids from 0 to {vocabulary - 1} wanted, given {low} to {high}")
    if vocabulary and not 0 <= min(special) <= max(special) < vocabulary:
        raise PluginError(
            f"{kind}: mask_id and class_id are ids from 0 to {vocabulary - 1}, given "
            f"{special[0]} and {special[1]}"
        )
    if not vocabulary and not np.isfinite(values).all():
        raise PluginError(f"{kind}: the values are not finite")
