"""The logistic regression is scikit-learn's, as somebody would fit it by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression

from maebench import ConfigError, NotApplicable
from maebench.component import parse
from maebench.evaluating import records, suite
from maebench_evals.linear_probe import LinearProbe
from maebench_evals.logistic import Logistic, converges


@pytest.fixture(scope="module")
def digits():
    return tiny.digits(200)  # enough, and quicker


def results(model, **options):
    """Top-1 on test, its mean on what is held out by C, the choice, and the share that converged."""
    top1, validation, chosen, converged = {}, {}, [], []
    for result in Logistic(**options).run(model):
        if result.metric == "converged":
            converged.append(result.value)
        elif result.metric == "validation_top1":
            validation[result.where["C"]] = result.value.mean().item()
        else:
            top1[result.where["C"]] = result.value
            chosen += [result.where] if result.where.get("chosen") else []
    (where,), (share,) = chosen, converged
    return top1, validation, where, share


def scaled(model, part):
    """Train and test standardised by a part of train."""
    train, test = model.features("train").double(), model.features("test").double()
    mean, deviation = train[part].mean(0), train[part].std(0)
    deviation[deviation < 1e-6] = 1
    return ((train - mean) / deviation).numpy(), ((test - mean) / deviation).numpy()


def test_the_fast_protocol_is_a_fit_by_hand_for_each_c(digits):
    grid = (1e-4, 1e-2, 1.0)
    top1, validation, where, converged = results(digits, C=grid)
    assert list(top1) == list(validation) == list(grid) and converged == 1
    labels, right = digits.labels("train").numpy(), digits.labels("test").numpy()
    train, test = scaled(digits, slice(None))
    for C in grid:  # each from zero: a warm start does not move the optimum
        by_hand = LogisticRegression(C=C, max_iter=1000).fit(train, labels)
        agree = top1[C].numpy() == (by_hand.predict(test) == right)
        assert agree.mean() > 0.99, C
        scores = []
        for fit, held in digits.folds().rounds():
            part = LogisticRegression(C=C, max_iter=1000).fit(train[fit], labels[fit])
            scores.append(part.score(train[held], labels[held]))
        assert validation[C] == pytest.approx(np.mean(scores), abs=0.013)
    assert validation[where["C"]] == max(validation.values())


def test_dinov2_takes_the_features_as_they_are_and_fits_the_chosen_c_alone_again(digits):
    grid = (1e-6, 1e-2, 1e-1)
    top1, validation, where, _ = results(digits, protocol="dinov2", C=grid)
    assert list(validation) == list(grid)
    assert list(top1) == [where["C"]]
    train, test = (digits.features(split).double().numpy() for split in ("train", "test"))
    oracle = LogisticRegression(C=where["C"], max_iter=1000, tol=1e-12)
    oracle.fit(train, digits.labels("train").numpy())
    expected = oracle.predict(test) == digits.labels("test").numpy()
    assert np.array_equal(top1[where["C"]].numpy(), expected)


def test_a_c_is_the_linear_probes_l2_seen_from_the_other_side_where_nothing_is_correlated(digits):
    train, test = (digits.features(split).double() for split in ("train", "test"))
    train, test = train - train.mean(0), test - train.mean(0)
    variance, axes = torch.linalg.eigh(train.T @ train / len(train))
    evened = axes[:, variance > 1e-6] / variance[variance > 1e-6].sqrt()
    labels = (digits.labels(split) for split in ("train", "test"))
    digits = tiny.Stub((train @ evened).float(), next(labels), (test @ evened).float(), *labels)
    images = len(train)
    l2 = (1e-2, 1e-1)
    mine, *_ = results(digits, C=tuple(1 / (p * images) for p in l2))
    probe = {r.where["l2"]: r.value for r in LinearProbe(l2=l2).run(digits) if r.metric == "top1"}
    for p in l2:
        agree = mine[1 / (p * images)] == probe[p]
        assert agree.double().mean() > 0.98


def test_the_grid_of_a_protocol_is_its_papers():
    grid = Logistic(protocol="dinov2")._grid()
    assert len(grid) == 45
    assert (grid[0], grid[-1]) == (pytest.approx(1e-6), pytest.approx(1e5))
    ratios = np.diff(np.log10(grid))
    assert np.allclose(ratios, ratios[0])
    assert Logistic(C=(1.0, 0.1, 1.0))._grid() == [0.1, 1.0]


def test_fits_that_are_cut_short_are_counted_and_break_nothing(digits):
    *_, converged = results(digits, C=(1e-9, 10.0), max_iter=3)
    assert 0 < converged < 1
    *_, none = results(digits, C=(1.0,), max_iter=1)
    assert none == 0


def test_other_warnings_than_that_of_convergence_are_passed_on():
    class Grumbles:
        def fit(self, x, y):
            warnings.warn("look here", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="look here"):
        assert converges(Grumbles(), None, None)


def test_a_winner_on_the_edge_is_flagged_unless_it_is_the_only_one(digits):
    _, validation, where, _ = results(digits, C=(1e-7, 1e-6, 1e-2))
    assert validation[1e-2] > validation[1e-6]
    assert where == {"C": 1e-2, "pool": "mean", "chosen": True, "edge": True}
    assert results(digits, C=(1.0,), max_iter=1)[2] == {"C": 1.0, "pool": "mean", "chosen": True}


def test_one_class_and_an_empty_grid_are_refused():
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    one = tiny.Stub(x, torch.zeros(10, dtype=torch.int64), x, torch.zeros(10, dtype=torch.int64))
    with pytest.raises(NotApplicable, match="train has one class"):
        list(Logistic().run(one))
    for text in ("0", "x", ""):
        with pytest.raises(ConfigError, match=r"^eval\.C"):
            parse(Logistic, {"C": text}, {}, "eval")
    with pytest.raises(ConfigError, match=r"^eval\.C\.0: [^;]*$"):  # named once
        parse(Logistic, {"C": "0"}, {}, "eval")


def test_a_protocol_chooses_its_pooling_and_the_record_names_it(tmp_path):
    tiny.plan(tmp_path)
    model = tiny.load(tmp_path)
    for protocol, pool in (("fast", "mean"), ("dinov2", "cls")):
        rows = records.read(suite.evaluate(model, Logistic(protocol=protocol, C=(0.1,))))
        (headline,) = [row for row in rows if row["main"]]
        assert headline["where"]["pool"] == pool
        assert headline["protocol"] == f"logistic/{protocol}@v3"
