"""Heads of many subsets at once: each as it would be alone."""

from __future__ import annotations

import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import maebench_evals.subset_heads as module
from maebench import Draws, half_cosine
from maebench_evals.linear_probe import LR, together, train_heads
from maebench_evals.low_shot import LowShot
from maebench_evals.subset_heads import Fitting, Subsets


@pytest.fixture(scope="module")
def digits():
    return tiny.digits()


def fitting(steps=100, classes=10):
    return Fitting(classes, steps, Draws(0, "order", torch.zeros(1, dtype=torch.int64)))


def some_subsets(model, shots="5", draws=3):
    evaluation = LowShot(draws=draws)
    return evaluation._subsets(model, model.labels("train"), shots)


def test_a_batch_of_subsets_gives_the_heads_of_the_linear_probe_one_by_one(digits):
    index_RN, _ = some_subsets(digits)
    data = Subsets.of(digits.features("train"), digits.labels("train"), index_RN)
    l2 = [1e-2, 1.0]
    ones = torch.ones(3, 2, data.y_RN.shape[1])
    weights, biases = fitting().heads(data, ones, torch.tensor(l2).expand(3, 2))
    rates = [LR * half_cosine(i, 100) for i in range(100)]
    for r in range(3):
        one, bias = train_heads(
            data.x_RND[r], data.y_RN[r], l2, 10, 2048, enumerate(rates), digits.draws("order")
        )
        torch.testing.assert_close(weights[r], one, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(biases[r, :, 0], bias, atol=1e-4, rtol=1e-3)


def test_images_that_a_head_may_not_use_do_not_move_it(digits):
    index_RN, _ = some_subsets(digits, draws=1)
    data = Subsets.of(digits.features("train"), digits.labels("train"), index_RN)
    used = torch.ones(1, 1, 50)
    used[..., ::5] = 0
    held, _ = fitting().heads(data, used, torch.tensor([[0.1]]))
    part = Subsets(
        data.x_RND[:, used[0, 0] > 0],
        data.y_RN[:, used[0, 0] > 0],
        data.mean_R1D,
        data.deviation_R1D,
    )
    alone, _ = fitting().heads(part, torch.ones(1, 1, 40), torch.tensor([[0.1]]))
    torch.testing.assert_close(held, alone, atol=1e-4, rtol=1e-3)


def test_predictions_are_scikit_learns_on_the_standardised_subset(digits):
    index_RN, _ = some_subsets(digits, "10")
    train, labels, test = digits.features("train"), digits.labels("train"), digits.features("test")
    data = Subsets.of(train, labels, index_RN)
    predicted = fitting(400).predict(data, [0.01, 0.1, 1.0], test)
    for index, l2, mine in zip(index_RN, [0.01, 0.1, 1.0], predicted, strict=True):
        scaler = StandardScaler().fit(train[index])
        oracle = LogisticRegression(C=1 / (l2 * len(index)), max_iter=2000)
        oracle.fit(scaler.transform(train[index]), labels[index])
        # their deviation is the population's: features differ by a factor of sqrt(99 / 100)
        assert (oracle.predict(scaler.transform(test)) == mine.numpy()).mean() > 0.98


def test_large_subsets_are_trained_in_parts(digits, monkeypatch):
    index_RN, held_RFN = some_subsets(digits, "20", draws=2)
    train, labels, test = digits.features("train"), digits.labels("train"), digits.features("test")
    data = Subsets.of(train, labels, index_RN)
    right = digits.labels("test")
    whole = (fitting(300).predict(data, [0.1, 0.1], test) == right).double().mean()
    assert together(100 * 25 * 10) > 1 == together(2048 * 40 * 1000)
    monkeypatch.setattr(module, "BATCH", 32)
    parts = (fitting(300).predict(data, [0.1, 0.1], test) == right).double().mean()
    assert parts == pytest.approx(whole.item(), abs=0.02)
    assert whole > 0.85
    assert fitting().choose(data, held_RFN, [0.1, 100.0], 7.0) == [0.1, 0.1]


def test_a_subset_of_which_nothing_can_be_held_out_has_the_other_penalty(digits):
    index_RN, held_RFN = some_subsets(digits, "5", draws=2)
    data = Subsets.of(digits.features("train"), digits.labels("train"), index_RN)
    both = fitting(20).choose(data, held_RFN, [0.1], 7.0)
    held_RFN[0] = False
    one = fitting(20).choose(data, held_RFN, [0.1], 7.0)
    assert (both, one) == ([0.1, 0.1], [7.0, 0.1])
    assert fitting(20).choose(data, held_RFN & False, [0.1], 7.0) == [7.0, 7.0]
