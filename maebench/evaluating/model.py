"""A model as an evaluation sees it: declared splits, features, draws, masks, pictures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from maebench import files
from maebench.data.augment import Augment, Crops
from maebench.data.dataset import Splits
from maebench.data.images import Images
from maebench.data.label_maps import LabelMaps
from maebench.encoders.inputs import IMAGES, Inputs
from maebench.errors import PluginError
from maebench.evaluating.features import BATCH, features
from maebench.evaluating.partial import Kept, part_of
from maebench.evaluation import Evaluation, Folds, NotApplicable, Partial
from maebench.evaluation.folds import group_holdout
from maebench.masking.grids import Random
from maebench.masking.mask import Mask, Masking, draw
from maebench.models.model import WITHOUT, LoadedModel, pool_of
from maebench.objectives.objective import ImageGrid, Reconstruction
from maebench.outputs import write_figure
from maebench.pretraining.ahead import crops_ahead
from maebench.pretraining.batches import batches
from maebench.pretraining.hardware import keep_memory
from maebench.pretraining.kernels import Paced
from maebench.rng import Draws, key, permutation

MASK_SEED = 0  # of the common held-out masks: never a run's own
TOKEN_MEMORY = 2 * 2**30  # bytes of patch tokens of one split that are kept
T = TypeVar("T")
Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


def no_progress(steps: Iterable[T], total: int, what: str) -> Iterable[T]:
    """Shows nothing."""
    return steps


@dataclass(frozen=True)
class EvaluatedModel:
    """A model as an evaluation sees it (`maebench.evaluation.Model`)."""

    loaded: LoadedModel
    evaluation: Evaluation
    splits: Splits
    seed: int
    show: Progress = no_progress
    record: str = ""  # the name of what is to be made; without one nothing is kept on the way
    _tokens: dict[tuple[str, int | None], Tensor] = field(default_factory=dict, compare=False)
    _folds: dict[str, Folds] = field(default_factory=dict, compare=False)
    _kept: set[str] = field(default_factory=set, compare=False)  # precisions of features
    _parts: list[Kept] = field(default_factory=list, compare=False)
    _encoded: list[bool] = field(default_factory=list, compare=False)  # whether it has made some

    def __post_init__(self) -> None:
        """What its passes free is kept for the next."""
        if self.device == "cpu":
            keep_memory()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.loaded.name

    @property
    def kind(self) -> str:
        """Such as "run", "untrained", "pixels"."""
        return self.loaded.kind

    @property
    def inputs(self) -> Inputs:
        """What it is fed, of the images that it is evaluated on."""
        return self.images(self.evaluation.splits[0]).info.inputs

    @property
    def ratio(self) -> float:
        """The ratio that it was pretrained with at the end.

        Raises:
            NotApplicable: it is no run's, or nothing was hidden.
        """
        if self.loaded.run is None or not self.loaded.config.objective.hides:
            raise NotApplicable(f"{self.name} was not pretrained with a ratio")
        return self.loaded.config.ratio_at(1.0)

    @property
    def device(self) -> str:
        """Where the model lies."""
        return self.loaded.device

    @property
    def precision(self) -> str:
        """What was computed with, and what features were kept in where that is less."""
        kept = [f"{p} features" for p in self._kept if p != "fp32"]
        return " with ".join([self.loaded.precision if self._encoded else "fp32", *kept])

    @property
    def artifacts(self) -> Path:
        """A folder for pictures, made where it was missing."""
        return files.make_folder(self.loaded.folder / "pictures")

    def images(self, split: str) -> Images:
        """The images of a declared split."""
        allowed = self.evaluation.splits_of(self.splits.dataset.gives)
        if split not in allowed:
            raise PluginError(
                f"evaluation {self.evaluation.name!r} asks for split {split!r} but declares "
                f"{', '.join(allowed)}"
            )
        return self.splits.load(split)

    def labels(self, split: str) -> Tensor:
        """Labels of a declared split."""
        labels = self.images(split).info.labels
        if labels is None:
            raise NotApplicable(f"data set {self.splits.dataset.name!r} has no labels")
        return labels

    def label_maps(self, split: str) -> LabelMaps:
        """The class of each pixel of a declared split."""
        maps = self.images(split).info.maps
        if not self.evaluation.dense:
            raise PluginError(
                f"evaluation {self.evaluation.name!r} asks for label maps: declare dense = True, "
                "so that its records are those of these maps"
            )
        if maps is None:
            raise NotApplicable(f"data set {self.splits.dataset.name!r} has no label maps")
        return maps

    def class_names(self) -> tuple[str, ...]:
        """One name per class."""
        return self.images(self.evaluation.splits[0]).info.class_names

    def pools(self) -> tuple[str, ...]:
        """The poolings this model has."""
        return self.loaded.pools()

    def depth(self) -> int:
        """The number of blocks."""
        return 0 if self.loaded.encoder is None else self.loaded.encoder.depth

    def features(self, split: str, layer: int | None = None, pool: str = "mean") -> Tensor:
        """Frozen features of a declared split, cached by content."""
        self._kept.add(self.loaded.config.machine.features)
        self._encoded.append(True)
        return features(
            self.loaded, self.images(split), layer, pool_of(self.loaded, pool), self.show
        )

    def encode(self, images: Tensor, layer: int | None = None, pool: str = "mean") -> Tensor:
        """Frozen features of any images of the size that the model was built for."""
        self._encoded.append(True)
        return self.loaded.encode(images, layer, pool)

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels in 0..255 as the encoder takes them."""
        return self.loaded.normalise(images)

    def pixels(self, normalised: Tensor) -> Tensor:
        """The encoder's input as pixels in 0..1."""
        return self.loaded.normalise.inverse(normalised)

    def encoder(self) -> nn.Module:
        """A trainable copy of the encoder."""
        if self.loaded.encoder is None:
            raise NotApplicable(f"{WITHOUT[self.kind]} no encoder")
        return copy.deepcopy(self.loaded.encoder).requires_grad_(True)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """The model's guess at hidden patches of normalised images."""
        return self.loaded.decoder().reconstruct(images, mask)

    def pictures(self, images: Tensor, draws: Draws) -> Mapping[str, ImageGrid]:
        """The objective's own pictures by name, made from a few normalised images."""
        return self.loaded.pictures(images, draws)

    def masks(self, ids: Tensor, masking: Masking | None = None, ratio: float = 0.75) -> Mask:
        """The common held-out masks, fixed by image id and the same for every model.

        They are drawn on the CPU, so that they are the same on every device.
        """
        self.loaded.decoder()
        encoder = self.loaded.encoder
        grid, patch = encoder.grid, encoder.patch
        if masking is not None and masking.plane and encoder.inputs.kind != IMAGES and 1 in grid:
            raise NotApplicable(
                f"masking {masking.name!r} needs rows and columns of patches, and these "
                f"{encoder.inputs.kind} are a line"
            )
        ids = ids.cpu()
        draws = Draws(MASK_SEED, "held-out masks", ids)
        made = draw(masking or Random(), ratio, grid, patch, ids=ids, draws=draws)
        return made.to(self.device)

    def draws(self, purpose: str, ids: Tensor | None = None, epoch: int = 0) -> Draws:
        """Random numbers of this evaluation's seed."""
        ids = torch.zeros(1, dtype=torch.int64) if ids is None else ids
        return Draws(self.seed, f"{self.evaluation.name}/{purpose}", ids, epoch)

    def folds(self, index: Tensor | None = None, purpose: str = "folds") -> Folds:
        """Rounds of fitting on one part of train and choosing on the rest, of all train kept."""
        labels, groups = self.labels("train"), self.images("train").info.groups
        if index is not None:
            groups = None if groups is None else groups[index]
            return Folds.of(labels[index], self.seed, purpose, groups)
        if purpose not in self._folds:
            self._folds[purpose] = Folds.of(labels, self.seed, purpose, groups)
        return self._folds[purpose]

    def holdout(self, share: float = 0.1) -> tuple[Tensor, Tensor]:
        """Positions in train to fit on and to watch, class-balanced; of groups whole ones."""
        labels, groups = self.labels("train"), self.images("train").info.groups
        if groups is not None:
            held_N = group_holdout(labels, groups, share, self.seed)
            return (~held_N).nonzero()[:, 0], held_N.nonzero()[:, 0]
        order = permutation(len(labels), self.seed, "holdout")
        chosen = []
        for c in labels.unique():
            mine = order[labels[order] == c]
            chosen.append(mine[: max(1, round(share * len(mine)))] if len(mine) > 1 else mine[:0])
        held = torch.cat(chosen).sort().values
        if not len(held):
            raise NotApplicable("train has one image per class: none can be held out")
        fit = torch.ones(len(labels), dtype=torch.bool)
        fit[held] = False
        return fit.nonzero()[:, 0], held

    @torch.no_grad()
    def tokens(self, split: str, index: Tensor, layer: int | None = None) -> Tensor:
        """Frozen patch tokens of some images of a declared split."""
        images = self.images(split)
        if self.loaded.encoder is None:
            raise NotApplicable(f"{WITHOUT[self.kind]} no patch tokens")
        self._encoded.append(True)
        length = self.loaded.encoder.out_grid[0] * self.loaded.encoder.out_grid[1]
        size = 4 * len(images) * length * self.loaded.encoder.width
        if size > TOKEN_MEMORY:
            return self.loaded.patches(images.pick(index.tolist()), layer)
        if (split, layer) not in self._tokens:
            steps = -(-len(images) // BATCH)
            whole = self.show(images.whole(BATCH), steps, f"tokens of {self.kind}")
            self._tokens[split, layer] = torch.cat([self.loaded.patches(x, layer) for x in whole])
        return self._tokens[split, layer][index]

    def crops(
        self,
        split: str,
        batch: int,
        steps: int,
        augment: Augment | None = None,
        index: Tensor | None = None,
        done: int = 0,
    ) -> Iterator[Crops]:
        """Augmented batches on the device, in the order of this evaluation's seed."""
        images = self.images(split)
        images = images if index is None else images.subset(index)
        augment = augment or Augment.model_validate(self.splits.dataset.preset().get("augment", {}))
        purpose = key(self.seed, f"{self.evaluation.name}/crops")
        plan = batches(len(images), batch, purpose, done, steps)
        ready = self.loaded.normalise
        for crop in crops_ahead(images, plan, batch, augment, purpose, self.device):
            yield replace(crop, images=ready.view(crop.images))

    def paced(self, module: nn.Module, steps: int) -> Callable[[Tensor], Tensor]:
        """The module for training steps, compiled where so many pay for it."""
        return Paced(module, steps, self.loaded.config.machine.compile, self.device)

    def partial(self, what: str = "") -> Partial:
        """A part of this evaluation that is long, and goes on where it was interrupted."""
        found = part_of(self.loaded.folder, self.record, what, self.device)
        self._parts.append(found)
        return found

    @property
    def seconds_before(self) -> float:
        """What this evaluation took before it was interrupted."""
        return sum(part.seconds for part in self._parts)

    def picture(self, name: str, figure: Any) -> Path:
        """Writes a matplotlib figure among the artifacts."""
        path = self.artifacts / f"{files.safe_name(name)}.png"
        write_figure(figure, path)
        return path

    def progress(self, steps: Iterable[T], total: int, what: str) -> Iterator[T]:
        """The same steps, shown."""
        yield from self.show(steps, total, what)
