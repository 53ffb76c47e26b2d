"""Masks: exact counts, one polarity, the same for any batch, and the statistics of each strategy."""

from __future__ import annotations

import functools
import math
import random
import re
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from views import draw_view

from maebench import Block, Centred, ConfigError, Grid, Masking, Random, View
from maebench.errors import PluginError
from maebench.masking import (
    BUILT_IN,
    Attention,
    BlueNoise,
    Border,
    GreenNoise,
    Hard,
    InverseBlock,
    LabelMap,
    MultiBlock,
    Parts,
    PurpleNoise,
    RedNoise,
    Uniform,
    Units,
    count_hidden,
    hide,
)
from maebench.masking import mask as mask_module
from maebench.masking.blocks import TRIES
from maebench.rng import Draws

EVERY = [
    Random(),
    Block(),
    Block(aspect=0.1, smallest=0.5),
    Grid(),
    Grid(k=3),
    Centred(),
    Centred(shape="disc", jitter=2.0),
    Border(),
    InverseBlock(),
    InverseBlock(aspect=0.1),
    MultiBlock(),
    MultiBlock(targets=1, scale=(0.5, 0.9), context=(0.1, 0.3)),
    Uniform(),
    Uniform(k=3),
    Units(),
    Units(size=3),
    *(RedNoise(), GreenNoise(), BlueNoise(), PurpleNoise(), GreenNoise(scale=3)),
    Attention(),
    Attention(hide="hint", reveal=0.5, start=0.5),
    Hard(),
    Parts(),
    Parts(clusters=2, start=1),
]
by_options = {"ids": lambda m: m.changed()}
sides = st.integers(1, 32)
grids = st.tuples(sides, sides).filter(lambda g: g[0] * g[1] >= 2)
ratios = st.one_of(
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(1, 99).map(lambda percent: percent / 100),
)


def view(grid, ids=None, epoch=0, seed=0, **more):
    """What pretraining shows a strategy."""
    ids = torch.arange(64) if ids is None else torch.as_tensor(ids)
    model, length = Draws(seed, "model", ids, epoch), grid[0] * grid[1]
    answers = {
        "attention": lambda: model.normal(length).softmax(1),
        "patch_loss": lambda: model.uniform(length),
        "features": lambda: model.normal(length, 8),
    }
    answers = {what: functools.cache(ask) for what, ask in answers.items()}
    more = {"progress": 0.5, "_providers": answers, **more}
    return View(grid, 0, ids, Draws(seed, "masking", ids, epoch), **more)


