"""Parts: patches are hidden within, later by whole, semantic parts of the image.

B images, L patches, P part labels, K clusters, D width.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from maebench.errors import ConfigError
from maebench.files import with_home
from maebench.masking.mask import Masking, View, refuse_where

LABELS = 256  # a label map's labels are 0 to 255
# Of k-means. On 49 patches of Fashion-MNIST the tenth changes a label in 2 % of the images, on 16
# of digits none after the fourth does.
ROUNDS = 10
# Labels, a byte each, that a GPU holds for all of a run. What is more is read by the CPU, batch by
# batch, and waited for.
ON_GPU = 2**30
BLOCK = 4096  # maps of a file that are looked at together


class ByPart(Masking):
    """What both sources of parts share: how many patches of each part are hidden.

    At share 0 every part gives the same share of its patches, at 1 whole parts are hidden in
    random order, between them the two counts are mixed. SemMAE's share grows as the square of
    the progress. Source: Li et al. 2022, arXiv 2206.10207.
    """

    plane: ClassVar[bool] = True
    start: float = Field(default=0.0, ge=0, le=1, description="share of whole parts at the start")
    end: float = Field(default=1.0, ge=0, le=1, description="share of whole parts at the end")
    power: float = Field(
        default=2.0, gt=0, description="the share grows with this power of the progress"
    )

    def labels(self, view: View) -> Tensor:
        """The part that each patch belongs to, int64 (B, L) from 0 to 255."""
        raise NotImplementedError(f"{type(self).__name__} has no labels(view)")

    def scores(self, view: View) -> Tensor:
        """How deep a patch lies within its part's hidden count, float32 (B, L)."""
        labels_BL = self.labels(view)
        size_BP = torch.zeros(view.batch, LABELS, device=view.device)
        size_BP = size_BP.scatter_add(1, labels_BL, torch.ones_like(labels_BL).float())
        within_BP = size_BP * (view.num_hidden / view.length)
        order_BP = view.draws.uniform(LABELS).argsort(1)
        sizes_BP = size_BP.gather(1, order_BP)
        left_BP = view.num_hidden - (sizes_BP.cumsum(1) - sizes_BP)
        whole_BP = torch.zeros_like(size_BP).scatter(
            1, order_BP, torch.minimum(left_BP.clamp(min=0), sizes_BP)
        )
        share = self.start + (self.end - self.start) * view.progress**self.power
        hidden_BP = torch.lerp(within_BP, whole_BP, share)
        # each patch's place in a random order of its part; in float64, where 255.999... is exact
        shuffle_BL = view.draws.uniform(view.length).double()
        place_BL = (labels_BL + shuffle_BL).argsort(1).argsort(1)
        first_BP = size_BP.cumsum(1) - size_BP
        place_BL = place_BL - first_BP.gather(1, labels_BL)
        # the fraction rounds a count up or down at random; the counts of all parts sum to the whole
        return hidden_BP.gather(1, labels_BL) - place_BL - view.draws.uniform(view.length)


class Parts(ByPart):
    """Hides parts that k-means finds in the patch features of each image, as SemMAE hides its own.

    SemMAE learns its parts from the attention of another model.
    """

    name: ClassVar[str] = "parts"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    of: Literal["teacher", "encoder"] = Field(
        default="encoder", description="whose features: the model's as it is, or an EMA teacher's"
    )
    clusters: int = Field(
        default=7, ge=2, le=LABELS, description="number of parts of an image (SemMAE: 7)"
    )

    @property
    def answered_by(self) -> Literal["teacher", "encoder"]:
        """Who is asked."""
        return self.of

    def labels(self, view: View) -> Tensor:
        """The cluster of each patch."""
        return cluster(view.features().float(), min(self.clusters, view.length), view)


