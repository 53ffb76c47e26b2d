"""Reconstruction: the numbers against scikit-learn and torchmetrics."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import fakes
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from sklearn.metrics import r2_score
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from maebench import Block, Dataset, MaebenchError, Random, hidden_pixels, patchify, unpatchify
from maebench.analysis.run import models_of
from maebench.data.images import from_arrays
from maebench.evaluating import records, suite
from maebench.evaluating.model import EvaluatedModel
from maebench_evals import reconstruction as module
from maebench_evals import reconstruction_pictures as pictures
from maebench_evals.hidden import HIDDEN_ALONE, TargetVariance, distance_to_seen
from maebench_evals.inpainting import BASELINES
from maebench_evals.reconstruction import FLAT, ReconstructionQuality

TARGETS = ("pixels", "normalised-pixels")


@pytest.fixture(
    scope="module",
    params=[TARGETS[0], *(pytest.param(t, marks=pytest.mark.slow) for t in TARGETS[1:])],
)
def model(request, tmp_path_factory):
    """Digits of 16x16 pixels, large enough for SSIM."""
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results, image_size=16, objective={"name": "mae", "target": request.param})
    return tiny.load(results)


def rows_of(model, evaluation=None, **options):
    """Rows by (metric, baseline), those of distances by their distance too, and the file."""
    path = suite.evaluate(model, evaluation or ReconstructionQuality(**options))
    rows = {}
    for r in records.read(path):
        at = (r["where"]["distance"],) if "distance" in r["where"] else ()
        rows[r["metric"], r["where"].get("baseline"), *at] = r
    return rows, path


def by_hand(model, ratio=0.75, count=360):
    """Images, mask and reconstruction as the evaluation gets them."""
    subject = EvaluatedModel(model, ReconstructionQuality(), model.splits, 0)
    images = subject.images("test")
    mask = subject.masks(images.info.ids[:count], Random(), ratio)
    normal = subject.normalise(torch.cat(list(images.whole(100)))[:count])
    return subject, normal, mask, subject.reconstruct(normal, mask)


def pasted(subject, normal, mask, made):
    hidden = hidden_pixels(mask, (4, 4))
    guess = unpatchify(made.pixels, mask.grid, (4, 4))
    return hidden, subject.pixels(torch.where(hidden, guess, normal)).clamp(0, 1)


def test_r2_is_scikit_learns_over_all_hidden_patches(model):
    rows, _ = rows_of(model)
    _, _, mask, made = by_hand(model)
    true, guess = (t[mask.hidden].numpy() for t in (made.target, made.prediction))
    expected = r2_score(true, guess, multioutput="variance_weighted")
    assert rows["r2", None]["value"] == pytest.approx(expected, abs=1e-5)
    assert rows["r2", None]["main"]


def test_psnr_and_ssim_are_torchmetrics_over_hidden_pixels(model):
    rows, path = rows_of(model)
    subject, normal, mask, made = by_hand(model, count=20)
    hidden, guess = pasted(subject, normal, mask, made)
    true = subject.pixels(normal).clamp(0, 1)
    _, psnr = records.values(path, rows["psnr", None])
    _, ssim = records.values(path, rows["ssim", None])
    for i in range(20):
        expected = peak_signal_noise_ratio(guess[i][hidden[i]], true[i][hidden[i]], data_range=1.0)
        assert psnr[i] == pytest.approx(expected.item(), abs=1e-3)
        _, whole = structural_similarity_index_measure(
            guess[i : i + 1], true[i : i + 1], data_range=1.0, return_full_image=True
        )
        assert ssim[i] == pytest.approx(whole[0][hidden[i]].mean().item(), abs=1e-4)


def test_numbers_do_not_depend_on_the_batch(model, tmp_path, monkeypatch):
    rows, path = rows_of(model)
    monkeypatch.setattr(module, "BATCH", 50)
    others, other_path = rows_of(dataclasses.replace(model, folder=tmp_path))
    assert rows.keys() == others.keys()
    for key, row in rows.items():
        assert others[key]["value"] == pytest.approx(row["value"], abs=1e-4)
        if row["status"] != "ok" or key[0] == "error":  # no numbers per image
            continue
        mine, theirs = records.values(path, row)[1], records.values(other_path, others[key])[1]
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_baselines_are_the_same_for_every_model_under_the_same_masks(model):
    untrained = tiny.load(model.run.folder.parent.parent, "untrained:")
    mine, theirs = rows_of(model)[0], rows_of(untrained)[0]
    for metric in ("r2", "psnr", "ssim"):
        for baseline in BASELINES:
            assert mine[metric, baseline]["value"] == theirs[metric, baseline]["value"]
            assert not mine[metric, baseline]["main"]
        assert mine[metric, None]["value"] != theirs[metric, None]["value"]


def test_baselines_are_the_error_of_what_was_filled_in(model):
    rows, path = rows_of(model)
    subject, normal, mask, made = by_hand(model)
    hidden = hidden_pixels(mask, (4, 4))
    for name, fill in BASELINES.items():
        filled = fill(normal, mask)
        guess = model.module.target(filled)
        expected = r2_score(
            made.target[mask.hidden].numpy(),
            guess[mask.hidden].numpy(),
            multioutput="variance_weighted",
        )
        assert rows["r2", name]["value"] == pytest.approx(expected, abs=1e-5)
        error = (subject.pixels(filled).clamp(0, 1) - subject.pixels(normal))[7][hidden[7]]
        expected = -10 * error.square().mean().log10()
        _, psnr = records.values(path, rows["psnr", name])
        assert psnr[7] == pytest.approx(expected.item(), abs=1e-3)


@pytest.mark.slow
def test_ratio_and_masking_are_those_that_were_asked_for(model, monkeypatch):
    seen, original = [], EvaluatedModel.reconstruct

    def noted(self, images, mask):
        seen.append(mask)
        return original(self, images, mask)

    monkeypatch.setattr(EvaluatedModel, "reconstruct", noted)
    half, block = rows_of(model, ratio=0.5)[0], rows_of(model, masking=Block())[0]
    assert {mask.num_hidden for mask in seen} == {8, 12}
    random = rows_of(model)[0]
    assert len({rows["r2", None]["value"] for rows in (half, block, random)}) == 3


@pytest.mark.slow
def test_the_usual_ratio_is_one_evaluation_whether_it_is_written_or_left_open(tmp_path):
    for name, usual in (("mae", 0.75), ("bert", 0.15)):
        tiny.plan(tmp_path / name, **tiny.suited(name))
        trained = tiny.load(tmp_path / name)
        paths = {
            ratio: suite.record_path(trained, ReconstructionQuality(ratio=ratio), trained.splits, 0)
            for ratio in (None, usual, 0.5, "own")
        }
        assert paths[None] == paths[usual] and len(set(paths.values())) == 3
        path = suite.evaluate(trained, ReconstructionQuality(ratio=usual))
        assert {row["options"] for row in records.read(path)} == {"reconstruction"}
        other = suite.evaluate(trained, ReconstructionQuality(ratio=0.5))
        assert {row["options"] for row in records.read(other)} == {"reconstruction(ratio=0.5)"}


def test_a_perfect_guess_has_r2_1_and_ssim_1_and_the_best_psnr(model, tmp_path, monkeypatch):
    def perfect(self, images, mask):
        made = original(self, images, mask)
        return dataclasses.replace(
            made, prediction=made.target, pixels=patchify(images, (4, 4)), how="cheated"
        )

    original = type(model.module).reconstruct
    monkeypatch.setattr(type(model.module), "reconstruct", perfect)
    rows, _ = rows_of(dataclasses.replace(model, folder=tmp_path))
    found = [rows[metric, None]["value"] for metric in ("r2", "ssim", "psnr")]
    assert found == pytest.approx([1, 1, 100])
    assert rows["psnr", None]["where"] == {"how": "cheated"}


def test_the_mean_target_has_an_r2_of_zero(model, tmp_path, monkeypatch):
    _, _, mask, made = by_hand(model)
    mean = made.target[mask.hidden].mean(0)
    original = type(model.module).reconstruct

    def average(self, images, mask):
        return dataclasses.replace(
            original(self, images, mask), prediction=mean.expand(len(images), 16, -1)
        )

    monkeypatch.setattr(type(model.module), "reconstruct", average)
    rows, _ = rows_of(dataclasses.replace(model, folder=tmp_path))
    assert rows["r2", None]["value"] == pytest.approx(0, abs=1e-6)


def test_an_objective_without_pixels_has_r2_alone(model, tmp_path, monkeypatch):
    original = type(model.module).reconstruct
    monkeypatch.setattr(
        type(model.module),
        "reconstruct",
        lambda self, *a: dataclasses.replace(original(self, *a), pixels=None, how=""),
    )
    rows, _ = rows_of(dataclasses.replace(model, folder=tmp_path))
    assert rows["r2", None]["status"] == "ok"
    for metric in ("psnr", "ssim", "psnr_oracle"):
        if metric == "psnr_oracle" and rows[metric, None]["status"] == "ok":
            continue  # that of normalised pixels is left here as it was
        row = rows[metric, None]
        assert (row["status"], row["reason"]) == ("not applicable", "the objective gives no pixels")
    assert [path.name for path in tmp_path.rglob("*.png")] == ["reconstruction-distance.png"]


def test_the_pictures_are_png_that_can_be_read(model, tmp_path):
    rows_of(dataclasses.replace(model, folder=tmp_path))
    for name in ("reconstruction", "reconstruction-distance"):
        with Image.open(tmp_path / "pictures" / f"{name}.png") as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.width > 500
            assert len(picture.convert("L").getcolors()) > 50


# ---- given the whole image


@pytest.fixture(scope="module")
def variational(tmp_path_factory):
    """An objective that is given the whole image, and has pictures of its own."""
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results, image_size=16, objective={"name": "variational", "latent": 3})
    return tiny.load(results)


def test_an_objective_that_learns_hidden_patches_alone_has_no_psnr_of_whole_images(model):
    rows, _ = rows_of(model)
    row = rows["psnr_whole", None]
    assert (row["status"], row["reason"]) == ("not applicable", HIDDEN_ALONE)
    assert [key for key in rows if key[0] == "psnr_whole"] == [("psnr_whole", None)]


@pytest.mark.slow
def test_psnr_of_whole_images_is_torchmetrics_over_all_pixels(variational):
    rows, path = rows_of(variational)
    subject, normal, _, made = by_hand(variational)
    assert {rows[m, None]["status"] for m in ("r2", "psnr", "ssim", "psnr_whole")} == {"ok"}
    assert not rows["psnr_whole", None]["main"]
    _, found = records.values(path, rows["psnr_whole", None])
    guess = subject.pixels(unpatchify(made.whole, (4, 4), (4, 4))).clamp(0, 1)
    true = subject.pixels(normal).clamp(0, 1)
    for i in (0, 7, 359):
        expected = peak_signal_noise_ratio(guess[i], true[i], data_range=1.0)
        assert found[i] == pytest.approx(expected.item(), abs=1e-3)
    where = {"how": "predicted from the image with hidden pixels at the mean of train"}
    assert rows["psnr", None]["where"] == where


def test_a_perfect_copy_of_whole_images_has_the_best_psnr(variational, tmp_path, monkeypatch):
    kind = type(variational.module)
    monkeypatch.setattr(kind, "predict", lambda self, images: patchify(images, (4, 4)))
    rows, _ = rows_of(dataclasses.replace(variational, folder=tmp_path))
    assert rows["psnr_whole", None]["value"] == pytest.approx(100)
    assert rows["psnr", None]["value"] < 50  # what is hidden it cannot copy


@pytest.mark.slow
def test_baselines_are_the_same_beside_objectives_of_both_kinds(variational, tmp_path):
    tiny.plan(tmp_path, image_size=16, objective={"name": "mae", "target": "pixels"})
    mine, theirs = rows_of(variational)[0], rows_of(tiny.load(tmp_path))[0]
    for metric in ("r2", "psnr", "ssim"):
        for name in BASELINES:
            assert mine[metric, name]["value"] == pytest.approx(theirs[metric, name]["value"])


@pytest.mark.slow
def test_what_is_made_of_whole_images_is_shown_below_the_rest(variational, tmp_path, monkeypatch):
    shown, headed = {}, {}
    original = pictures.draw_images

    def noted(model, name, title, images, rows=(), columns=()):
        shown[name] = (title, tuple(images.shape), tuple(rows))
        headed[name] = columns
        original(model, name, title, images, rows, columns)

    monkeypatch.setattr(pictures, "draw_images", noted)
    rows_of(dataclasses.replace(variational, folder=tmp_path))
    how = "predicted from the image with hidden pixels at the mean of train"
    named = ("original", "masked", "prediction", "paste-over", "given all")
    assert shown["reconstruction"] == (how, (5, 8, 1, 16, 16), named)
    assert shown["reconstruction-samples"] == ("samples", (8, 8, 1, 16, 16), ())
    title, shape, named = shown["reconstruction-traversal"]
    assert (title, shape, len(named)) == ("traversal", (3, 7, 1, 16, 16), 3)
    assert headed["reconstruction-traversal"] == ("-3", "-2", "-1", "+0", "+1", "+2", "+3")
    assert {path.name for path in tmp_path.rglob("*.png")} == {
        *(f"{name}.png" for name in shown),
        "reconstruction-distance.png",
    }


@pytest.mark.slow
def test_whole_images_alone_can_be_shown_where_hidden_ones_have_no_pixels(
    variational, tmp_path, monkeypatch
):
    original = type(variational.module).reconstruct
    monkeypatch.setattr(
        type(variational.module),
        "reconstruct",
        lambda self, *a: dataclasses.replace(original(self, *a), pixels=None, how="codes are none"),
    )
    rows, _ = rows_of(dataclasses.replace(variational, folder=tmp_path))
    for metric in ("psnr", "ssim", "psnr_oracle"):
        row = rows[metric, None]
        assert (row["status"], row["reason"]) == ("not applicable", "codes are none")
    assert rows["psnr_whole", None]["status"] == "ok"
    assert (tmp_path / "pictures" / "reconstruction.png").exists()


# ---- by distance


def test_errors_at_all_distances_are_the_whole_error(model):
    rows, _ = rows_of(model)
    _, _, mask, made = by_hand(model)
    distance = distance_to_seen(mask)
    there = sorted(set(distance[mask.hidden].tolist()))
    for name in (None, *BASELINES):
        found = [r for key, r in rows.items() if key[:2] == ("error", name)]
        assert [r["where"]["distance"] for r in found] == there
        patches = [r["where"]["patches"] for r in found]
        assert patches == [int((distance == d).sum()) for d in there]
        whole = np.average([r["value"] for r in found], weights=patches)
        assert 1 - whole == pytest.approx(rows["r2", name]["value"], abs=1e-6)
    variance = made.target[mask.hidden].var(0, correction=0).mean()
    for d in there:
        error = (made.prediction - made.target)[distance == d].square().mean() / variance
        assert rows["error", None, d]["value"] == pytest.approx(error.item(), rel=1e-4)


# ---- with true statistics


def test_true_statistics_have_a_metric_of_their_own(model):
    rows, path = rows_of(model)
    subject, normal, mask, made = by_hand(model)
    assert [key for key in rows if key[0] == "psnr_oracle"] == [
        ("psnr_oracle", None),
        ("psnr_oracle", FLAT),
    ]
    patches = patchify(normal, (4, 4))
    flat = patches.mean(-1, keepdim=True).expand_as(patches)
    guesses = {FLAT: flat}
    if made.space == "pixels":
        row = rows["psnr_oracle", None]
        assert row["status"] == "not applicable"
        assert row["reason"] == "the prediction needs no statistics"
    else:
        std = patches.std(-1, keepdim=True)
        guesses[None] = made.prediction * std + patches.mean(-1, keepdim=True)
    for name, guess in guesses.items():
        _, found = records.values(path, rows["psnr_oracle", name])
        pixels = dataclasses.replace(made, pixels=guess)
        hidden, image = pasted(subject, normal, mask, pixels)
        expected = peak_signal_noise_ratio(
            image[7][hidden[7]], subject.pixels(normal)[7][hidden[7]], data_range=1.0
        )
        assert found[7] == pytest.approx(expected.item(), abs=1e-2)
        assert not rows["psnr_oracle", name]["main"]


def test_psnr_and_ssim_do_not_move_with_what_the_oracle_gives(model, tmp_path, monkeypatch):
    original, mine = type(model.module).reconstruct, rows_of(model)[0]

    def perfect(self, images, mask):
        return dataclasses.replace(original(self, images, mask), oracle=patchify(images, (4, 4)))

    monkeypatch.setattr(type(model.module), "reconstruct", perfect)
    rows, _ = rows_of(dataclasses.replace(model, folder=tmp_path))
    assert rows["psnr_oracle", None]["value"] == 100
    for metric in ("r2", "psnr", "ssim"):
        assert rows[metric, None]["value"] == mine[metric, None]["value"]


# ---- what cannot be done


def test_small_images_have_no_ssim_and_the_rows_say_so(tmp_path):
    tiny.plan(tmp_path)
    rows, _ = rows_of(tiny.load(tmp_path))
    assert {rows["ssim", b]["status"] for b in (None, *BASELINES)} == {"not applicable"}
    assert "smaller than SSIM's window of 11 pixels" in rows["ssim", None]["reason"]
    assert {rows[m, b]["status"] for m in ("r2", "psnr") for b in (None, *BASELINES)} == {"ok"}


def test_a_model_without_a_decoder_is_not_applicable(tmp_path):
    tiny.plan(tmp_path, objective=fakes.Labelled())
    for spec, why in (("", "'labelled' does not reconstruct"), ("pixels:", "no decoder")):
        rows, _ = rows_of(tiny.load(tmp_path, spec))
        assert rows["r2", None]["status"] == "not applicable"
        assert why in rows["r2", None]["reason"]


class Unlabelled(Dataset):
    """Gray noise, or one gray, without labels."""

    name: ClassVar[str] = "unlabelled"
    plain: bool = False

    def load(self, request):
        seed = {"train": 0, "test": 1}[request.split]
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 12, 12), dtype=np.uint8)
        return from_arrays(pixels * (not self.plain), None, (), request.image_size)

    def preset(self):
        return {"image_size": (12, 12), "augment": {}}


def test_images_without_labels_can_be_reconstructed_and_nothing_that_needs_labels_fails(tmp_path):
    plan = tiny.plan(tmp_path, dataset=Unlabelled(), limit=None)
    model = models_of(plan, fakes.names())[0]
    rows, _ = rows_of(model)
    assert {key for key, row in rows.items() if row["status"] != "ok"} == {("psnr_whole", None)}
    assert rows["r2", None]["examples"] == 40
    for evaluation in plan.config.evals:
        if evaluation.name != "reconstruction":
            (row,) = rows_of(model, evaluation)[0].values()
            assert (row["status"], row["reason"]) == (
                "not applicable",
                "data set 'unlabelled' has no labels",
            )


def test_targets_that_are_all_equal_have_no_r2(tmp_path):
    plan = tiny.plan(tmp_path, dataset=Unlabelled(plain=True), limit=None)
    rows, _ = rows_of(models_of(plan, fakes.names())[0], ReconstructionQuality(across=True))
    for key, row in rows.items():
        if key[0] in ("r2", "error"):
            assert row["status"] == "not applicable" and row["value"] is None
            assert "all hidden targets are equal" in row["reason"]
    for name in (None, *BASELINES):
        assert (rows["psnr", name]["status"], rows["r2", name]["status"]) == (
            "ok",
            "not applicable",
        )


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e-3, 77.7])
def test_targets_that_are_all_equal_but_for_rounding_have_no_r2(value):
    found = TargetVariance()
    for _ in range(1000):
        found.add(torch.full((7, 3, 5), value).double())
    with pytest.raises(MaebenchError, match="all hidden targets are equal"):
        found.per_image()
    level = max(1.0, abs(value)) / 255  # of one image among 7,001
    found.add(torch.full((1, 3, 5), value + level).double())
    assert found.per_image() > 0