def sized(masking, grid):
    """The grid, or the next larger one that larger units divide."""
    return tuple(-(-n // u) * u for n, u in zip(grid, masking.unit((1, 1)), strict=True))


def mask_of(masking, ratio, grid, *args, **more):
    return draw_view(masking, ratio, (1, 1), view(grid, *args, **more))


def hidden_by_decimals(length, ratio):
    """The count by other means than the code's fractions."""
    with localcontext() as context:
        context.prec = 1200
        seen = (length * (1 - Decimal(str(ratio)))).to_integral_value(ROUND_HALF_UP)
    return length - int(seen)


# ---- how many


@settings(max_examples=400, deadline=None)
@given(grids, ratios)
def test_the_count_is_length_minus_the_seen_share_rounded_half_up(grid, ratio):
    length = grid[0] * grid[1]
    expected = hidden_by_decimals(length, ratio)
    if 0 < expected < length:
        assert count_hidden(length, ratio, grid) == expected
    else:
        with pytest.raises(ConfigError):
            count_hidden(length, ratio, grid)


@pytest.mark.parametrize(
    ("length", "ratio", "seen"),
    [
        *((25, 0.8, 5), (100, 0.55, 45), (100, 0.8, 20), (100, 0.9, 10)),
        *((225, 0.8, 45), (400, 0.55, 180), (400, 0.8, 80), (400, 0.9, 40)),
    ],
)
def test_counts_that_floats_get_wrong_by_one_are_right(length, ratio, seen):
    assert int(length * (1 - ratio)) == seen - 1  # what the official code does
    assert count_hidden(length, ratio) == length - seen


@settings(max_examples=300, deadline=None)
@given(grids)
def test_the_range_named_in_the_refusal_is_the_range_that_works(grid):
    length = grid[0] * grid[1]
    texts = []
    for ratio, outcome in ((1e-9, "nothing"), (1 - 1e-9, "everything")):
        with pytest.raises(ConfigError, match=outcome) as refusal:
            count_hidden(length, ratio, grid)
        assert f"{grid[0]}x{grid[1]}" in str(refusal.value)
        texts.append(re.search(r"above (\S+) and up to (\S+)$", str(refusal.value)))
    low, high = map(float, texts[0].groups())
    assert texts[0].groups() == texts[1].groups()
    assert count_hidden(length, low + 1e-9) == 1
    assert count_hidden(length, high) == length - 1
    for outside in (low - 1.1e-6, high + 1.1e-6):  # six digits are printed
        with pytest.raises(ConfigError):
            count_hidden(length, outside)


def test_a_single_patch_cannot_be_split():
    with pytest.raises(ConfigError, match="1x1 patches cannot be split"):
        count_hidden(1, 0.5, (1, 1))


@pytest.mark.parametrize("ratio", [math.nan, math.inf, -math.inf, -0.5, 0.0, 1.0, 1.5])
def test_a_ratio_that_is_no_share_is_refused(ratio):
    with pytest.raises(ConfigError, match="ratio"):
        count_hidden(196, ratio)


@pytest.mark.parametrize("masking", EVERY, **by_options)
@settings(max_examples=25, deadline=None)
@given(grids, ratios, st.integers(1, 5))
def test_every_strategy_hides_exactly_the_count_in_every_image(masking, grid, ratio, batch):
    h, w = masking.unit((1, 1))
    length = (grid[0] // h) * (grid[1] // w)
    expected = hidden_by_decimals(length, ratio) * h * w
    if grid[0] % h or grid[1] % w or not 0 < expected < length * h * w:
        with pytest.raises(ConfigError):
            mask_of(masking, ratio, grid, range(batch))
        return
    mask = mask_of(masking, ratio, grid, range(batch))
    assert mask.hidden.dtype == torch.bool
    assert mask.seen.dtype == torch.int64
    assert mask.hidden.sum(1).tolist() == [expected] * batch
    # seen is ascending and holds what hidden does not
    assert [row.tolist() for row in mask.seen] == [
        (~row).nonzero()[:, 0].tolist() for row in mask.hidden
    ]
    assert (mask.num_hidden, mask.grid) == (expected, grid)


# ---- hide: from scores to a mask


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.data())
def test_the_highest_scores_are_hidden_and_of_equal_ones_the_earlier(scores, data):
    num = data.draw(st.integers(0, len(scores)))
    mask = hide(torch.tensor([scores]).float(), num, (1, len(scores)))
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert mask.hidden[0].nonzero()[:, 0].tolist() == sorted(order[:num])
    assert mask.seen[0].tolist() == sorted(order[num:])


def test_infinite_scores_are_an_order_and_nan_is_none():
    inf = math.inf
    mask = hide(torch.tensor([[0.0, -inf, inf, 1.0]]), 2, (2, 2))
    assert mask.hidden.tolist() == [[False, False, True, True]]
    with pytest.raises(PluginError, match="NaN"):
        hide(torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, math.nan, 1.0, 2.0]]), 2, (2, 2))


@pytest.mark.parametrize("shape", [(4,), (3, 5), (3, 2, 2), (3, 4, 1)])
def test_scores_of_another_shape_are_refused_with_both_shapes(shape):
    with pytest.raises(PluginError, match=re.escape(f"(B, 4) for a 2x2 grid, got {shape}")):
        hide(torch.zeros(shape), 2, (2, 2))


