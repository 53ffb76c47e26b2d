"""What each strategy hides, by known answers: rectangles, cells, colours, guides and parts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch
from fakes import names
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from test_masking import mask_of, neighbour_correlation, view
from views import draw_view

from maebench import ConfigError, RunConfig, View
from maebench.errors import PluginError
from maebench.masking import (
    Attention,
    BlueNoise,
    Border,
    Centred,
    GreenNoise,
    Hard,
    InverseBlock,
    LabelMap,
    MultiBlock,
    Parts,
    PurpleNoise,
    Random,
    RedNoise,
    Uniform,
    Units,
    hide,
)
from maebench.masking.guided import ranks
from maebench.masking.parts import cluster
from maebench.pretraining.plan import prepare
from maebench.rng import Draws

GRID = (14, 14)


# ---- border


def test_border_sees_exactly_the_middle():
    seen = ~mask_of(Border(), 1 - 16 / 64, (8, 8)).hidden.view(-1, 8, 8)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:6, 2:6] = True
    assert (seen == expected).all()


def test_border_and_centred_of_one_shape_are_opposites():
    border = Border(shape="disc").distance(view((9, 7)))
    order = Border(shape="disc").scores(view((9, 7))) - border
    assert ((order >= 0) & (order < 1)).all()


@pytest.mark.parametrize("cls", [Centred, Border])
@pytest.mark.parametrize("shape", ["square", "disc"])
def test_jitter_moves_the_outline_and_does_not_fray_it(cls, shape):
    masking = cls(shape=shape, jitter=1.0)
    asked = view(GRID, range(300))
    moved = masking.distance(asked)
    hidden = hide(masking.scores(view(GRID, range(300))), 98, GRID).hidden
    inner, outer = (hidden, ~hidden) if cls is Centred else (~hidden, hidden)
    # a tie is broken within a thousandth
    farthest = moved.masked_fill(~inner, 0).amax(1)
    nearest = moved.masked_fill(~outer, 1e9).amin(1)
    assert (farthest < nearest + 2e-3).all()


# ---- inverse block


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.05, 0.95))
@pytest.mark.slow
def test_inverse_block_sees_the_first_cells_of_one_rectangle(h, w, ratio):
    try:
        mask = mask_of(InverseBlock(), ratio, (h, w), range(20))
    except ConfigError:
        return
    num_seen = mask.seen.shape[1]
    for seen in (~mask.hidden).view(-1, h, w):
        assert any(
            is_cut_rectangle(seen.roll((-top, -left), (0, 1)), num_seen)
            for top in range(h)
            for left in range(w)
            if seen[top, left]
        )


def is_cut_rectangle(seen, num_seen):
    """Whether they are whole rows, or columns, from the corner and then a part of one more."""
    return fills_rows(seen, num_seen) or fills_rows(seen.T, num_seen)


def fills_rows(seen, num_seen):
    width = int(seen[0].sum())
    if not seen[0, :width].all() or seen[:, width:].any():
        return False
    return bool(seen[:, :width].flatten()[:num_seen].all())


def test_inverse_block_is_seen_equally_often_everywhere_when_it_is_rolled():
    share = mask_of(InverseBlock(), 0.75, GRID, range(4000)).hidden.double().mean(0)
    # 4,000 masks: five standard deviations of a share of .75
    assert (share - 0.75).abs().max() < 5 * (0.75 * 0.25 / 4000) ** 0.5


def test_inverse_blocks_keep_to_the_aspect():
    shapes = []
    for aspect in (1.0, 0.2):
        seen = ~mask_of(InverseBlock(aspect=aspect), 0.9, (30, 30), range(300)).hidden
        seen = seen.view(-1, 30, 30)
        shapes.append((seen.any(2).sum(1) / seen.any(1).sum(1)).log())  # turned, the same extent
    assert shapes[0].abs().max() < 0.25
    assert 1.2 < shapes[1].abs().max() < 1.9
    assert shapes[1].mean().abs() < 0.3


def test_small_inverse_blocks_lie_flat_as_often_as_they_stand():
    seen = ~mask_of(InverseBlock(), 0.9, GRID, range(2000)).hidden.view(-1, *GRID)
    aspect = (seen.any(2).sum(1) / seen.any(1).sum(1)).log()
    # a standard error of .4 / 2000^.5
    assert aspect.mean().abs() < 0.045
    assert aspect.exp().max() > 1.7 and aspect.exp().min() < 0.6


# ---- multi-block


@pytest.mark.parametrize("grid", [(3, 17), (17, 3), (1, 12)])
def test_multi_blocks_context_is_its_share_of_an_oblong_image_too(grid):
    length = grid[0] * grid[1]
    # a target of one patch, and all that is outside of the context
    masking = MultiBlock(targets=1, scale=(0.01, 0.01), context=(0.85, 1.0))
    asked = view(grid, range(500))
    inside = masking.scores(asked) < 1
    share = (inside.sum(1) + 1) / length
    assert share.min() > 0.6
    assert 0.85 < share.mean() < 1.0


@pytest.mark.parametrize("grid", [(4, 16), (16, 4)])
def test_a_target_that_is_too_long_for_the_image_keeps_its_area(grid):
    masking = MultiBlock(targets=1, scale=(0.5, 0.5), aspect=(1.0, 1.0), context=(1.0, 1.0))
    hidden = mask_of(masking, 0.5, grid, range(50)).hidden.view(-1, *grid)
    for one in hidden:
        assert (one.any(1).sum() * one.any(0).sum()) == one.sum() == 32


def test_multi_block_hides_its_targets_before_what_is_outside_of_the_context():
    masking = MultiBlock(targets=1, scale=(0.2, 0.2), aspect=(1.0, 1.0), context=(0.3, 0.3))
    # 39 of 196 patches are a 6x6 target and three more outside
    hidden = mask_of(masking, 36 / 196, GRID, range(200)).hidden.view(-1, *GRID)
    for one in hidden:
        assert (one.any(1).sum(), one.any(0).sum()) == (6, 6)
    # at three quarters only the context is seen: 8x8 less the target
    seen = ~mask_of(masking, 0.75, GRID, range(200)).hidden.view(-1, *GRID)
    for one in seen:
        if one.sum() <= 64:
            assert (one.any(1).sum() <= 9) or (one.any(0).sum() <= 14)


def test_multi_blocks_targets_reach_every_row_and_column():
    hidden = mask_of(MultiBlock(), 0.4, GRID, range(3000)).hidden.view(-1, *GRID).float().mean(0)
    # the original's never reach the last ones
    assert (hidden[-1].mean() / hidden[0].mean() - 1).abs() < 0.15
    assert (hidden[:, -1].mean() / hidden[:, 0].mean() - 1).abs() < 0.15
    assert hidden[-1].min() > 0.02


@pytest.mark.parametrize(
    "wrong",
    [{"scale": (0.3, 0.2)}, {"scale": (0.0, 0.2)}, {"context": (0.5, 1.5)}, {"aspect": (0, 1)}],
)
def test_ranges_that_are_empty_or_out_of_bounds_are_refused(wrong):
    (key,) = wrong
    with pytest.raises(ValueError, match=f"{key}: 0 < smallest <= largest"):
        MultiBlock(**wrong)


# ---- units


def test_units_of_pixels_are_the_same_area_whatever_the_patch():
    masking = Units(size=32, of="pixels")
    assert [masking.unit(p) for p in ((4, 4), (16, 16), (32, 16))] == [(8, 8), (2, 2), (1, 2)]
    with pytest.raises(ConfigError, match="32 pixels are no multiple of patches of 14x14"):
        masking.unit((14, 14))
    ids = torch.arange(50)
    fine, coarse = (
        draw_view(masking, 0.6, (p, p), View((192 // p,) * 2, 0, ids, Draws(0, "masking", ids)))
        for p in (4, 16)
    )
    # SimMIM's 192 px: 36 squares, 22 of them hidden, the same ones on either grid
    assert (fine.num_hidden, coarse.num_hidden) == (22 * 64, 22 * 4)
    assert torch.equal(fine.hidden.view(-1, 12, 4, 12, 4)[:, :, 0, :, 0].flatten(1), coarse.hidden)


# ---- uniform


def test_uniform_sees_one_patch_of_every_cell_and_deals_the_places_out():
    seen = ~mask_of(Uniform(), 0.75, GRID, range(200)).hidden.view(-1, 7, 2, 7, 2)
    assert (seen.sum((2, 4)) == 1).all()
    places = seen.permute(0, 1, 3, 2, 4).reshape(200, 49, 4).int().argmax(2)
    counts = torch.stack([(places == p).sum(1) for p in range(4)], 1)
    assert counts.min() == 12
    assert counts.max() == 13


@pytest.mark.parametrize(("k", "ratio"), [(2, 0.25), (2, 0.6), (3, 0.75), (4, 0.5)])
def test_cells_of_uniform_differ_by_one_patch_at_most(k, ratio):
    side = 4 * k
    seen = ~mask_of(Uniform(k=k), ratio, (side, side), range(100)).hidden
    by_cell = seen.view(-1, 4, k, 4, k).sum((2, 4)).flatten(1)
    assert (by_cell.amax(1) - by_cell.amin(1)).max() <= 1


@pytest.mark.parametrize(
    ("k", "grid", "ratio"),
    [
        *[(2, GRID, 0.75), (2, (6, 6), 0.75), (2, (2, 2), 0.75), (2, (7, 5), 0.6)],
        *[(3, (6, 6), 0.89), (4, (8, 8), 0.9375), (4, (4, 4), 0.75)],
    ],
)
def test_uniform_hides_each_position_equally_often(k, grid, ratio):
    masks, length = 4000, grid[0] * grid[1]
    mask = mask_of(Uniform(k=k), ratio, grid, range(masks))
    share = mask.num_hidden / length
    rate = mask.hidden.double().mean(0)
    # cells cut by the edge see the same share as far as whole patches allow
    slack = 0.08 if grid == (7, 5) else 0.0
    assert (rate - share).abs().max() < slack + 5 * (share * (1 - share) / masks) ** 0.5


# ---- colour noise


def test_a_filter_too_narrow_to_have_its_colour_is_refused():
    for cls in (RedNoise, GreenNoise, BlueNoise, PurpleNoise):
        with pytest.raises(ValueError, match=r"greater than or equal to 0\.9"):
            cls(scale=0.5)
    narrow = [
        neighbour_correlation(mask_of(m, 0.75, GRID, range(2000)).hidden.view(-1, *GRID))
        for m in (RedNoise(scale=0.9), GreenNoise(scale=0.9), Random(), PurpleNoise(scale=0.9))
    ]
    assert narrow == sorted(narrow, reverse=True)


def test_the_colours_are_in_order_of_their_autocorrelation():
    found = [
        neighbour_correlation(mask_of(m, 0.75, GRID, range(2000)).hidden.view(-1, *GRID))
        for m in (RedNoise(), GreenNoise(), Random(), BlueNoise(), PurpleNoise())
    ]
    assert found == sorted(found, reverse=True)
    # apart by more than their error, and near what the same widths gave in an earlier program
    assert np.diff(found).max() < -0.015
    assert found[0] == pytest.approx(0.72, abs=0.04)
    assert found[3] == pytest.approx(-0.09, abs=0.03)


@pytest.mark.parametrize("cls", [RedNoise, GreenNoise, BlueNoise, PurpleNoise])
def test_a_colour_is_gaussian_noise_under_its_filter(cls):
    """scipy's Gaussian filters are the oracle for the spectrum of what is scored."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    noise = rng.normal(size=(300, 64, 64))

    def g(sigma):
        return gaussian_filter(noise, (0, sigma, sigma), mode="wrap")

    made = {
        RedNoise: lambda: g(2),
        GreenNoise: lambda: g(0.5) - g(2),
        BlueNoise: lambda: noise - g(1),
        PurpleNoise: lambda: noise - g(0.5) + g(2),
    }[cls]()
    ours = cls().scores(view((40, 40), range(300))).view(-1, 40, 40).double().numpy()
    for lag in (1, 2, 3):
        expected, found = ((x[:, :, lag:] * x[:, :, :-lag]).mean() / x.var() for x in (made, ours))
        assert found == pytest.approx(expected, abs=0.02), lag
    # no patch is more likely than another to be hidden, but for large blobs, which the edge cuts
    share = mask_of(cls(), 0.75, (8, 8), range(4000)).hidden.double().mean(0)
    error = 0.08 if cls is RedNoise else 5 * (0.75 * 0.25 / 4000) ** 0.5
    assert (share - 0.75).abs().max() < error


