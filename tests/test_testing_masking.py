"""Every built-in strategy passes the masking contract, and every planted bug is named by it."""

from __future__ import annotations

import re
import time
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from pydantic import Field

from maebench import ConfigError, Masking, View
from maebench.masking import BUILT_IN, Hard, LabelMap, Random
from maebench.rng import Draws
from maebench.testing import examine
from maebench.testing.contract import Broken, NotChecked
from maebench.testing.masking import MaskingContract


def contract(tested, **more):
    """A plugin author's test class."""
    return type("TestIt", (MaskingContract,), {"component": tested, **more})


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Two files of label maps, for the strategy that reads one."""
    folder = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", rng.integers(0, 5, (1024, 56, 56)).astype("uint8"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("check", MaskingContract.checks())
@pytest.mark.parametrize("cls", BUILT_IN, ids=lambda cls: cls.name)
def test_what_ships_keeps_to_its_contract(cls, check, maps):
    tested, variants = cls, {}
    if cls is LabelMap:
        tested, variants = LabelMap(file=maps / "a.npy"), {"file": [maps / "b.npy"]}
    getattr(contract(tested, variants=variants)(), check)()


# ---- healthy ones that are unusual


class SquareOnly(Random):
    """Takes square grids only."""

    name: ClassVar[str] = "square-only"

    def check(self, grid, num_hidden):
        if grid[0] != grid[1]:
            raise ConfigError("square grids only")


class Never(Masking):
    """Hides the upper half, as it declares."""

    name: ClassVar[str] = "never"
    covers: ClassVar[bool] = False

    def scores(self, view):
        row = torch.arange(view.length, device=view.device) // view.grid[1]
        return view.draws.uniform(view.length) - row


@pytest.mark.slow
def test_a_strategy_that_declares_what_it_leaves_out_passes():
    found = {f.check: f for f in examine(contract(Never))}
    assert {f.status for f in found.values()} == {"pass", "not checked"}
    left = found["every position is hidden sometimes and seen sometimes"]
    assert left.reason == "the class declares covers = False"


# ---- planted bugs


class Bug(Random):
    """Hides at random, with one mistake."""

    name: ClassVar[str] = "bug"


class GlobalRandom(Bug):
    """Draws from torch's global state."""

    def scores(self, view):
        return torch.rand(view.batch, view.length)


class Seeds(Bug):
    """Sets torch's global state."""

    def scores(self, view):
        torch.manual_seed(0)
        return view.draws.uniform(view.length)


class NumpyRandom(Bug):
    """Adds numpy's global noise."""

    def scores(self, view):
        return view.draws.uniform(view.length) + float(np.random.rand())


class Clock(Bug):
    """Depends on the time."""

    def scores(self, view):
        return view.draws.uniform(view.length) * (1 + time.perf_counter() % 1)


class NotANumber(Bug):
    """Divides zero by zero."""

    def scores(self, view):
        scores = view.draws.uniform(view.length)
        return (scores - scores[:, :1]) / (scores - scores[:, :1])


class Infinite(Bug):
    """Takes the logarithm of zero."""

    def scores(self, view):
        scores = view.draws.uniform(view.length)
        return (scores - scores.amin(1, keepdim=True)).log()


class TwoDimensional(Bug):
    """Gives a map instead of a row."""

    def scores(self, view):
        return view.draws.uniform(*view.grid)


class Whole(Bug):
    """Gives whole numbers."""

    def scores(self, view):
        return view.draws.integers(1000, view.length)


class Doubled(Bug):
    """Gives float64."""

    def scores(self, view):
        return view.draws.uniform(view.length).double()


class Shared(Bug):
    """Gives all images the first one's scores."""

    def scores(self, view):
        return view.draws.uniform(view.length)[:1].expand(view.batch, -1).clone()


class OverTheBatch(Bug):
    """Normalises over the batch."""

    def scores(self, view):
        scores = view.draws.uniform(view.length)
        return scores - scores.mean(0, keepdim=True)


class ByPlace(Bug):
    """Draws by the place in the batch."""

    def scores(self, view):
        place = torch.arange(view.batch, device=view.device)[:, None]
        return (view.draws.uniform(view.length) + place * 0.37) % 1


class FirstColumn(Bug):
    """Never hides the first patch."""

    def scores(self, view):
        scores = view.draws.uniform(view.length)
        scores[:, 0] = -1
        return scores


class LastRow(Bug):
    """Never sees the last patch: a range that ends one too early."""

    def scores(self, view):
        scores = view.draws.uniform(view.length)
        scores[:, -1] = 2
        return scores


class Unread(Bug):
    """Has an option that nothing reads."""

    strength: float = Field(0.5, ge=0, le=1, description="how strong")