class Dark(Masking):
    """Hides dark patches."""

    name: ClassVar[str] = "dark"

    def scores(self, view: View) -> torch.Tensor:
        light = torch.nn.functional.adaptive_avg_pool2d(view.images.mean(1), view.grid)
        return -light.flatten(1)


def test_hidden_true_means_the_encoder_does_not_get_the_patch():
    images = torch.zeros(2, 3, 8, 8)
    images[:, :, :, 4:] = 1.0  # left half black
    mask = draw_view(Dark(), 0.5, (2, 2), view((4, 4), [0, 1], images=images))
    assert mask.hidden.view(2, 4, 4)[:, :, :2].all()
    assert mask.seen.tolist() == [[2, 3, 6, 7, 10, 11, 14, 15]] * 2


def test_a_mask_splits_along_the_batch():
    mask = mask_of(Random(), 0.75, (4, 4), range(7))
    parts = mask.split(3)
    assert [len(p.hidden) for p in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([p.hidden for p in parts]), mask.hidden)
    assert torch.equal(torch.cat([p.seen for p in parts]), mask.seen)
    assert {(p.grid, p.num_hidden) for p in parts} == {((4, 4), 12)}


# ---- randomness


@pytest.mark.parametrize("masking", EVERY, **by_options)
def test_an_image_has_the_same_mask_in_any_batch(masking):
    ids = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    epochs = ids % 3
    grid = sized(masking, (7, 9))
    whole = mask_of(masking, 0.6, grid, ids, epochs).hidden
    for size in (1, 7):
        parts = [
            mask_of(masking, 0.6, grid, i, e).hidden
            for i, e in zip(ids.split(size), epochs.split(size), strict=True)
        ]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(
        mask_of(masking, 0.6, grid, ids.flip(0), epochs.flip(0)).hidden.flip(0), whole
    )


@pytest.mark.parametrize("masking", EVERY, **by_options)
def test_masks_repeat_with_the_seed_and_differ_by_seed_epoch_and_image(masking):
    grid = sized(masking, (14, 14))
    first = mask_of(masking, 0.6, grid).hidden
    assert torch.equal(first, mask_of(masking, 0.6, grid).hidden)
    for other in ({"seed": 1}, {"epoch": 1}):
        same = (mask_of(masking, 0.6, grid, **other).hidden == first).all(1)
        assert same.float().mean() < 0.05
    # a rectangle has few places to be at
    assert len({tuple(row) for row in first.tolist()}) > 0.8 * len(first)


@pytest.mark.parametrize("masking", [m for m in EVERY if m.covers], **by_options)
def test_every_patch_is_hidden_sometimes_and_seen_sometimes(masking):
    for grid in (sized(masking, g) for g in ((4, 4), (8, 8), (14, 14), (5, 9))):
        share = mask_of(masking, 0.75, grid, range(1000)).hidden.float().mean(0)
        assert share.min() > 0.02, (grid, share.view(grid))
        assert share.max() < 0.998, (grid, share.view(grid))


def test_random_hides_each_patch_equally_often():
    N, L, grid = 4000, 196, (14, 14)
    n = count_hidden(L, 0.75)
    counts = mask_of(Random(), 0.75, grid, range(N)).hidden.sum(0).double()
    # n of L without replacement: counts have variance N p (1 - p) and sum to N n, so that the
    # statistic has L - 1 degrees of freedom once it is scaled by (L - 1) / L
    p = n / L
    statistic = ((counts - N * p) ** 2).sum() / (N * p * (1 - p)) * (L - 1) / L
    assert 0.001 < chi2.cdf(float(statistic), L - 1) < 0.999