def test_opposite_edges_are_not_alike():
    left, right = (
        RedNoise().scores(view(GRID, range(2000))).view(-1, *GRID)[:, :, i] for i in (0, 13)
    )
    assert np.corrcoef(left.flatten(), right.flatten())[0, 1] == pytest.approx(0, abs=0.03)


# ---- guided


def guided(masking, progress=1.0, ratio=0.5, grid=(4, 8)):
    asked = view(grid, range(300), progress=progress)
    return draw_view(masking, ratio, (1, 1), asked).hidden, asked


def test_attention_hides_the_most_or_the_least_attended():
    hidden, asked = guided(Attention())
    attention = asked.attention()
    assert torch.equal(hidden, attention >= attention.topk(16).values[:, -1:])
    low, _ = guided(Attention(hide="low"))
    assert torch.equal(low, ~hidden)


def test_hints_are_drawn_from_the_most_attended_in_proportion_to_attention():
    masking = Attention(hide="hint", reveal=0.25)  # of 32 patches the top 8; 4 of 16 are shown
    hidden, asked = guided(masking)
    place = asked.attention().argsort(1, descending=True).argsort(1)
    shown = ~hidden & (place < 8)
    assert (shown.sum(1) == 4).all()
    assert (hidden.sum(1) == 16).all()
    # what is hidden instead are the next most attended
    assert hidden[(place >= 8) & (place < 20)].all()
    by_place = [float(shown[place == p].float().mean()) for p in range(8)]
    assert by_place[0] > 0.7 > 0.4 > by_place[7]


