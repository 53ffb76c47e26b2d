"""Heads against scikit-learn's logistic regression, and what they may know of each other."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy

import maebench_evals.heads as module
from maebench import Folds
from maebench_evals.frozen import standardised
from maebench_evals.heads import Problem, Space, probe, regressions

L2 = [1e-6, 1e-4, 1e-2, 1.0]


def correlated(images=600, classes=4, features=12, weakest=-2.5):
    """As an untrained encoder's are: a few directions hold nearly all of the variance."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    centres = torch.randn(classes, features, generator=generator)
    plain = 0.8 * torch.randn(images, features, generator=generator) + centres[labels]
    mixing = torch.randn(features, features, generator=generator)
    (x,) = standardised(plain * torch.logspace(0, weakest, features) @ mixing)
    return x, labels


def fitted(x, labels, l2, used=None, iterations=200, power=0):
    """Weights (G, R, D, C), biases and which converged, in the order of `l2`."""
    used = torch.ones(1, len(x)) if used is None else used.float()
    space = Space.of(x, power)
    problem = Problem(space(x), labels, int(labels.max()) + 1, used)
    found = regressions(problem, space, sorted(l2)[::-1], torch.ones(len(used)), iterations)
    heads = [(*space.weights(weight), reached) for weight, reached in found][::-1]
    return [torch.stack(part) for part in zip(*heads, strict=True)]


def objective(x, labels, weight, bias, penalty):
    loss = cross_entropy(x.double() @ weight + bias, labels)
    return (loss + penalty / 2 * weight.square().sum()).item()


def oracle(x, labels, penalty):
    """Scikit-learn's weights and biases, to a tolerance far below ours."""
    model = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-9, max_iter=50_000)
    model.fit(x.double().numpy(), labels.numpy())
    weight, bias = torch.tensor(model.coef_.T), torch.tensor(model.intercept_)
    if weight.shape[1] == 1:  # of two classes it has the difference
        weight, bias = (torch.cat([-part / 2, part / 2], -1) for part in (weight, bias))
    return weight, bias


@pytest.mark.parametrize(
    ("weakest", "classes"),
    [(0, 4), (-2.5, 3), (-2.5, 4), pytest.param(-4, 10, marks=pytest.mark.slow)],
)
def test_every_penalty_reaches_the_optimum_of_scikit_learn(weakest, classes):
    x, labels = correlated(classes=classes, weakest=weakest)
    weight, bias, reached = fitted(x, labels, L2)
    assert reached.all()
    for head, penalty in enumerate(L2):
        best = objective(x, labels, *oracle(x, labels, penalty), penalty)
        mine = objective(x, labels, weight[head, 0], bias[head, 0], penalty)
        assert -1e-6 < mine - best < 3e-4
        there = (x.double() @ weight[head, 0] + bias[head, 0]).softmax(1)
        theirs = oracle(x, labels, penalty)
        near = (x.double() @ theirs[0] + theirs[1]).softmax(1)
        assert (there - near).abs().mean() < 0.01


@pytest.mark.parametrize("power", [0.5, 1])
def test_weighed_penalties_are_scikit_learns_on_features_of_less_unequal_directions(power):
    x, labels = correlated()
    variance, axes = torch.linalg.eigh(x.double().T @ x.double() / len(x))
    evened = axes / variance ** (power / 2)
    penalties = [1e-4, 1e-2]
    weight, bias, reached = fitted(x, labels, penalties, power=power)
    assert reached.all()
    for head, penalty in enumerate(penalties):
        theirs, shift = oracle(x.double() @ evened, labels, penalty)
        there = (x.double() @ weight[head, 0] + bias[head, 0]).softmax(1)
        near = (x.double() @ evened @ theirs + shift).softmax(1)
        assert (there - near).abs().mean() < 0.01