def test_random_hides_neighbours_independently():
    # each pair of places is hidden together with probability n (n - 1) / (L (L - 1))
    N, L = 20000, 16
    hidden = mask_of(Random(), 0.5, (4, 4), range(N)).hidden.double()
    together = (hidden.T @ hidden)[~torch.eye(L, dtype=torch.bool)] / N
    expected = 8 * 7 / (L * (L - 1))
    assert (together - expected).abs().max() < 5 * math.sqrt(expected * (1 - expected) / N)


# ---- block


def beit_blocks(grid, count, rng, smallest=16, aspect=0.3):
    """BEiT's block-wise masking, told from the paper: rectangles until the count or no progress."""
    H, W = grid
    covered = set()
    while len(covered) < count:
        room = count - len(covered)
        for _ in range(10):
            area = rng.uniform(smallest, room)
            shape = math.exp(rng.uniform(math.log(aspect), -math.log(aspect)))
            h, w = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if h >= H or w >= W:
                continue
            top, left = rng.randint(0, H - h), rng.randint(0, W - w)
            cells = {(y, x) for y in range(top, top + h) for x in range(left, left + w)}
            if 0 < len(cells - covered) <= room:
                covered |= cells
                break
        else:
            break
    return [[(y, x) in covered for x in range(W)] for y in range(H)]


def neighbour_correlation(hidden_BHW):
    """Lag-1 autocorrelation of the visible map, over rows and columns."""
    v = 1 - hidden_BHW.double()
    v = v - v.mean((1, 2), keepdim=True)
    pairs = [(v[:, 1:] * v[:, :-1]).mean(), (v[:, :, 1:] * v[:, :, :-1]).mean()]
    return float(sum(pairs) / 2 / v.square().mean())


@pytest.mark.parametrize("ratio", [0.75, 0.4])
def test_block_is_as_clustered_as_beits_algorithm_and_random_is_not(ratio):
    grid, n = (14, 14), count_hidden(196, ratio)
    rng = random.Random(0)
    made = torch.tensor([beit_blocks(grid, n, rng) for _ in range(600)])
    oracle = made[made.sum((1, 2)) == n]  # the original reaches the count in most samples only
    assert 300 < len(oracle) < 600
    block, uniform = (
        neighbour_correlation(mask_of(m, ratio, grid, range(1000)).hidden.view(-1, *grid))
        for m in (Block(), Random())
    )
    assert abs(block - neighbour_correlation(oracle)) < 0.03
    assert abs(uniform) < 0.02
    # where in the image: the middle as much more often than the corners as there
    share = mask_of(Block(), ratio, grid, range(1000)).hidden.float().mean(0).view(grid)
    difference = (share - oracle.float().mean(0)).abs()
    assert difference.mean() < 0.03


@pytest.mark.parametrize(
    ("grid", "ratio"), [((14, 14), 0.75), ((14, 14), 0.4), ((4, 4), 0.75), ((6, 11), 0.5)]
)
def test_what_block_accepts_are_rectangles_that_fit_into_the_count(grid, ratio):
    n = count_hidden(grid[0] * grid[1], ratio)
    asked = view(grid, range(200))
    order_BHW = (-Block().scores(View(grid, n, asked.ids, asked.draws))).floor().view(-1, *grid)
    hidden_BHW = mask_of(Block(), ratio, grid, range(200)).hidden.view(-1, *grid)
    for order, hidden in zip(order_BHW, hidden_BHW, strict=True):
        accepted = sorted(set(order[order < TRIES].tolist()))
        first = (order == accepted[0]).nonzero() if accepted else torch.zeros(0, 2)
        if len(first):  # nothing lies under the first: all of it is there
            height, width = (first.amax(0) - first.amin(0) + 1).tolist()
            assert len(first) == height * width
        for number in accepted:  # later ones lie over earlier ones
            (top, left), (bottom, right) = (
                getattr((order == number).nonzero(), end)(0).tolist() for end in ("amin", "amax")
            )
            assert (order[top : bottom + 1, left : right + 1] <= number).all()
        assert (order < TRIES).sum() <= n
        assert hidden[order < TRIES].all()