@pytest.mark.parametrize(("epoch", "image"), [(3, 3699), (15, 2847), (32, 2138)])
def test_the_largest_number_that_can_be_drawn_still_gives_a_hint(epoch, image):
    asked = view(GRID, [image], epoch=epoch)
    top = asked.draws.uniform(196), asked.draws.uniform(196)  # of the ranks, then of the maxima
    place = int(top[1].argmax())
    assert float(top[1].max()) == 1 - 2**-24
    attention = torch.full((1, 196), 1e-3)
    attention[0, place] = 0.5
    asked = view(GRID, [image], epoch=epoch, _providers={"attention": lambda: attention})
    hidden = draw_view(Attention(hide="hint"), 0.75, (1, 1), asked).hidden
    assert hidden.sum() == 147 and not hidden[0, place]


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.5, 0.25), (1.0, 0.5)])
def test_hard_hides_a_growing_share_of_the_worst_patches_and_the_others_at_random(progress, share):
    hidden, asked = guided(Hard(), progress)
    place = asked.patch_loss().argsort(1, descending=True).argsort(1)
    worst = round(16 * share)
    assert hidden[place < worst].all()
    others = hidden[place >= worst].double().mean()
    assert float(others) == pytest.approx((16 - worst) / (32 - worst), abs=1e-9)
    for p in (worst, 31):  # no further preference among them
        rate = float(hidden[place == p].double().mean())
        assert rate == pytest.approx(float(others), abs=5 * (0.25 / 300) ** 0.5)


