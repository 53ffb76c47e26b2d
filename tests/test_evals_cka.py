"""Linear CKA: its formula, what it does not depend on, and what is not compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from maebench import Draws, MaebenchError
from maebench.evaluating import records
from maebench.testing import EvaluationContract
from maebench_evals import cka
from maebench_evals.cka import CKA, linear_cka


class TestContractOfCKA(EvaluationContract):
    component = CKA(samples=64)


def numbers(*shape, seed=0):
    return Draws(seed, "cka", torch.arange(shape[0])).normal(*shape[1:])


@pytest.mark.parametrize(("n", "d", "e"), [(60, 5, 9), (10, 30, 4), (7, 20, 40)])
def test_it_is_hsic_over_the_root_of_both_own_ones(n, d, e):
    """Kornblith et al. 2019, equations 1 and 4, by Gram matrices and the centring matrix."""
    x, y = numbers(n, d).double().numpy(), numbers(n, e, seed=1).double().numpy()
    H = np.eye(n) - 1 / n

    def hsic(a, b):
        return np.trace(a @ a.T @ H @ b @ b.T @ H)

    expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert linear_cka(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected)


def test_turning_scaling_and_moving_features_changes_nothing():
    x = numbers(50, 6)
    turn, _ = torch.linalg.qr(numbers(6, 6, seed=2))
    assert linear_cka(x, 3 * x @ turn + 5) == pytest.approx(1)
    assert linear_cka(x, numbers(50, 6, seed=3)) < 0.4


def test_wide_features_are_kept_as_few_numbers_that_say_the_same():
    x, y = numbers(20, 300), numbers(20, 7, seed=1)
    kept = cka.narrow(x)
    assert kept.shape == (20, 20)
    assert linear_cka(kept, y) == pytest.approx(linear_cka(x, y), rel=1e-5)
    assert cka.narrow(y) is y


def test_features_that_do_not_vary_have_no_cka():
    assert linear_cka(torch.ones(5, 3), numbers(5, 2)) is None


def test_tokens_are_compared_by_how_often_each_is_in_a_window():
    windows = torch.tensor([[1, 1, 2], [0, 3, 3]])
    assert cka.raw_input(windows, 4).tolist() == [[0, 2, 1, 0], [1, 0, 0, 2]]


def row(folder, model, features, **changes):
    where = {"samples": len(features), "pool": "mean", "chosen": True}
    made = {
        **{"model": model, "metric": "cka", "where": where, "main": True, "status": "ok"},
        **{"value": 0.5, "seed": 0, "dataset": "digits", "dataset_fingerprint": "f"},
        **{"created": "2026-01-01", "inputs": "images"},
        **changes,
    }
    arrays = {records.kept_name(made): features.numpy(), "ids": np.arange(len(features))}
    return made | {"file": str(records.write(folder, f"cka-{model}", [made], arrays))}


def summary(*rows):
    return list(CKA().summary(pd.DataFrame(rows)))


def test_several_models_are_shown_beside_each_other(tmp_path):
    x, y = numbers(30, 4), numbers(30, 7, seed=1)
    (found,) = summary(row(tmp_path, "a", x), row(tmp_path, "b", y), row(tmp_path, "c", 2 * x))
    assert list(found.table.index) == list(found.table.columns) == ["a", "b", "c"]
    assert found.table.loc["a", "c"] == "1.000"
    assert found.table.loc["a", "b"] == found.table.loc["b", "a"] == f"{linear_cka(x, y):.3f}"
    assert found.notes == ("linear CKA of 30 test images",)
    assert found.figure is not None
    assert summary(row(tmp_path, "a", x)) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dataset": "fashion-mnist"}, "not the same data set: a has digits, b fashion-mnist"),
        ({"dataset_fingerprint": "g"}, "not the same images: a has f, b g"),
        ({"features": numbers(20, 4)}, "not the same samples: a has 30, b 20"),
    ],
)
def test_models_of_other_images_are_refused_in_one_line(tmp_path, changes, what):
    features = changes.pop("features", numbers(30, 4))
    with pytest.raises(MaebenchError, match=what) as caught:
        summary(row(tmp_path, "a", numbers(30, 4)), row(tmp_path, "b", features, **changes))
    assert "\n" not in str(caught.value)


def test_a_record_that_has_lost_its_features_is_named(tmp_path):
    good, bad = row(tmp_path, "a", numbers(30, 4)), row(tmp_path, "b", numbers(30, 4))
    records.write(tmp_path, "cka-b", [{k: v for k, v in bad.items() if k != "file"}], {})
    with pytest.raises(MaebenchError, match=r"no features beside .*cka-b\.json"):
        summary(good, bad)