class OneUnread(Bug):
    """Reads one of two options."""

    power: float = Field(1.0, gt=0, le=4, description="exponent of the noise")
    mode: Literal["soft", "hard"] = Field("soft", description="how")

    def scores(self, view):
        rows = torch.arange(view.length, device=view.device) / view.length
        return view.draws.uniform(view.length) ** self.power + 0.1 * rows


class NoHelp(Bug):
    """Has an option without help."""

    strength: float = 0.5

    def scores(self, view):
        return view.draws.uniform(view.length) ** (1 + self.strength) + 0.1 * torch.arange(
            view.length, device=view.device
        )


class Square(Bug):
    """Takes every grid for a square."""

    def scores(self, view):
        side = int(view.length**0.5)
        return view.draws.uniform(side * side)


class RefusesOblong(Bug):
    """Fails on oblong grids by an assertion."""

    def scores(self, view):
        assert view.grid[0] == view.grid[1]
        return view.draws.uniform(view.length)


class OnCpu(Bug):
    """Makes a tensor on the CPU whatever the device."""

    def scores(self, view):
        return view.draws.uniform(view.length) + torch.arange(view.length) * 0.0


class Spoils(Bug):
    """Writes into the images."""

    def scores(self, view):
        view.images.mul_(0)
        return view.draws.uniform(view.length)


class SameEachEpoch(Bug):
    """Hides bright patches without breaking ties: each image is always masked alike."""

    def scores(self, view):
        light = torch.nn.functional.adaptive_avg_pool2d(view.images.mean(1), view.grid)
        return light.flatten(1)


class ByParity(Bug):
    """Hides the even columns of images with an even number, the odd ones of the others."""

    def scores(self, view):
        column = torch.arange(view.length, device=view.device) % view.grid[1]
        side = (column + view.ids[:, None]) % 2
        return side + 1e-3 * view.draws.uniform(view.length)


class NumberDecides(Bug):
    """Draws an order from the image's number; what changes with the epoch orders nothing."""

    def scores(self, view):
        mine = Draws(0, "mine", view.ids).uniform(view.length)
        return mine + view.draws.uniform(1)


class OneOrder(Bug):
    """Has one order of patches, and a number of its own for each image that orders nothing."""

    def scores(self, view):
        order = torch.linspace(0, 1, view.length, device=view.device)
        return order + view.draws.uniform(1)


class FaintlyOverTheBatch(Bug):
    """Takes off a mean over the batch, in very small numbers."""

    def scores(self, view):
        drawn = view.draws.uniform(view.length)
        return 1e-6 * (drawn - drawn.mean(0))


class AsksUndeclared(Bug):
    """Asks for attention without a word."""

    def scores(self, view):
        return view.attention()


class AsksNothing(Bug):
    """Declares attention, which costs a teacher, and never asks."""

    needs: ClassVar[frozenset[str]] = frozenset({"attention"})


class Misspelt(Bug):
    """Needs what there is not."""

    needs: ClassVar[frozenset[str]] = frozenset({"attentoin"})


class Forgets(Bug):
    """Drops an option when it is written."""

    strength: float = Field(0.5, ge=0, le=1, description="how strong", exclude=True)

    def scores(self, view):
        rows = torch.arange(view.length, device=view.device) / view.length
        return view.draws.uniform(view.length) + self.strength * rows


class Exits(Bug):
    """Ends the interpreter."""

    def scores(self, view):
        raise SystemExit(3)


class WrongDirection(Hard):
    """Is a copy of a learned strategy that gives only as many columns as are hidden."""

    name: ClassVar[str] = "wrong-direction"

    def guide(self, view: View):
        return view.patch_loss()[:, : view.num_hidden]


class AheadByImages(Bug):
    """Is drawn ahead, and looks at images that are not there yet."""

    ahead: ClassVar[bool] = True

    def scores(self, view):
        return view.images.mean((1, 2, 3))[:, None] + view.draws.uniform(view.length)


class AheadByImagesIfThere(Bug):
    """Is drawn ahead, and looks at images where there are some."""

    ahead: ClassVar[bool] = True

    def scores(self, view):
        extra = 0 if view.images is None else view.images[:, 0, 0, :1]
        return extra + view.draws.uniform(view.length)


class AheadByProgress(Bug):
    """Is drawn ahead, and gets stricter."""

    ahead: ClassVar[bool] = True

    def scores(self, view):
        rows = torch.arange(view.length, device=view.device) / view.length
        return view.draws.uniform(view.length) + view.progress * rows