def test_blocks_rectangles_keep_to_the_smallest_area_and_the_aspect():
    grid, n = (28, 28), count_hidden(784, 0.4)
    for masking in (Block(), Block(aspect=1.0, smallest=0.1)):
        asked = view(grid, range(300))
        order = (-masking.scores(View(grid, n, asked.ids, asked.draws))).floor().view(-1, *grid)
        heights, widths = [], []
        for cells in (o.eq(0).nonzero() for o in order):
            if len(cells):
                height, width = (cells.amax(0) - cells.amin(0) + 1).tolist()
                heights.append(height)
                widths.append(width)
                # a side is off by at most half a cell from the drawn one
                assert (height + 0.5) * (width + 0.5) >= masking.smallest * 784
                assert (height - 0.5) / (width + 0.5) <= 1 / masking.aspect
                assert (width - 0.5) / (height + 0.5) <= 1 / masking.aspect
        assert len(heights) > 250
        flat = sum(h < w for h, w in zip(heights, widths, strict=True))
        tall = sum(h > w for h, w in zip(heights, widths, strict=True))
        assert (flat == tall == 0) if masking.aspect == 1 else (min(flat, tall) > 90)


# ---- grid


def test_grid_sees_one_patch_of_each_cell_at_a_phase_that_varies_over_images():
    seen = ~mask_of(Grid(k=2), 0.75, (14, 14), range(400)).hidden.view(-1, 7, 2, 7, 2)
    assert (seen.sum((2, 4)) == 1).all()
    phase = seen.permute(0, 1, 3, 2, 4).reshape(400, 49, 4).int().argmax(2)
    assert (phase == phase[:, :1]).all()  # all cells of an image alike
    counts = phase[:, 0].bincount(minlength=4)
    assert ((counts - 100).abs() < 40).all(), counts  # 4.6 standard deviations


def test_grid_with_another_ratio_hides_a_random_part_of_one_more_place():
    seen = ~mask_of(Grid(k=2), 0.6, (8, 8), range(200)).hidden.view(-1, 4, 2, 4, 2)
    by_place = seen.permute(0, 2, 4, 1, 3).reshape(200, 4, 16).sum(2).sort(1).values
    # 26 of 64 seen: two places hidden, 10 of 16 of another seen, one seen
    assert (by_place == torch.tensor([0, 0, 10, 16])).all()


# ---- centred


@pytest.mark.parametrize(
    ("grid", "ratio", "rows", "columns"),
    [
        ((14, 14), 100 / 196, slice(2, 12), slice(2, 12)),
        ((8, 8), 0.25, slice(2, 6), slice(2, 6)),
        ((7, 7), 9 / 49, slice(2, 5), slice(2, 5)),
        ((6, 10), 16 / 60, slice(1, 5), slice(3, 7)),  # a square hole in an oblong image
    ],
)
def test_centred_hides_exactly_the_middle(grid, ratio, rows, columns):
    hidden = mask_of(Centred(), ratio, grid).hidden.view(-1, *grid)
    expected = torch.zeros(grid, dtype=torch.bool)
    expected[rows, columns] = True
    assert (hidden == expected).all()


def test_a_disc_hides_nothing_farther_away_than_what_it_sees():
    for ratio in (0.1, 0.4, 0.75):
        hidden = mask_of(Centred(shape="disc"), ratio, (13, 15)).hidden.view(-1, 13, 15)
        y, x = torch.meshgrid(torch.arange(13) - 6.0, torch.arange(15) - 7.0, indexing="ij")
        distance = y.square() + x.square()
        for one in hidden:
            assert distance[one].max() <= distance[~one].min()


