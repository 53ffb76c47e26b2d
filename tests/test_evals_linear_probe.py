"""The linear probe against scikit-learn's logistic regression."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import maebench_evals.linear_probe as module
from maebench import Draws, Folds, half_cosine
from maebench_evals import frozen
from maebench_evals.linear_probe import LR, LinearProbe, fitted_heads, train_heads

SLOW = pytest.mark.slow
PENALTIES = [1e-3, 1e-2, 1e-1]


@pytest.fixture(scope="module")
def digits():
    return tiny.digits()


def standardised(model):
    train, test = model.features("train"), model.features("test")
    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation < 1e-6] = 1
    return (train - mean) / deviation, (test - mean) / deviation


def results(model, **options):
    """Top-1 on test and its mean on what is held out by penalty, and what was chosen."""
    top1, validation, chosen = {}, {}, []
    for result in LinearProbe(**options).run(model):
        penalty = result.where["l2"]
        if result.metric == "top1":
            top1[penalty] = result.value
            chosen += [result.where] if result.where.get("chosen") else []
        else:
            validation[penalty] = result.value.mean().item()
    (where,) = chosen
    return top1, validation, where


@pytest.mark.slow
def test_the_heads_are_scikit_learns_logistic_regressions(digits):
    train, test = standardised(digits)
    labels, right = digits.labels("train"), digits.labels("test")
    theirs = [
        LogisticRegression(C=1 / (l2 * len(train)), tol=1e-7, max_iter=2000).fit(train, labels)
        for l2 in PENALTIES
    ]
    for batch, closeness in ((2048, 0.002), (256, 0.02)):  # all at once, and in parts
        steps = ((i, 0.05 * 0.5 * (1 + np.cos(np.pi * i / 1000))) for i in range(1000))
        draws = digits.draws("order")
        weights, biases = train_heads(train, labels, PENALTIES, 10, batch, steps, draws)
        for l2, weight, bias, oracle in zip(PENALTIES, weights, biases, theirs, strict=True):
            mine = (test @ weight + bias).double()
            accuracy = (mine.argmax(1) == right).double().mean().item()
            assert accuracy == pytest.approx(oracle.score(test, right), abs=0.006)
            found = log_loss(right, mine.softmax(1).numpy())
            assert found == pytest.approx(
                log_loss(right, oracle.predict_proba(test)), rel=closeness
            )
            # what is minimised is as low as scikit-learn gets it
            lowest, ours = (
                log_loss(labels, p) + l2 / 2 * (w**2).sum()
                for p, w in (
                    (oracle.predict_proba(train), oracle.coef_),
                    ((train @ weight + bias).double().softmax(1).numpy(), weight.numpy()),
                )
            )
            assert lowest * (1 - 1e-4) <= ours <= lowest * (1 + closeness)


@pytest.mark.parametrize(
    ("train", "penalties", "steps"),
    [(400, PENALTIES[1:], 500), pytest.param(None, PENALTIES, 1000, marks=SLOW)],
)
def test_the_probe_reports_scikit_learns_accuracy_for_the_whole_grid(train, penalties, steps):
    model = tiny.digits(train)
    top1, validation, where = results(model, l2=penalties, steps=steps)
    train, test = standardised(model)
    labels, right = model.labels("train"), model.labels("test")
    assert list(top1) == list(validation) == penalties
    for l2 in penalties:
        oracle = LogisticRegression(C=1 / (l2 * len(train)), max_iter=2000).fit(train, labels)
        assert top1[l2].shape == (360,)
        assert top1[l2].mean() == pytest.approx(oracle.score(test, right), abs=0.01)
        scores = []
        for fit, held in model.folds().rounds():
            part = LogisticRegression(C=1 / (l2 * len(fit)), max_iter=2000)
            scores.append(part.fit(train[fit], labels[fit]).score(train[held], labels[held]))
        assert validation[l2] == pytest.approx(np.mean(scores), abs=0.005)
    assert validation[where["l2"]] == max(validation.values())


def test_rounds_that_are_trained_at_once_give_the_heads_of_each_alone():
    labels = torch.tensor([0, 1, 2, 2, 2, 0] * 10)
    x = torch.nn.functional.one_hot(labels, 5) + noise(60, 5)
    rounds = ~Folds.of(labels, 0).held
    rates = [(i, LR * half_cosine(i, 40)) for i in range(40)]

    def heads(x, labels, batch, used=None):
        draws = Draws(0, "order", torch.zeros(1, dtype=torch.int64))
        return train_heads(x, labels, [1e-3, 1e-1], 3, batch, rates, draws, None, used)

    for batch in (60, 25):  # of all images, and of a part in each update
        weights, biases = heads(x, labels, batch, rounds)
        assert len(weights) == 2 * len(rounds) == 20
        for used, weight, bias in zip(rounds, weights.split(2), biases.split(2), strict=True):
            alone = heads(x, labels, batch, used[None])
            torch.testing.assert_close((weight, bias), alone, atol=5e-3, rtol=0)
            if batch == 60:  # as if the others were not there
                without = heads(x[used], labels[used], batch)
                torch.testing.assert_close((weight, bias), without, atol=5e-3, rtol=0)
        assert not torch.allclose(weights[:2], weights[2:4], atol=5e-2)


def test_rounds_beyond_the_memory_are_trained_after_each_other_with_the_same_result(monkeypatch):
    model = made(lambda labels: torch.nn.functional.one_hot(labels) + noise(1000, 10))
    calls = []
    monkeypatch.setattr(
        module, "train_heads", lambda *a: (calls.append(len(a[-1])), train_heads(*a))[1]
    )
    whole = results(model, steps=20, epochs=1, l2=(1e-3, 1e-1))
    monkeypatch.setattr(module, "LOGITS", 4 * 500 * 2 * 10)  # four rounds of two penalties
    parts = results(model, steps=20, epochs=1, l2=(1e-3, 1e-1))
    assert calls == [10, 1, 4, 4, 2, 1]
    assert whole[1] == pytest.approx(parts[1], abs=0.005)
    assert all((whole[0][l2] == parts[0][l2]).double().mean() > 0.99 for l2 in whole[0])


def made(features):
    """Five hundred training and as many test images of ten classes."""
    labels = torch.arange(1000) % 10
    x = features(labels).float()
    return tiny.Stub(x[:500], labels[:500], x[500:], labels[500:])


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_features_that_know_nothing_of_the_labels_reach_chance():
    top1, _, where = results(made(lambda labels: noise(1000, 20)), steps=100)
    assert abs(top1[where["l2"]].mean() - 0.1) < 4 * (0.1 * 0.9 / 500) ** 0.5


def test_features_that_hold_the_label_reach_100_percent():
    model = made(lambda labels: torch.nn.functional.one_hot(labels) + 0.1 * noise(1000, 10))
    top1, validation, where = results(model, steps=100)
    assert top1[where["l2"]].mean() == validation[where["l2"]] == 1


def test_scale_and_offset_of_a_feature_do_not_matter_and_a_constant_one_is_harmless():
    features = noise(1000, 10)

    def signal(labels):
        return torch.nn.functional.one_hot(labels) + features

    plain, _, _ = results(made(signal), steps=100, l2=(0.01,))
    changed, _, _ = results(
        made(lambda y: torch.cat([signal(y) * 1000 + 50_000, torch.full((1000, 1), 0.1)], 1)),
        steps=100,
        l2=(0.01,),
    )
    assert 0.3 < plain[0.01].mean() < 0.8
    assert (plain[0.01] == changed[0.01]).double().mean() > 0.99


def test_test_images_are_only_looked_at_one_by_one():
    model = made(lambda labels: torch.nn.functional.one_hot(labels) + noise(1000, 10))
    before, first, _ = results(model, steps=20)
    model._features["test"] = model._features["test"].clone()
    model._features["test"][250:] *= 100
    after, second, _ = results(model, steps=20)
    assert first == second
    assert all(torch.equal(before[l2][:250], after[l2][:250]) for l2 in before)


def test_a_winner_on_the_edge_of_the_grid_is_flagged_and_of_equals_the_middle_is_taken():
    def signal(labels):
        return torch.nn.functional.one_hot(labels) + 0.5 * noise(1000, 10)

    _, validation, where = results(made(signal), steps=50, l2=(1e-3, 1e5, 1e6))
    assert validation[1e-3] > validation[1e6]
    assert where == {"l2": 1e-3, "pool": "mean", "chosen": True, "edge": True}
    easy = made(lambda labels: torch.nn.functional.one_hot(labels))
    _, validation, where = results(easy, steps=50, l2=(1e-2, 1e-4, 1e-3, 1e-3))
    assert validation == {1e-4: 1, 1e-3: 1, 1e-2: 1}
    assert where == {"l2": 1e-3, "pool": "mean", "chosen": True}
    _, _, where = results(easy, steps=5, l2=(1e-2,))
    assert where == {"l2": 1e-2, "pool": "mean", "chosen": True}, "there is no grid to widen"


def test_correlated_features_reach_the_optimum_of_scikit_learn():
    """As an untrained encoder's are: a few directions hold nearly all of the variance."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 4
    centres = torch.randn(4, 12, generator=generator)
    plain = 0.8 * torch.randn(600, 12, generator=generator) + centres[labels]
    mixed = plain * torch.logspace(0, -2.5, 12) @ torch.randn(12, 12, generator=generator)
    (x,) = frozen.standardised(mixed)
    l2 = [1e-5, 1e-3]
    steps = [(i, LR * 0.5 * (1 + math.cos(math.pi * i / 1000))) for i in range(1000)]
    draws = Draws(0, "test", torch.zeros(1, dtype=torch.int64))
    weight, bias = fitted_heads(x, labels, l2, 4, 2048, steps, draws)
    for head, penalty in enumerate(l2):

        def objective(w, b, penalty=penalty):
            loss = torch.nn.functional.cross_entropy(x.double() @ w + b, labels)
            return (loss + penalty / 2 * w.square().sum()).item()

        oracle = LogisticRegression(C=1 / (penalty * 600), tol=1e-8, max_iter=20_000)
        oracle.fit(x.double().numpy(), labels.numpy())
        best = objective(torch.tensor(oracle.coef_.T), torch.tensor(oracle.intercept_))
        mine = objective(weight[head].double(), bias[head].double())
        assert best <= mine < best + 0.003
