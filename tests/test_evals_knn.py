"""Nearest neighbours against scikit-learn, and what happens to ties."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

import maebench_evals.knn as module
from maebench import ConfigError, MaebenchError, NotApplicable
from maebench.component import parse
from maebench.evaluating import records, suite
from maebench_evals import nearest
from maebench_evals.knn import KNN, edges, vote, votes_for
from maebench_evals.nearest import normalised, search


@pytest.fixture(scope="module")
def digits():
    return tiny.digits()


def test_votes_are_scikit_learns_with_cosine_distance(digits):
    train, labels = digits.features("train"), digits.labels("train")
    test = digits.features("test")
    ks = [1, 5, 20]
    found = votes_for(normalised(train), labels, normalised(test), ks)
    assert list(found) == ks
    for k in ks:
        oracle = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train, labels)
        share = oracle.predict_proba(test)
        most = share == share.max(1, keepdims=True)
        winner = found[k][:, 0].numpy()
        assert most[np.arange(len(test)), winner].all(), "a class with fewer votes won"
        clear = most.sum(1) == 1
        assert clear.mean() > 0.9
        assert (winner == oracle.predict(test))[clear].all()


@settings(max_examples=300)
@given(st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=4))
@pytest.mark.slow
def test_of_equally_many_votes_the_class_of_the_nearest_voter_wins(neighbours):
    found = vote(torch.tensor(neighbours), torch.zeros(len(neighbours), 7), [1, 2, 4, 7])
    for k, ranking in found.items():
        for row, best in zip(neighbours, ranking.tolist(), strict=True):
            voters = row[:k]
            strength = {c: (voters.count(c), -voters.index(c)) for c in voters}
            expected = sorted(strength, key=strength.get, reverse=True)
            assert best == (expected + [-1] * 5)[:5], "a class without a voter is no guess"


def dino(bank, labels, query, k, temperature):
    """The vote of DINO's eval_knn.py for one query, by hand: (winner, classes from the best)."""
    similar = [sum(a * b for a, b in zip(query, other, strict=True)) for other in bank.tolist()]
    nearest = sorted(range(len(bank)), key=lambda i: -similar[i])[:k]
    votes = {}
    for i in nearest:
        votes[int(labels[i])] = votes.get(int(labels[i]), 0) + math.exp(similar[i] / temperature)
    return sorted(votes, key=votes.get, reverse=True)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_dino_votes_with_the_exponential_of_similarity(digits, temperature):
    train, labels = normalised(digits.features("train")[:150]), digits.labels("train")[:150]
    test = normalised(digits.features("test")[:40])
    found = votes_for(train, labels, test, [1, 10, 100], temperature)
    for k, ranking in found.items():
        for query, best in zip(test.tolist(), ranking.tolist(), strict=True):
            assert best == (dino(train, labels, query, k, temperature) + [-1] * 5)[:5]
    majority = votes_for(train, labels, test, [100])[100]
    assert not torch.equal(found[100], majority)


def test_a_cold_vote_does_not_overflow_and_is_that_of_the_nearest(digits):
    train, labels = normalised(digits.features("train")), digits.labels("train")
    test = normalised(digits.features("test"))
    cold = votes_for(train, labels, test, [20], 1e-6)[20][:, 0]
    nearest = votes_for(train, labels, test, [1])[1][:, 0]
    assert (cold == nearest).double().mean() > 0.99  # exact ties may weigh as two


def test_of_equally_similar_images_the_first_in_train_is_nearer():
    bank = normalised(torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [1.0, 0.1]]))
    assert search(bank, bank[1:2], 5)[0].tolist() == [[1, 2, 3, 4, 0]]
    assert search(bank, bank[:1], 2)[0].tolist() == [[0, 4]]


def test_length_does_not_matter_and_a_feature_of_zeros_is_no_nan(digits):
    train, labels, test = (
        digits.features("train")[:200],
        digits.labels("train")[:200],
        digits.features("test")[:50].clone(),
    )
    plain = votes_for(normalised(train), labels, normalised(test), [5])[5]
    scaled = train * torch.linspace(0.1, 9, 200)[:, None]
    assert torch.equal(votes_for(normalised(scaled), labels, normalised(test), [5])[5], plain)
    test[0] = 0
    assert normalised(test)[0].tolist() == [0] * 64


