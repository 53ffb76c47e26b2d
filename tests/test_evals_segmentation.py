"""Segmentation: what is fitted on what, what it is compared with, and what is refused."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import tiny
import torch
from fakes import names
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from maebench import MaebenchError, NotApplicable
from maebench.evaluating import suite
from maebench.evaluating.model import EvaluatedModel
from maebench.evaluating.records import read
from maebench.models.load import load_model
from maebench.testing import EvaluationContract
from maebench_evals import patches
from maebench_evals.frozen import scaling
from maebench_evals.segmentation import Segmentation, Task, held_out

pytestmark = pytest.mark.slow  # models are trained and asked anew

SIDE = 32
COUNT = {"train": 24, "test": 10}
QUICK = {"l2": (1e-4, 1e-2), "k": (1, 3)}


class TestContractOfSegmentation(EvaluationContract):
    component = Segmentation(l2=(1e-4, 1e-2), k=(1, 3), patches=300)


def scene(numbers):
    """A bright or striped square on noise, the class of each pixel, and void at its edge."""
    image = numbers.integers(0, 60, (SIDE, SIDE)).astype("uint8")
    classes = np.zeros((SIDE, SIDE), np.uint8)
    which, (row, column) = numbers.integers(1, 3), numbers.integers(0, 3, 2) * 8
    at = np.s_[row : row + 16, column : column + 16]
    image[at] = 220 if which == 1 else np.tile([[40], [250]], (8, 16))
    classes[at] = 255
    classes[row + 1 : row + 15, column + 1 : column + 15] = which
    return image, classes


def write(root, changes=None):
    numbers = np.random.default_rng(0)
    for split, count in COUNT.items():
        for i in range(count):
            image, classes = scene(numbers)
            classes = (changes or {}).get((split, i), lambda x: x)(classes)
            for folder, one in ((root / split, image), (root / "masks" / split, classes)):
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(one).save(folder / f"{i:02}.png")
    return root


def run_of(root, results):
    return tiny.plan(results, dataset=f"folder:{root}", limit=None, image_size=(SIDE, SIDE))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    run_of(write(folder / "scenes"), folder)
    return folder


def model_of(results, spec="", evaluation=None, **changes):
    loaded = tiny.load(results, spec)
    evaluation = evaluation or Segmentation(**{**QUICK, **changes})
    return EvaluatedModel(loaded, evaluation, loaded.splits, 0)


def rows(model):
    return list(model.evaluation.run(model))


def value(found, metric, **where):
    kept = [
        r.value
        for r in found
        if r.metric == metric
        and {**r.where, **where} == dict(r.where)
        and ("baseline" in where) == ("baseline" in r.where)
    ]
    assert len(kept) == 1, (metric, where, len(kept))
    return kept[0]


def test_votes_are_scikit_learns_on_standardised_tokens_and_scored_by_pixels(results):
    model = model_of(results)
    found = rows(model)
    task = Task.of(model, 10**6)
    x, y = task.fitted(task.tokens, torch.arange(COUNT["train"]))
    scale = scaling(x)
    assert len(x) == int((task.truth["train"] != 255).sum())
    test = torch.cat([*task.each(task.tokens, "test", torch.arange(COUNT["test"]))])
    oracle = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(scale(x), y)
    guess = torch.from_numpy(oracle.predict(scale(test)))
    each, whole = task.score("test", guess)
    assert torch.allclose(value(found, "knn_iou", k=1), each)
    assert value(found, "knn_miou", k=1) == pytest.approx(whole)


def test_the_ceiling_is_what_the_majority_of_each_patch_scores(results):
    model = model_of(results)
    task = Task.of(model, 100)
    found = rows(model)
    ceiling = value(found, "ceiling")
    assert torch.allclose(ceiling, task.score("test", task.truth["test"])[0])
    best = value(found, "iou", chosen=True)
    assert float(best.mean()) <= float(ceiling.mean()) <= 1


def test_striped_squares_are_told_from_bright_ones_by_colours_and_not_by_place(results):
    found = rows(model_of(results))
    colour = value(found, "miou", baseline="colour")
    place = value(found, "miou", baseline="position")
    assert colour > 0.8 > 0.5 > place
    pixels = rows(model_of(results, f"pixels:folder:{results / 'scenes'}"))
    assert value(pixels, "miou", chosen=True) > 0.8
    assert not [r for r in pixels if r.where.get("baseline") == "colour"], "it is the headline"


def test_the_control_by_place_is_the_most_frequent_class_of_train_there(results):
    model = model_of(results)
    task = Task.of(model, 100)
    truth = task.truth["train"]
    for place in range(truth.shape[1]):
        classes = truth[:, place][truth[:, place] != 255]
        assert int(task.by_place()[0, place]) == int(classes.bincount().argmax())


def test_penalty_and_k_are_chosen_on_train_images_that_are_not_fitted_on(results, monkeypatch):
    task = Task.of(model_of(results), 10**6)
    assert len(task.held) == 2 and len(task.fit) == 22
    assert not set(task.held.tolist()) & set(task.fit.tolist())
    found = rows(model_of(results))
    for key, values in (("l2", QUICK["l2"]), ("k", QUICK["k"])):
        scores = {
            r.where[key]: (r.value, r.where.get("chosen"))
            for r in found
            if r.metric == "validation_miou" and key in r.where and "baseline" not in r.where
        }
        assert list(scores) == list(values)
        (winner,) = [v for v, chosen in scores.values() if chosen]
        assert winner == max(v for v, _ in scores.values())


def test_labels_of_test_change_no_guess(results, tmp_path):
    """What is fitted and chosen depends on train alone."""
    write(tmp_path / "scenes", {("test", i): np.fliplr for i in range(COUNT["test"])})
    run_of(tmp_path / "scenes", tmp_path)
    one, other = rows(model_of(results)), rows(model_of(tmp_path))
    for metric in ("validation_miou",):
        pair = [[(dict(r.where), r.value) for r in x if r.metric == metric] for x in (one, other)]
        assert pair[0] == pair[1]
    assert value(one, "miou", chosen=True) != value(other, "miou", chosen=True)


def test_so_many_patches_are_drawn_and_no_more(results):
    task = Task.of(model_of(results), 50)
    x, y = task.fitted(task.tokens, torch.arange(COUNT["train"]))
    assert len(x) == len(y) == 50 and 255 not in y
    again, _ = Task.of(model_of(results), 50).fitted(task.tokens, torch.arange(COUNT["train"]))
    assert torch.equal(x, again)


def test_a_picture_of_images_truth_and_guess_is_written(results):
    model = model_of(results)
    rows(model)
    with Image.open(model.artifacts / "segmentation.png") as image:
        image.load()
        assert image.width > 400


# Records, and what is refused.


def test_records_are_those_of_their_label_maps(results, tmp_path):
    root = write(tmp_path / "scenes")
    run_of(root, tmp_path)
    first = suite.evaluate(tiny.load(tmp_path), Segmentation(**QUICK))
    assert suite.evaluate(tiny.load(tmp_path), Segmentation(**QUICK)) == first
    path = root / "masks" / "test" / "00.png"
    Image.fromarray(np.ones((SIDE, SIDE), np.uint8)).save(path)
    assert suite.evaluate(tiny.load(tmp_path), Segmentation(**QUICK)) != first


def test_a_data_set_without_label_maps_is_not_applicable(tmp_path):
    tiny.plan(tmp_path)
    with pytest.raises(NotApplicable, match="'digits' has no label maps"):
        rows(model_of(tmp_path))


def test_an_evaluation_that_does_not_say_that_it_reads_label_maps_gets_none(results):
    fake = tiny.evaluation(lambda model: [model.label_maps("train")])
    with pytest.raises(MaebenchError, match="declare dense = True"):
        model_of(results, evaluation=fake).label_maps("train")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {("test", 3): lambda x: np.where(x == 0, 7, x).astype("uint8")},
            r"class 7 is in 1 label maps of test and in none of train; train has 0, 1, 2",
        ),
        ({("test", 0): lambda x: np.full_like(x, 255)}, "1 label maps of test have no pixel"),
        (
            {
                (s, i): lambda x: np.where(x == 0, 0, 255).astype("uint8")
                for s in COUNT
                for i in range(COUNT[s])
            },
            r"label maps of train have the classes \[0\] alone, and two are needed",
        ),
        ({("train", 4): lambda x: np.full_like(x, 255)}, "1 label maps of train have no pixel"),
        ({("train", 4): lambda x: x[:-1]}, r"has 31x32 pixels, its image 04\.png 32x32"),
    ],
)
def test_wrong_label_maps_are_a_row_with_one_line(changes, what, tmp_path):
    run_of(write(tmp_path / "scenes", changes), tmp_path)
    (row,) = read(suite.evaluate(tiny.load(tmp_path), Segmentation(**QUICK)))
    assert row["status"] == "failed"
    assert "\n" not in row["reason"]
    assert re.search(what, row["reason"]), row["reason"]


def test_more_neighbours_than_patches_are_refused_before_anything_is_fitted(results):
    with pytest.raises(
        MaebenchError, match=r"segmentation\.k=10000 for .*: 1 to \d+ train patches"
    ):
        rows(model_of(results, k=(10_000,)))


def test_whole_groups_of_images_are_held_out(results):
    model = model_of(results)
    images = model.images("train")
    groups = torch.arange(COUNT["train"]) // 3
    grouped = dataclasses.replace(images, info=dataclasses.replace(images.info, groups=groups))
    fit, held = held_out(Grouped(model, grouped))
    assert len(held) == 3 and len(fit) == COUNT["train"] - 3
    assert not set(groups[held].tolist()) & set(groups[fit].tolist())
    lone = dataclasses.replace(images.info, groups=torch.zeros(COUNT["train"], dtype=torch.int64))
    with pytest.raises(NotApplicable, match="one group of them"):
        held_out(Grouped(model, dataclasses.replace(images, info=lone)))


class Grouped:
    """A model on other images."""

    def __init__(self, model, images):
        self.draws, self.images = model.draws, lambda split: images


def test_a_foreign_model_that_cuts_its_images_is_told_the_size_that_it_sees(tmp_path):
    root = write(tmp_path / "scenes")
    spec, data = "timm:test_vit", {"dataset": f"folder:{root}"}
    model = load_model(spec, tmp_path, "cpu", names(), data=data)
    with pytest.raises(NotApplicable, match="it sees 160x160 pixels .* give --image-size 160,160"):
        rows(EvaluatedModel(model, Segmentation(**QUICK), model.splits, 0))


def test_void_is_the_same_in_core_and_plugin():
    from maebench.data.label_maps import VOID

    assert patches.VOID == VOID