def test_who_is_asked_is_an_option():
    for cls in (Attention, Hard, Parts):
        assert cls(of="encoder").answered_by == "encoder"
        assert cls(of="teacher").answered_by == "teacher"


def test_equal_guides_are_ranked_at_random_and_bad_ones_refused():
    asked = view((4, 4), range(2000))
    places = ranks(torch.zeros(2000, 16), asked)
    assert torch.equal(places.sort(1).values, torch.arange(16).expand(2000, -1))
    assert (places.double().mean(0) - 7.5).abs().max() < 5 * 4.61 / 2000**0.5
    with pytest.raises(
        PluginError, match=r"guide must be \(B, L\) = \(2000, 16\), got \(2000, 4\)"
    ):
        ranks(torch.zeros(2000, 4), asked)
    with pytest.raises(PluginError, match="not finite"):
        ranks(torch.full((2000, 16), float("nan")), asked)


# ---- parts


def known_parts(labels, **options):
    """A strategy whose parts are given."""

    class Known(LabelMap):
        """Parts that a test gives."""

        def labels(self, view):
            return labels

    return Known(file="x", **options)


def test_at_first_every_part_gives_the_same_share_and_at_last_parts_are_hidden_whole():
    sizes = (4, 12, 20, 28)
    labels = torch.cat([torch.full((n,), i) for i, n in enumerate(sizes)])
    labels = labels[torch.randperm(64, generator=torch.Generator().manual_seed(0))].expand(400, -1)
    asked = view((8, 8), range(400), progress=0.0)
    masking = known_parts(labels)
    hidden = masking.scores(View(**{**vars(asked), "num_hidden": 48})).argsort(1).argsort(1) >= 16
    for part, n in enumerate(sizes):
        counts = hidden[labels == part].view(400, n).sum(1)
        assert (counts - 0.75 * n).abs().max() <= 1.0
    late = View(**{**vars(asked), "num_hidden": 48, "progress": 1.0})
    hidden = masking.scores(late).argsort(1).argsort(1) >= 16
    shares = torch.stack(
        [hidden[labels == p].view(400, n).float().mean(1) for p, n in enumerate(sizes)], 1
    )
    cut = ((shares > 0) & (shares < 1)).sum(1)
    assert cut.max() <= 1  # one part at most is hidden in part
    assert (shares.mean(0) > 0.3).all()  # which ones is random
    half = View(**{**vars(asked), "num_hidden": 48, "progress": 0.5})
    assert not torch.equal(masking.scores(half), masking.scores(late))


