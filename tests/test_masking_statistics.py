"""Statistics of masks by known answers, and masks of real runs."""

from __future__ import annotations

import math

import fakes
import pytest
import tiny
import torch
from scipy.ndimage import distance_transform_edt, label
from test_masking import mask_of, neighbour_correlation

from maebench import Block, ConfigError, Grid, Random, RunConfig, load_model
from maebench.data.preprocess import Normaliser
from maebench.masking import Attention, Hard, Parts, Units
from maebench.masking.statistics import Sample, autocorrelation, describe
from maebench.pretraining.batches import sample
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import build, inputs_of, mean_over_stages, prepare


def of(*maps):
    """A sample of one epoch from drawings, # is hidden."""
    rows = [[[c == "#" for c in row] for row in one.split()] for one in maps]
    hidden = torch.tensor(rows)
    return Sample(hidden.flatten(1)[None], tuple(hidden.shape[1:]), torch.empty(0), 1.0)


def test_pieces_are_counted_by_the_patches_that_touch_at_a_side():
    found = describe(of(".#.. ##.. .##. ####", "#### #### #..# #..#"))
    # first image: one, five in a piece of its own ... see the sizes
    first = [[1, 0, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]]
    sizes = [1, 5, 1, 4]  # by hand: the corner, the right side, the left, the second image's square
    assert label(first)[1] + 1 == len(sizes)
    assert found["components"] == 2.0
    total = sum(sizes)
    assert found["size_1"] == pytest.approx(2 / total)
    assert found["size_2"] == pytest.approx(4 / total)
    assert found["size_5"] == pytest.approx(5 / total)
    assert found["size_17"] == 0


def test_pieces_of_one_image_do_not_reach_into_the_next():
    assert describe(of("..## ..##", "..## ..##"))["components"] == 1.0


def test_the_distance_is_to_the_nearest_seen_patch_of_the_same_image():
    found = describe(of("#### #### ###.", ".#.# #.#. .#.#"))
    far = [math.hypot(2 - y, 3 - x) for y in range(3) for x in range(4) if (y, x) != (2, 3)]
    assert found["distance"] == pytest.approx((sum(far) + 6 * 1.0) / (len(far) + 6))
    hidden = mask_of(Block(), 0.75, (9, 6), range(20)).hidden
    each = [distance_transform_edt(h.view(9, 6).numpy()) for h in hidden]
    mean = sum(e.sum() for e in each) / int(hidden.sum())
    assert describe(Sample(hidden[None], (9, 6), torch.empty(0), 1.0))["distance"] == pytest.approx(
        mean
    )


def test_autocorrelation_is_that_of_the_visible_map_a_patch_away():
    for masking in (Random(), Block(), Grid()):
        hidden = mask_of(masking, 0.75, (14, 14), range(100)).hidden.view(-1, 14, 14)
        assert autocorrelation(hidden) == pytest.approx(neighbour_correlation(hidden))
    board = (torch.arange(6)[:, None] + torch.arange(6)) % 2 == 0
    assert autocorrelation(board[None]) == pytest.approx(-1)
    assert autocorrelation(board[None, :1]) == pytest.approx(-1)  # one row has columns only


