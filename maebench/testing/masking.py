"""What a masking strategy has to keep to: exact, batched, repeatable, fair to every position."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from pydantic import ValidationError
from torch import Tensor

from maebench.errors import ConfigError, MaebenchError
from maebench.masking.mask import ANSWERED_BY, Mask, Masking, View, draw, units_of
from maebench.rng import Draws, isolated
from maebench.testing.contract import Broken, Contract, NotChecked, expect, global_state

# square and oblong, even and odd, one row, and the 14x14 of a ViT on 224 pixels
GRIDS = ((4, 4), (14, 14), (4, 8), (8, 6), (3, 7), (1, 2))
RATIOS = tuple(round(0.05 * n, 2) for n in range(1, 20))
PATCH = (4, 4)  # pixels
IMAGES = 12  # in a batch; more shows no more
EPOCHS = 16  # in which one image gets masks
# A position that is hidden in one of a hundred images is missed by 1,024 of them once in 30,000.
MANY = 1024
WIDTH = 16  # of the features that a strategy may ask for


class MaskingContract(Contract):
    """Checks of a masking strategy; the view's images and the model's answers are made up."""

    kind: ClassVar[str] = "masking"

    def test_it_works_on_some_square_and_some_oblong_grid(self) -> None:
        """A strategy that refuses a grid says so by a ConfigError, and takes most of them."""
        made = self.made()
        taken = list(_grids(made))
        for what, found in (
            ("square", [g for g in taken if g[0] == g[1]]),
            ("oblong", [g for g in taken if g[0] != g[1]]),
        ):
            tried = ", ".join(f"{h}x{w}" for h, w in GRIDS)
            expect(found, f"every {what} grid among {tried} is refused")

    def test_scores_are_one_finite_float32_per_patch(self) -> None:
        """The core hides the highest of them: other shapes and NaN have no order."""
        made = self.made()
        for grid in _grids(made):
            for batch in (1, IMAGES):
                scores = _scores(made, _view(made, grid, 0.5, batch))
                wanted = (batch, _length(made, grid))
                where = f"scores(view) for {batch} images on a {grid[0]}x{grid[1]} grid"
                expect(isinstance(scores, Tensor), f"{where} gives {scores!r}, not a tensor")
                expect(
                    tuple(scores.shape) == wanted,
                    f"{where} has shape {tuple(scores.shape)}, (B, L) = {wanted} is wanted",
                )
                expect(scores.dtype == torch.float32, f"{where} is {scores.dtype}, not float32")
                expect(scores.isfinite().all(), f"{where} holds numbers that are not finite")

    def test_every_ratio_hides_the_exact_count(self) -> None:
        """From .05 to .95 each image has the same count, and hidden and seen are apart."""
        made = self.made()
        for grid in _grids(made):
            for ratio in RATIOS:
                try:
                    units, count = units_of(made, ratio, PATCH, grid)
                except ConfigError:
                    continue  # so few patches that this ratio hides none or all
                count *= (grid[0] // units[0]) * (grid[1] // units[1])
                hidden = _mask(made, grid, ratio, IMAGES).hidden.sum(1)
                expect(
                    bool((hidden == count).all()),
                    f"ratio {ratio} on {grid[0]}x{grid[1]}: {hidden.tolist()} are hidden, "
                    f"not {count} each",
                )

    def test_the_same_seed_gives_the_same_scores(self) -> None:
        """A run is repeatable: all randomness is from view.draws, none from global state."""
        made = self.made()
        for grid in _grids(made):
            found = []
            for state in (1, 2):
                with isolated(state, "contract"):
                    found.append(_scores(made, _view(made, grid, 0.5, IMAGES)))
            expect(
                torch.equal(*found),
                f"two calls with the same view give other scores on {grid[0]}x{grid[1]}: take "
                "random numbers from view.draws only, not from torch, numpy or random",
            )

    def test_another_epoch_gives_other_masks(self) -> None:
        """An image is not masked the same way each time it is seen."""
        made = self.made()
        grid = _largest(made)
        first, second = (_scores(made, _view(made, grid, 0.5, IMAGES, epoch=e)) for e in (0, 1))
        expect(
            not torch.equal(first, second),
            "the scores of epoch 0 and epoch 1 are the same: break ties with view.draws",
        )
        for image in range(IMAGES if made.covers else 0):
            masks = _mask(made, grid, 0.5, *_one_image(image, EPOCHS)).hidden
            expect(
                bool((masks != masks[:1]).any()),
                f"scores differ from epoch to epoch, but the same patches of image {image} are "
                f"hidden in {EPOCHS} of {EPOCHS} epochs: what view.draws adds decides nothing",
            )

    def test_global_random_state_is_left_as_it_was(self) -> None:
        """Else a strategy shifts what is drawn after it, and two runs are no longer comparable."""
        made = self.made()
        grid = _largest(made)
        with isolated(0, "contract"):
            before = global_state()
            _scores(made, _view(made, grid, 0.5, IMAGES))
            after = global_state()
        for name, was in before.items():
            expect(was == after[name], f"scores(view) moves the global state of {name}")

    def test_images_of_a_batch_get_masks_of_their_own(self) -> None:
        """One mask for a whole batch is a smaller variety than the strategy promises."""
        made = self.made()
        grid = _largest(made)
        scores = _scores(made, _view(made, grid, 0.5, IMAGES))
        same = [i for i in range(1, IMAGES) if torch.equal(scores[0], scores[i])]
        expect(
            not same,
            f"{len(same) + 1} of {IMAGES} images get the same scores: draw with shape (B, ...), "
            "as view.draws does, and break ties",
        )
        masks = _mask(made, grid, 0.5, IMAGES).hidden
        expect(
            not made.covers or bool((masks != masks[:1]).any()),
            f"scores differ from image to image, but the same patches of all {IMAGES} are hidden: "
            "what view.draws adds decides nothing",
        )

    def test_every_position_is_hidden_sometimes_and_seen_sometimes(self) -> None:
        """A position that is never seen stays untrained; `covers = False` declares that."""
        made = self.made()
        if not made.covers:
            raise NotChecked("the class declares covers = False")
        # not the smallest: two patches, or two units, show nothing
        grids = [g for g in _grids(made) if g[0] * g[1] < 100 and _length(made, g) > 3]
        for grid in grids:
            # the ends on one grid only: a strategy that deals out few places shows it on any
            for ratio in (0.25, 0.5, 0.75, *((0.1, 0.9) if grid == grids[0] else ())):
                try:
                    rate = _mask(made, grid, ratio, MANY).hidden.double().mean(0)
                except ConfigError:
                    continue  # so few patches that this ratio hides none or all
                for share, word in ((1.0, "hidden"), (0.0, "seen")):
                    always = (rate == share).nonzero()[:, 0].tolist()
                    places = ", ".join(str(divmod(p, grid[1])) for p in always[:3])
                    expect(
                        not always,
                        f"on {grid[0]}x{grid[1]} at ratio {ratio}, {len(always)} positions are "
                        f"{word} in all of {MANY} images, such as (row, column) {places}; if that "
                        "is meant, declare covers: ClassVar[bool] = False",
                    )
            rate = _mask(made, grid, 0.5, *_one_image(0, MANY)).hidden.double().mean(0)
            always = ((rate == 0) | (rate == 1)).nonzero()[:, 0].tolist()
            expect(
                not always,
                f"on {grid[0]}x{grid[1]} at ratio 0.5, {len(always)} positions of one image are "
                f"always hidden or always seen in {MANY} epochs: what is drawn from view.draws, "
                "which knows the epoch, must be able to overrule what is known of the image; if "
                "that is meant, declare covers: ClassVar[bool] = False",
            )

    def test_scores_of_an_image_do_not_depend_on_its_batch(self) -> None:
        """The same for any batch size, worker and rank: no statistics over the batch."""
        made = self.made()
        for grid in _grids(made):
            whole = _scores(made, _view(made, grid, 0.5, IMAGES))
            ids = torch.arange(IMAGES)
            for part in (ids[:1], ids[5:], ids.flip(0)):
                alone = _scores(made, _view(made, grid, 0.5, ids=part))
                expect(
                    torch.allclose(_spread_of(alone), _spread_of(whole[part]), atol=1e-3),
                    f"an image has other scores beside {len(part) - 1} companions than beside "
                    f"{IMAGES - 1} on {grid[0]}x{grid[1]}: compute each row from its own image",
                )

    def test_scores_are_made_on_the_device_of_the_view(self) -> None:
        """New tensors take device=view.device, else a GPU run fails or is slow."""
        made = self.made()
        grid = _largest(made)
        if torch.cuda.is_available():
            here = _scores(made, _view(made, grid, 0.5, IMAGES))
            there = _scores(made, _view(made, grid, 0.5, IMAGES, device="cuda"))
            expect(there.is_cuda, f"scores lie on {there.device}, the view on cuda")
            expect(
                torch.allclose(_spread_of(here), _spread_of(there.cpu()), atol=1e-3),
                "scores on the GPU differ from those on the CPU",
            )
            return
        # Without a GPU the meta device, which computes nothing, still refuses mixed devices.
        try:
            scores = _scores(made, _view(made, grid, 0.5, IMAGES, device="meta"))
        except (NotImplementedError, RuntimeError, TypeError) as error:
            if isinstance(error, NotImplementedError) or "item()" in str(error):
                raise NotChecked("it looks at values, which needs a real second device") from error
            if "meta" not in str(error):
                raise
            raise Broken(
                f"scores(view) mixes devices: create tensors with device=view.device ({error})"
            ) from error
        expect(scores.is_meta, f"scores lie on {scores.device}, the view on another device")

    def test_the_view_is_left_as_it_was(self) -> None:
        """The encoder gets the same images afterwards."""
        made = self.made()
        view = _view(made, _largest(made), 0.5, IMAGES)
        names = ("ids", "images", "boxes", "flips")
        before = {name: getattr(view, name).clone() for name in names}
        _scores(made, view)
        for name in names:
            expect(torch.equal(getattr(view, name), before[name]), f"view.{name} is changed")

    def test_what_it_asks_of_the_model_is_declared(self) -> None:
        """`needs` decides whether pretraining keeps a teacher."""
        made = self.made()
        wrong = type(made).wrong()
        expect(not wrong, wrong or "")
        by = made.answered_by
        expect(by in ANSWERED_BY, f"answered_by is {by!r}; there is {' and '.join(ANSWERED_BY)}")
        asked: set[str] = set()
        for grid in _grids(made):
            view = _view(made, grid, 0.5, IMAGES)
            noted = {k: _noting(k, ask, asked) for k, ask in view._providers.items()}
            for progress in (0.0, 0.5, 1.0):
                changed = dataclasses.replace(view, _providers=noted, progress=progress)
                _scores(made, changed)
        unused = set(made.needs) - asked
        expect(not unused, f"needs declares {sorted(unused)}, which scores(view) never asks for")

    def test_every_option_changes_the_scores(self) -> None:
        """An option that is never read is a silent no-op."""
        base = self.made()
        if not type(base).model_fields:
            raise NotChecked("it has no options")
        for option in type(base).model_fields:
            others = [o for o in type(base).model_fields if o != option]
            bases = [base, *(v for o in others for v in self._variations_or_none(o))]
            values = [getattr(v, option) for v in self.variations(option)]
            pairs = ((one, self._with(one, option, value)) for one in bases for value in values)
            expect(
                any(_differ(one, other) for one, other in pairs if other is not None),
                f"option {option!r} changes nothing: {values} were tried with the other options "
                "at their defaults and each varied, on every grid and progress",
            )

    def _variations_or_none(self, option: str) -> list[Any]:
        try:
            return self.variations(option)
        except Broken:
            return []  # the option's own turn says so

    def _with(self, one: Masking, option: str, value: Any) -> Masking | None:
        given = {key: getattr(one, key) for key in type(one).model_fields}
        try:
            return type(one)(**{**given, option: value})
        except ValidationError:
            return None


def _differ(one: Masking, other: Masking) -> bool:
    """Whether two maskings score differently in some tried setting."""
    for grid, patch, ratio, progress in itertools.product(
        ((14, 14), (8, 6), (4, 4)), (PATCH, (2, 2), (1, 1)), (0.5, 0.75), (0.5, 0.0, 1.0)
    ):
        try:
            first, second = (
                _scores(
                    masking,
                    dataclasses.replace(
                        _view(masking, grid, ratio, 4, patch=patch), progress=progress
                    ),
                )
                for masking in (one, other)
            )
        except ConfigError:
            continue  # refused: that is no score
        if first.shape != second.shape or not torch.equal(first, second):
            return True
    return False


def _grids(masking: Masking) -> Iterator[tuple[int, int]]:
    """The grids that a strategy takes at ratio .5."""
    for grid in GRIDS:
        try:
            units_of(masking, 0.5, PATCH, grid)
        except ConfigError:
            continue
        yield grid


def _largest(masking: Masking) -> tuple[int, int]:
    found = sorted(_grids(masking), key=lambda g: g[0] * g[1])
    expect(found, f"every grid among {GRIDS} is refused")
    return found[-1]


def _length(masking: Masking, grid: tuple[int, int]) -> int:
    units, _ = units_of(masking, 0.5, PATCH, grid)
    return units[0] * units[1]


def _view(
    masking: Masking,
    grid: tuple[int, int],
    ratio: float,
    batch: int = IMAGES,
    ids: Tensor | None = None,
    epoch: int | Tensor = 0,
    device: str = "cpu",
    patch: tuple[int, int] = PATCH,
) -> View:
    """What pretraining would show, with images and a model's answers that depend on ids alone."""
    ids = (torch.arange(batch) if ids is None else ids).to(device)
    rows, columns = grid[0] * patch[0], grid[1] * patch[1]
    made = Draws(0, "contract", ids)
    size = torch.tensor([rows, columns], dtype=torch.float32, device=device)
    corner = made.uniform(2) * 0.25  # a crop of three quarters of each side
    boxes = torch.cat([corner * size, (0.75 * size).expand(len(ids), 2)], 1)
    units, count = units_of(masking, ratio, patch, grid)
    return View(
        units,
        count,
        ids,
        Draws(0, "masking", ids, epoch),
        progress=0.5,
        images=made.normal(3, rows, columns),
        boxes=boxes,
        flips=made.uniform() < 0.5,
        _providers=_answers(masking, ids, units, epoch),
    )


