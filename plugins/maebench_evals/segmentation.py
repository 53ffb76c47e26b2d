"""Segmentation: is the class of each pixel to be read off the frozen patch tokens?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import AfterValidator, Field, PositiveInt
from torch import Tensor

from maebench import (
    Evaluation,
    MaebenchError,
    Metric,
    Model,
    NotApplicable,
    Result,
    choose,
    default_patch,
)
from maebench_evals.frozen import Penalties, not_empty, scaling
from maebench_evals.heads import head, probe
from maebench_evals.knn import votes_for
from maebench_evals.patches import VOID, confusion, iou_of_images, majority, mean_iou, on_pixels

KS = (1, 3, 10, 30)  # CAPI, arXiv 2502.08769, official code: eval_segmentation.py
L2 = tuple(10.0**e for e in range(-8, 0))
HELD_OUT = 0.1  # of the train images, there
PATCHES = 2**17  # that are fitted on: more change a kNN little and take as long again
IMAGES = 128  # whose patches are encoded and searched at a time
SHOWN = 6  # images of the picture
Features = Callable[[str, Tensor], Tensor]  # of a split and positions: (B, N, D)


class Segmentation(Evaluation):
    """The class of each pixel, read off the frozen token of its patch, as CAPI does.

    Every patch of train is one example of the class that most of its pixels have. A logistic
    regression and a vote of the k nearest patches by cosine, on standardised tokens, give each
    patch of a test image a class, and so all its pixels. Penalty and k are chosen by mIoU on a
    tenth of the train images. iou is the mean over the classes that an image has, of each image;
    miou that over all classes, of all test pixels together, as it is mostly published. ceiling is
    iou where each patch is given its own majority: hardly any head on this grid can do better.
    Rows with a baseline use no model: `colour` the raw pixels of a patch, `position` the most
    frequent class at its place. Source: Darcet et al. 2025, arXiv 2502.08769, section 4.
    """

    name: ClassVar[str] = "segmentation"
    dense: ClassVar[bool] = True
    metrics: ClassVar[dict[str, Metric]] = {
        "iou": Metric.accuracy("mean IoU of an image, by logistic regression"),
        "miou": Metric.accuracy(
            "mIoU over all test pixels, by logistic regression", main=False, per_example=False
        ),
        "knn_iou": Metric.accuracy("mean IoU of an image, by kNN", main=False),
        "knn_miou": Metric.accuracy(
            "mIoU over all test pixels, by kNN", main=False, per_example=False
        ),
        "ceiling": Metric.accuracy(
            "mean IoU of an image whose patches are given their own majority", main=False
        ),
        "validation_miou": Metric.accuracy(
            "mIoU on the train images held out", main=False, per_example=False
        ),
    }

    l2: Penalties = Field(default=L2, description="penalties to try", examples=[(1e-3,)])
    k: Annotated[tuple[PositiveInt, ...], AfterValidator(not_empty)] = Field(
        default=KS, description="numbers of neighbours to try", examples=[(1,), (3, 7)]
    )
    patches: PositiveInt = Field(
        default=PATCHES, description="most train patches to fit on, drawn by the seed"
    )

    def run(self, model: Model) -> Iterator[Result]:
        """Yields both heads on tokens, then on colours, and the most frequent class by place."""
        task = Task.of(model, self.patches)
        yield Result("ceiling", task.score("test", task.truth["test"])[0], {"grid": task.name})
        try:
            model.tokens("test", torch.arange(1))
        except NotApplicable:  # raw pixels
            yield from self._heads(task, task.colours, {}, "colours")
        else:
            yield from self._heads(task, task.tokens, {}, "tokens")
            yield from self._heads(task, task.colours, {"baseline": "colour"}, "colours")
        most = task.by_place()
        guess = most.expand(task.length["test"], -1)
        each, whole = task.score("test", guess)
        yield Result("iou", each, {"baseline": "position"})
        yield Result("miou", whole, {"baseline": "position"})

    def _heads(
        self, task: Task, features: Features, where: dict[str, Any], what: str
    ) -> Iterator[Result]:
        """Both heads on some features of patches."""
        headline = not where
        x, y = task.fitted(features, task.fit)
        scale = scaling(x)
        x = scale(x)
        ks, dropped = self._usable(len(x), task.model.name)
        l2 = sorted(set(self.l2))

        def by_knn(bank: Tensor, classes: Tensor, asked: Tensor) -> Tensor:
            votes = votes_for(bank, classes, scale(asked), ks, device=task.model.device)
            return torch.stack([votes[k][:, 0] for k in ks])

        # by validation on the train images held out
        asked = torch.cat([*task.each(features, "train", task.held)])
        held, device = scale(asked), task.model.device
        found = probe(
            *(x.to(device), y.to(device), held.to(device)), l2, task.num_classes, None
        ).predicted
        by_l2 = [task.score("train", g, task.held)[1] for g in found.split(1)]
        votes = by_knn(x, y, asked)
        by_k = [task.score("train", g, task.held)[1] for g in votes.split(1)]
        penalty, neighbours = choose(by_l2), choose(by_k)
        for i, value in enumerate(by_l2):
            yield Result("validation_miou", value, {"l2": l2[i], **where, **penalty.where(i)})
        for i, value in enumerate(by_k):
            yield Result("validation_miou", value, {"k": ks[i], **where, **neighbours.where(i)})
        # again on all of train, and test is read once
        x, y = task.fitted(features, torch.arange(task.length["train"]))
        x = scale(x)
        classify = head(x.to(device), y.to(device), l2[penalty.index], task.num_classes)
        steps = -(-task.length["test"] // IMAGES)
        some = task.each(features, "test", torch.arange(task.length["test"]))
        linear, near = [], []
        for asked in task.model.progress(some, steps, f"{what} of {task.model.kind}"):
            linear.append(classify(scale(asked).to(device)).cpu())
            near.append(by_knn(x, y, asked))
        guess = torch.cat(linear)
        each, whole = task.score("test", guess)
        chosen = penalty.where(penalty.index) if headline else {}
        yield Result("iou", each, {"l2": l2[penalty.index], **where, **chosen})
        yield Result("miou", whole, {"l2": l2[penalty.index], **where, **chosen})
        for i, votes_N in enumerate(torch.cat(near, 1)):
            each, whole = task.score("test", votes_N)
            there = {"k": ks[i], **where, **neighbours.where(i)}
            yield Result("knn_iou", each, there)
            yield Result("knn_miou", whole, there)
        for k in dropped:
            why = f"k={k}: only {len(x)} patches can vote"
            yield Result("knn_iou", None, {"k": k, **where}, why)
        if headline:
            picture(task, guess)

    def _usable(self, voters: int, name: str) -> tuple[list[int], list[int]]:
        """The k in ascending order, each once, and those of the protocol's own that do not fit.

        Raises:
            MaebenchError: one that was asked for is larger than the number of patches to vote.
        """
        ks = sorted(set(self.k))
        if self.k != KS and ks[-1] > voters:
            raise MaebenchError(
                f"-o segmentation.k={','.join(map(str, self.k))} for {name}: 1 to {voters} train "
                "patches can vote"
            )
        return [k for k in ks if k <= voters], [k for k in ks if k > voters]


@dataclass
class Task:
    """Images, their label maps, and how patches are read off a model.

    Args:
        model: as the evaluation got it.
        grid: rows and columns of patches.
        num_classes: of train.
        truth: the majority of each patch by split, int64 (images, N), VOID where it has none.
        maps: the label maps by split, uint8 (images, H, W).
        fit: positions of the train images that are fitted on while choosing.
        held: those of the others.
        patches: most that are fitted on.
    """

    model: Model
    grid: tuple[int, int]
    num_classes: int
    truth: dict[str, Tensor]
    maps: dict[str, Tensor]
    fit: Tensor
    held: Tensor
    patches: int

    @classmethod
    def of(cls, model: Model, patches: int) -> Task:
        """Reads all label maps.

        Raises:
            NotApplicable: there are none, the model sees a part of the images alone, or nothing
                can be held out.
            MaebenchError: train has one class, test one that train lacks, or an image none.
        """
        grid = grid_of(model)
        both = {split: model.label_maps(split) for split in ("train", "test")}
        maps = {split: m.pick(range(len(m))) for split, m in both.items()}
        train, test = (maps[s].unique().tolist() for s in ("train", "test"))
        names = both["train"].names
        if len({*train} - {VOID}) < 2:
            raise MaebenchError(
                f"label maps of train have the classes {[c for c in train if c != VOID]} alone, "
                "and two are needed; 255 is no class: number what is to be found from 0 or 1"
            )
        if lacking := [c for c in test if c not in (*train, VOID)]:
            c = lacking[0]
            named = f" ({names[c]})" if c < len(names) else ""
            count = int((maps["test"] == c).any(2).any(1).sum())
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise MaebenchError(
                f"class {c}{named}{more} is in {count:,} label maps of test and in none of train; "
                f"train has {', '.join(str(t) for t in train if t != VOID)}"
            )
        for split, one in maps.items():
            if bare := int((one == VOID).all(2).all(1).sum()):
                raise MaebenchError(
                    f"{bare:,} label maps of {split} have no pixel with a class: leave their "
                    "images out"
                )
        num_classes = 1 + max(c for c in train if c != VOID)
        truth = {
            # in parts: counts of all patches at once take many times the memory of the maps
            s: torch.cat([majority(part, grid, num_classes) for part in m.split(IMAGES)])
            for s, m in maps.items()
        }
        fit, held = held_out(model)
        return cls(model, grid, num_classes, truth, maps, fit, held, patches)

    @property
    def name(self) -> str:
        """The grid in words."""
        return f"{self.grid[0]}x{self.grid[1]}"

    @property
    def length(self) -> dict[str, int]:
        """The number of images by split."""
        return {split: len(one) for split, one in self.maps.items()}

    def tokens(self, split: str, index: Tensor) -> Tensor:
        """Frozen tokens of the patches of some images."""
        return self.model.tokens(split, index)

    def colours(self, split: str, index: Tensor) -> Tensor:
        """The raw pixels of the patches of some images, float32 (B, N, C * p * q)."""
        x_BCHW = self.model.images(split).pick(index.tolist()).float()
        B, C, H, W = x_BCHW.shape
        h, w = self.grid
        cells = x_BCHW.view(B, C, h, H // h, w, W // w).permute(0, 2, 4, 1, 3, 5)
        return cells.flatten(3).flatten(1, 2)

    def each(self, features: Features, split: str, index: Tensor) -> Iterator[Tensor]:
        """Features of all patches of some images, in parts, (part, D)."""
        for part in index.split(IMAGES):
            yield features(split, part).flatten(0, 1).float().cpu()

    def fitted(self, features: Features, index: Tensor) -> tuple[Tensor, Tensor]:
        """Features and classes of patches of some train images, of those that have a class."""
        classes = self.truth["train"][index].flatten()
        there = (classes != VOID).nonzero()[:, 0]
        if len(there) > self.patches:
            order = self.model.draws("patches").uniform(len(there))[0].argsort()
            there = there[order[: self.patches]].sort().values
        wanted = torch.zeros(len(classes), dtype=torch.bool)
        wanted[there] = True
        parts, start = [], 0
        for part in self.each(features, "train", index):
            parts.append(part[wanted[start : start + len(part)]])
            start += len(part)
        return torch.cat(parts), classes[there]

    def by_place(self) -> Tensor:
        """The most frequent class at each place of the grid over train, int64 (1, N)."""
        N = self.grid[0] * self.grid[1]
        truth = self.truth["train"]
        counts = torch.stack([(truth == c).sum(0) for c in range(self.num_classes)])
        return counts.argmax(0).view(1, N)

    def score(self, split: str, guess: Tensor, index: Tensor | None = None) -> tuple[Tensor, float]:
        """Mean IoU of each image and over all of them, of patches' classes in any shape."""
        maps = self.maps[split] if index is None else self.maps[split][index]
        guess = guess.reshape(len(maps), -1)
        # a patch without a class has no pixel that counts, whatever is said of it
        guess = guess.masked_fill(guess == VOID, 0)
        size = maps.shape[1], maps.shape[2]
        each, whole = [], torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        for part, said in zip(maps.split(IMAGES), guess.split(IMAGES), strict=True):
            found = confusion(part, on_pixels(said, self.grid, size), self.num_classes)
            each.append(iou_of_images(found))
            whole += found.sum(0)
        return torch.cat(each), mean_iou(whole)


