"""What images go through before weights from elsewhere: as stated beside them, or as MAE does."""

from __future__ import annotations

import pytest

from maebench.data.preprocess import Preprocess
from maebench.errors import ConfigError, RunError
from maebench.models.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    as_hugging_face,
    as_size,
    as_stated,
    of_weights,
    with_options,
)
from maebench.models.spec import SpecOptions

NONE = SpecOptions()


def test_weights_that_say_nothing_are_fed_as_the_official_code_feeds_them():
    found = of_weights({}, (224, 224), 3, NONE, "file:a")
    assert (found.mean, found.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (found.resized, found.interpolation) == ((256, 256), "bicubic")
    assert of_weights({}, (96, 96), 3, NONE, "file:a").crop == 1  # known for 224 alone


def test_an_export_of_ours_says_its_statistics_and_is_not_cropped():
    ours = {"maebench": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    found = of_weights(ours, (224, 224), 3, NONE, "file:a")
    assert (found.mean, found.std, found.crop) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 1)
    with pytest.raises(RunError, match=r"mean or std beside the weights is \[0.1\]: 3 numbers"):
        of_weights({"maebench": {"mean": [0.1], "std": [0.1]}}, (8, 8), 3, NONE, "file:a")


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (16, (16, 16)),
        ([16, 24], (16, 24)),
        ({"height": 16, "width": 24}, (16, 24)),
        ({"shortest_edge": 18}, (18, 18)),
        *((odd, None) for odd in (None, 0, 1.5, "16", [16], [16, "x"], {}, {"height": 3}, True)),
    ],
    ids=str,
)
def test_a_size_is_understood_in_each_of_its_ways_and_else_is_none(value, size):
    assert as_size(value) == size


def test_a_preprocessor_of_its_own_size_resizes_only_where_it_may():
    base = Preprocess((16, 16), 1, (0.0,), (1.0,), "bilinear")
    says = {"size": {"shortest_edge": 30}, "crop_size": 24, "do_center_crop": True, "resample": 3}
    kept, resized = as_stated(base, says), as_stated(base, says, may_resize=True)
    assert (kept.size, resized.size) == ((16, 16), (24, 24))
    assert kept.crop == resized.crop == 0.8 and kept.interpolation == "bicubic"
    assert as_stated(base, {**says, "do_center_crop": False}).crop == 1
    assert as_stated(base, {}) is base


def test_timms_words_become_hugging_faces():
    words = as_hugging_face(
        {"mean": [0.5], "std": [0.4], "interpolation": "bilinear", "crop_pct": 0.8}, (16, 24)
    )
    assert words["image_mean"] == [0.5] and words["image_std"] == [0.4]
    assert words["resample"] == 2
    assert (words["size"], words["crop_size"]) == ([20, 30], [16, 24])
    assert as_hugging_face({"crop_pct": 1.0, "interpolation": "lanczos"}, (16, 16)) == {}


def test_an_option_replaces_what_is_stated_and_one_number_stands_for_all_channels():
    base = Preprocess((16, 16), 3, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0), "bicubic", 0.9)
    changed = with_options(base, SpecOptions(mean=(0.5,), interpolation="nearest"), "file:a")
    assert changed == Preprocess((16, 16), 3, (0.5, 0.5, 0.5), base.std, "nearest", 0.9)
    with pytest.raises(ConfigError, match="file:a: std: 3 numbers are wanted, given 2"):
        with_options(base, SpecOptions(std=(0.5, 0.5)), "file:a")