def test_two_classes_are_scikit_learns_one_weight_twice():
    x, labels = correlated(classes=2)
    weight, bias, _ = fitted(x, labels, [1e-2])
    theirs, shift = oracle(x, labels, 5e-3)  # v/2 and -v/2 have half of the square of v
    logits = x.double() @ weight[0, 0] + bias[0, 0]
    expected = x.double() @ theirs + shift
    assert torch.allclose(logits[:, 1] - logits[:, 0], expected[:, 1] - expected[:, 0], atol=0.05)


def test_weights_sum_to_nothing_over_classes_as_the_least_square_wants():
    x, labels = correlated()
    weight, _, _ = fitted(x, labels, [1e-2])
    assert weight[0, 0].sum(1).abs().max() < 1e-4 * weight.abs().max()


def test_directions_without_variance_and_more_features_than_images_are_no_harm():
    x, labels = correlated(images=40, features=12)
    weight, bias, _ = fitted(x, labels, [1e-2])
    twice = torch.cat([x, x, torch.zeros(40, 50)], 1)
    double, other, _ = fitted(twice, labels, [2e-2])  # each half has half of the weight
    torch.testing.assert_close(
        x.double() @ weight[0, 0] + bias[0, 0],
        twice.double() @ double[0, 0] + other[0, 0],
        atol=5e-3,
        rtol=0,
    )
    assert double[0, 0, 24:].abs().max() < 1e-6


def test_weak_directions_count_where_they_tell_classes_apart():
    x, labels = correlated(weakest=0)
    shared = torch.randn(600, 1, generator=torch.Generator().manual_seed(1))
    hidden = shared + 1e-4 * x  # a hundred millionth of the variance
    weight, bias, _ = fitted(hidden, labels, [1e-9])
    right = (hidden.double() @ weight[0, 0] + bias[0, 0]).argmax(1) == labels
    assert right.double().mean() > 0.9


def test_rounds_know_nothing_of_each_other():
    x, labels = correlated()
    used = ~Folds.of(labels, 0).held
    together = fitted(x, labels, L2, torch.cat([used, torch.ones(1, 600, dtype=torch.bool)]))
    for number in (0, 4):
        alone = fitted(x, labels, L2, used[number : number + 1])
        without = fitted(x[used[number]], labels[used[number]], L2)
        for penalty in range(len(L2)):
            logits = [
                x.double() @ weight[penalty, at] + bias[penalty, at]
                for (weight, bias, _), at in ((together, number), (alone, 0), (without, 0))
            ]
            chances = [part.softmax(1) for part in logits]
            assert (chances[0] - chances[1]).abs().mean() < 0.01
            assert (chances[0] - chances[2]).abs().mean() < 0.01


def test_what_a_round_holds_out_cannot_reach_it():
    x, labels = correlated()
    held = Folds.of(labels, 0).held
    changed = labels.clone()
    changed[held[0]] = (labels[held[0]] + 1) % 4
    before, after = (fitted(x, y, [1e-6, 1e-2], ~held[:1]) for y in (labels, changed))
    assert torch.equal(before[0], after[0])


def test_a_grid_gives_what_each_penalty_gives_alone():
    x, labels = correlated()
    grid = fitted(x, labels, L2)
    for head, penalty in enumerate(L2):
        alone = fitted(x, labels, [penalty])
        a, b = (
            objective(x, labels, w, c, penalty)
            for w, c in ((grid[0][head, 0], grid[1][head, 0]), (alone[0][0, 0], alone[1][0, 0]))
        )
        assert a == pytest.approx(b, abs=3e-4)


