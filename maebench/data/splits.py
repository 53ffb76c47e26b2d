"""The splits of one data set as one run or evaluation asks for them, each loaded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from maebench.data.dataset import Dataset, Request

if TYPE_CHECKING:
    from maebench.data.images import Images


@dataclass(frozen=True)
class Splits:
    """Loads splits on demand and keeps them.

    Args:
        dataset: what to load.
        request: how; its split is replaced.
        limit: number of training images, class-balanced, or None for all.
    """

    dataset: Dataset
    request: Request
    limit: int | None = None
    _loaded: dict[str, Images] = field(default_factory=dict, compare=False)

    def load(
        self, split: str, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> Images:
        """A split, its training part cut to the limit.

        Raises:
            DataError: files are missing or unreadable, or the limit is larger than train.
        """
        if split not in self._loaded:
            from maebench.data.images import limited

            images = self.dataset.load(replace(self.request, split=split, progress=progress))
            if split == "train" and self.limit is not None:
                images = limited(images, self.limit)
            self._loaded[split] = images
        return self._loaded[split]
