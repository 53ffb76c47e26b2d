"""An evaluation that breaks its promises becomes a row that says so, and harms nothing else."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tiny
import torch
from tiny import METRICS, evaluation, yields

from maebench import Metric, NotApplicable, Result, RunConfig, load_records
from maebench.errors import DataError, MaebenchError
from maebench.evaluating import records
from maebench.evaluating.features import features
from maebench.evaluating.intervals import mean_interval
from maebench.evaluating.model import EvaluatedModel
from maebench.evaluating.suite import evaluate

ONES = torch.ones(360)
GOOD = evaluation(yields(Result("score", ONES)), "good")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results)
    return tiny.load(results)


@pytest.fixture
def model(trained, tmp_path):
    return dataclasses.replace(trained, folder=tmp_path / "run")  # with no records yet


def rows_of(model, fake, **more):
    return records.read(evaluate(model, fake, **more))


# ---- what a good one leaves


def test_results_become_rows_with_the_mean_its_interval_and_every_value(model):
    values = (torch.arange(360) % 3 == 0).double()
    grid = [
        Result("score", 1 - values, {"k": 1}),
        Result("score", values, {"k": 5, "chosen": True}),
        Result("plain", 1.5, {"k": 5}),
        Result("plain", None, {"k": 1}, "it took too long"),
    ]
    path = evaluate(model, evaluation(yields(*grid)), seed=4)
    rows = records.read(path)
    interval = mean_interval(values.numpy())
    assert [row["main"] for row in rows] == [False, True, False, False]
    found = tuple(rows[1][name] for name in ("value", "low", "high", "interval"))
    assert found == dataclasses.astuple(interval) and found[-1] == "Wilson"
    assert (rows[2]["value"], rows[2]["low"], rows[2]["high"]) == (1.5, None, None)
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "not applicable"]
    assert rows[3]["reason"] == "it took too long"
    assert {(row["model"], row["seed"], row["examples"]) for row in rows} == {(model.name, 4, 360)}
    ids, kept = records.values(path, rows[1])
    assert (torch.from_numpy(kept) == values).all()
    assert (torch.from_numpy(ids) == model.splits.load("test").info.ids).all()


@pytest.mark.parametrize("value", [ONES.numpy(), ONES.tolist(), ONES.bool(), ONES.half()])
def test_values_may_come_as_anything_that_is_a_tensor(model, value):
    path = evaluate(
        model, evaluation(yields(Result("score", value), Result("plain", torch.tensor(2))))
    )
    rows = records.read(path)
    assert [(row["status"], row["value"]) for row in rows] == [("ok", 1.0), ("ok", 2.0)]
    assert records.values(path, rows[0])[1].sum() == 360


# ---- what it was chosen by

CHOOSES = {**METRICS, "held": Metric.accuracy("of images held out of train", held_out=True)}
CHOSEN = {"k": 2, "chosen": True, "edge": True}


def grid_of(model, outcomes, tested):
    """Results of a grid of which the second is chosen; of each so many are right."""
    held = len(model.folds().index)
    for k, (right, on_test) in enumerate(zip(outcomes, tested, strict=True), start=1):
        where = CHOSEN if k == 2 else {"k": k}
        yield Result("held", torch.isin(torch.arange(held), torch.tensor(right)), where)
        yield Result("score", torch.arange(360) < on_test, where)


def test_what_is_held_out_of_train_is_recorded_with_its_own_images(model):
    def does(subject):
        ids = subject.images("train").info.ids[subject.folds().index]
        yield Result("held", (ids % 3 == 0).double(), {"k": 1, "chosen": True})
        yield Result("score", ONES, {"k": 1, "chosen": True})

    path = evaluate(model, evaluation(does, metrics=CHOOSES), seed=2)
    held, score = records.read(path)
    ids, outcomes = records.values(path, held)
    assert (held["split"], held["examples"], score["split"]) == ("held out of train", 60, "test")
    assert sorted(ids) == sorted(model.splits.load("train").info.ids.tolist())
    assert (outcomes == (ids % 3 == 0)).all()
    assert len(records.values(path, score)[0]) == 360
    assert (held["choices"], score["choices"]) == (None, None), "nothing was chosen"


# Of the chosen one images 0 to 9 are right and of another some of them, and some others: sum(d)^2 /
# sum(d^2) is 4 and 3.84 at 5 %: 1, 9 against 2 and 1, 8 against 2 are McNemar's 4.45 and 3.6.
@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (range(4, 10), False),  # four against none: 4
        (range(3, 10), True),  # three against none: 3
        ([9, 10, 11], False),  # nine against two: 49 / 11
        ([8, 9, 10, 11], True),  # eight against two: 36 / 10
        (range(10), True),
    ],
)
def test_the_range_is_that_of_the_choices_which_validation_cannot_tell_apart(model, other, alike):
    outcomes = ([*other], [*range(10)], [40], [*range(1, 10)])
    tested = (300, 240, 10, 250)  # the third is far behind on validation: it does not count
    fake = evaluation(lambda subject: grid_of(subject, outcomes, tested), metrics=CHOOSES)
    rows = [row for row in rows_of(model, fake) if row["metric"] == "score"]
    (main,) = [row for row in rows if row["main"]]
    assert (main["choices"], main["choices_alike"]) == (4, 2 + alike)
    assert (main["choice_low"], main["choice_high"]) == (240 / 360, (300 if alike else 250) / 360)
    assert all(row["choices"] is row["choice_low"] is None for row in rows if not row["main"])


def test_where_test_was_read_for_the_chosen_one_alone_there_is_no_range(model):
    def does(subject):
        for result in grid_of(subject, ([*range(9)], [*range(10)]), (300, 240)):
            if result.metric == "held" or result.where == CHOSEN:
                yield result

    (main,) = [row for row in rows_of(model, evaluation(does, metrics=CHOOSES)) if row["main"]]
    assert (main["choices"], main["choices_alike"], main["choice_low"]) == (2, 2, None)


def test_a_choice_that_was_not_made_is_a_row_that_says_so(model):
    does = yields(Result("held", None, {}, "one rate"), Result("score", ONES))
    path = evaluate(model, evaluation(does, metrics=CHOOSES))
    held, score = records.read(path)
    assert (held["split"], held["examples"], held["reason"]) == ("held out of train", 0, "one rate")
    assert records.values(path, held) is None
    assert (score["status"], score["choices"]) == ("ok", None)


def test_where_nothing_can_be_held_out_a_value_of_it_is_refused(model):
    train = model.splits.load("train")
    first = torch.stack([(train.info.labels == c).nonzero()[0, 0] for c in range(10)])
    loaded = {"train": train.subset(first), "test": model.splits.load("test")}
    splits = dataclasses.replace(model.splits, _loaded=loaded)
    does = yields(Result("held", ONES[:10], {"k": 1, "chosen": True}))
    (row,) = rows_of(model, evaluation(does, metrics=CHOOSES), splits=splits)
    assert row["status"] == "failed"
    assert row["reason"].startswith("fake/held has a value, but train has one image per class")


def test_choices_are_told_apart_by_whole_groups_of_images(model):
    """Ten images of one group are one witness: ten against none are told apart without groups."""
    train = model.splits.load("train")
    index = EvaluatedModel(model, GOOD, model.splits, 0).folds().index
    alone = torch.isin(torch.arange(60), index[:10])
    for groups, alike in ((None, 1), (torch.where(alone, 0, torch.arange(60) + 1), 2)):
        info = dataclasses.replace(train.info, groups=groups)
        loaded = {"train": dataclasses.replace(train, info=info), "test": model.splits.load("test")}
        splits = dataclasses.replace(model.splits, _loaded=loaded)
        fake = evaluation(lambda m: grid_of(m, ([], [*range(10)]), (300, 240)), metrics=CHOOSES)
        rows = rows_of(model, fake, splits=splits)
        assert [row["choices_alike"] for row in rows if row["main"]] == [alike]


def test_groups_are_kept_beside_the_values_and_counted(model):
    loaded = {}
    for split, size in (("train", 4), ("test", 6)):
        images = model.splits.load(split)
        groups = torch.arange(len(images)) // size
        loaded[split] = dataclasses.replace(
            images, info=dataclasses.replace(images.info, groups=groups)
        )
    splits = dataclasses.replace(model.splits, _loaded=loaded)
    fake = evaluation(lambda m: grid_of(m, ([*range(9)], [*range(10)]), (9, 7)), metrics=CHOOSES)
    path = evaluate(model, fake, splits=splits)
    ids, _ = records.values(path, records.read(path)[0])
    position = {number: i for i, number in enumerate(loaded["train"].info.ids.tolist())}
    assert records.groups(path, held_out=True).tolist() == [position[i] // 4 for i in ids]
    assert (records.groups(path) == torch.arange(360).numpy() // 6).all()
    assert [row["num_groups"] for row in records.read(path)[:2]] == [15, 60]


def test_a_record_of_an_earlier_version_is_read(model, tmp_path):
    """It has a plain number for what was chosen on, and none of the columns that came later."""
    path = evaluate(model, GOOD)
    content = json.loads(path.read_text())
    later = {"interval", "num_groups", "choice_low", "choice_high", "choices", "choices_alike"}
    later |= {"weights_hash", "train_examples", "train_fingerprint"}
    (row,) = content["rows"]
    old = {key: value for key, value in row.items() if key not in later}
    plain = {**old, "metric": "validation_top1", "main": False, "value": 0.5}
    assert later < row.keys()
    folder = tmp_path / "results" / "models" / "earlier" / "records"
    earlier = records.write(folder, "good-v1", [old, plain], {"ids": np.arange(360)})
    assert records.values(earlier, plain) is None
    table = load_records(tmp_path / "results")
    assert table["value"].tolist() == [1.0, 0.5]
    assert table["choice_low"].isna().all() and table["split"].tolist() == ["test", "test"]


# ---- what a bad one leaves


def explode(model):
    yield Result("score", ONES)
    raise ZeroDivisionError("by nothing")


def give_up(model):
    yield Result("plain", 1.0)
    raise NotApplicable("it has no tail")


def complain(model):
    raise MaebenchError("knn needs FAISS")


def change_the_encoder(model):
    with torch.no_grad():
        model.loaded.encoder.cls_token += 1
    model.features("train")
    yield Result("score", ONES)


TWO_MAINS = {**METRICS, "other": Metric(help="another", main=True)}
NO_MAIN = {"score": Metric(help="a share")}
GRID = [Result("score", ONES, {"k": 1}), Result("score", ONES, {"k": 2})]
BAD = {
    "an undeclared metric": (yields(Result("skore", ONES)), "does not declare 'skore'"),
    "a wrong count": (yields(Result("score", ONES[1:])), r"360 test examples .* shape (359,)"),
    "a wrong count of what is held out": (
        yields(Result("held", ONES[:59])),
        "one number for each of 60 images held out of train is declared, got shape (59,)",
    ),
    "a column": (yields(Result("score", ONES[:, None])), "got shape (360, 1)"),
    "a mean where examples are declared": (yields(Result("score", 0.5)), "got shape ()"),
    "values where a number is declared": (
        yields(Result("score", ONES), Result("plain", ONES)),
        "fake/plain: a plain number is declared",
    ),
    "nan": (yields(Result("score", ONES * torch.nan)), "fake/score is not finite"),
    "infinity": (
        yields(Result("score", ONES), Result("plain", float("inf"))),
        "fake/plain is not finite",
    ),
    "above the range": (yields(Result("score", ONES * 1.01)), "leaves its range 0 to 1"),
    "below the range": (yields(Result("score", ONES * -0.01)), "leaves its range 0 to 1"),
    "no headline": (yields(*GRID), "exactly once as headline (where has chosen=True"),
    "two headlines": (
        yields(*(Result("score", ONES, {**r.where, "chosen": True}) for r in GRID)),
        "got 2",
    ),
    "nothing": (yields(), "got 0"),
    "the same twice": (
        yields(Result("score", ONES, {"k": 1}), Result("score", ONES, {"k": 1, "chosen": True})),
        "score[k=1] twice",
    ),
    "none without a reason": (yields(Result("score", None)), "is None without a reason"),
    "something that is no result": (yields(("score", 1.0)), "AttributeError"),
    "text": (yields(Result("score", "high")), "TypeError"),
    "a place that is no plain value": (
        yields(Result("score", ONES, {"k": torch.tensor(1)})),
        "is not made of plain values",
    ),
    "no generator": (lambda model: None, "TypeError"),
    "an exception": (explode, "ZeroDivisionError: by nothing"),
    "a message": (complain, "knn needs FAISS"),
    "a changed encoder": (change_the_encoder, "changed the frozen encoder"),
}


def test_an_encoder_whose_buffer_changes_is_not_frozen(model):
    model.encoder.register_buffer("statistics", torch.zeros(3))
    try:

        def count(subject):
            subject.loaded.encoder.statistics += 1
            yield Result("score", ONES)

        (row,) = rows_of(model, evaluation(count))
        assert (row["status"], row["value"]) == ("failed", None)
        assert "changed the frozen encoder" in row["reason"]
        assert (model.encoder.statistics == 0).all()
    finally:
        del model.encoder.statistics


@pytest.mark.parametrize("what", BAD)
def test_a_broken_promise_is_a_row_with_the_reason_and_nothing_else_is_affected(model, what):
    does, reason = BAD[what]
    metrics = CHOOSES if "held out" in what else METRICS
    weights = model.encoder.state_dict()["cls_token"].clone()
    (row,) = rows_of(model, evaluation(does, metrics=metrics))
    assert row["status"] == "failed" and "\n" not in row["reason"]
    assert all(part in row["reason"] for part in reason.split(" .* ")), row["reason"]
    assert (row["metric"], row["main"], row["value"]) == ("score", True, None)
    assert torch.equal(model.encoder.state_dict()["cls_token"], weights)
    (good,) = rows_of(model, GOOD)
    assert (good["status"], good["value"]) == ("ok", 1.0)


@pytest.mark.parametrize(("metrics", "named"), [(TWO_MAINS, "score"), (NO_MAIN, "")])
def test_an_evaluation_declares_exactly_one_main_metric(model, metrics, named):
    (row,) = rows_of(model, evaluation(yields(Result("score", ONES)), metrics=metrics))
    assert (row["status"], row["metric"]) == ("failed", named)
    assert "must declare one main metric" in row["reason"]


def test_features_that_a_changed_encoder_made_are_not_kept(model):
    evaluate(model, evaluation(change_the_encoder))
    fresh = dataclasses.replace(model, folder=model.folder.parent / "fresh")
    found = [features(m, m.splits.load("train"), pool="cls") for m in (model, fresh)]
    assert torch.equal(*found)


def test_what_a_model_cannot_do_is_a_row_that_says_so_and_no_failure(model):
    (row,) = rows_of(model, evaluation(give_up))
    assert (row["status"], row["reason"], row["value"]) == (
        "not applicable",
        "it has no tail",
        None,
    )


def test_an_exception_leaves_its_traceback_beside_the_row(model):
    path = evaluate(model, evaluation(explode))
    assert "in explode" in path.with_suffix(".traceback").read_text()


def test_stopping_by_hand_is_no_result(model):
    def stop(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, evaluation(stop))
    assert not list(model.folder.glob("records/*"))


# ---- done, again, failed


def test_what_is_done_is_not_run_again_and_what_failed_is(model):
    calls = []

    def sometimes(model):
        calls.append(1)
        if len(calls) == 1:
            raise OSError("a hiccup")
        if len(calls) == 2:
            raise NotApplicable("not today")
        yield Result("score", ONES)

    fake = evaluation(sometimes)
    statuses = [rows_of(model, fake)[0]["status"] for _ in range(3)]
    assert statuses == ["failed", "not applicable", "not applicable"]
    assert len(calls) == 2
    assert rows_of(model, fake, again=True)[0]["status"] == "ok"
    assert rows_of(model, fake)[0]["status"] == "ok"
    assert len(calls) == 3
    assert rows_of(model, fake, seed=1)[0]["seed"] == 1  # another seed is another result
    assert len(calls) == 4
    others = dataclasses.replace(model.splits, limit=50, _loaded={})
    assert rows_of(model, fake, splits=others)[0]["seed"] == 0  # so are other images
    assert len(calls) == 5


def test_images_that_the_model_was_not_built_for_are_refused(model):
    others = RunConfig(image_size=16, device="cpu").splits()
    with pytest.raises(DataError, match="digits: .* was built for images of 1x8x8 .* got 1x16x16"):
        evaluate(model, GOOD, splits=others)
