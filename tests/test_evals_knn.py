"""Nearest neighbours against scikit-learn, and what happens to ties."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

import maebench_evals.knn as module
from maebench import MaebenchError, records, suite
from maebench_evals.knn import KNN, normalised, search, vote, votes_for


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
        assert most[np.arange(len(test)), found[k]].all(), "a class with fewer votes won"
        clear = most.sum(1) == 1
        assert clear.mean() > 0.9
        assert (found[k].numpy() == oracle.predict(test))[clear].all()


@settings(max_examples=300)
@given(st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7), min_size=1, max_size=4))
def test_of_equally_many_votes_the_class_of_the_nearest_voter_wins(neighbours):
    found = vote(torch.tensor(neighbours), [1, 2, 4, 7])
    for k, given_classes in found.items():
        for row, winner in zip(neighbours, given_classes.tolist(), strict=True):
            voters = row[:k]
            assert winner == max(voters, key=lambda c: (voters.count(c), -voters.index(c)))


def test_of_equally_similar_images_the_first_in_train_is_nearer():
    bank = normalised(torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [1.0, 0.1]]))
    assert search(bank, bank[1:2], 5).tolist() == [[1, 2, 3, 4, 0]]
    assert search(bank, bank[:1], 2).tolist() == [[0, 4]]


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
        (top1 if result.metric == "top1" else validation)[result.where["k"]] = result.value
        chosen += [result.where] if result.where.get("chosen") and result.metric == "top1" else []
    (where,) = chosen
    return top1, validation, where


def test_one_search_serves_every_k(digits, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "search", lambda *a: (calls.append(a[2]), search(*a))[1])
    top1, validation, where = results(digits, k=(20, 1, 5, 5))
    assert calls == [20, 20]  # the part of train that is held out, and test
    assert list(top1) == list(validation) == [1, 5, 20]
    assert all(v.shape == (360,) and v.mean() > 0.9 for v in top1.values())
    assert validation[where["k"]] == max(validation.values())


def test_queries_in_parts_give_the_same_votes(digits, monkeypatch):
    arguments = normalised(digits.features("train")), digits.labels("train")
    test = normalised(digits.features("test"))
    whole = votes_for(*arguments, test, [5])[5]
    monkeypatch.setattr(module, "QUERIES", 7)
    assert torch.equal(votes_for(*arguments, test, [5])[5], whole)


def test_of_equally_good_k_the_smallest_is_chosen_and_the_largest_is_an_edge():
    x = torch.nn.functional.one_hot(torch.arange(100) % 2).float()
    labels = torch.arange(100) % 2
    easy = tiny.Stub(x, labels, x, labels)
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
    assert len(results(few, k=(16,))[0][16]) == 20
    with pytest.raises(MaebenchError, match=r"knn\.k: \[1, 17\] for stub: 1 to 16 training images"):
        list(KNN(k=(1, 17)).run(few))


def test_without_faiss_the_row_names_what_to_install(tmp_path, monkeypatch):
    tiny.plan(tmp_path)
    monkeypatch.setitem(sys.modules, "faiss", None)
    (row,) = records.read(suite.evaluate(tiny.load(tmp_path), KNN(k=(1,))))
    assert (row["status"], row["reason"]) == (
        "failed",
        "the knn evaluation needs FAISS: pip install 'maebench[cpu]' (or 'maebench[gpu]')",
    )
    monkeypatch.undo()
    (_, row) = records.read(suite.evaluate(tiny.load(tmp_path), KNN(k=(1,))))
    assert row["status"] == "ok"


def test_layer_and_pool_choose_the_features(tmp_path):
    tiny.plan(tmp_path)
    model = tiny.load(tmp_path)
    found = set()
    for options in ({}, {"pool": "cls"}, {"layer": 1}):
        path = suite.evaluate(model, KNN(k=(1,), **options))
        row = records.read(path)[1]
        found.add(records.values(path, row)[1].tobytes())
    assert len(found) == 3
