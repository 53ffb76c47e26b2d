"""Retrieval against scikit-learn's average precision and rankings made by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import maebench_evals.retrieval as module
from maebench import ConfigError
from maebench.component import parse
from maebench.evaluating import records, suite
from maebench_evals.retrieval import (
    Retrieval,
    average_precision,
    average_precisions,
    nearest,
    sorted_at_once,
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(train=90, test=31, classes=4):
    """Features that know a little of their class."""
    labels, right = torch.arange(train) % classes, torch.arange(test) % classes
    centres = noise(classes, 8, seed=2)
    return tiny.Stub(
        noise(train, 8) + centres[labels], labels, noise(test, 8, seed=1) + centres[right], right
    )


def results(model, **options):
    return {r.metric: r.value for r in Retrieval(**options).run(model)}


def unit(x):
    return (x / x.norm(dim=1, keepdim=True)).double().numpy()


def brute(similar, classes, label):
    """Average precision by scikit-learn, and how many images come before the first hit."""
    hit = classes == label
    ranking = np.argsort(-similar, kind="stable")
    return average_precision_score(hit, similar), int(hit[ranking].argmax())


@pytest.mark.parametrize("gallery", ["train", "test"])
def test_each_query_is_as_scikit_learn_and_a_ranking_by_hand_say(gallery):
    model = made()
    found = results(model, gallery=gallery)
    queries, bank = unit(model.features("test")), unit(model.features(gallery))
    labels, classes = model.labels("test").numpy(), model.labels(gallery).numpy()
    for q in range(len(queries)):
        keep = np.ones(len(bank), dtype=bool)
        keep[q] = gallery == "train"  # of test all but the query itself
        precision, before = brute((bank @ queries[q])[keep], classes[keep], labels[q])
        assert found["map"][q].item() == pytest.approx(precision, abs=1e-6)
        for k in (1, 5, 10):
            assert found[f"r{k}"][q].item() == (before < k)
    assert 0.3 < found["map"].mean() < 0.9
    assert found["r1"].mean() < found["r10"].mean()


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12))
def test_ties_are_one_step_of_the_precision(images):
    similar = np.array([s for s, _ in images], dtype=np.float32)
    hit = np.array([h for _, h in images])
    if not hit.any():
        assert average_precision(similar, hit) == 0
        return
    assert average_precision(similar, hit) == pytest.approx(average_precision_score(hit, similar))
    turned = np.random.default_rng(0).permutation(len(images))
    assert average_precision(similar[turned], hit[turned]) == average_precision(similar, hit)


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.booleans())
def test_all_queries_at_once_have_the_precision_of_one_by_one(seed, others):
    generator = torch.Generator().manual_seed(seed)
    similar = torch.randint(-2, 3, (6, 6), generator=generator).float()  # many ties
    classes, right = (torch.randint(0, 3, (6,), generator=generator) for _ in "ab")
    if others:
        similar.fill_diagonal_(-torch.inf)
    expected = average_precisions(similar, right, classes)
    found = sorted_at_once(similar, right, classes)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_of_equal_images_the_first_is_nearer_and_a_query_is_not_its_own_neighbour():
    bank = torch.eye(3)[torch.tensor([0, 1, 0, 0, 2])]
    queries, own = bank[:3], torch.arange(3)
    assert nearest(bank, queries, 3, None).tolist()[0] == [0, 2, 3]
    assert nearest(bank, queries, 2, own).tolist()[::2] == [[2, 3], [0, 3]]
    for row, mine in zip(nearest(bank, bank, 4, torch.arange(5)).tolist(), range(5), strict=True):
        assert mine not in row


def test_queries_in_parts_give_the_same_numbers(monkeypatch):
    for gallery in ("train", "test"):
        whole = results(made(), gallery=gallery)
        with monkeypatch.context() as patched:
            patched.setattr(module, "SIMILARITIES", 200)  # two queries at a time of ninety
            parts = results(made(), gallery=gallery)
        for name, values in whole.items():
            torch.testing.assert_close(parts[name], values, atol=1e-6, rtol=0)


def test_a_class_that_the_gallery_has_not_is_not_found():
    model = made()
    model._labels["test"] = model.labels("test").clone()
    model._labels["test"][3] = 9
    for gallery in ("train", "test"):
        found = results(model, gallery=gallery)
        assert all(values[3] == 0 for values in found.values())
        assert found["map"][4] > 0


def test_more_images_than_the_gallery_has_are_a_row_that_says_so():
    (row,) = [r for r in Retrieval().run(made(train=9)) if r.value is None]
    assert (row.metric, row.reason) == ("r10", "the gallery has 9 images")
    missing = Retrieval(gallery="test").run(made(test=5))
    assert {r.metric: r.reason for r in missing if r.reason} == {
        "r5": "the gallery has 4 images",
        "r10": "the gallery has 4 images",
    }


def test_length_does_not_matter():
    model = made()
    before = results(model)
    model._features["train"] = model.features("train") * torch.linspace(0.1, 9, 90)[:, None]
    torch.testing.assert_close(results(model)["map"], before["map"], atol=1e-5, rtol=0)


def test_an_unknown_gallery_is_refused_and_a_model_is_recorded(tmp_path):
    with pytest.raises(ConfigError, match=r"eval\.gallery: .*'train' or 'test', given 'all'"):
        parse(Retrieval, {"gallery": "all"}, {}, "eval")
    tiny.plan(tmp_path)
    rows = records.read(suite.evaluate(tiny.load(tmp_path), Retrieval()))
    assert [(r["metric"], r["status"]) for r in rows] == [
        (name, "ok") for name in ("map", "r1", "r5", "r10")
    ]
    assert [r["main"] for r in rows] == [True, False, False, False]
