"""What fine-tuning does to crops: other images, soft labels, and nothing where it is off."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch

from maebench import MaebenchError
from maebench.evaluating.model import EvaluatedModel
from maebench.rng import isolated
from maebench_evals.distort import make_inputs, make_mix, mean_of, rand_augment, soft_targets
from maebench_evals.finetune import Finetune
from maebench_evals.finetune_recipe import RANDAUGMENT

PLAIN = dataclasses.replace(Finetune().recipe(64, 1000))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    tiny.plan(results)
    loaded = tiny.load(results)
    return EvaluatedModel(loaded, Finetune(), loaded.splits, 0)


def crops(model, count=32):
    return model.images("train").pick(range(count)).float(), torch.arange(count) % 10


def inputs(model, images, labels, **changes):
    recipe = dataclasses.replace(PLAIN, **changes)
    with isolated(0, "test"):
        return make_inputs(recipe, model, 10, 0.1)(images.clone(), labels)


def test_without_distortion_images_are_normalised_and_labels_smoothed(model):
    images, labels = crops(model)
    changed, targets = inputs(model, images, labels)
    torch.testing.assert_close(changed, model.normalise(images))
    assert torch.equal(targets.argmax(1), labels)
    assert targets.min() == pytest.approx(0.01)
    assert targets.max() == pytest.approx(0.91)


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_changes_each_image_alone_and_keeps_its_kind(channels):
    image = torch.randint(0, 256, (1, channels, 16, 16)).float()
    images = image.expand(40, -1, -1, -1)
    with isolated(0, "test"):
        changed = rand_augment(images, RANDAUGMENT, (0.5,) * channels)
    assert (changed.shape, changed.dtype) == (images.shape, torch.float32)
    assert 0 <= changed.min() and changed.max() <= 255
    assert (
        len(changed.flatten(1).unique(dim=0)) > 15
    )  # two of fifteen operations, each half the time
    assert any(torch.equal(one, image[0]) for one in changed)


def test_randaugment_fills_with_the_mean_of_the_data(model):
    mean = mean_of(model, 1)
    assert mean == pytest.approx(model.loaded.preprocess.mean)
    white = torch.full((60, 1, 16, 16), 255.0)
    with isolated(0, "test"):
        changed = rand_augment(white, "rand-m10-p1-n1", (0.25,))
    assert (changed == 64).any() and not (changed == 128).all()


def test_the_highest_magnitude_posterizes_to_black_as_the_official_code_did():
    images = torch.randint(1, 256, (150, 3, 4, 4)).float()
    with isolated(0, "test"):
        changed = rand_augment(images, "rand-m10-p1-n1-inc1", (0.5,) * 3)
    assert (changed == 0).flatten(1).all(1).any()


def test_images_of_two_channels_have_no_colour_to_change():
    with pytest.raises(
        MaebenchError, match="1 or 3 channels, these have 2; use -o finetune.randaugment"
    ):
        rand_augment(torch.zeros(1, 2, 8, 8), RANDAUGMENT, (0.5, 0.5))


def test_erasing_puts_noise_into_a_rectangle_of_that_share_of_images(model):
    images, labels = crops(model, 60)
    changed, _ = inputs(model, images, labels, erase=0.25)
    other = (changed != model.normalise(images)).flatten(1)
    erased = other.any(1)
    assert 5 <= erased.sum() <= 26
    assert (other[erased].float().mean(1) < 0.5).all()  # at most a third, in whole pixels
    everyone, _ = inputs(model, images, labels, erase=1.0)
    assert (everyone != model.normalise(images)).flatten(1).any(1).sum() > 50


@pytest.mark.parametrize("what", [{"mixup": 0.8}, {"cutmix": 1.0}, {"randaugment": RANDAUGMENT}])
def test_each_distortion_acts(model, what):
    images, labels = crops(model)
    changed, targets = inputs(model, images, labels, **what)
    assert not torch.equal(changed, model.normalise(images))
    torch.testing.assert_close(targets.sum(1), torch.ones(32))
    assert (targets.max(1).values < 0.9).any() == ("randaugment" not in what)


def test_mixing_is_off_where_both_are_zero():
    images, labels = torch.arange(32.0).view(8, 1, 2, 2), torch.arange(8)
    with isolated(0, "test"):
        mixed, targets = make_mix(0.0, 0.0, 0.1, 10)(images.clone(), labels)
    assert torch.equal(mixed, images)
    assert torch.equal(targets.argmax(1), labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("num_classes", [2, 10, 37])
def test_soft_targets_are_those_of_timm_to_the_last_bit(smoothing, num_classes):
    from timm.data.mixup import mixup_target

    labels = torch.arange(64) % num_classes
    theirs = mixup_target(labels, num_classes, 1.0, smoothing)
    assert torch.equal(soft_targets(labels, num_classes, smoothing), theirs)