def test_jitter_moves_the_hole_around_the_middle():
    grid, jitter = (33, 33), 3.0
    masks = mask_of(Centred(jitter=jitter), 25 / 33**2, grid, range(1000)).hidden.view(-1, *grid)
    places = masks.nonzero()[:, 1:].view(1000, 25, 2).double().mean(1)
    assert (places.mean(0) - 16).abs().max() < 5 * jitter / math.sqrt(1000)
    assert ((places.std(0) / jitter - 1).abs() < 0.12).all()
    still = mask_of(Centred(), 25 / 33**2, grid).hidden
    assert (still == still[0]).all()


# ---- larger units


class Coarse(Masking):
    """Hides squares of 4x4 pixels."""

    name: ClassVar[str] = "coarse"

    def unit(self, patch: tuple[int, int]) -> tuple[int, int]:
        return (4 // patch[0], 4 // patch[1])

    def scores(self, view: View) -> torch.Tensor:
        assert (view.grid, view.num_hidden) == ((2, 4), 5)  # in units, not in patches
        return view.draws.uniform(view.length)


@pytest.mark.parametrize(("patch", "grid"), [((2, 2), (4, 8)), ((1, 2), (8, 8)), ((4, 4), (2, 4))])
def test_larger_units_are_hidden_or_seen_as_a_whole_and_counted_in_units(patch, grid):
    mask = draw_view(Coarse(), 0.6, patch, view(grid, range(100)))
    h, w = 4 // patch[0], 4 // patch[1]
    cells = mask.hidden.view(-1, 2, h, 4, w).transpose(2, 3).reshape(100, 8, h * w)
    assert (cells == cells[:, :, :1]).all()
    assert (cells[:, :, 0].sum(1) == 5).all()
    assert (mask.num_hidden, mask.grid) == (5 * h * w, grid)
    assert (cells[:, :, 0].double().mean(0) - 5 / 8).abs().max() < 0.2


def test_units_that_do_not_divide_the_grid_are_refused():
    with pytest.raises(ConfigError, match=r"'coarse' hides units of 2x2 patches.*grid of 4x7"):
        draw_view(Coarse(), 0.5, (2, 2), view((4, 7)))


class Picky(Random):
    """Does square grids only."""

    name: ClassVar[str] = "picky"

    def check(self, grid: tuple[int, int], num_hidden: int) -> None:
        if grid[0] != grid[1]:
            raise ConfigError(f"squares only, not {grid}, {num_hidden} hidden")


def test_a_strategy_refuses_what_it_cannot_do_before_it_is_asked_for_scores():
    assert mask_of(Picky(), 0.5, (4, 4)).num_hidden == 8
    with pytest.raises(ConfigError, match=r"not \(2, 4\), 6 hidden"):
        mask_of(Picky(), 0.75, (2, 4))


def test_asking_for_what_was_not_declared_says_how_to_declare_it():
    for what in ("attention", "patch_loss", "features"):
        with pytest.raises(PluginError, match=rf"needs = frozenset\(\{{'{what}'\}}\)"):
            getattr(view((2, 2), _providers={}), what)()


def test_every_built_in_strategy_is_tested_here():
    assert {type(m) for m in EVERY} | {LabelMap} == set(BUILT_IN)  # it has its own, with files


def test_scores_that_hold_nan_are_found_at_once_on_a_cpu_also_where_it_may_be_later():
    checks = []
    with mask_module.checked_later(checks), pytest.raises(PluginError, match="NaN"):
        hide(torch.full((2, 4), float("nan")), 2, (2, 2))
    assert not checks


def test_scores_elsewhere_are_asked_later():
    checks = []
    with mask_module.checked_later(checks):
        hide(torch.zeros(2, 4, device="meta"), 2, (2, 2))
    assert [bad.shape for bad, _ in checks] == [()]


def test_what_was_put_off_is_asked_together_and_the_first_error_is_raised():
    checks = [
        (torch.tensor(bad), PluginError(text)) for bad, text in ((0, "a"), (1, "b"), (1, "c"))
    ]
    with pytest.raises(PluginError, match="b"):
        mask_module.read_checks(checks)
    assert not checks
    mask_module.read_checks(checks)
