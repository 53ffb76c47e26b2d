"""Swin against timm's own, and what is hidden from it."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer as Timm

from maebench import ConfigError
from maebench.encoders import SwinNano, SwinTiny
from maebench.encoders.blocks import DropPath
from maebench.encoders.inputs import Inputs
from maebench.masking import hide
from maebench.rng import isolated
from maebench.testing import EncoderContract

B = 2
# image size, channels, options
KINDS = [
    pytest.param((32, 32), 3, {}, id="nano"),
    pytest.param((28, 28), 1, {}, id="windows that do not divide the map"),
    pytest.param((8, 8), 1, {}, id="windows larger than the map"),
    pytest.param((16, 32), 3, {"window": 5, "patch": (2, 4)}, id="oblong patches"),
    pytest.param(
        (48, 24), 2, {"depths": (1, 2, 1), "heads": (1, 2, 4), "window": 3, "patch": 2}, id="three"
    ),
]
every_kind = pytest.mark.parametrize(("size", "channels", "options"), KINDS)


class TestContract(EncoderContract):
    component = SwinNano


def swin(size=(32, 32), channels=3, **options):
    with isolated(0, "test"):
        module = SwinNano(**options).build(Inputs.of_images(channels, size))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    return module.eval()


def timm_swin(ours, size, channels, options):
    """timm's model with our weights, the token for hidden patches left out."""
    options = SwinNano(**options)
    theirs = Timm(
        img_size=size,
        patch_size=ours.patch,
        in_chans=channels,
        num_classes=0,
        embed_dim=options.width,
        depths=options.depths,
        num_heads=options.heads,
        window_size=options.window,
    )
    weights = {name: t for name, t in ours.state_dict().items() if name != "mask_token"}
    theirs.load_state_dict(weights, strict=True)
    return theirs.eval()


def images_of(size, channels, seed=1):
    return torch.randn(B, channels, *size, generator=torch.Generator().manual_seed(seed))


def mask_of(grid, ratio=0.6):
    scores = torch.rand(B, grid[0] * grid[1], generator=torch.Generator().manual_seed(2))
    return hide(scores, round(ratio * scores.shape[1]), grid)


# ---- timm


@every_kind
@torch.no_grad()
def test_tokens_and_stages_equal_timms(size, channels, options):
    ours = swin(size, channels, **options)
    theirs, images = timm_swin(ours, size, channels, options), images_of(size, channels)
    tokens = ours(images, None, range(1, ours.depth + 1))
    whole = theirs.forward_features(images)
    assert torch.equal(tokens.patches, whole.flatten(1, 2))
    assert tokens.grid == ours.out_grid == tuple(whole.shape[1:3])
    _, stages = theirs.forward_intermediates(images)
    ends = [sum(SwinNano(**options).depths[: i + 1]) for i in range(len(stages))]
    for end, stage in zip(ends, stages, strict=True):
        level = tokens.layers[end]
        assert level.grid == tuple(stage.shape[2:])
        assert torch.equal(level.patches, stage.flatten(2).transpose(1, 2))


@every_kind
@torch.no_grad()
def test_under_a_mask_timm_gets_the_token_where_patches_are_hidden(size, channels, options):
    ours = swin(size, channels, **options)
    theirs, images = timm_swin(ours, size, channels, options), images_of(size, channels)
    mask = mask_of(ours.grid)
    x = theirs.patch_embed(images).flatten(1, 2)
    for b in range(B):
        for place in mask.hidden[b].nonzero():
            x[b, place] = ours.mask_token
    expected = theirs.norm(theirs.layers(x.unflatten(1, ours.grid))).flatten(1, 2)
    tokens = ours(images, mask)
    assert torch.equal(tokens.patches, expected)
    assert tokens.seen is None