BUGS = {
    "drawn ahead by images": (AheadByImages, "drawn ahead", "want view.images"),
    "drawn ahead by images, if": (AheadByImagesIfThere, "drawn ahead", "change with view.images"),
    "drawn ahead by progress": (AheadByProgress, "drawn ahead", "change with view.progress"),
    "torch's global numbers": (GlobalRandom, "the same seed gives", "from view.draws only"),
    "a seed set": (Seeds, "global random state", "moves the global state of torch"),
    "numpy's global numbers": (NumpyRandom, "global random state", "global state of numpy"),
    "the clock": (Clock, "the same seed gives", "two calls with the same view"),
    "NaN": (NotANumber, "scores are one finite", "not finite"),
    "infinite": (Infinite, "scores are one finite", "not finite"),
    "a map for a row": (
        TwoDimensional,
        "scores are one finite",
        r"\(1, 4, 4\), must be \(1, 16\)",
    ),
    "whole numbers": (Whole, "scores are one finite", "torch.int64, not torch.float32"),
    "float64": (Doubled, "scores are one finite", "torch.float64, not torch.float32"),
    "one mask for the batch": (Shared, "images of a batch", "12 of 12 images get the same"),
    "a statistic over the batch": (OverTheBatch, "do not depend on its batch", "companions"),
    "numbers by place": (ByPlace, "do not depend on its batch", "companions"),
    "a patch never hidden": (FirstColumn, "every position", r"seen in all of 1024.*\(0, 0\)"),
    "a patch never seen": (LastRow, "every position", r"hidden in all of 1024.*\(3, 3\)"),
    "an option never read": (Unread, "every option", "option 'strength' changes nothing"),
    "one option of two never read": (OneUnread, "every option", "option 'mode' changes nothing"),
    "an option without help": (NoHelp, "documented", "option 'strength' of NoHelp has no help"),
    "square grids only": (
        Square,
        "scores are one finite",
        r"4x8 grid, \(B, L\), has shape \(1, 25\)",
    ),
    "an assertion on oblong": (RefusesOblong, "scores are one finite", "AssertionError"),
    "the CPU only": (OnCpu, "device of the view", "device=view.device"),
    "images written to": (Spoils, "view is left as it was", "changes view.images in place"),
    "no new mask each epoch": (SameEachEpoch, "another epoch", "break ties"),
    "chance by the image's number": (ByParity, "another epoch", "decides nothing"),
    "an order by the image's number": (NumberDecides, "another epoch", "decides nothing"),
    "one order for all": (OneOrder, "images of a batch", "of all 12 are hidden"),
    "a faint statistic over the batch": (FaintlyOverTheBatch, "its batch", "companions"),
    "a need not declared": (AsksUndeclared, "scores are one finite", "needs = frozenset"),
    "a need never asked": (AsksNothing, "what it asks", "never asks for"),
    "a need misspelt": (Misspelt, "what it asks", "attentoin"),
    "an option not written": (Forgets, "json and back", "read back as"),
    "an exit": (Exits, "scores are one finite", "SystemExit"),
    "a refused shape of the guide": (WrongDirection, "scores are one finite", "a guide must be"),
    "only squares, and said so": (SquareOnly, "square and some oblong", "every oblong grid"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_named(bug):
    cls, check, reason = BUGS[bug]
    (name,) = [n for n in MaskingContract.checks() if check in n.replace("_", " ")]
    (found,) = examine(contract(cls, checks=classmethod(lambda cls: [name])))
    assert found.status == "fail"
    assert re.search(reason, found.reason), found.reason


@pytest.mark.slow
def test_the_healthy_original_has_no_failure():
    left = {f.check: f.reason for f in examine(contract(Bug)) if f.status != "pass"}
    assert left == {"every option changes the scores": "it has no options"}


def test_an_expected_failure_is_one_and_has_to_be_true():
    class Known(MaskingContract):
        component = FirstColumn
        expected_failures: ClassVar[dict[str, str]] = {
            "test_every_position_is_hidden_sometimes_and_seen_sometimes": "the first is a register"
        }

    with pytest.raises(pytest.xfail.Exception, match="register"):
        Known().test_every_position_is_hidden_sometimes_and_seen_sometimes()

    class Untrue(MaskingContract):
        component = Random
        expected_failures: ClassVar[dict[str, str]] = {
            "test_every_ratio_hides_the_exact_count": "it does not"
        }

    with pytest.raises(Broken, match="it passes: take 'test_every_ratio"):
        Untrue().test_every_ratio_hides_the_exact_count()
    with pytest.raises(TypeError, match="unknown check 'test_every_ratio_hides'.*Did you mean"):
        type("T", (MaskingContract,), {"expected_failures": {"test_every_ratio_hides": "x"}})


def test_a_strategy_that_needs_a_file_is_not_checked_without_one():
    found = list(examine(contract(LabelMap)))
    assert {f.status for f in found} == {"not checked"}
    assert "LabelMap(file=...)" in found[0].reason
    with pytest.raises(NotChecked):
        contract(LabelMap)().made()
