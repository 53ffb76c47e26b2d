"""One model under common masks: the same cells as one mask at a time, and hashes of what is hid."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch
from PIL import Image

from maebench import InverseBlock, Random
from maebench.evaluating.model import EvaluatedModel
from maebench.masking import hide
from maebench.rng import isolated
from maebench_evals.across import DIGITS, MASKINGS, RATIOS, AcrossMasks, hash_of, heat_map
from maebench_evals.reconstruction import ReconstructionQuality

CELLS = [(masking.name, ratio) for masking in MASKINGS for ratio in RATIOS]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Digits on a grid of 4x4 patches."""
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results)
    return tiny.load(results)


class Unpainted(EvaluatedModel):
    """A model whose pictures are not written: that takes longer than all the rest."""

    def picture(self, name, figure):
        return self.artifacts / f"{name}.png"


def results_of(model, kind=Unpainted, **options):
    """What the evaluation yields, without the suite's statistics."""
    evaluation = ReconstructionQuality(**options)
    subject = kind(model, evaluation, model.splits, 0)
    with isolated(0, "evaluation", evaluation.name):
        return list(evaluation.run(subject))


def cells_of(found, metric="across_r2"):
    return {(r.where["masking"], r.where["ratio"]): r for r in found if r.metric == metric}


def few(model, count=20):
    """The cells of a few images."""
    subject = Unpainted(model, ReconstructionQuality(), model.splits, 0)
    images = subject.images("test")
    ids = images.info.ids[:count]
    across = AcrossMasks(subject, ids)
    with torch.no_grad():
        across.add(ids, subject.normalise(next(images.whole(count))))
    return list(across.results())


@pytest.fixture(scope="module")
def found(model):
    return results_of(model, across=True)


def test_every_masking_has_every_ratio_and_no_cell_is_the_headline(found):
    for metric in ("across_r2", "across_psnr"):
        cells = cells_of(found, metric)
        assert list(cells) == CELLS
        assert all(r.where.keys() == {"masking", "ratio", "masks"} for r in cells.values())
        assert len({r.where["masks"] for r in cells.values()}) == len(CELLS)
        assert all(len(r.where["masks"]) == DIGITS for r in cells.values())


def test_a_cell_is_the_evaluation_under_that_mask(model, found):
    other = results_of(model, masking=InverseBlock(), ratio=0.5)
    for whole, at in ((found, ("random", 0.75)), (other, ("inverse-block", 0.5))):
        for metric in ("r2", "psnr"):
            (alone,) = (r for r in whole if r.metric == metric and "baseline" not in r.where)
            cell = cells_of(found, f"across_{metric}")[at]
            torch.testing.assert_close(cell.value, alone.value)


def test_without_it_all_else_is_the_same_to_the_last_bit(model, found):
    plain = results_of(model)
    assert not [r for r in plain if r.metric.startswith("across")]
    rest = [r for r in found if not r.metric.startswith("across")]
    for one, other in zip(plain, rest, strict=True):
        assert (one.metric, one.where) == (other.metric, other.where)
        if isinstance(one.value, torch.Tensor):
            assert torch.equal(one.value, other.value)


def test_another_model_has_the_same_masks_and_another_score(model):
    untrained = tiny.load(model.run.folder.parent.parent, "untrained:")
    mine, theirs = cells_of(few(model)), cells_of(few(untrained))
    for at in CELLS:
        assert mine[at].where == theirs[at].where
        assert not torch.equal(mine[at].value, theirs[at].value)


def test_a_grid_of_four_patches_has_no_ratio_of_nine_tenths(tmp_path):
    tiny.plan(tmp_path, encoder={"name": "vit-nano", "patch": 4, "width": 16, "heads": 2})
    found = few(tiny.load(tmp_path))
    for metric in ("across_r2", "across_psnr"):
        cells = cells_of(found, metric)
        refused = {at for at, result in cells.items() if result.value is None}
        assert refused == {(masking.name, 0.9) for masking in MASKINGS}
        assert "would hide everything of 2x2 patches" in cells["random", 0.9].reason
        assert "masks" not in cells["random", 0.9].where


def test_targets_that_are_equal_are_a_reason_and_no_error(model):
    subject = Unpainted(model, ReconstructionQuality(), model.splits, 0)
    ids = torch.arange(5)
    across = AcrossMasks(subject, ids)
    across.add(ids, torch.zeros(5, 1, 8, 8))
    cells = cells_of(across.results())
    assert {r.reason for r in cells.values()} == {
        "reconstruction: all hidden targets are equal, there is no R2"
    }


def test_the_picture_is_a_png_that_can_be_read(model, found, tmp_path):
    elsewhere = dataclasses.replace(model, folder=tmp_path)
    heat_map(EvaluatedModel(elsewhere, ReconstructionQuality(), model.splits, 0), found)
    with Image.open(tmp_path / "pictures" / "reconstruction-across.png") as picture:
        picture.load()
        assert picture.width > 500
        assert len(picture.convert("L").getcolors()) > 50


# ---- the hash


def test_the_hash_is_of_the_bits_in_the_order_of_ids():
    hidden = hide(torch.rand(6, 12, generator=torch.Generator().manual_seed(0)), 7, (3, 4)).hidden
    ids = torch.arange(6)
    whole = hash_of(hidden, ids, (3, 4))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert hash_of(hidden[order], ids[order], (3, 4)) == whole
    assert hash_of(hidden[order], ids, (3, 4)) != whole
    assert hash_of(hidden, ids, (4, 3)) != whole
    for b in range(6):
        for i in range(12):
            other = hidden.clone()
            other[b, i] ^= True
            assert hash_of(other, ids, (3, 4)) != whole


def test_the_masks_are_those_that_were_shipped(model):
    """Other draws make another yardstick of it: then the evaluation's version is raised."""
    subject = EvaluatedModel(model, ReconstructionQuality(), model.splits, 0)
    ids = torch.arange(100)
    mask = subject.masks(ids, Random(), 0.75)
    assert hash_of(mask.hidden, ids, mask.grid) == "ac58b9b17c"
