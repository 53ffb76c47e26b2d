"""The settings of fine-tuning: the protocol's, by encoder and data, and over them one's own."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from maebench import learning_rate
from maebench_evals.finetune import LR_BATCH, Finetune
from maebench_evals.finetune_recipe import Recipe

OFFICIAL = {  # width: epochs, rate, layer decay, drop path, share of warm-up
    **{64: (100, 5e-4, 0.65, 0.1, 0.05), 768: (100, 5e-4, 0.65, 0.1, 0.05)},
    **{1024: (50, 1e-3, 0.75, 0.2, 0.1), 1280: (50, 1e-3, 0.75, 0.3, 0.1)},
}


@pytest.mark.parametrize("width", OFFICIAL)
def test_the_official_settings_go_by_the_width(width):
    epochs, lr, layer_decay, drop_path, warmup = OFFICIAL[width]
    assert Finetune(protocol="mae").recipe(width, 10**6) == Recipe(
        **{"epochs": epochs, "batch": 1024, "lr": lr, "layer_decay": layer_decay},
        **{"drop_path": drop_path, "mixup": 0.8, "cutmix": 1.0, "warmup": warmup},
        **{"min_lr": 1e-6, "randaugment": "rand-m9-mstd0.5-inc1", "erase": 0.25},
    )


@pytest.mark.parametrize(
    ("images", "width", "epochs", "lr"),
    [(1000, 64, 20, 1 / 64), (10**6, 768, 5, 5e-4), (30_000, 32, 10, 1 / 32)],
)
def test_the_fast_settings_go_by_width_and_number_of_images(images, width, epochs, lr):
    assert Finetune().recipe(width, images) == Recipe(epochs, 64, lr, 0.75, 0.1, 0, 0, 0.1)
    long = Finetune(epochs=50).recipe(width, images)
    assert (long.mixup, long.cutmix) == (0.8, 1.0)


ASKED = {
    **{"epochs": 3, "batch": 8, "lr": 0.5, "layer_decay": 0.9, "drop_path": 0.0, "mixup": 0.0},
    **{"cutmix": 0.3, "warmup": 0.0, "min_lr": 0.0, "randaugment": "off", "erase": 0.0},
}


@pytest.mark.parametrize("protocol", ["fast", "mae"])
def test_an_option_that_is_set_beats_the_protocol(protocol):
    assert Finetune(protocol=protocol, **ASKED).recipe(64, 100) == Recipe(**ASKED)


@pytest.mark.parametrize(
    "spec", ["rand", "rand-w0", "augmix-m3", "rand-m9-mstdhigh", "rand-m9.5", "on"]
)
def test_a_randaugment_that_timm_would_not_read_is_refused(spec):
    with pytest.raises(ValidationError, match="randaugment"):
        Finetune(randaugment=spec)


def test_the_official_rate_at_the_first_update_the_peak_and_the_last():
    made = Finetune(protocol="mae").recipe(768, 1_281_167)
    steps = math.ceil(100 * 1_281_167 / 1024)
    warmup = round(steps * 0.05)

    def rate(step):
        return learning_rate(step, steps, made.lr * 1024 / LR_BATCH, made.warmup, made.min_lr)

    assert rate(0) == pytest.approx(2e-3 / (warmup + 1))
    assert rate(warmup) == pytest.approx(2e-3)
    assert rate(steps - 1) == pytest.approx(1e-6, rel=1e-4)