def test_the_share_of_whole_parts_grows_as_the_square_of_the_progress():
    labels = (torch.arange(64) // 16).expand(8, -1)
    moved, fixed = (
        known_parts(labels, **options).scores(view((8, 8), range(8), progress=0.5))
        for options in ({}, {"start": 0.25, "end": 0.25})
    )
    assert torch.equal(moved, fixed)


def test_clusters_are_as_tight_as_scikit_learns():
    torch.manual_seed(0)
    centres = torch.randn(6, 1, 4, 5) * 3
    features = (centres + torch.randn(6, 12, 4, 5) * 0.3).flatten(1, 2)
    asked = view((6, 8), range(6))
    labels = cluster(features, 4, asked)
    for one, found in zip(features, labels, strict=True):
        oracle = KMeans(4, n_init=1, init="random", random_state=0).fit(one)
        within = sum(
            float((one[found == k] - one[found == k].mean(0)).square().sum())
            for k in found.unique()
        )
        best = KMeans(4, n_init=10, random_state=0).fit(one).inertia_
        worst = KMeans(1, n_init=1, random_state=0).fit(one).inertia_
        assert within <= max(oracle.inertia_, best + 0.5 * (worst - best))


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_a_label_map_is_cropped_and_mirrored_with_its_image(tmp_path, dtype):
    file = tmp_path / "maps.npy"
    maps = np.arange(3 * 8 * 8).reshape(3, 8, 8) % 256
    np.save(file, maps.astype(dtype))
    ids = torch.tensor([2, 0])
    boxes = torch.tensor([[0.0, 0, 8, 8], [2, 4, 4, 4]])
    asked = view((4, 4), ids, boxes=boxes, flips=torch.tensor([False, True]))
    labels = LabelMap(file=file).labels(asked).view(2, 4, 4)
    assert torch.equal(labels[0], torch.from_numpy(maps[2, 1::2, 1::2]))
    assert torch.equal(labels[1], torch.from_numpy(maps[0, 2:6, 4:8][:, ::-1].copy()))
    whole = LabelMap(file=file).labels(view((4, 4), ids))
    assert torch.equal(whole[0].view(4, 4), labels[0])


def test_a_label_map_is_known_by_its_content(tmp_path):
    first, second = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(first, np.zeros((2, 4, 4), "uint8"))
    np.save(second, np.zeros((2, 4, 4), "uint8"))
    marks = [LabelMap(file=f).identity() for f in (first, second)]
    assert marks[0] == marks[1]
    np.save(second, np.ones((2, 4, 4), "uint8"))
    assert LabelMap(file=second).identity() != marks[0]
    config = RunConfig(names(), masking=f"label-map:{first}")
    assert config.identity("f", "fp32")["masking"]["file"] == marks[0]["file"]
    assert json.loads(json.dumps(config.dump()))["masking"]["file"] == str(first)


def test_label_maps_that_do_not_fit_are_refused(tmp_path):
    file = tmp_path / "maps.npy"
    masking = LabelMap(file=file)
    with pytest.raises(ConfigError, match=r"maps\.npy cannot be read"):
        masking.check((4, 4), 8)
    for wrong in (np.zeros((4, 4), "uint8"), np.zeros((2, 4, 4))):
        np.save(file, wrong)
        with pytest.raises(ConfigError, match=r"is no integer \.npy of \(N, H, W\)"):
            masking.check((4, 4), 8)
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="cannot be read"):  # nothing is unpickled
        masking.check((4, 4), 8)
    np.save(file, np.full((2, 4, 4), 300))
    masking.check((4, 4), 8)
    with pytest.raises(ConfigError, match="labels from 300 to 300, 0 to 255 are allowed"):
        masking.check_ids(torch.tensor([0]))
    np.save(file, np.full((2, 4, 4), -1))
    with pytest.raises(ConfigError, match="labels from -1 to -1"):
        masking.check_ids(torch.tensor([0]))
    for nothing in (np.zeros((2, 0, 0), "uint8"), np.zeros((0, 4, 4), "uint8")):
        np.save(file, nothing)
        with pytest.raises(ConfigError, match=r"is no integer \.npy of \(N, H, W\)"):
            masking.check((4, 4), 8)
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"maps\.npy cannot be read"):
        masking.check((4, 4), 8)
    np.save(file, np.zeros((2, 4, 4), "uint8"))
    masking.check_ids(torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="has 2 maps, there is none for image 2"):
        masking.check_ids(torch.tensor([2, 0]))
    for stored in ([8, 8], [2, 4]):  # larger or smaller than its map
        with pytest.raises(ConfigError, match="maps of 4x4, an image is stored in another"):
            masking.labels(view((4, 4), [0], sizes=torch.tensor([stored])))
    with pytest.raises(ConfigError, match=r"label-map.* wants the \.npy of labels"):
        RunConfig(names(), masking="label-map:")


