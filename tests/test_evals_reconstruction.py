"""Reconstruction: the numbers against scikit-learn and torchmetrics, the baselines by hand."""

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

from maebench import Block, Dataset, Random, patchify, records, suite, unpatchify
from maebench.data.images import from_arrays
from maebench.masking import hide
from maebench.subject import Subject
from maebench_evals import reconstruction as module
from maebench_evals.reconstruction import (
    ReconstructionQuality,
    hidden_pixels,
    interpolation,
    mean_colour,
)

TARGETS = ("pixels", "normalised-pixels")


@pytest.fixture(scope="module", params=TARGETS)
def model(request, tmp_path_factory):
    """Digits of 16x16 pixels, large enough for SSIM."""
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results, image_size=16, objective={"name": "mae", "target": request.param})
    return tiny.load(results)


def rows_of(model, evaluation=None, **options):
    """Rows by (metric, baseline), and the file."""
    path = suite.evaluate(model, evaluation or ReconstructionQuality(**options))
    return {(r["metric"], r["where"].get("baseline")): r for r in records.read(path)}, path


def by_hand(model, ratio=0.75, count=360):
    """Images, mask and reconstruction as the evaluation gets them."""
    subject = Subject(model, ReconstructionQuality(), model.splits, 0)
    images = subject.images("test")
    mask = subject.masks(images.about.ids[:count], Random(), ratio)
    normal = subject.normalise(torch.cat(list(images.whole(100)))[:count])
    return subject, normal, mask, subject.reconstruct(normal, mask)


def pasted(subject, normal, mask, made):
    hidden = hidden_pixels(mask, normal)
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
        mine, theirs = records.values(path, row)[1], records.values(other_path, others[key])[1]
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_baselines_are_the_same_for_every_model_under_the_same_masks(model):
    untrained = tiny.load(model.run.folder.parent.parent, "untrained:")
    mine, theirs = rows_of(model)[0], rows_of(untrained)[0]
    for metric in ("r2", "psnr", "ssim"):
        for baseline in ("mean-colour", "interpolation"):
            assert mine[metric, baseline]["value"] == theirs[metric, baseline]["value"]
            assert not mine[metric, baseline]["main"]
        assert mine[metric, None]["value"] != theirs[metric, None]["value"]


def test_baselines_are_the_error_of_what_was_filled_in(model):
    rows, path = rows_of(model)
    subject, normal, mask, made = by_hand(model)
    hidden = hidden_pixels(mask, normal)
    for name, fill in (("mean-colour", mean_colour), ("interpolation", interpolation)):
        filled = torch.where(hidden, fill(normal, hidden), normal)
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


def test_ratio_and_masking_are_those_that_were_asked_for(model, monkeypatch):
    seen, original = [], Subject.reconstruct

    def noted(self, images, mask):
        seen.append(mask)
        return original(self, images, mask)

    monkeypatch.setattr(Subject, "reconstruct", noted)
    half, block = rows_of(model, ratio=0.5)[0], rows_of(model, masking=Block())[0]
    assert {mask.num_hidden for mask in seen} == {8, 12}
    random = rows_of(model)[0]
    assert len({rows["r2", None]["value"] for rows in (half, block, random)}) == 3


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
    for metric in ("psnr", "ssim"):
        row = rows[metric, None]
        assert (row["status"], row["reason"]) == ("not applicable", "the objective gives no pixels")
    assert not list(tmp_path.rglob("*.png"))


def test_the_picture_is_a_png_that_can_be_read(model, tmp_path):
    rows_of(dataclasses.replace(model, folder=tmp_path))
    with Image.open(tmp_path / "pictures" / "reconstruction.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 500
        assert len(picture.convert("L").getcolors()) > 50


# ---- baselines alone


def some_hidden(images, ratio=0.75):
    scores = torch.rand(len(images), 64, generator=torch.Generator().manual_seed(3))
    return hidden_pixels(hide(scores, round(64 * ratio), (8, 8)), images)


def test_hidden_pixels_are_those_of_hidden_patches():
    images = torch.zeros(2, 3, 4, 12)
    mask = hide(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]]), 1, (2, 2))
    hidden = hidden_pixels(mask, images)
    assert hidden.shape == (2, 1, 4, 12)
    expected = torch.zeros(2, 4, 12, dtype=torch.bool)
    expected[0, :2, :6] = expected[1, 2:, 6:] = True
    assert torch.equal(hidden[:, 0], expected)


def test_interpolation_is_exact_on_one_colour():
    images = torch.tensor([0.2, -1.5, 7.0]).view(1, 3, 1, 1).expand(2, 3, 32, 24).contiguous()
    torch.testing.assert_close(interpolation(images, some_hidden(images)), images)


def test_interpolation_follows_a_ramp():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    images = (x + 2 * y).expand(4, 1, 64, 64).contiguous()
    hidden = some_hidden(images)
    error = (interpolation(images, hidden) - images).abs()
    dull = (mean_colour(images, hidden) - images).abs()
    assert error[hidden].mean() < 0.3 * dull[hidden].mean()
    assert (error[~hidden] == 0).all()
    few = some_hidden(images, 0.1)
    error = (interpolation(images, few) - images).abs()
    assert error[few].mean() < 0.1 * dull[few].mean()


@pytest.mark.parametrize("fill", [interpolation, mean_colour])
@pytest.mark.parametrize("size", [(16, 16), (8, 24), (40, 56)])
def test_baselines_read_no_hidden_pixel_and_no_other_image(fill, size):
    images = torch.randn(4, 2, *size, generator=torch.Generator().manual_seed(0))
    hidden = some_hidden(images)
    found = torch.where(hidden, fill(images, hidden), 0.0)
    other = torch.where(hidden, 99 * torch.rand_like(images), images)
    torch.testing.assert_close(torch.where(hidden, fill(other, hidden), 0.0), found)
    alone = torch.cat([fill(i[None], h[None]) for i, h in zip(images, hidden, strict=True)])
    torch.testing.assert_close(torch.where(hidden, alone, 0.0), found)


def test_the_mean_colour_is_that_of_the_seen_pixels():
    images = torch.randn(3, 2, 16, 16)
    hidden = some_hidden(images)
    found = mean_colour(images, hidden)
    for b in range(3):
        for c in range(2):
            expected = images[b, c][~hidden[b, 0]].mean()
            torch.testing.assert_close(found[b, c, 0, 0], expected)


# ---- what cannot be done


def test_small_images_have_no_ssim_and_the_rows_say_so(tmp_path):
    tiny.plan(tmp_path)
    rows, _ = rows_of(tiny.load(tmp_path))
    assert {rows["ssim", b]["status"] for b in (None, *module.BASELINES)} == {"not applicable"}
    assert "smaller than SSIM's window of 11 pixels" in rows["ssim", None]["reason"]
    assert {rows[m, b]["status"] for m in ("r2", "psnr") for b in (None, *module.BASELINES)} == {
        "ok"
    }


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
    model = suite.family(plan, fakes.names())[0]
    rows, _ = rows_of(model)
    assert {row["status"] for row in rows.values()} == {"ok"}
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
    rows, _ = rows_of(suite.family(plan, fakes.names())[0])
    assert rows["r2", None]["status"] == "failed"
    assert "all hidden targets are equal" in rows["r2", None]["reason"]