def test_swin_tiny_is_the_papers():
    with torch.device("meta"):
        theirs = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
        ours = SwinTiny().build(Inputs.of_images(3, (224, 224)))
    assert {n: p.shape for n, p in ours.named_parameters() if n != "mask_token"} == {
        n: p.shape for n, p in theirs.named_parameters()
    }
    # arXiv 2103.14030, table 1a: 29 M with a head of 769 thousand
    assert sum(p.numel() for p in ours.parameters()) == 27_519_354 + 96
    assert (ours.grid, ours.out_grid, ours.width, ours.depth) == ((56, 56), (7, 7), 768, 12)


# ---- what others rely on


def test_a_merging_has_the_layer_of_the_block_that_follows_it():
    module = swin(depths=(1, 2), heads=(2, 2))
    ids = module.layer_ids()
    assert ids["mask_token"] == ids["patch_embed.norm.weight"] == 0
    assert ids["layers.0.blocks.0.attn.relative_position_bias_table"] == 1
    assert ids["layers.1.downsample.reduction.weight"] == ids["layers.1.blocks.0.norm1.bias"] == 2
    assert ids["layers.1.blocks.1.mlp.fc2.weight"] == 3
    assert ids["norm.weight"] == module.depth + 1 == 4


def test_biases_by_position_and_the_token_are_not_decayed():
    module = swin()
    tables = {n for n, _ in module.named_parameters() if "relative_position" in n}
    assert len(tables) == 4
    assert module.no_weight_decay() == tables | {"mask_token"}


def test_drop_path_rises_over_all_blocks_to_what_is_asked():
    module = swin()
    module.set_drop_path(0.3)
    rates = [m.drop_prob for m in module.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])


def test_weights_begin_as_timms_and_the_token_small():
    with isolated(0, "test"):
        module = SwinNano(width=128).build(Inputs.of_images(3, (32, 32)))
    assert module.mask_token.std().item() == pytest.approx(0.02, rel=0.2)
    weight = module.layers[1].blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not module.layers[1].blocks[0].mlp.fc1.bias.any()


# ---- sizes


@pytest.mark.parametrize(
    ("options", "size", "patch", "out_grid"),
    [
        (SwinNano(), (8, 8), (2, 2), (2, 2)),
        (SwinNano(), (28, 28), (2, 2), (7, 7)),
        (SwinNano(), (64, 32), (4, 4), (8, 4)),
        (SwinTiny(), (32, 32), (2, 2), (2, 2)),
        (SwinTiny(), (224, 224), (4, 4), (7, 7)),
    ],
)
def test_the_default_patch_is_two_pixels_up_to_32_and_four_above(options, size, patch, out_grid):
    assert options.patch_size(size) == patch
    with torch.device("meta"):
        assert options.build(Inputs.of_images(1, size)).out_grid == out_grid


@pytest.mark.parametrize(
    ("options", "size", "told"),
    [
        (
            SwinTiny(),
            (28, 28),
            "encoder.patch: patches of 2x2 merged by 8x8 over encoder.depths=(2, 2, 6, 2) do not "
            "divide images of 28x28; give fewer stages, or images of 32x32",
        ),
        (
            SwinNano(patch=3),
            (32, 16),
            "encoder.patch: patches of 3x3 merged by 2x2 over encoder.depths=(2, 2) do not divide "
            "images of 32x16; square patches that do: 1, 2, 4, 8",
        ),
        (
            SwinNano(heads=(2, 3)),
            (32, 32),
            "encoder.width: 32 times 2 is no multiple of the 3 heads of stage 2 in "
            "encoder.heads=(2, 3)",
        ),
        (
            SwinNano(depths=(1, 1, 1)),
            (32, 32),
            "encoder.heads: (2, 4) must name one number for each stage of encoder.depths=(1, 1, 1)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(options, size, told):
    with pytest.raises(ConfigError) as error:
        options.build(Inputs.of_images(3, size))
    assert str(error.value) == told


def test_images_of_another_size_are_refused():
    with pytest.raises(ConfigError, match="built for images of 3x32x32"):
        swin()(images_of((16, 32), 3))