def test_rates_and_overlap_are_those_of_the_positions_and_epochs():
    hidden = torch.tensor([[[1, 1, 0, 0], [1, 0, 1, 0]], [[1, 1, 0, 0], [0, 1, 0, 1]]]).bool()
    found = describe(Sample(hidden, (2, 2), torch.empty(0), 3.5))
    assert (found["rate_min"], found["rate_max"]) == (0.25, 0.75)
    assert found["overlap"] == 0.5  # the first image's two again, none of the second's
    assert (found["grid"], found["num_hidden"], found["realised_ratio"]) == ("2x2", 2, 0.5)
    assert found["ms_per_256"] == 3.5
    assert describe(Sample(hidden[:1], (2, 2), torch.empty(0), 1.0))["overlap"] is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Plan, model and normalisation of a tiny run."""
    plan = tiny.plan(tmp_path_factory.mktemp("results"))
    model = build(plan.config, inputs_of(plan.config, plan.run.facts))
    return plan, model, Normaliser(plan.run.facts["mean"], plan.run.facts["std"], "cpu")


@pytest.mark.parametrize("masking", [Random(), Attention(), Hard(of="encoder"), Parts()])
def test_a_sample_is_what_pretraining_would_draw(trained, masking):
    plan, model, normalise = trained
    config = plan.config.model_copy(update={"masking": masking})
    found = sample(config, model, plan.images, normalise, "cpu")
    assert found.hidden.shape == (4, 60, 16)
    assert (found.hidden.sum(2) == 12).all()
    assert found.images.shape == (60, 1, 8, 8)
    assert found.milliseconds > 0
    again = sample(config, model, plan.images, normalise, "cpu", index=torch.tensor([5, 3]))
    if not masking.needs:  # else it rests on floats that differ with the batch
        assert torch.equal(again.hidden, found.hidden[:, [5, 3]])
    assert model.training  # as it was


def test_a_run_records_the_statistics_of_its_masks(tmp_path):
    from maebench import files

    plan = tiny.plan(tmp_path, masking="block", ratio=0.5)
    kept = files.read_sealed(plan.run.folder / "masks.json", plan.run.name)
    assert kept["realised_ratio"] == plan.run.facts["realised_ratio"] == 0.5
    model = build(plan.config, inputs_of(plan.config, plan.run.facts))
    normalise = Normaliser(plan.run.facts["mean"], plan.run.facts["std"], "cpu")
    again = describe(sample(plan.config, model, plan.images, normalise, "cpu"))
    assert {k: v for k, v in kept.items() if k != "ms_per_256"} == {
        k: v for k, v in again.items() if k != "ms_per_256"
    } | {"progress": 1.0, "ratio": 0.5}


@pytest.mark.parametrize("masking", [Hard(of="encoder"), Random()])
def test_a_sample_asks_for_no_more_at_a_time_than_a_batch(trained, masking, monkeypatch):
    from maebench.pretraining import batches as module

    sizes = []
    original = module.make_mask

    def noting(config, model, crop, *rest):
        sizes.append(len(crop.ids))
        return original(config, model, crop, *rest)

    monkeypatch.setattr(module, "make_mask", noting)
    plan, model, normalise = trained
    config = plan.config.model_copy(update={"masking": masking, "batch": 7})
    found = sample(config, model, plan.images, normalise, "cpu", index=torch.arange(16))
    assert sizes == 5 * [7, 7, 2]
    whole = config.model_copy(update={"batch": 16})
    again = sample(whole, model, plan.images, normalise, "cpu", index=torch.arange(16))
    assert torch.equal(found.images, again.images)
    if not masking.needs:
        assert torch.equal(found.hidden, again.hidden)


def test_a_run_whose_statistics_failed_keeps_its_weights_and_makes_them_later(
    tmp_path, monkeypatch
):
    from maebench.pretraining import loop as module

    def broken(*_, **__):
        raise MemoryError

    plan = prepare(tiny.config(), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module, "sample", broken)
        with pytest.raises(MemoryError):
            list(pretrain(plan))
    assert not plan.finished
    assert load_model(plan.run.name, tmp_path).weights
    assert list(pretrain(plan)) == []
    assert plan.finished and plan.masks.exists()


def test_a_run_that_hides_nothing_has_no_masks_to_record(tmp_path):
    plan = tiny.plan(tmp_path, objective=fakes.Labelled())
    assert not (plan.run.folder / "masks.json").exists()


# ---- the schedule of the ratio


def test_a_schedule_goes_through_its_stages_with_exact_counts(tmp_path, monkeypatch):
    from maebench.pretraining import batches as module

    counts = []
    original = module.make_mask

    def noting(*arguments, **more):
        mask = original(*arguments, **more)
        counts.append(mask.num_hidden)
        return mask

    monkeypatch.setattr(module, "make_mask", noting)
    config = tiny.config(
        ratio=0.25, schedule={"ratio": 0.75, "stages": 3}, budget="steps=6", masking=Random()
    )
    assert config.ratios == (0.25, 0.5, 0.75)
    plan = prepare(config, tmp_path)
    list(pretrain(plan))
    assert counts[:6] == [4, 4, 8, 8, 12, 12]  # then those of the statistics
    assert plan.run.facts["num_hidden"] == [4, 8, 12]
    assert plan.run.facts["realised_ratio"] == 0.5
    assert "-random-0.25to0.75-" in plan.run.name


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 100])
def test_the_realised_ratio_of_a_schedule_is_the_mean_over_the_steps(steps):
    config = tiny.config(ratio=0.25, schedule={"ratio": 0.75, "stages": 3}, budget="steps=6")
    by_stage = {0.25: 4, 0.5: 8, 0.75: 12}
    done = [by_stage[config.ratio_at(n / steps)] for n in range(steps)]
    assert mean_over_stages([4, 8, 12], steps) == pytest.approx(sum(done) / steps)


def test_the_ends_of_a_schedule_are_the_ratios_that_were_given():
    config = RunConfig(ratio=1 / 3, schedule={"ratio": 2 / 3})
    assert config.ratios == (1 / 3, 0.444444, 0.555556, 2 / 3)


def test_stages_that_lead_nowhere_are_refused():
    with pytest.raises(ConfigError, match=r"schedule\.stages needs schedule\.ratio"):
        RunConfig(schedule={"stages": 8})


def test_every_stage_of_a_schedule_has_to_fit_before_the_first_step(tmp_path):
    from maebench import ConfigError

    config = tiny.config(ratio=0.5, schedule={"ratio": 0.99, "stages": 2})
    with pytest.raises(ConfigError, match=r"ratio 0\.99 would hide everything of 4x4"):
        prepare(config, tmp_path)
    with pytest.raises(ConfigError, match="units of 3x3 patches, which do not divide"):
        prepare(tiny.config(masking=Units(size=3)), tmp_path)
