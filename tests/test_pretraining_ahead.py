"""Crops and masks made ahead: the same numbers as one step at a time, from any start."""

from __future__ import annotations

import fakes
import pytest
import torch

import maebench.masking
from maebench import Block, Grid, Random, RunConfig
from maebench.data.preprocess import Normaliser
from maebench.encoders import ViTNano
from maebench.masking import Hard, LabelMap
from maebench.pretraining import ahead
from maebench.pretraining.ahead import ready, steps_together
from maebench.pretraining.plan import build

ENCODER = ViTNano(width=16, depth=1, heads=2)
LAST = 40


def config(**changes):
    tiny = {"encoder": ENCODER, "limit": 40, "batch": 8, "augment": {"shift": 2, "flip": True}}
    return RunConfig(fakes.names(), device="cpu", **{**tiny, **changes})


def made(config, done=0, last=LAST):
    images = config.splits().load("train")
    module = build(config, images.info.inputs)
    normalise = Normaliser((0.3,), (0.4,), "cpu")
    steps = ready(config, module, images, normalise, "cpu", done, last)
    return [one for parts in steps for one in parts]


def alike(mine, theirs):
    for name in ("images", "index", "ids", "epoch", "boxes", "flips", "sizes"):
        assert torch.equal(getattr(mine.crop, name), getattr(theirs.crop, name)), name
    assert torch.equal(mine.pixels, theirs.pixels)
    assert (mine.mask is None) == (theirs.mask is None)
    if mine.mask is not None:
        for name in ("hidden", "seen", "places"):
            assert torch.equal(getattr(mine.mask, name), getattr(theirs.mask, name)), name


@pytest.mark.parametrize("masking", [c for c in maebench.masking.BUILT_IN if c.drawn_ahead()])
def test_steps_made_together_are_those_made_one_by_one(masking, monkeypatch):
    config_ = config(masking=masking(), image_size=16)
    together = made(config_)
    monkeypatch.setattr(ahead, "MOST_STEPS", 1)
    alone = made(config_)
    assert len(together) == len(alone) == LAST
    for mine, theirs in zip(together, alone, strict=True):
        alike(mine, theirs)


@pytest.mark.parametrize("done", [1, 15, 16, 17, 39])
def test_a_run_that_goes_on_has_the_steps_that_are_left(done):
    whole, rest = made(config()), made(config(), done)
    assert len(rest) == LAST - done
    for mine, theirs in zip(rest, whole[done:], strict=True):
        alike(mine, theirs)


def test_small_batches_are_put_together_and_large_ones_are_not(monkeypatch):
    images = config().splits().load("train")
    assert steps_together(images, 8, "cpu") == ahead.MOST_STEPS
    monkeypatch.setattr(ahead, "MOST_BYTES", {"cpu": 8 * 8 * 8 * 4 * 3 + 1})
    assert steps_together(images, 8, "cpu") == 3
    monkeypatch.setattr(ahead, "MOST_BYTES", {"cpu": 5})
    assert steps_together(images, 8, "cpu") == 1


def test_images_that_are_decoded_from_files_are_decoded_a_step_at_a_time(tmp_path):
    from PIL import Image

    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(6):
            Image.new("L", (8, 8), 40 * number).save(tmp_path / name / f"{number}.png")
    found = config(
        dataset=f"folder:{tmp_path}", limit=None, batch=4, machine={"memory_gb": 0}, image_size=8
    )
    images = found.splits().load("train")
    assert steps_together(images, 4, "cpu") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"masking": Hard()},
        {"masking": fakes.Worst()},
        {"schedule": {"ratio": 0.5, "stages": 2}},
    ],
    ids=["asks the model", "says nothing of itself", "its ratio moves"],
)
def test_masks_that_depend_on_the_step_are_drawn_in_it(changes):
    assert all(step.mask is None for step in made(config(**changes), last=3))


def test_what_a_class_says_of_its_scores_does_not_hold_for_other_ones():
    class Ours(Random):
        name = "ours"

        def scores(self, view):
            return view.progress * super().scores(view)

    class Same(Random):
        name = "same"

    class Asks(Random):
        name = "asks"
        needs = frozenset({"features"})

    assert Random.drawn_ahead() and Block.drawn_ahead() and Grid.drawn_ahead()
    assert Same.drawn_ahead()
    assert not Ours.drawn_ahead() and not Asks.drawn_ahead() and not LabelMap.drawn_ahead()


@pytest.mark.parametrize("accumulate", [2, 3, 8, 40])
def test_a_step_in_parts_makes_each_when_it_is_asked_for(accumulate):
    whole, parts = (
        made(config(), last=3),
        made(config(optimiser={"accumulate": accumulate}), last=3),
    )
    size = -(-8 // accumulate)
    assert [len(one.crop.ids) for one in parts] == [min(size, 8 - i) for i in range(0, 8, size)] * 3
    for name in ("index", "ids", "epoch", "boxes", "flips"):
        together = torch.cat([getattr(one.crop, name) for one in parts])
        assert torch.equal(together, torch.cat([getattr(one.crop, name) for one in whole])), name
    pixels, expected = (torch.cat([one.pixels for one in some]) for some in (parts, whole))
    torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=0)
    hidden, expected = (torch.cat([one.mask.hidden for one in some]) for some in (parts, whole))
    assert torch.equal(hidden, expected)


def test_parts_go_on_where_a_run_was_stopped():
    settings = config(optimiser={"accumulate": 3})
    whole, rest = made(settings, last=5), made(settings, 2, last=5)
    for mine, theirs in zip(rest, whole[6:], strict=True):
        alike(mine, theirs)