def held_out(model: Model) -> tuple[Tensor, Tensor]:
    """Positions of the train images to fit on and of a tenth to choose on, whole groups of them.

    Raises:
        NotApplicable: train has one image, or one group.
    """
    info = model.images("train").info
    group = info.ids if info.groups is None else info.groups
    names = group.unique()
    if len(names) < 2:
        raise NotApplicable("train has one image, or one group of them: none can be held out")
    order = model.draws("held out", names).uniform().argsort()
    chosen = names[order[: max(1, round(HELD_OUT * len(names)))]]
    held = torch.isin(group, chosen)
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]


def grid_of(model: Model) -> tuple[int, int]:
    """The grid that a model's tokens end on; of raw pixels that of the default patch size.

    Raises:
        NotApplicable: the model sees a part of each image, and label maps are of the whole.
    """
    size = model.inputs.image_size
    try:
        encoder: Any = model.encoder()
    except NotApplicable:
        patch = default_patch(size)
        return size[0] // patch, size[1] // patch
    (h, w), sees = encoder.out_grid, encoder.inputs.image_size
    if size != sees or size[0] % h or size[1] % w:
        raise NotApplicable(
            f"it sees {sees[0]}x{sees[1]} pixels in {h}x{w} cells of images of "
            f"{size[0]}x{size[1]}, whose label maps are of the whole: give --image-size "
            f"{sees[0]},{sees[1]}"
        )
    return h, w


