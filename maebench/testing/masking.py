"""What a masking strategy has to keep to: exact, batched, repeatable, fair to every position."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from maebench.errors import ConfigError
from maebench.masking.mask import ANSWERED_BY, Masking, View, draw, units_of
from maebench.rng import Draws, isolated
from maebench.testing.contract import (
    Broken,
    Contract,
    NotChecked,
    expect,
    expect_tensor,
    global_state,
)
from maebench.testing.modules import untouched

# square and oblong, even and odd, one row, and the 14x14 of a ViT on 224 pixels
GRIDS = ((4, 4), (14, 14), (4, 8), (8, 6), (3, 7), (1, 2))
RATIOS = tuple(round(0.05 * n, 2) for n in range(1, 20))
PATCH = (4, 4)  # pixels
IMAGES = 12  # in a batch; more shows no more
EPOCHS = 16  # in which one image gets masks
# A position that is hidden in one of a hundred images is missed by 1,024 of them once in 30,000.
MANY = 1024
WIDTH = 16  # of the features that a strategy may ask for
Grid = tuple[int, int]


class MaskingContract(Contract):
    """Checks of a masking strategy; the view's images and the model's answers are made up."""

    kind: ClassVar[str] = "masking"

    # ---- how it is asked

    def scores(self, grid: Grid, **how: Any) -> Tensor:
        """The scores on a grid of patches; what is left out is as in `view_of`."""
        made = self.made()
        return made.scores(view_of(made, grid, **how))

    def hidden(self, grid: Grid, ratio: float = 0.5, **how: Any) -> Tensor:
        """What is hidden on a grid of patches, bool (B, L), as pretraining has it drawn."""
        made = self.made()
        return draw(made, ratio, grid, PATCH, **batch_of(made, grid, grid, **how)).hidden

    @property
    def grids(self) -> list[Grid]:
        """The grids that it takes at ratio .5."""
        made = self.made()
        found = [grid for grid in GRIDS if _length(made, grid)]
        expect(found, f"every grid among {GRIDS} is refused")
        return found

    @property
    def largest(self) -> Grid:
        """The one of most patches."""
        return max(self.grids, key=lambda grid: grid[0] * grid[1])

    # ---- what it gives

    def test_it_works_on_some_square_and_some_oblong_grid(self) -> None:
        """A strategy that refuses a grid says so by a ConfigError, and takes most of them."""
        square = {grid[0] == grid[1] for grid in self.grids}
        tried = ", ".join(f"{h}x{w}" for h, w in GRIDS)
        expect(True in square, f"every square grid among {tried} is refused")
        expect(False in square, f"every oblong grid among {tried} is refused")

    def test_scores_are_one_finite_float32_per_patch(self) -> None:
        """The core hides the highest of them: other shapes and NaN have no order."""
        for grid, batch in itertools.product(self.grids, (1, IMAGES)):
            what = f"scores(view) for {batch} images on a {grid[0]}x{grid[1]} grid, (B, L),"
            scores = self.scores(grid, ids=torch.arange(batch))
            expect_tensor(scores, what, (batch, _length(self.made(), grid)))

    def test_every_ratio_hides_the_exact_count(self) -> None:
        """From .05 to .95 each image has the same count."""
        for grid, ratio in itertools.product(self.grids, RATIOS):
            try:
                units, count = units_of(self.made(), ratio, PATCH, grid)
            except ConfigError:
                continue  # so few patches that this ratio hides none or all
            count *= (grid[0] // units[0]) * (grid[1] // units[1])
            hidden = self.hidden(grid, ratio).sum(1)
            where = f"ratio {ratio} on {grid[0]}x{grid[1]}"
            exact = (hidden == count).all()
            expect(exact, f"{where}: {hidden.tolist()} are hidden, not {count} each")

    # ---- randomness

    def test_the_same_seed_gives_the_same_scores(self) -> None:
        """A run is repeatable: all randomness is from view.draws, none from global state."""
        for grid in self.grids:
            found = []
            for state in (1, 2):
                with isolated(state, "contract"):
                    found.append(self.scores(grid))
            expect(
                torch.equal(*found),
                f"two calls with the same view give other scores on {grid[0]}x{grid[1]}: take "
                "random numbers from view.draws only, not from torch, numpy or random",
            )

    def test_another_epoch_gives_other_masks(self) -> None:
        """An image is not masked the same way each time it is seen."""
        grid = self.largest
        expect(
            not torch.equal(*(self.scores(grid, epoch=epoch) for epoch in (0, 1))),
            "the scores of epoch 0 and epoch 1 are the same: break ties with view.draws",
        )
        for image in range(IMAGES if self.made().covers else 0):
            masks = self.hidden(grid, **_one_image(image, EPOCHS))
            expect(
                (masks != masks[:1]).any(),
                f"scores differ from epoch to epoch, but the same patches of image {image} are "
                f"hidden in {EPOCHS} of {EPOCHS} epochs: what view.draws adds decides nothing",
            )

    def test_masks_that_are_drawn_ahead_depend_on_neither_progress_nor_images(self) -> None:
        """`ahead = True` lets the core draw the masks of later steps now, on the CPU."""
        if not type(self.made()).drawn_ahead():
            raise NotChecked("the class does not declare ahead = True beside its scores")
        for grid in self.grids:
            said = f"ahead = True is declared, but scores on {grid[0]}x{grid[1]}"
            blind, view = (view_of(self.made(), grid) for _ in "ab")
            images = _images((grid[0] * PATCH[0], grid[1] * PATCH[1]), tuple(view.ids.tolist()))
            try:
                alone = self.made().scores(blind)
            except (AttributeError, TypeError) as error:
                raise Broken(f"{said} want view.images, which are None then: {error}") from error
            shown = self.made().scores(replace(view, images=images))
            expect(torch.equal(alone, shown), f"{said} change with view.images")
            expect(
                torch.equal(*(self.scores(grid, progress=progress) for progress in (0.0, 1.0))),
                f"{said} change with view.progress",
            )

    def test_global_random_state_is_left_as_it_was(self) -> None:
        """Else a strategy shifts what is drawn after it, and two runs are no longer comparable."""
        with isolated(0, "contract"):
            before = global_state()
            self.scores(self.largest)
            after = global_state()
        for name, was in before.items():
            expect(was == after[name], f"scores(view) moves the global state of {name}")

    def test_images_of_a_batch_get_masks_of_their_own(self) -> None:
        """One mask for a whole batch is a smaller variety than the strategy promises."""
        scores = self.scores(self.largest)
        same = sum(torch.equal(scores[0], other) for other in scores)
        expect(
            same == 1,
            f"{same} of {IMAGES} images get the same scores: draw with shape (B, ...), "
            "as view.draws does, and break ties",
        )
        masks = self.hidden(self.largest)
        expect(
            not self.made().covers or (masks != masks[:1]).any(),
            f"scores differ from image to image, but the same patches of all {IMAGES} are hidden: "
            "what view.draws adds decides nothing",
        )

    def test_every_position_is_hidden_sometimes_and_seen_sometimes(self) -> None:
        """A position that is never seen stays untrained; `covers = False` declares that."""
        made = self.made()
        if not made.covers:
            raise NotChecked("the class declares covers = False")
        # not the smallest: two patches, or two units, show nothing
        grids = [g for g in self.grids if g[0] * g[1] < 100 and _length(made, g) > 3]
        every = {"ids": torch.arange(MANY)}
        for grid in grids:
            # the ends on one grid only: a strategy that deals out few places shows it on any
            for ratio in (0.25, 0.5, 0.75, *((0.1, 0.9) if grid == grids[0] else ())):
                if _length(made, grid, ratio):  # else this ratio hides none or all of so few
                    self._expect_fair(grid, ratio, f"all of {MANY} images", every)
            where = f"each of {MANY} epochs of one image, whatever view.draws gives,"
            self._expect_fair(grid, 0.5, where, _one_image(0, MANY))

    def _expect_fair(self, grid: Grid, ratio: float, where: str, batch: dict[str, Tensor]) -> None:
        rate = self.hidden(grid, ratio, **batch).double().mean(0)
        for share, word in ((1.0, "hidden"), (0.0, "seen")):
            always = (rate == share).nonzero()[:, 0].tolist()
            places = ", ".join(str(divmod(place, grid[1])) for place in always[:3])
            expect(
                not always,
                f"on {grid[0]}x{grid[1]} at ratio {ratio}, {len(always)} positions are {word} in "
                f"{where} such as (row, column) {places}; if that is meant, declare "
                "covers: ClassVar[bool] = False",
            )

    def test_scores_of_an_image_do_not_depend_on_its_batch(self) -> None:
        """The same for any batch size, worker and rank: no statistics over the batch."""
        ids = torch.arange(IMAGES)
        for grid in self.grids:
            whole = self.scores(grid)
            for part in (ids[:1], ids[5:], ids.flip(0)):
                expect(
                    _close(self.scores(grid, ids=part), whole[part]),
                    f"an image has other scores beside {len(part) - 1} companions than beside "
                    f"{IMAGES - 1} on {grid[0]}x{grid[1]}: compute each row from its own image",
                )

    def test_scores_are_made_on_the_device_of_the_view(self) -> None:
        """New tensors take device=view.device, else a GPU run fails or is slow."""
        if torch.cuda.is_available():
            here, there = (self.scores(self.largest, device=name) for name in ("cpu", "cuda"))
            expect(there.is_cuda, f"scores lie on {there.device}, the view on cuda")
            expect(_close(here, there.cpu()), "scores on the GPU differ from those on the CPU")
            return
        # Without a GPU the meta device, which computes nothing, still refuses mixed devices.
        try:
            scores = self.scores(self.largest, device="meta")
        except (NotImplementedError, RuntimeError, TypeError) as error:
            if isinstance(error, NotImplementedError) or "item()" in str(error):
                raise NotChecked("it looks at values, which needs a real second device") from error
            if "meta" not in str(error):
                raise
            raise Broken(
                f"scores(view) mixes devices: create tensors with device=view.device ({error})"
            ) from error
        expect(scores.is_meta, f"scores lie on {scores.device}, the view on another device")

    # ---- what it is lent

    def test_the_view_is_left_as_it_was(self) -> None:
        """The encoder gets the same images afterwards."""
        view = view_of(self.made(), self.largest)
        names = ("ids", "images", "boxes", "flips")
        with untouched("scores(view)", {f"view.{name}": getattr(view, name) for name in names}):
            self.made().scores(view)

    def test_what_it_asks_of_the_model_is_declared(self) -> None:
        """`needs` decides whether pretraining keeps a teacher."""
        made = self.made()
        wrong = type(made).wrong()
        expect(not wrong, wrong or "")
        by = made.answered_by
        expect(by in ANSWERED_BY, f"answered_by is {by!r}; there is {' and '.join(ANSWERED_BY)}")
        asked: set[str] = set()
        for grid, progress in itertools.product(self.grids, (0.0, 0.5, 1.0)):
            made.scores(view_of(made, grid, progress=progress, asked=asked))
        unused = set(made.needs) - asked
        expect(not unused, f"needs declares {sorted(unused)}, which scores(view) never asks for")

    # ---- options

    def test_every_option_changes_the_scores(self) -> None:
        """An option that is never read is a silent no-op."""
        self.check_options(_outcomes, "nothing on any grid and at any progress")


def _outcomes(masking: Masking) -> Iterator[tuple[str, Tensor]]:
    """The scores in every setting that the strategy takes."""
    usual: dict[str, Any] = {"grid": (8, 6), "ratio": 0.5, "patch": PATCH, "progress": 0.5}
    others: list[dict[str, Any]] = [
        *({"grid": (14, 14)}, {"grid": (4, 4)}, {"ratio": 0.75}, {"patch": (2, 2)}),
        *({"patch": (1, 1)}, {"progress": 0.0}, {"progress": 1.0}),
    ]
    for other in [{}, *others]:
        try:
            view = view_of(masking, **(usual | other), ids=torch.arange(4))
            yield str(other), masking.scores(view)
        except ConfigError:
            continue  # refused: that is no score


def view_of(masking: Masking, grid: Grid, ratio: float = 0.5, **how: Any) -> View:
    """What pretraining would show of a grid of patches; the others are as in `batch_of`."""
    units, count = units_of(masking, ratio, how.get("patch", PATCH), grid)
    shown = batch_of(masking, grid, units, **how)
    return View(units, count, _providers=shown.pop("answers"), **shown)


def batch_of(
    masking: Masking,
    grid: Grid,
    units: Grid,
    *,
    ids: Tensor | None = None,
    epoch: int | Tensor = 0,
    progress: float = 0.5,
    patch: Grid = PATCH,
    device: str = "cpu",
    asked: set[str] | None = None,
) -> dict[str, Any]:
    """What a strategy may look at, by name: images and answers of a model, by their ids alone.

    Args:
        masking: the strategy.
        grid: of patches.
        units: the grid that the model answers on.
        ids: of the images, int64 (B,).
        epoch: of all images, or of each.
        progress: of pretraining.
        patch: pixels.
        device: where all of it lies.
        asked: where to note what the model is asked for.
    """
    ids = torch.arange(IMAGES) if ids is None else ids
    size = (grid[0] * patch[0], grid[1] * patch[1])
    images = _images(size, tuple(ids.tolist())).to(device, copy=True)
    ids = ids.to(device)
    made, side = Draws(0, "boxes", ids), torch.tensor(size, dtype=torch.float32, device=device)
    corner = made.uniform(2) * 0.25 * side  # a crop of three quarters of each side
    return {
        "ids": ids,
        "draws": Draws(0, "masking", ids, epoch),
        "progress": progress,
        "images": None if type(masking).drawn_ahead() else images,
        "boxes": torch.cat([corner, (0.75 * side).expand(len(ids), 2)], 1),
        "flips": made.uniform() < 0.5,
        "answers": _answers(masking, ids, units[0] * units[1], epoch, asked),
    }


@functools.lru_cache(maxsize=32)  # a thousand small images take longer to draw than to mask
def _images(size: Grid, ids: tuple[int, ...]) -> Tensor:
    """Images of noise by their ids, float32 (B, 3, H, W); not to be changed."""
    return Draws(0, "images", torch.tensor(ids)).normal(3, *size)


def _answers(
    masking: Masking, ids: Tensor, length: int, epoch: int | Tensor, asked: set[str] | None
) -> dict[str, Callable[[], Tensor]]:
    """A model's answers: random, other ones in each epoch, and by who answers."""
    draws = Draws(0, f"contract {masking.answered_by}", ids, epoch)
    made = {
        "attention": lambda: draws.normal(length).softmax(1) * 0.9,
        "patch_loss": lambda: draws.uniform(length),
        "features": lambda: draws.normal(length, WIDTH),
    }

    @functools.cache
    def answer(what: str) -> Tensor:
        if asked is not None:
            asked.add(what)
        return made[what]()

    return {what: functools.partial(answer, what) for what in masking.needs if what in made}


def _length(masking: Masking, grid: Grid, ratio: float = 0.5) -> int:
    """How many units the strategy cuts a grid into; 0 where it refuses the grid or the ratio."""
    try:
        (rows, columns), _ = units_of(masking, ratio, PATCH, grid)
    except ConfigError:
        return 0
    return rows * columns


def _one_image(image: int, epochs: int) -> dict[str, Any]:
    """Ids and epochs of one image in many epochs."""
    return {"ids": torch.full((epochs,), image), "epoch": torch.arange(epochs)}


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether scores are in one order, whatever their size: compared in deviations of a row."""
    rows = [x.double() - x.double().mean(1, keepdim=True) for x in (one, other)]
    tiny = torch.finfo(torch.float64).tiny
    first, second = (x / x.std(1, keepdim=True).clamp(min=tiny) for x in rows)
    return torch.allclose(first, second, atol=1e-3)
