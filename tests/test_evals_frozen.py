"""Frozen features: their pooling and scale, and choices that labels of test cannot move."""

from __future__ import annotations

import pytest
import tiny
import torch

from maebench.rng import isolated
from maebench_evals.attentive_probe import AttentiveProbe
from maebench_evals.frozen import standardised
from maebench_evals.knn import KNN, TEMPERATURE
from maebench_evals.linear_probe import LinearProbe
from maebench_evals.logistic import Logistic
from maebench_evals.low_shot import LowShot

CHOOSERS = {
    "knn": KNN(k=(1, 3, 5, 9, 15, 25)),
    "dino": KNN(protocol="dino", k=(1, 3, 5, 9, 15, 25)),
    "logistic": Logistic(C=(1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)),
    "linear-probe": LinearProbe(l2=(1e-4, 1e-2, 1e-1, 0.5, 1.0, 5.0)),
    "low-shot": LowShot(shots=("10",), draws=1),
}


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stub(right):
    """Features that hardly know their class: every setting is better for some labels of test."""
    labels = torch.arange(120) % 3
    centres = 0.4 * noise(3, 6, seed=0)
    train = noise(120, 6, seed=1) + centres[labels]
    return tiny.Stub(train, labels, noise(90, 6, seed=2) + centres[torch.arange(90) % 3], right)


def chosen(evaluation, right):
    """What distinguishes the headline, and the penalties that low-shot says it took."""
    with isolated(0, "test"):
        results = list(evaluation.run(stub(right)))
    (where,) = [r.where for r in results if r.metric == "top1" and r.where.get("chosen")]
    return where, [float(r.value) for r in results if r.metric == "l2"]


@pytest.mark.parametrize("name", CHOOSERS)
def test_labels_of_test_cannot_move_a_choice(name):
    made = {
        str(
            chosen(
                CHOOSERS[name], torch.randint(3, (90,), generator=torch.Generator().manual_seed(s))
            )
        )
        for s in range(4)
    }
    assert len(made) == 1


@pytest.mark.parametrize("name", ["knn", "logistic", "linear-probe"])
def test_the_winner_is_fitted_on_all_of_train(name):
    """Of noise with many dimensions it knows all that it was fitted on, and nothing else."""
    x, labels = noise(120, 300, seed=0), torch.arange(120) % 3
    model = tiny.Stub(x, labels, x, labels)
    with isolated(0, "test"):
        results = list(CHOOSERS[name].run(model))
    best = max(r.value.mean().item() for r in results if r.metric == "top1")
    held_out = max(r.value.mean().item() for r in results if r.metric == "validation_top1")
    assert best == 1 > 0.6 > held_out


def test_protocols_read_what_they_are_named_for():
    class Both(tiny.Stub):
        def pools(self):
            return ("mean", "cls")

    plain = stub(torch.arange(90) % 3)
    both = Both(
        plain.features("train"), plain.labels("train"), plain.features("test"), plain.labels("test")
    )
    for evaluation, pool in (
        (KNN(k=(1, 3)), "mean"),
        (KNN(protocol="dino", k=(1, 3)), "cls"),
        (LinearProbe(l2=(1.0,)), "mean"),
        (LinearProbe(protocol="mae", crops=False, epochs=2), "cls"),
        (Logistic(C=(1.0,)), "mean"),
        (Logistic(protocol="dinov2", C=(1.0,)), "cls"),
    ):
        with isolated(0, "test"):
            rows = [r.where["pool"] for r in evaluation.run(both) if r.metric == "top1"]
        assert set(rows) == {pool}, evaluation


def test_the_constants_of_dino_are_its_own():
    assert TEMPERATURE == 0.07  # DINO and DINOv2, eval/knn.py
    assert AttentiveProbe(protocol="capi").protocol_name == "attentive-probe/capi@v2"


def test_features_are_scaled_by_train_alone_and_a_constant_stays_as_it_is():
    train, test = noise(50, 3, seed=0) * 7 + 2, noise(20, 3, seed=1)
    train[:, 2] = 5.0
    test[:, 2] = 6.0
    mine, other = standardised(train, test)
    torch.testing.assert_close(mine[:, :2].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(mine[:, :2].std(0), torch.ones(2))
    by_hand = (test[:, :2] - train[:, :2].mean(0)) / train[:, :2].std(0)
    torch.testing.assert_close(other[:, :2], by_hand)
    assert (mine[:, 2] == 0).all() and (other[:, 2] == 1).all()