class LabelMap(ByPart):
    """Hides parts of a label map that is read from a file, such as a segmentation.

    The file is an integer .npy of (N, H, W) with labels from 0 to 255: for each training image,
    by its number in the whole split, one label per pixel of the image as it is stored. A crop and
    a flip of the image are those of its map; a patch has the label of its centre.
    """

    name: ClassVar[str] = "label-map"
    spec: ClassVar[str | None] = "file"
    file: Path = Field(description="the .npy of labels, integers (N, H, W)")

    @field_validator("file")
    @classmethod
    def _with_home(cls, value: Path) -> Path:
        return with_home(value)

    def check(self, grid: tuple[int, int], num_hidden: int) -> None:
        """Refuses a file that is missing or of another kind."""
        self._maps()

    def check_ids(self, ids: Tensor) -> None:
        """Refuses images without a map, and a file with other labels."""
        maps = self._maps()
        if int(ids.max()) >= len(maps):
            raise ConfigError(
                f"masking.file: {self.file} has {len(maps)} maps, there is none for image "
                f"{int(ids.max())}"
            )
        for part in range(0, len(maps), BLOCK):
            block = maps[part : part + BLOCK]
            if block.min() < 0 or block.max() >= LABELS:
                raise ConfigError(
                    f"masking.file: {self.file} has labels from {block.min()} to {block.max()}, "
                    f"0 to {LABELS - 1} are allowed"
                )

    def identity(self) -> dict[str, Any]:
        """The options, with the file's content for its name."""
        content = hashlib.blake2b(digest_size=10)
        self._maps()
        with self.file.open("rb") as file:
            while block := file.read(2**20):
                content.update(block)
        return {**super().identity(), "file": content.hexdigest()}

    def labels(self, view: View) -> Tensor:
        """The label of the pixel at the centre of each patch of this very crop."""
        maps, (h, w) = self._maps(), view.grid
        H, W = maps.shape[1:]
        if view.sizes is not None:
            refuse_where(
                ((view.sizes[:, 0] != H) | (view.sizes[:, 1] != W)).any(),
                ConfigError(
                    f"masking.file: {self.file} has maps of {H}x{W}, an image is stored in another "
                    "size: a map has one label per pixel of its image"
                ),
            )
        maps_BHW = self._of(view.ids, maps)
        if view.boxes is None:
            top, left = view.ids.new_zeros(2, view.batch)
            height, width = top + H, left + W
        else:
            top, left, height, width = view.boxes.unbind(1)
        y = (torch.arange(h, device=view.device) + 0.5) / h
        x = (torch.arange(w, device=view.device) + 0.5) / w
        x_Bw = x.expand(view.batch, w)
        if view.flips is not None:
            x_Bw = torch.where(view.flips[:, None], 1 - x_Bw, x_Bw)
        rows_Bh = (top[:, None] + y * height[:, None]).floor().clamp(0, H - 1).long()
        columns_Bw = (left[:, None] + x_Bw * width[:, None]).floor().clamp(0, W - 1).long()
        image_B = torch.arange(view.batch, device=view.device)[:, None, None]
        return maps_BHW[image_B, rows_Bh[:, :, None], columns_Bw[:, None, :]].flatten(1).long()

    def _of(self, ids: Tensor, maps: np.ndarray) -> Tensor:
        """The maps of some images, uint8 (B, H, W); a GPU holds all where they are not too many."""
        if ids.device.type == "cpu" or maps.size > ON_GPU:
            some = maps[ids.cpu().numpy()].astype("uint8")
            return torch.from_numpy(some).to(ids.device)
        return _all_maps(self.file, self.file.stat().st_mtime_ns, ids.device)[ids]

    def _maps(self) -> np.ndarray:
        """The file, read on demand.

        Raises:
            ConfigError: it is missing or holds something else.
        """
        try:
            maps = np.load(self.file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"masking.file: {self.file} cannot be read: {error}") from error
        good = isinstance(maps, np.ndarray) and maps.ndim == 3 and maps.dtype.kind in "iu"
        if not good or not maps.size:
            raise ConfigError(f"masking.file: {self.file} is no integer .npy of (N, H, W)")
        return maps


@functools.lru_cache(maxsize=1)  # of one run
def _all_maps(file: Path, _changed: int, device: torch.device) -> Tensor:
    """All maps of a file on a GPU, uint8 (N, H, W)."""
    return torch.from_numpy(np.load(file, mmap_mode="r").astype("uint8")).to(device)


def cluster(features_BLD: Tensor, clusters: int, view: View) -> Tensor:
    """K-means within each image, from random patches, int64 (B, L).

    scikit-learn's takes one image at a time. A cluster that loses all its patches stays where it
    was. Source: Lloyd 1982.
    """
    first_BK = view.draws.uniform(view.length).argsort(1)[:, :clusters]
    centres_BKD = features_BLD.gather(1, first_BK[:, :, None].expand(-1, -1, features_BLD.shape[2]))
    for _ in range(ROUNDS):
        labels_BL = torch.cdist(features_BLD, centres_BKD).argmin(2)
        member_BKL = torch.nn.functional.one_hot(labels_BL, clusters).transpose(1, 2).float()
        size_BK1 = member_BKL.sum(2, keepdim=True)
        means_BKD = member_BKL @ features_BLD / size_BK1.clamp(min=1)
        centres_BKD = torch.where(size_BK1 > 0, means_BKD, centres_BKD)
    return labels_BL