def picture(task: Task, guess: Tensor) -> None:
    """Writes some test images with their label maps and what was guessed, as a PNG."""
    from matplotlib.figure import Figure

    count = min(SHOWN, task.length["test"])
    index = torch.linspace(0, task.length["test"] - 1, count).long()
    images = task.model.images("test").pick(index.tolist())
    maps = task.maps["test"][index]
    said = on_pixels(
        guess.view(task.length["test"], -1)[index], task.grid, (maps.shape[1], maps.shape[2])
    )
    figure = Figure(figsize=(1.3 * count, 4.2), layout="constrained")
    rows: Sequence[tuple[str, Tensor]] = (("image", images), ("truth", maps), ("guess", said))
    axes = figure.subplots(3, count, squeeze=False)
    for line, (title, some) in zip(axes, rows, strict=True):
        for ax, one in zip(line, some, strict=True):
            if title == "image":
                plain = len(one) != 3
                pixels = (one[0] if plain else one.permute(1, 2, 0)).numpy()
                ax.imshow(pixels, cmap="gray" if plain else None)
            else:
                shown = one.float().masked_fill(one == VOID, torch.nan).numpy()
                ax.imshow(shown, vmin=0, vmax=max(1, task.num_classes - 1), cmap="tab20")
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, fontsize=8)
    figure.suptitle(f"{task.model.name}, {task.name} patches", fontsize=8)
    task.model.picture("segmentation", figure)
