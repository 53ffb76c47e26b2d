"""What an evaluation is given of a model, and what it cannot reach."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch
from tiny import evaluation, yields

from maebench import Augment, Folds, NotApplicable, Result
from maebench.evaluating import records
from maebench.evaluating.model import EvaluatedModel
from maebench.evaluating.suite import evaluate

NOTHING = evaluation(yields())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results)
    return tiny.load(results)


REACHES = {
    "images": lambda model: model.images("train"),
    "labels": lambda model: model.labels("train"),
    "features": lambda model: model.features("train"),
    "tokens": lambda model: model.tokens("train", torch.arange(2)),
    "crops": lambda model: next(model.crops("train", 4, 1)),
    "holdout": lambda model: model.holdout(),
    "folds": lambda model: model.folds(),
}


@pytest.mark.parametrize("what", REACHES)
def test_a_split_that_was_not_declared_cannot_be_reached(model, what):
    def does(model):
        REACHES[what](model)
        yield Result("score", torch.ones(360))

    (row,) = records.read(evaluate(model, evaluation(does, what, splits=("test",))))
    assert row["status"] == "failed"
    assert "asks for split 'train' but declares test" in row["reason"]
    (row,) = records.read(evaluate(model, evaluation(does, what)))
    assert row["status"] == "ok"


def subject(model, seed=0, fake=NOTHING):
    return EvaluatedModel(model, fake, model.splits, seed)


def test_the_encoder_is_a_copy_that_may_be_trained(model):
    mine = subject(model).encoder()
    assert all(p.requires_grad for p in mine.parameters())
    with torch.no_grad():
        mine.cls_token += 1
    assert not torch.equal(mine.cls_token, model.encoder.cls_token)
    assert not torch.equal(mine.cls_token, subject(model).encoder().cls_token)


def test_masks_are_the_same_for_every_model_and_seed_and_in_any_batch(model):
    results = model.run.folder.parent.parent
    one, other = subject(model), subject(tiny.load(results, "untrained:"), seed=7)
    ids = torch.tensor([5, 0, 300])
    whole = one.masks(ids, ratio=0.5).hidden
    assert torch.equal(other.masks(ids, ratio=0.5).hidden, whole)
    assert torch.equal(torch.cat([one.masks(i[None], ratio=0.5).hidden for i in ids]), whole)
    assert (whole.sum(1) == 8).all()
    with pytest.raises(NotApplicable, match="no decoder"):
        subject(tiny.load(results, "pixels:")).masks(ids)


def test_pictures_are_the_objectives_own_and_none_where_it_has_none(model, tmp_path):
    results = model.run.folder.parent.parent
    ids = torch.arange(3)
    for each in (subject(model), subject(tiny.load(results, "pixels:"))):
        assert each.pictures(torch.zeros(3, 1, 8, 8), each.draws("pictures", ids)) == {}
    tiny.plan(tmp_path, objective="variational")
    one = subject(tiny.load(tmp_path))
    found = one.pictures(torch.zeros(3, 1, 8, 8), one.draws("pictures", ids))
    assert {name: tuple(x.images.shape) for name, x in found.items()} == {
        "samples": (8, 8, 1, 8, 8),
        "traversal": (8, 7, 1, 8, 8),
    }
    assert not any(x.images.requires_grad for x in found.values())


def test_the_holdout_is_balanced_disjoint_and_leaves_the_rest_to_fit_on(model):
    fit, held = subject(model).holdout(0.2)
    labels = model.splits.load("train").info.labels
    assert sorted([*fit.tolist(), *held.tolist()]) == list(range(60))
    assert labels[held].bincount(minlength=10).tolist() == [1] * 10  # a fifth of six
    assert torch.equal(subject(model).holdout(0.2)[1], held)
    assert not torch.equal(subject(model, seed=1).holdout(0.2)[1], held)


def test_a_class_of_one_image_is_left_to_fit_on(model):
    images = model.splits.load("train")
    labels = images.info.labels
    few = images.subset(torch.cat([(labels == 3).nonzero()[:1, 0], (labels != 3).nonzero()[:, 0]]))
    splits = dataclasses.replace(model.splits, _loaded={"train": few})
    fit, held = EvaluatedModel(model, NOTHING, splits, 0).holdout()
    assert 0 in fit.tolist()
    assert 0 not in held.tolist()


def test_folds_are_drawn_once_by_the_seed_and_a_part_of_train_can_be_divided(model):
    one, labels = subject(model), model.splits.load("train").info.labels
    folds = one.folds()
    assert one.folds() is folds
    assert torch.equal(folds.held, Folds.of(labels, 0).held)
    assert torch.equal(one.folds(purpose="mine").held, Folds.of(labels, 0, "mine").held)
    assert torch.equal(subject(model, seed=1).folds().held, Folds.of(labels, 1).held)
    part = torch.arange(0, 60, 2)
    assert torch.equal(one.folds(part, "half").held, Folds.of(labels[part], 0, "half").held)
    assert one.folds() is folds


def test_images_of_a_group_are_held_out_together(model):
    train = model.splits.load("train")
    groups = torch.arange(60) // 4
    grouped = dataclasses.replace(train, info=dataclasses.replace(train.info, groups=groups))
    splits = dataclasses.replace(model.splits, _loaded={"train": grouped})
    one = EvaluatedModel(model, NOTHING, splits, 0)
    fit, held = one.holdout(0.2)
    assert sorted([*fit.tolist(), *held.tolist()]) == list(range(60))
    assert not set(groups[fit].tolist()) & set(groups[held].tolist())
    assert len(held) == 60 // 5, "three of fifteen groups"
    assert torch.equal(one.holdout(0.2)[1], held)
    other = dataclasses.replace(one, seed=1).holdout(0.2)
    assert not torch.equal(other[1], held)
    part = torch.arange(0, 60, 2)
    for folds, mine in ((one.folds(), groups), (one.folds(part), groups[part])):
        for fit, held in folds.rounds():
            assert not set(mine[fit].tolist()) & set(mine[held].tolist())


def test_one_group_cannot_be_held_out(model):
    train = model.splits.load("train")
    info = dataclasses.replace(train.info, groups=torch.zeros(60, dtype=torch.int64))
    loaded = {"train": dataclasses.replace(train, info=info)}
    splits = dataclasses.replace(model.splits, _loaded=loaded)
    with pytest.raises(NotApplicable, match="too few groups of images"):
        EvaluatedModel(model, NOTHING, splits, 0).holdout()


def test_draws_and_crops_repeat_with_the_seed_and_differ_by_seed_and_evaluation(model):
    other = evaluation(yields(), "other")
    made = [
        (
            s.draws("a").uniform(5).tolist(),
            torch.cat([c.ids for c in s.crops("train", 8, 3)]).tolist(),
        )
        for s in (subject(model), subject(model), subject(model, 1), subject(model, 0, other))
    ]
    assert made[0] == made[1]
    for mine in made[2:]:
        assert mine[0] != made[0][0]
        assert mine[1] != made[0][1]
    assert subject(model).draws("b").uniform(5).tolist() != made[0][0]


def test_pixels_undo_normalising(model):
    images = model.splits.load("test").pick([0, 1])
    one = subject(model)
    torch.testing.assert_close(one.pixels(one.normalise(images)), images / 255)


def test_tokens_are_those_of_the_encoder_kept_or_encoded_each_time(model, monkeypatch):
    index = torch.tensor([5, 0, 31])
    images = model.splits.load("train").pick(index.tolist())
    last = model.encoder(model.normalise(images)).patches
    first = model.encoder(model.normalise(images), None, (1,)).layers[1].patches
    for memory in (2**30, 0):
        monkeypatch.setattr("maebench.evaluating.model.TOKEN_MEMORY", memory)
        one = subject(model)
        torch.testing.assert_close(one.tokens("train", index), last)
        torch.testing.assert_close(one.tokens("train", index, 1), first)
        assert bool(one._tokens) == bool(memory)
    assert one.depth() == 2


def test_raw_pixels_have_no_tokens_and_no_blocks(model):
    pixels = subject(tiny.load(model.run.folder.parent.parent, "pixels:"))
    with pytest.raises(NotApplicable, match="no patch tokens"):
        pixels.tokens("train", torch.arange(2))
    assert pixels.depth() == 0


def test_any_images_can_be_encoded_and_the_cached_features_are_theirs(model):
    images = model.splits.load("train").pick([5, 0, 31])
    results = model.run.folder.parent.parent
    for name, pool in (("", "mean"), ("", "cls"), ("pixels:", "flat")):
        one = subject(tiny.load(results, name))
        given = one.encode(images.float(), pool=pool)
        torch.testing.assert_close(given, one.features("train", pool=pool)[[5, 0, 31]])
    assert not torch.equal(subject(model).encode(images, 1), subject(model).encode(images))


def test_crops_can_be_other_than_those_of_pretraining(model):
    whole = Augment(scale=(1, 1), aspect=(1, 1), flip=False)
    (crop,) = subject(model).crops("train", 4, 1, whole)
    images = model.splits.load("train").pick(crop.index.tolist())
    torch.testing.assert_close(crop.images, images.float(), atol=1e-3, rtol=0)
    (other,) = subject(model).crops("train", 4, 1)
    assert not torch.equal(other.images, crop.images)
