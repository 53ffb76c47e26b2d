"""Rounds of fitting on one part of train and choosing on the rest."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from maebench import Folds, NotApplicable, choose
from maebench.evaluation import folds as folds_module
from maebench.evaluation.folds import FEW, MANY, rounds_for

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)
SEEDS = st.integers(0, 5)


def divided(labels, seed=0, **more):
    """The folds, of labels that can be divided."""
    try:
        return Folds.of(labels, seed, **more)
    except NotApplicable:
        assume(False)


@given(LABELS, SEEDS)
def test_every_round_fits_and_holds_disjoint_parts_that_are_all_of_train(labels, seed):
    folds = divided(labels, seed)
    rounds = list(folds.rounds())
    assert len(rounds) == len(folds.held)
    for fit, held in rounds:
        assert len(fit) and len(held)
        assert sorted([*fit.tolist(), *held.tolist()]) == list(range(len(labels)))


@given(LABELS, SEEDS)
def test_classes_are_spread_within_one_image_and_only_the_lone_image_of_a_class_is_never_held_out(
    labels, seed
):
    folds = divided(labels, seed)
    size = labels.bincount()
    most = min(5, int(size.max()))
    assert len(folds.held) == 2 * most
    for repeat in folds.held.split(most):
        counts = torch.stack([labels[held].bincount(minlength=len(size)) for held in repeat])
        assert (counts.max(0).values - counts.min(0).values <= 1).all()
        assert repeat.sum(1).max() - repeat.sum(1).min() <= 1
        assert (repeat.sum(0) == (size[labels] > 1)).all()
    assert folds.index.tolist() == (size[labels] > 1).nonzero()[:, 0].tolist()
    for fit, _ in folds.rounds():
        assert labels[fit].unique().tolist() == labels.unique().tolist()


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), min_size=4, max_size=40), SEEDS)
def test_a_group_never_lies_on_both_sides(pairs, seed):
    labels, groups = (torch.tensor(column) for column in zip(*pairs, strict=True))
    folds = divided(labels, seed, groups=groups)
    assert folds.held.sum(0).max() <= 2
    for fit, held in folds.rounds():
        assert len(held) and not set(groups[fit].tolist()) & set(groups[held].tolist())
        assert len(labels[fit].unique()) >= min(2, len(labels.unique()))


def test_groups_are_spread_like_classes_and_each_is_held_out():
    groups = torch.arange(60) // 3  # twenty, two classes of ten
    labels = groups % 2
    folds = Folds.of(labels, 0, groups=groups)
    assert folds.held.sum(0).tolist() == [2] * 60
    assert {tuple(labels[held].bincount().tolist()) for held in folds.held} == {(6, 6)}
    few = torch.arange(9) // 3  # more groups than images of a class, and fewer than five
    assert Folds.of(few, 0, groups=torch.arange(9)).held.sum(0).tolist() == [2] * 9


def test_the_same_seed_gives_the_same_folds_and_another_seed_or_purpose_others():
    labels, groups = torch.arange(90) % 3, torch.arange(90) // 2
    for more in ({}, {"groups": groups}):
        folds = Folds.of(labels, 0, **more)
        assert torch.equal(Folds.of(labels, 0, **more).held, folds.held)
        assert not torch.equal(Folds.of(labels, 1, **more).held, folds.held)
        assert not torch.equal(Folds.of(labels, 0, "other", **more).held, folds.held)
        first, second = folds.held.split(5)
        assert not torch.equal(first.sort(0).values, second.sort(0).values) or not torch.equal(
            first, second
        ), "the second time they are drawn anew"


def test_few_images_are_divided_twice_more_once_and_of_many_a_tenth_is_held_out():
    assert (FEW, MANY) == (2000, 20_000)
    found = [rounds_for(n) for n in (1, FEW, FEW + 1, MANY, MANY + 1)]
    assert found == [(2, 5), (2, 5), (1, 5), (1, 5), (1, 10)]
    for count, rounds, share in ((FEW, 10, 5), (FEW + 10, 5, 5), (MANY + 10, 1, 10)):
        folds = Folds.of(torch.arange(count) % 10, 0)
        assert folds.held.sum(1).tolist() == [count // share] * rounds


@pytest.mark.parametrize("groups", [None, torch.arange(40) // 2])
def test_of_one_split_each_position_is_held_out_as_often_over_seeds(monkeypatch, groups):
    monkeypatch.setattr(folds_module, "FEW", 0)
    monkeypatch.setattr(folds_module, "MANY", 0)
    labels = torch.arange(40) // 4 % 5  # eight images of a class: fewer than the ten folds
    draws = 40 if groups is not None else 400
    folds = [Folds.of(labels, seed, groups=groups) for seed in range(draws)]
    assert {len(each.held) for each in folds} == {1}
    often = torch.stack([each.held[0] for each in folds]).double().mean(0)
    share = 1 / 10 if groups is None else 1 / 8  # scikit-learn: as many as a class has images
    assert (often - share).abs().max() < 4.5 * (share * (1 - share) / draws) ** 0.5


def test_of_many_images_a_tenth_is_held_out_however_small_their_classes():
    labels = torch.arange(MANY + 10) // 2
    (held,) = Folds.of(labels, 0).held
    assert held.sum() == (MANY + 10) // 10
    assert labels[held].bincount().max() == 1, "of each class one image is left to fit on"


def test_nothing_to_hold_out_is_said():
    for labels in (torch.arange(7), torch.tensor([], dtype=torch.int64)):
        with pytest.raises(NotApplicable, match="one image per class: there is nothing to choose"):
            Folds.of(labels, 0)
    labels = torch.arange(20) % 2
    for groups in (torch.zeros(20, dtype=torch.int64), labels):  # one group, and one of each class
        with pytest.raises(NotApplicable, match="too few groups of images: there is nothing"):
            Folds.of(labels, 0, groups=groups)


# ---- outcomes, and choosing by them


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("labels", [torch.arange(23) % 3, torch.tensor([0, 1, 1, 2, 2, 2])])
def test_outcomes_found_round_by_round_are_those_found_at_once(labels):
    folds = Folds.of(labels, 0)
    scores_RGN = noise(len(folds.held), 4, len(labels))
    one_by_one = iter(scores_RGN)
    outcomes = folds.outcomes(lambda fit, held: next(one_by_one)[:, held])
    torch.testing.assert_close(folds.pooled(scores_RGN[..., folds.index]), outcomes)
    assert outcomes.shape == (4, len(folds.index))
    at = int(folds.index[0])
    expected = scores_RGN[folds.held[:, at], :, at].mean(0)
    torch.testing.assert_close(outcomes[:, 0], expected)


def test_an_outcome_is_the_share_of_the_rounds_that_held_the_image_out_and_had_it_right():
    folds = Folds.of(torch.arange(20) % 2, 0)
    right = [True, False]  # of the first repeat, and of the second
    rounds = iter([right[0]] * 5 + [right[1]] * 5)
    outcomes = folds.outcomes(lambda fit, held: torch.full((1, len(held)), next(rounds)))
    assert outcomes.tolist() == [[0.5] * 20]


@given(st.lists(st.lists(st.sampled_from([0, 0.5, 1]), min_size=6, max_size=6), min_size=1))
def test_choosing_by_outcomes_is_choosing_by_their_means(outcomes):
    means = [sum(row) / 6 for row in outcomes]
    edges = [i % 2 == 0 for i in range(len(means))]
    found = torch.tensor(outcomes, dtype=torch.float64)
    assert choose(found) == choose(means) == choose(torch.tensor(means, dtype=torch.float64))
    assert choose(found, edges) == choose(means, edges)


def test_the_same_outcomes_in_another_order_are_equally_good():
    third = torch.tensor([1 / 3, 1.0, 2 / 3, 0.1, 0.7])
    rows = torch.stack([third, third.flip(0), third.roll(2), third * 0])
    assert choose(rows).index == choose(rows.double()).index == 1
    assert choose(rows > 0.5).index == 1, "right or wrong"
