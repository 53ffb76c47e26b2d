"""Which patches are hidden: the view a strategy sees, the mask it leads to, and the hiding.

B images, L = h * w patches in raster order. Booleans are `hidden`: True = the encoder does not
get the patch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor

from maebench.component import Component
from maebench.errors import ConfigError, MaebenchError, PluginError
from maebench.rng import Draws


@dataclass(frozen=True)
class View:
    """What a masking strategy may look at; fields are only ever added.

    Args:
        grid: rows and columns of patches (or of the strategy's larger units).
        num_hidden: how many of the h * w will be hidden in every image.
        ids: sample ids, int64 (B,).
        draws: random numbers per sample, for this strategy alone.
        progress: how far pretraining is, 0 to 1.
        images: what the encoder will get, float (B, C, H, W), normalised; None where masks are
            drawn `ahead`.
        boxes: the crop of each image, float (B, 4): top, left, height, width in original pixels.
        flips: which images are mirrored, bool (B,).
        sizes: rows and columns of what the boxes are cut out of, int64 (B, 2).
    """

    grid: tuple[int, int]
    num_hidden: int
    ids: Tensor
    draws: Draws
    progress: float = 0.0
    images: Tensor | None = None
    boxes: Tensor | None = None
    flips: Tensor | None = None
    sizes: Tensor | None = None
    _providers: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """The number of images B."""
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        """Where scores are to be made."""
        return self.ids.device

    @property
    def length(self) -> int:
        """The number of patches (or units) L."""
        return self.grid[0] * self.grid[1]

    def attention(self) -> Tensor:
        """Attention of the class token to each patch in the last block, float (B, L)."""
        return self._ask("attention")

    def patch_loss(self) -> Tensor:
        """The reconstruction error of each patch of this very crop, float (B, L)."""
        return self._ask("patch_loss")

    def features(self) -> Tensor:
        """The patch features of this very crop, float (B, L, D)."""
        return self._ask("features")

    def _ask(self, what: str) -> Tensor:
        if what not in self._providers:
            raise PluginError(
                f"view.{what}() is not there: a strategy that wants it declares "
                f"needs = frozenset({{{what!r}}}), and it exists only while pretraining"
            )
        return self._providers[what]()


@dataclass(frozen=True)
class Mask:
    """Which patches of each image are hidden; the count is the same for every image.

    Args:
        hidden: bool (B, L), True = hidden.
        seen: int64 (B, K), the seen patches in ascending order.
        grid: rows and columns, h * w = L.
        places: int64 (B, M), the hidden patches in ascending order; found by itself.
    """

    hidden: Tensor
    seen: Tensor
    grid: tuple[int, int]
    places: Tensor = None  # type: ignore[assignment]  # never None once it is made

    def __post_init__(self) -> None:
        """Finds the places, by a sort: what counts how many there are would wait for a GPU."""
        if self.places is None:
            order = self.hidden.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices
            object.__setattr__(self, "places", order[:, : self.num_hidden])

    @property
    def num_hidden(self) -> int:
        """Hidden patches per image."""
        return self.hidden.shape[1] - self.seen.shape[1]

    def to(self, device: str) -> Mask:
        """The same on a device."""
        hidden, seen, places = (moved(x, device) for x in (self.hidden, self.seen, self.places))
        return Mask(hidden, seen, self.grid, places)

    def split(self, size: int) -> list[Mask]:
        """The mask cut along the batch into parts of `size` images."""
        whole = (self.hidden, self.seen, self.places)
        parts = zip(*(part.split(size) for part in whole), strict=True)
        return [Mask(hidden, seen, self.grid, places) for hidden, seen, places in parts]


def moved(x: Tensor, device: str) -> Tensor:
    """A tensor of the CPU on a device; a GPU copies it while others compute, unwaited for."""
    if torch.device(device).type == "cpu":
        return x
    # contiguous: a pinned copy has the strides of its original, of which none may be 0
    return x.contiguous().pin_memory().to(device, non_blocking=True)


NEEDS = ("attention", "features", "patch_loss")  # what a View can be asked for
ANSWERED_BY = ("teacher", "encoder")


class Masking(Component):
    """A strategy that scores patches; the highest scores are hidden.

    `needs` names what of the view is made on demand ("attention", "patch_loss", "features").
    `covers` is False where some positions are always hidden or always seen, as in `centred`.
    `ahead` is True where scores depend on ids, draws and crops alone: neither on `view.images`,
    which are None then, nor on `view.progress`, nor on what a model answers. Such masks are drawn
    on the CPU, the same to the last bit whatever trains, and those of later steps together with
    this one's. It speaks of the `scores` beside it and is not inherited by other ones.
    `plane` is True where it needs rows and columns, so that it makes no sense on a line, as of
    text.
    """

    kind: ClassVar[str] = "masking"
    needs: ClassVar[frozenset[str]] = frozenset()
    covers: ClassVar[bool] = True
    ahead: ClassVar[bool] = False
    plane: ClassVar[bool] = False

    @property
    def answered_by(self) -> Literal["teacher", "encoder"]:
        """Who answers what it needs: an EMA teacher of what is trained, or that itself as it is."""
        return "teacher"

    @classmethod
    def wrong(cls) -> str | None:
        """Why this class cannot be registered: what it needs, or who answers, is nothing known."""
        if isinstance(cls.needs, str) or not set(cls.needs) <= set(NEEDS):
            return (
                f"{cls.__name__}.needs is {cls.needs!r}: a frozenset of "
                f"{', '.join(map(repr, NEEDS))} is wanted"
            )
        by = cls.__dict__.get("answered_by")
        if isinstance(by, str) and by not in ANSWERED_BY:
            return f"{cls.__name__}.answered_by is {by!r}; there is {' and '.join(ANSWERED_BY)}"
        return None

    @classmethod
    def drawn_ahead(cls) -> bool:
        """Whether masks of later steps may be drawn now: a class says so of its own `scores`."""
        for each in cls.__mro__:
            if "ahead" in vars(each):
                return bool(vars(each)["ahead"]) and not cls.needs
            if "scores" in vars(each):
                break
        return False

    def unit(self, patch: tuple[int, int]) -> tuple[int, int]:
        """How many patches (rows, columns) are hidden or seen together; a patch is `patch` px."""
        return (1, 1)

    def check(self, grid: tuple[int, int], num_hidden: int) -> None:
        """Refuses a grid or count that this strategy cannot do, with a ConfigError."""

    def check_ids(self, ids: Tensor) -> None:
        """Refuses images, by their ids, that this strategy has nothing for, with a ConfigError."""

    def scores(self, view: View) -> Tensor:
        """One score per patch (or unit), float32 (B, L); the highest are hidden."""
        raise NotImplementedError(f"{type(self).__name__} has no scores(view)")


def count_hidden(length: int, ratio: float, grid: tuple[int, int] | None = None) -> int:
    """How many of L patches a ratio hides: exactly L minus round-half-up of L * (1 - ratio).

    Done in fractions of the ratio as it is written: int(100 * (1 - .9)) in floats is 9, not 10.

    Raises:
        ConfigError: nothing or everything would be hidden; names the range that is allowed.
    """
    exact = Fraction(str(ratio)) if math.isfinite(ratio) else Fraction(-1)
    seen = math.floor(length * (1 - exact) + Fraction(1, 2))
    if not 0 < seen < length:
        place = f"{grid[0]}x{grid[1]} patches" if grid else f"{length} patches"
        if length < 2:
            raise ConfigError(f"ratio {ratio}: {place} cannot be split into hidden and seen")
        # six digits, rounded inwards: what is printed must be allowed
        low, high = math.ceil(5e5 / length) / 1e6, math.floor(1e6 - 5e5 / length) / 1e6
        raise ConfigError(
            f"ratio {ratio} would hide {'nothing' if seen >= length else 'everything'} of {place}; "
            f"allowed: above {low:.6g} and up to {high:.6g}"
        )
    return length - seen


NAN = "scores hold NaN: no order can be made of them"
Check = tuple[Tensor, MaebenchError]  # a bool scalar, and the error that it is where it is true
_LATER: ContextVar[list[Check] | None] = ContextVar("later", default=None)


@contextlib.contextmanager
def checked_later(checks: list[Check]) -> Iterator[None]:
    """Puts off what `refuse_where` asks of a GPU, whose answer would be waited for.

    Args:
        checks: gets what is to be asked of each batch, for `read_checks`.
    """
    token = _LATER.set(checks)
    try:
        yield
    finally:
        _LATER.reset(token)


def refuse_where(bad: Tensor, error: MaebenchError) -> None:
    """Raises an error where it is true: at once on a CPU, with the next numbers read on a GPU.

    Args:
        bad: bool scalar.
        error: what it means.
    """
    later = _LATER.get()
    if later is not None and bad.device.type != "cpu":
        later.append((bad, error))
    elif bool(bad):
        raise error


def read_checks(checks: list[Check]) -> None:
    """Asks what was put off, in one reading, and forgets it; raises the first error."""
    found = torch.stack([bad for bad, _ in checks]).tolist() if checks else []
    errors = [error for bad, (_, error) in zip(found, checks, strict=True) if bad]
    checks.clear()
    if errors:
        raise errors[0]


def hide(scores: Tensor, num_hidden: int, grid: tuple[int, int]) -> Mask:
    """Hides the highest scores of each image; of equal scores the earlier patch is hidden first.

    Args:
        scores: (B, L) in any float dtype; infinite is fine, NaN is not.
        num_hidden: 0 to L.
        grid: h * w = L.

    Raises:
        PluginError: the scores have another shape or hold NaN.
    """
    if scores.ndim != 2 or scores.shape[1] != grid[0] * grid[1]:
        raise PluginError(
            f"scores must be (B, {grid[0] * grid[1]}) for a {grid[0]}x{grid[1]} grid, "
            f"got {tuple(scores.shape)}"
        )
    refuse_where(scores.isnan().any(), PluginError(NAN))
    # Stable, so that the same scores hide the same patches on every device.
    order = scores.detach().sort(dim=1, descending=True, stable=True).indices
    places = order[:, :num_hidden].sort(dim=1).values
    seen = order[:, num_hidden:].sort(dim=1).values
    hidden = scores.new_ones(scores.shape, dtype=bool).scatter(1, seen, False)  # type: ignore[call-overload]
    return Mask(hidden, seen, grid, places)


def units_of(
    masking: Masking, ratio: float, patch: tuple[int, int], grid: tuple[int, int]
) -> tuple[tuple[int, int], int]:
    """The grid of units that a strategy hides on a grid of patches, and how many it hides.

    Raises:
        ConfigError: the ratio rounds to all or nothing, units do not divide the grid, or the
            strategy refuses.
    """
    uh, uw = masking.unit(patch)
    if grid[0] % uh or grid[1] % uw:
        raise ConfigError(
            f"masking {masking.name!r} hides units of {uh}x{uw} patches, "
            f"which do not divide a grid of {grid[0]}x{grid[1]}"
        )
    units = (grid[0] // uh, grid[1] // uw)
    num_units = count_hidden(units[0] * units[1], ratio, units)
    masking.check(units, num_units)
    return units, num_units


def draw(
    masking: Masking,
    ratio: float,
    grid: tuple[int, int],
    patch: tuple[int, int],
    *,
    ids: Tensor,
    draws: Draws,
    progress: float = 0.0,
    images: Tensor | None = None,
    boxes: Tensor | None = None,
    flips: Tensor | None = None,
    sizes: Tensor | None = None,
    answers: Mapping[str, Callable[[], Tensor]] = MappingProxyType({}),
) -> Mask:
    """Lets a strategy score a batch and hides `ratio` of each image's patches.

    Where the strategy hides larger units, it sees the grid of units and its scores are repeated
    over their patches, so a unit is hidden or seen as a whole.

    Args:
        masking: the strategy.
        ratio: share of patches to hide.
        grid: rows and columns of patches.
        patch: rows and columns of a patch in pixels.
        ids: as all that follow, what the strategy may look at; see `View`.
        draws: its random numbers.
        progress: how far pretraining is.
        images: of the batch.
        boxes: their crops.
        flips: which are mirrored.
        sizes: of what the boxes are cut out of.
        answers: what makes attention, patch loss and features of the patches when asked.

    Raises:
        ConfigError: the ratio rounds to all or nothing, or units do not divide the grid.
    """
    units, num_units = units_of(masking, ratio, patch, grid)
    per_unit = {what: partial(_per_unit, ask, grid, units) for what, ask in answers.items()}
    view = View(
        units, num_units, ids, draws, progress, images, boxes, flips, sizes, _providers=per_unit
    )
    mask = hide(masking.scores(view), num_units, units)
    if units == grid:
        return mask
    uh, uw = masking.unit(patch)
    hidden = mask.hidden.view(-1, *units).repeat_interleave(uh, 1).repeat_interleave(uw, 2)
    return hide(hidden.flatten(1).float(), num_units * uh * uw, grid)


def _per_unit(ask: Callable[[], Tensor], grid: tuple[int, int], units: tuple[int, int]) -> Tensor:
    """What is known of each patch, (B, L, ...), as the mean over the patches of each unit."""
    values = ask()
    if units == grid:
        return values
    (h, w), (uh, uw) = units, (grid[0] // units[0], grid[1] // units[1])
    return values.unflatten(1, (h, uh, w, uw)).mean((2, 4)).flatten(1, 2)