def results(model, **options):
    top1, validation, chosen = {}, {}, []
    for result in KNN(**options).run(model):
        if result.metric == "top5" or result.value is None:
            continue
        k, value = result.where["k"], result.value
        if result.metric == "top1":
            top1[k] = value
        else:
            validation[k] = value.mean().item()
        chosen += [result.where] if result.where.get("chosen") and result.metric == "top1" else []
    (where,) = chosen
    return top1, validation, where


def test_one_search_serves_every_k(digits, monkeypatch):
    calls = []
    monkeypatch.setattr(nearest, "search", lambda *a: (calls.append(a[2]), search(*a))[1])
    top1, validation, where = results(digits, k=(20, 1, 5, 5))
    assert calls == [20] * 11  # twice five folds of train, and test
    assert list(top1) == list(validation) == [1, 5, 20]
    assert all(v.shape == (360,) and v.mean() > 0.9 for v in top1.values())
    assert validation[where["k"]] == max(validation.values())


def test_queries_in_parts_give_the_same_votes(digits, monkeypatch):
    arguments = normalised(digits.features("train")), digits.labels("train")
    test = normalised(digits.features("test"))
    whole = votes_for(*arguments, test, [5])[5]
    for parts in ({"QUERIES": 64 * 7}, {"VOTERS": 7}, {"BANK": 64 * 100}, {"BANK": 1}):
        with monkeypatch.context() as changed:
            for name, size in parts.items():
                changed.setattr(module if name == "VOTERS" else nearest, name, size)
            assert (votes_for(*arguments, test, [5])[5] == whole).double().mean() > 0.999


def test_who_is_held_out_does_not_vote(digits):
    x, labels = digits.features("train")[:300], digits.labels("train")[:300]
    fit, held = torch.arange(300)[torch.arange(300) % 4 > 0], torch.arange(0, 300, 4)
    found = votes_for(x, labels, x, [1, 5], None, fit, held)
    alone = votes_for(x[fit], labels[fit], x[held], [1, 5])
    assert all(torch.equal(found[k], alone[k]) for k in (1, 5))


def test_of_equally_good_k_the_middle_is_chosen_and_the_largest_is_an_edge():
    x = torch.nn.functional.one_hot(torch.arange(100) % 2).float()
    labels = torch.arange(100) % 2
    easy = tiny.Stub(x, labels, x, labels)
    assert results(easy, k=(1, 3, 5, 7))[2] == {"k": 3, "pool": "mean", "chosen": True}
    assert results(easy, k=(3, 5))[2] == {"k": 3, "pool": "mean", "chosen": True}
    assert results(easy, k=(3,))[2] == {"k": 3, "pool": "mean", "chosen": True}
    # the nearest four are of another class, and only the fifth to ninth are right
    angle = torch.linspace(0, 1.5, 100)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    labels = (torch.arange(100) >= 50).long()
    wrong = labels.clone()
    wrong[torch.arange(100) % 5 != 0] ^= (torch.arange(80) % 3 == 0).long()
    noisy = tiny.Stub(x, wrong, x, labels)
    _, validation, where = results(noisy, k=(1, 9))
    assert validation[9] > validation[1]
    assert where == {"k": 9, "pool": "mean", "chosen": True, "edge": True}


def test_more_neighbours_than_images_are_refused(digits):
    few = tiny.Stub(
        digits.features("train")[:20],
        digits.labels("train")[:20],
        digits.features("test")[:20],
        digits.labels("test")[:20],
    )
    voters = min(len(fit) for fit, _ in few.folds().rounds())
    assert len(results(few, k=(voters,))[0][voters]) == 20
    with pytest.raises(
        MaebenchError, match=rf"-o knn\.k=1,{voters + 1} for stub: 1 to {voters} training images"
    ):
        list(KNN(k=(1, voters + 1)).run(few))