def test_a_label_map_that_does_not_fit_is_refused_before_the_run_begins(tmp_path):
    file = tmp_path / "maps.npy"
    np.save(file, np.zeros((20, 8, 8), "uint8"))
    with pytest.raises(ConfigError, match="has 20 maps, there is none for image 1426"):
        prepare(tiny.config(masking=LabelMap(file=file)), tmp_path)
    assert not list((tmp_path / "runs").iterdir())
    np.save(file, np.zeros((1797, 16, 16), "uint8"))
    with pytest.raises(ConfigError, match="maps of 16x16, an image is stored in another"):
        tiny.plan(tmp_path, masking=LabelMap(file=file))


def test_a_learned_strategy_of_larger_units_is_told_means_over_its_units():
    class Coarse(Hard):
        """Hard squares of 2x2 patches."""

        def unit(self, patch):
            return (2, 2)

    asked = view((4, 8), range(100), progress=1.0)
    hidden = draw_view(Coarse(end=1.0, start=1.0), 0.5, (1, 1), asked).hidden.view(-1, 2, 2, 4, 2)
    loss = asked.patch_loss().view(-1, 2, 2, 4, 2).mean((2, 4)).flatten(1)
    units = hidden[:, :, 0, :, 0].flatten(1)
    assert (hidden == hidden[:, :, :1, :, :1]).all()
    assert torch.equal(units, loss >= loss.topk(4).values[:, -1:])
