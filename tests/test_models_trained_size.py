"""The size that weights were trained at is taken from who states it, read off, or asked for."""

from __future__ import annotations

import pytest
import torch
from test_models_grid import smooth

from maebench.encoders.blocks import sincos_positions
from maebench.errors import ConfigError
from maebench.models.spec import SpecOptions
from maebench.models.trained_size import trained_grid

DRAWN = torch.randn(17, 24, generator=torch.Generator().manual_seed(0))


def with_class(positions_LD):
    return torch.cat([torch.full((1, positions_LD.shape[1]), 0.3), positions_LD.float()])


def grid(positions, facts=None, patch=4, decoder=None, prefixes=(1, 0), **options):
    beside = (SpecOptions(**options), facts or {}, "file:a.pth")
    return trained_grid(positions, prefixes, (patch, patch), beside, decoder)


def test_sin_cos_positions_need_no_word():
    assert grid(with_class(sincos_positions((2, 8), 24))) == ((2, 8), "")
    assert grid(sincos_positions((4, 4), 24)) == ((4, 4), "")


def test_a_decoders_sin_cos_positions_speak_for_the_encoders_learned_ones():
    decoder = with_class(sincos_positions((2, 8), 16))
    assert grid(DRAWN, decoder=decoder) == ((2, 8), "")
    assert grid(DRAWN, decoder=decoder[1:]) == ((2, 8), "")


@pytest.mark.parametrize(
    "facts",
    [
        {"config": {"image_size": [8, 32]}},
        {"maebench": {"image_size": [8, 32]}},
        {"args": {"input_size": [8, 32]}},
        {"args": {"img_size": (8, 32)}},
        {"config": {"pretrained_cfg": {"input_size": [3, 8, 32]}}},
    ],
)
def test_what_stands_beside_the_weights_is_taken(facts):
    assert grid(DRAWN, facts) == ((2, 8), "")


def test_the_models_string_goes_first_and_an_argument_that_does_not_fit_says_nothing():
    assert grid(DRAWN, {"args": {"input_size": 16}}, image_size=(8, 32)) == ((2, 8), "")
    for odd in ({"args": {"input_size": 224}}, {"args": {"input_size": "x", "img_size": None}}):
        with pytest.raises(ConfigError, match="do not show their grid"):
            grid(DRAWN, odd)


@pytest.mark.parametrize("shape", [(4, 16), (2, 32), (7, 28)])
def test_learned_positions_of_another_grid_are_not_taken_for_a_square(shape):
    with pytest.raises(ConfigError) as caught:
        grid(with_class(smooth(shape)))
    rows, columns = 4 * shape[0], 4 * shape[1]
    assert f"they seem those of {shape[0]}x{shape[1]} patches" in str(caught.value)
    assert str(caught.value).endswith(f"as in ,image-size={rows},{columns}")
    assert grid(with_class(smooth(shape)), image_size=(rows, columns)) == (shape, "")


def test_learned_positions_of_a_square_are_taken_with_a_word():
    assert grid(with_class(smooth((8, 8)))) == (
        (8, 8),
        "8x8 patches, read off the learned positions",
    )


def test_positions_that_show_nothing_are_asked_for():
    message = (
        r"17 learned positions do not show their grid, which may be 1x16, 2x8, 4x4, 8x2, 16x1: "
        r"give the size .* as in ,image-size=16$"
    )
    with pytest.raises(ConfigError, match=message):
        grid(DRAWN)
    with pytest.raises(ConfigError, match=r"12 positions lie on no square grid .*=96,192$"):
        grid(torch.randn(12, 24))


@pytest.mark.parametrize(("side", "patch"), [(224, 16), (224, 32), (224, 14), (384, 16)])
def test_the_usual_sizes_are_assumed_with_a_word(side, patch):
    count = side // patch
    positions = torch.randn(1 + count**2, 24)
    found, note = grid(positions, patch=patch)
    assert found == (count, count)
    assert note == (
        f"{count}x{count} patches of {side}x{side} px are assumed: where it is another grid, say "
        "so by ,image-size=ROWS,COLUMNS"
    )


def test_a_stated_size_that_sin_cos_positions_contradict_is_refused():
    positions = with_class(sincos_positions((2, 8), 24))
    with pytest.raises(ConfigError, match=r"16,16 is not that .* of 2x8 patches: ,image-size=8,32"):
        grid(positions, image_size=(16,))
    with pytest.raises(ConfigError, match="12,12 does not fit 17 positions of 4x4 patches"):
        grid(positions, image_size=(12,))


def test_one_patch_is_one_grid():
    assert grid(torch.randn(2, 24), prefixes=(1,))[0] == (1, 1)