def test_without_faiss_the_row_names_what_to_install(tmp_path, monkeypatch):
    tiny.plan(tmp_path)
    monkeypatch.setitem(sys.modules, "faiss", None)
    (row,) = records.read(suite.evaluate(tiny.load(tmp_path), KNN(k=(1,))))
    assert (row["status"], row["reason"]) == (
        "failed",
        "the knn evaluation needs FAISS: pip install 'maebench[cpu]' (or 'maebench[gpu]')",
    )
    monkeypatch.undo()
    (_, row, _) = records.read(suite.evaluate(tiny.load(tmp_path), KNN(k=(1,))))
    assert row["status"] == "ok"


# ---- protocols


def rows(model, **options):
    return [(r.metric, r.where.get("k"), r.value, r.reason) for r in KNN(**options).run(model)]


def test_majority_is_the_default_and_dino_has_its_own_grid(digits):
    assert KNN().protocol_name == "knn/majority@v3"
    assert list(results(digits)[0]) == [1, 5, 10, 20, 50]
    assert list(results(digits, protocol="dino")[0]) == [10, 20, 100, 200]
    assert list(results(digits, protocol="dino", k=(3,))[0]) == [3]
    weighted = results(digits, protocol="dino", k=(50,))[0][50]
    plain = results(digits, protocol="majority", k=(50,))[0][50]
    assert not torch.equal(weighted, plain)
    own = results(digits, protocol="dino", k=(50,), temperature=0.07)[0][50]
    assert torch.equal(own, weighted)


def test_top5_counts_the_five_strongest_classes_and_is_left_out_for_few(digits):
    found = rows(digits, protocol="dino", k=(100,))
    (top1,), (top5,) = ([v for m, _, v, _ in found if m == name] for name in ("top1", "top5"))
    assert (top5 >= top1).all()
    assert 0.95 < top1.mean() + 0.05 < top5.mean() + 0.05
    assert top5.mean() > 0.99
    few = two_classes(40)
    ((_, k, value, reason),) = [row for row in rows(few, k=(1,)) if row[0] == "top5"]
    assert (k, value, reason) == (None, None, "of 2 classes five guesses can hardly miss one")


def two_classes(count):
    labels = torch.arange(count) % 2
    x = torch.nn.functional.one_hot(labels).float()
    return tiny.Stub(x, labels, x, labels)


def test_a_k_of_the_protocols_own_that_does_not_fit_is_a_row_that_says_so():
    found = rows(two_classes(100), protocol="dino")  # eighty are left to vote
    assert [(m, k) for m, k, v, _ in found if v is not None and m == "top1"] == [
        ("top1", 10),
        ("top1", 20),
    ]
    assert [(k, reason) for m, k, v, reason in found if v is None and m == "top1"] == [
        (100, "k=100: only 80 training images can vote"),
        (200, "k=200: only 80 training images can vote"),
    ]
    with pytest.raises(NotApplicable, match="only 8 training images can vote, the least k is 10"):
        rows(two_classes(10), protocol="dino")
    with pytest.raises(MaebenchError, match=r"-o knn.k=20,100 .* 1 to 80 training images"):
        rows(two_classes(100), protocol="dino", k=(20, 100))


def test_a_temperature_without_effect_is_refused():
    with pytest.raises(
        ConfigError, match="temperature=0.1 weighs the votes of -o knn.protocol=dino"
    ):
        parse(KNN, {"temperature": 0.1}, {}, "eval")


def test_a_smallest_k_that_is_better_than_the_next_is_an_edge_unless_it_is_one():
    assert edges([10, 20, 30], [0.9, 0.8, 0.7]) == [True, False, True]
    assert edges([10, 20, 30], [0.9, 0.9, 0.7]) == [False, False, True]
    assert edges([1, 20, 30], [0.9, 0.8, 0.7]) == [False, False, True]
    assert edges([1, 20], [0.7, 0.8]) == [False, True]
    assert edges([1], [0.9]) == edges([10], [0.9]) == [False]


def test_layer_and_pool_choose_the_features(tmp_path):
    tiny.plan(tmp_path)
    model = tiny.load(tmp_path)
    found = set()
    for options in ({}, {"pool": "cls"}, {"layer": 1}):
        path = suite.evaluate(model, KNN(k=(1,), **options))
        row = records.read(path)[1]
        found.add(records.values(path, row)[1].tobytes())
    assert len(found) == 3