def _answers(
    masking: Masking, ids: Tensor, units: tuple[int, int], epoch: int | Tensor
) -> dict[str, Callable[[], Tensor]]:
    """A model's answers: random, other ones in each epoch, and by who answers."""
    length = units[0] * units[1]
    draws = Draws(0, f"contract {masking.answered_by}", ids, epoch)
    made = {
        "attention": lambda: draws.normal(length).softmax(1) * 0.9,
        "patch_loss": lambda: draws.uniform(length),
        "features": lambda: draws.normal(length, WIDTH),
    }
    return {what: functools.cache(made[what]) for what in masking.needs if what in made}


def _scores(masking: Masking, view: View) -> Tensor:
    """The scores, a plugin's refusal told as such.

    Raises:
        Broken: it refuses a grid that its own check took.
    """
    try:
        return masking.scores(view)
    except ConfigError:
        raise
    except MaebenchError as error:
        raise Broken(str(error)) from error


def _spread_of(scores: Tensor) -> Tensor:
    """Scores in deviations of their row: only their order counts, whatever their size."""
    x = scores.double() - scores.double().mean(1, keepdim=True)
    return x / x.std(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def _one_image(image: int, epochs: int) -> tuple[int, Tensor, Tensor]:
    """Batch size, ids and epochs of one image in many epochs."""
    return epochs, torch.full((epochs,), image), torch.arange(epochs)


def _mask(
    masking: Masking,
    grid: tuple[int, int],
    ratio: float,
    batch: int,
    ids: Tensor | None = None,
    epoch: int | Tensor = 0,
) -> Mask:
    view = _view(masking, grid, ratio, batch, ids, epoch)
    # draw() makes units of the patches' grid itself, and pools what is known of patches
    whole = dataclasses.replace(view, grid=grid)
    if view.grid != grid:
        answers = {k: _spread(ask, view.grid, grid) for k, ask in view._providers.items()}
        whole = dataclasses.replace(whole, _providers=answers)
    try:
        names = ("ids", "draws", "progress", "images", "boxes", "flips", "sizes")
        fields = {name: getattr(whole, name) for name in names}
        return draw(masking, ratio, whole.grid, PATCH, **fields, answers=whole._providers)
    except ConfigError:
        raise
    except MaebenchError as error:
        raise Broken(str(error)) from error


def _spread(
    ask: Callable[[], Tensor], units: tuple[int, int], grid: tuple[int, int]
) -> Callable[[], Tensor]:
    (h, w), (H, W) = units, grid

    def spread() -> Tensor:
        values = ask().unflatten(1, (h, w))
        return values.repeat_interleave(H // h, 1).repeat_interleave(W // w, 2).flatten(1, 2)

    return spread


def _noting(what: str, ask: Callable[[], Tensor], asked: set[str]) -> Callable[[], Tensor]:
    def noted() -> Tensor:
        asked.add(what)
        return ask()

    return noted
