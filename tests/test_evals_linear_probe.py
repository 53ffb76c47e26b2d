"""The linear probe against scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression

from maebench import ConfigError, choose
from maebench.component import parse
from maebench_evals.linear_probe import L2, LinearProbe

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


def evened(model):
    """Features whose directions are penalised alike by the square of their weights."""
    train, test = (part.double() for part in standardised(model))
    variance, axes = torch.linalg.eigh(train.T @ train / len(train))
    there = variance > 1e-9
    directions = axes[:, there] / variance[there] ** 0.25
    return train @ directions, test @ directions


def results(model, **options):
    """Top-1 on test and its mean on what is held out by penalty, and what was chosen."""
    top1, validation, chosen = {}, {}, []
    for result in LinearProbe(**options).run(model):
        if result.metric == "converged":
            continue
        penalty = result.where["l2"]
        if result.metric == "top1":
            top1[penalty] = result.value
            chosen += [result.where] if result.where.get("chosen") else []
        else:
            validation[penalty] = result.value.mean().item()
    (where,) = chosen
    return top1, validation, where


@pytest.mark.parametrize(
    ("train", "penalties"), [(400, PENALTIES[1:]), pytest.param(None, PENALTIES, marks=SLOW)]
)
def test_the_probe_reports_scikit_learns_accuracy_for_the_whole_grid(train, penalties):
    model = tiny.digits(train)
    top1, validation, where = results(model, l2=penalties)
    train, test = evened(model)
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


@pytest.mark.slow
def test_the_whole_grid_chooses_what_scikit_learn_would_choose():
    model = tiny.digits(300)
    _, validation, where = results(model)
    train, _ = evened(model)
    labels, folds = model.labels("train"), model.folds()

    def right(fit, held):
        fits = [
            LogisticRegression(C=1 / (l2 * len(fit)), max_iter=5000).fit(train[fit], labels[fit])
            for l2 in L2
        ]
        return torch.stack([torch.from_numpy(f.predict(train[held])) == labels[held] for f in fits])

    theirs = folds.outcomes(right)
    assert list(validation.values()) == pytest.approx(theirs.mean(1).tolist(), abs=0.008)
    chosen = theirs.mean(1)[L2.index(where["l2"])]
    best = theirs.mean(1)[choose(theirs).index]
    assert chosen >= best - 0.004, "another choice is a tie of one image or two"


def made(features):
    """Five hundred training and as many test images of ten classes."""
    labels = torch.arange(1000) % 10
    x = features(labels).float()
    return tiny.Stub(x[:500], labels[:500], x[500:], labels[500:])


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_features_that_know_nothing_of_the_labels_reach_chance():
    top1, _, where = results(made(lambda labels: noise(1000, 20)))
    assert abs(top1[where["l2"]].mean() - 0.1) < 4 * (0.1 * 0.9 / 500) ** 0.5


def test_features_that_hold_the_label_reach_100_percent():
    model = made(lambda labels: torch.nn.functional.one_hot(labels) + 0.1 * noise(1000, 10))
    top1, validation, where = results(model)
    assert top1[where["l2"]].mean() == validation[where["l2"]] == 1


def test_scale_and_offset_of_a_feature_do_not_matter_and_a_constant_one_is_harmless():
    features = noise(1000, 10)

    def signal(labels):
        return torch.nn.functional.one_hot(labels) + features

    plain, _, _ = results(made(signal), l2=(0.01,))
    changed, _, _ = results(
        made(lambda y: torch.cat([signal(y) * 1000 + 50_000, torch.full((1000, 1), 0.1)], 1)),
        l2=(0.01,),
    )
    assert 0.3 < plain[0.01].mean() < 0.8
    assert (plain[0.01] == changed[0.01]).double().mean() > 0.99


def test_test_images_are_only_looked_at_one_by_one():
    model = made(lambda labels: torch.nn.functional.one_hot(labels) + noise(1000, 10))
    before, first, _ = results(model)
    model._features["test"] = model._features["test"].clone()
    model._features["test"][250:] *= 100
    after, second, _ = results(model)
    assert first == second
    assert all(torch.equal(before[l2][:250], after[l2][:250]) for l2 in before)


def test_a_winner_on_the_edge_of_the_grid_is_flagged_and_of_equals_the_middle_is_taken():
    def signal(labels):  # so many features that the least penalty learns the noise
        return torch.cat([torch.nn.functional.one_hot(labels) + noise(1000, 10), more], 1)

    more = torch.randn(1000, 200, generator=torch.Generator().manual_seed(1))

    _, validation, where = results(made(signal), l2=(1e-6, 1e-5, 1.0))
    assert validation[1.0] > validation[1e-6]
    assert where == {"l2": 1.0, "pool": "mean", "chosen": True, "edge": True}
    easy = made(lambda labels: torch.nn.functional.one_hot(labels))
    _, validation, where = results(easy, l2=(1e-2, 1e-4, 1e-3, 1e-3))
    assert validation == {1e-4: 1, 1e-3: 1, 1e-2: 1}
    assert where == {"l2": 1e-3, "pool": "mean", "chosen": True}
    _, _, where = results(easy, l2=(1e-2,))
    assert where == {"l2": 1e-2, "pool": "mean", "chosen": True}, "there is no grid to widen"


def test_the_share_of_fits_at_their_optimum_is_a_row():
    model = made(lambda labels: torch.nn.functional.one_hot(labels) + noise(1000, 10))
    for options, low, high in (({}, 1, 1), ({"iterations": 1}, 0, 0.5)):
        (row,) = [r for r in LinearProbe(**options).run(model) if r.metric == "converged"]
        assert low <= row.value <= high


@pytest.mark.parametrize("option", ["epochs=3", "steps=3", "batch=3", "crops=true"])
def test_options_of_training_are_refused_by_fast_which_has_none(option):
    name, value = option.split("=")
    with pytest.raises(ConfigError, match=f"{name} is read by protocol=mae alone"):
        parse(LinearProbe, {name: value}, {}, "linear-probe")
    parse(LinearProbe, {name: value, "protocol": "mae"}, {}, "linear-probe")


def test_options_of_the_optimum_are_refused_by_mae():
    for name, value in (("iterations", "3"), ("l2", "0.1")):
        with pytest.raises(ConfigError, match=f"{name} is read by protocol=fast alone"):
            parse(LinearProbe, {name: value, "protocol": "mae"}, {}, "linear-probe")