def test_the_answer_is_the_same_whenever_it_is_asked_for():
    x, labels = correlated()
    first, second = (fitted(x, labels, L2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_gradient_is_that_of_the_loss_in_blocks_of_any_size(monkeypatch):
    x, labels = correlated(images=700)
    used = torch.rand(3, 700, generator=torch.Generator().manual_seed(0)) > 0.3
    problem = Problem(x.T, labels, 4, used.float())
    weight = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(1))
    loss, gradient = problem(weight)
    for part, mine, slope, mask in zip(weight, loss, gradient, used, strict=True):
        free = part.double().requires_grad_()
        expected = cross_entropy(x[mask].double() @ free.T, labels[mask])
        expected.backward()
        torch.testing.assert_close(mine, expected.detach(), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(slope.double(), free.grad, atol=1e-6, rtol=1e-5)
    monkeypatch.setattr(module, "BLOCK", {"cpu": 1})  # 256 images at a time
    torch.testing.assert_close(problem(weight), (loss, gradient))


def test_curvature_is_each_classes_own_or_one_for_all_where_memory_is_short(monkeypatch):
    x, labels = correlated()
    problem = Problem(x.T, labels, 4, torch.ones(1, 600))
    weight = torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    penalty = torch.full((12,), 0.1)
    inverse = problem.inverse_curvature(weight, penalty)
    chance = (problem.sample_KB.T @ weight.T).softmax(1)
    for c in range(4):
        spread = chance[:, c] * (1 - chance[:, c])
        own = (problem.sample_KB * spread) @ problem.sample_KB.T / 600 + torch.diag(penalty)
        torch.testing.assert_close(inverse[c] @ own, torch.eye(12), atol=2e-3, rtol=0)
    few = fitted(x, labels, L2)
    monkeypatch.setattr(module, "CURVATURES", 4 * 12 * 12 - 1)
    assert problem.inverse_curvature(weight, penalty).shape == (1, 12, 12)
    shared = fitted(x, labels, L2)
    for head, penalty in enumerate(L2):
        values = [
            objective(x, labels, w[head, 0], b[head, 0], penalty) for w, b, _ in (few, shared)
        ]
        assert values[0] == pytest.approx(values[1], abs=3e-4)


def test_fits_that_are_cut_short_are_told():
    x, labels = correlated()
    assert not fitted(x, labels, [1e-6], iterations=2)[2].any()
    found = probe(x, labels, x, [1e-6, 1.0], 4, Folds.of(labels, 0), iterations=4)
    assert 0 <= found.converged < 1
    assert probe(x, labels, x, [1.0], 4, None).converged == 1


def test_one_class_and_a_class_that_a_round_has_not_are_fitted_all_the_same():
    x, labels = correlated()
    one = probe(x, labels * 0, x, [1e-3, 1.0], 1, Folds.of(labels * 0, 0))
    assert (one.predicted == 0).all() and (one.held_out == 1).all()
    used = torch.stack([labels != 3, labels >= 0])
    weight, bias, reached = fitted(x, labels, [1e-4, 1e-2], used)
    assert reached.all() and bool(weight.isfinite().all())
    guessed = (x.double() @ weight[0, 0] + bias[0, 0]).argmax(1)
    assert not (guessed == 3).any()


def test_a_probe_gives_outcomes_of_what_is_held_out_and_the_classes_of_test():
    x, labels = correlated()
    folds = Folds.of(labels, 0)
    seen = []

    def show(grid):
        for penalty in grid:
            seen.append(penalty)
            yield penalty

    found = probe(x[:600], labels, x[:100], L2, 4, folds, show=show)
    assert seen == L2[::-1]
    assert found.held_out.shape == (len(L2), 600) and found.predicted.shape == (len(L2), 100)
    weight, bias, _ = fitted(x, labels, L2, ~folds.held, power=module.POWER)
    for head in range(len(L2)):
        logits = x.double() @ weight[head] + bias[head][:, None]
        right = folds.pooled((logits.argmax(2) == labels)[:, None])[0]
        assert (found.held_out[head] - right).abs().mean() < 0.02
    assert probe(x, labels, x[:7], L2, 4, None).held_out.shape == (len(L2), 0)


def test_a_penalty_of_the_sum_is_the_same_in_rounds_of_fewer_images():
    x, labels = correlated()
    folds = Folds.of(labels, 0)
    mean = probe(x, labels, x, [1e-2], 4, folds)
    total = probe(x, labels, x, [1e-2], 4, folds, per_round=False)
    assert torch.equal(mean.predicted, total.predicted)
    share = math.ceil(600 * 4 / 5) / 600
    stronger = probe(x, labels, x, [1e-2 / share], 4, folds)
    assert (total.held_out - stronger.held_out).abs().mean() < 2e-3
