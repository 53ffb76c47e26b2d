"""The vision transformer against timm, Hugging Face and the paper's own arithmetic."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer as Timm
from torch import nn

from maebench import ConfigError, Tokens
from maebench.encoders import (
    BUILT_IN,
    ViT,
    ViTBase,
    ViTHuge,
    ViTLarge,
    ViTMicro,
    ViTNano,
    ViTSmall,
    ViTTiny,
    attention,
    default_patch,
)
from maebench.encoders.blocks import DropPath, sincos_positions
from maebench.encoders.inputs import Inputs
from maebench.encoders.vit import raw_patches
from maebench.masking import hide
from maebench.rng import isolated
from maebench.testing import EncoderContract

# image size, patch, channels, registers
KINDS = [
    pytest.param((8, 8), 2, 1, 0, id="digits"),
    pytest.param((16, 16), 4, 3, 0, id="colour"),
    pytest.param((8, 16), (4, 2), 5, 0, id="oblong patches"),
    pytest.param((12, 20), 4, 3, 3, id="oblong grid with registers"),
]
every_kind = pytest.mark.parametrize(("size", "patch", "channels", "registers"), KINDS)
D, DEPTH, HEADS = 32, 3, 4


def vit(size=(16, 16), patch=4, channels=3, registers=0, **options):
    options = {"width": D, "depth": DEPTH, "heads": HEADS, **options}
    with isolated(0, "test"):
        module = ViTNano(patch=patch, registers=registers, **options).build(
            Inputs.of_images(channels, size)
        )
        with (
            torch.no_grad()
        ):  # biases and norms are 0 and 1 at first: an error there would not show
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
    return module.eval()


def timm_vit(ours, size, patch, channels, registers):
    """timm's model with our weights; register tokens get a position of zero there."""
    model = Timm(
        *(size, patch, channels, 0),
        embed_dim=D,
        depth=DEPTH,
        num_heads=HEADS,
        reg_tokens=registers,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    weights = dict(ours.state_dict())
    place = weights["pos_embed"]
    zeros = place.new_zeros(1, registers, D)
    weights["pos_embed"] = torch.cat([place[:, :1], zeros, place[:, 1:]], 1)
    model.load_state_dict(weights)
    return model.eval()


def images_of(size, channels, batch=3):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def mask_of(grid, batch=3, share=0.6):
    scores = torch.rand(batch, grid[0] * grid[1], generator=torch.Generator().manual_seed(2))
    return hide(scores, round(share * scores.shape[1]), grid)


def all_of(tokens):
    return torch.cat([tokens.prefix, tokens.patches], 1)


# ---- positions


def test_positions_are_sines_and_cosines_of_the_column_and_then_of_the_row():
    width, grid = 16, (3, 5)
    found = sincos_positions(grid, width)
    assert (found.shape, found.dtype) == ((15, 16), torch.float32)
    for row in range(3):
        for column in range(5):
            expected = []
            for place in (column, row):
                angles = [place / 10000 ** (i / 4) for i in range(4)]
                expected += [*map(math.sin, angles), *map(math.cos, angles)]
            torch.testing.assert_close(found[row * 5 + column], torch.tensor(expected))


def test_transposing_the_grid_swaps_the_halves_of_the_positions():
    one = sincos_positions((3, 5), 24).view(3, 5, 24)
    other = sincos_positions((5, 3), 24).view(5, 3, 24).transpose(0, 1)
    assert torch.equal(one, torch.cat([other[..., 12:], other[..., :12]], -1))
    assert not torch.equal(one, other)


def test_positions_equal_hugging_faces():
    from transformers.models.vit_mae import modeling_vit_mae as hf

    theirs = hf.build_2d_sinusoidal_position_embedding(14, 14, 768)
    # its halves are rotated where the masked autoencoder uses it
    torch.testing.assert_close(
        sincos_positions((14, 14), 768), torch.cat([theirs[:, 384:], theirs[:, :384]], 1)
    )


def test_positions_are_fixed_and_those_of_the_class_token_zero():
    module = vit()
    assert not module.pos_embed.requires_grad
    assert (module.pos_embed[:, 0] == 0).all()
    assert torch.equal(module.pos_embed[0, 1:], sincos_positions((4, 4), D))


# ---- forward


@every_kind
def test_the_encoder_equals_timms_with_the_same_weights(size, patch, channels, registers):
    ours, images = vit(size, patch, channels, registers), images_of(size, channels)
    with torch.no_grad():
        ours.pos_embed[:, 0] = torch.linspace(-1, 1, D)  # zero at first, not after fine-tuning
    theirs = timm_vit(ours, size, patch, channels, registers)
    with torch.no_grad():
        tokens = ours(images)
        torch.testing.assert_close(
            all_of(tokens), theirs.forward_features(images), atol=1e-5, rtol=0
        )
    assert tokens.prefix.shape == (3, 1 + registers, D)
    assert (ours.prefix, tokens.seen, tokens.grid) == (1 + registers, None, ours.grid)


@every_kind
def test_seen_patches_are_encoded_as_by_the_official_code(size, patch, channels, registers):
    ours, images = vit(size, patch, channels, registers), images_of(size, channels)
    theirs, mask = timm_vit(ours, size, patch, channels, registers), mask_of(ours.grid)
    # embed all, add positions, keep the first of a shuffled order, class token, blocks, norm
    keep = mask.seen.flip(1)  # the official order is not ascending
    with torch.no_grad():
        x = theirs.patch_embed(images) + theirs.pos_embed[:, 1 + registers :]
        x = x.gather(1, keep[:, :, None].expand(-1, -1, D))
        prefix = [theirs.cls_token + theirs.pos_embed[:, :1]]
        prefix += [theirs.reg_token] if registers else []
        x = torch.cat([torch.cat(prefix, 1).expand(3, -1, -1), x], 1)
        x = theirs.norm(theirs.blocks(x))
        tokens = ours(images, mask)
    torch.testing.assert_close(tokens.prefix, x[:, : 1 + registers], atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.patches, x[:, 1 + registers :].flip(1), atol=1e-5, rtol=0)
    assert torch.equal(tokens.seen, mask.seen)


@every_kind
def test_hidden_pixels_have_no_influence_at_all(size, patch, channels, registers):
    module = vit(size, patch, channels, registers)
    images, mask = images_of(size, channels).requires_grad_(), mask_of(module.grid)
    tokens = module(images, mask, range(1, DEPTH + 1))
    levels = [tokens, *tokens.layers.values()]
    sum(all_of(t).square().sum() for t in levels).backward()
    by_patch = raw_patches(images.grad, module.patch).abs().amax(2)
    assert (by_patch[mask.hidden] == 0).all()
    assert (by_patch[~mask.hidden] > 0).all()


def test_a_mask_that_hides_nothing_is_no_mask():
    module, images = vit(), images_of((16, 16), 3)
    nothing = hide(torch.rand(3, 16), 0, (4, 4))
    torch.testing.assert_close(all_of(module(images, nothing)), all_of(module(images)))


def test_an_image_is_encoded_the_same_in_any_batch():
    module, images = vit(registers=2), images_of((16, 16), 3, 5)
    mask = mask_of((4, 4), 5)
    for whole, alone in (
        (module(images), [module(i[None]) for i in images]),
        (
            module(images, mask),
            [module(i[None], m) for i, m in zip(images, mask.split(1), strict=True)],
        ),
    ):
        torch.testing.assert_close(
            all_of(whole), torch.cat([all_of(t) for t in alone]), atol=1e-5, rtol=1e-5
        )


def test_every_trainable_parameter_gets_a_gradient():
    module = vit(registers=2)
    all_of(module(images_of((16, 16), 3), mask_of((4, 4)))).square().sum().backward()
    without = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == ["pos_embed"]


def test_layers_are_the_blocks_outputs_before_the_last_norm():
    module, images, mask = vit(registers=1), images_of((16, 16), 3), mask_of((4, 4))
    outputs = []
    for block in module.blocks:
        block.register_forward_hook(lambda _, __, x: outputs.append(x))
    tokens = module(images, mask, (3, 1))
    assert sorted(tokens.layers) == [1, 3]
    for number, level in tokens.layers.items():
        assert torch.equal(all_of(level), outputs[number - 1])
        assert level.seen is mask.seen
    assert torch.equal(module.norm(all_of(tokens.layers[3])), all_of(tokens))
    assert not module(images).layers


def test_fused_and_explicit_attention_agree():
    module, images = vit(), images_of((16, 16), 3)
    made = {}
    for fused in (True, False):
        with attention.using(fused):
            made[fused] = all_of(module(images))
        assert {b.attn.fused_attn for b in module.blocks} == {fused}
    torch.testing.assert_close(made[True], made[False], atol=1e-5, rtol=1e-5)
    assert not torch.equal(made[True], made[False]), "the same kernel ran twice"


@pytest.mark.parametrize("registers", [0, 2])
def test_attention_is_timms_softmax_of_the_class_token_averaged_over_heads(registers):
    module, images = vit(registers=registers), images_of((16, 16), 3)
    theirs = timm_vit(module, (16, 16), 4, 3, registers)
    theirs.blocks[-1].attn.fused_attn = False
    softmax = []
    theirs.blocks[-1].attn.attn_drop.register_forward_hook(lambda _, __, x: softmax.append(x))
    theirs.forward_features(images)
    torch.testing.assert_close(softmax[0].sum(-1), torch.ones(3, HEADS, 17 + registers))
    found = module.attention(images)
    torch.testing.assert_close(found, softmax[0][:, :, 0, 1 + registers :].mean(1))
    # probabilities, but for what the class and register tokens get
    torch.testing.assert_close(
        found.sum(1), 1 - softmax[0][:, :, 0, : 1 + registers].sum(-1).mean(1)
    )


# ---- what fine-tuning asks for


def test_drop_path_grows_linearly_and_acts_only_while_training():
    module, images = vit(depth=4), images_of((16, 16), 3, 64)
    before = all_of(module(images))
    module.set_drop_path(0.3)
    rates = [
        [m.drop_prob if isinstance(m, DropPath) else 0.0 for m in (b.drop_path1, b.drop_path2)]
        for b in module.blocks
    ]
    torch.testing.assert_close(
        torch.tensor(rates), torch.tensor([0, 0.1, 0.2, 0.3])[:, None].expand(4, 2)
    )
    assert torch.equal(all_of(module(images)), before)
    module.train()
    with isolated(0, "drop"):
        dropped = all_of(module(images))
    changed = (dropped - before).abs().amax((1, 2)) > 0
    assert 0.5 < changed.float().mean() < 1.01


@pytest.mark.parametrize("registers", [0, 2])
def test_layer_ids_are_those_of_timms_layer_decay(registers):
    from timm.optim import param_groups_layer_decay

    module = vit(registers=registers)
    theirs = timm_vit(module, (16, 16), 4, 3, registers)
    theirs.reset_classifier(10)  # the head has the layer after the last block
    decay, names = 0.5, {id(p): n for n, p in theirs.named_parameters()}
    groups = param_groups_layer_decay(theirs, 0.05, layer_decay=decay)
    scales = {names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}
    layers = module.layer_ids()
    assert layers.keys() == dict(module.named_parameters()).keys()
    for name, layer in layers.items():
        if name.startswith("norm."):  # timm's last block; the official code's "all else"
            assert layer == DEPTH + 1
        else:
            assert decay ** (DEPTH + 1 - layer) == scales[name], name


def test_weight_decay_spares_the_positions_alone():
    assert vit(registers=1).no_weight_decay() == {"pos_embed"}


# ---- initial weights and sizes


def test_initial_weights_are_the_papers():
    with isolated(0, "test"):
        module = ViTNano(width=256, depth=2, heads=4, registers=4, patch=4).build(
            Inputs.of_images(3, (16, 16))
        )
    for name, part in module.named_modules():
        if isinstance(part, nn.LayerNorm):
            assert part.eps == 1e-6, name
            assert (part.weight == 1).all()
            assert (part.bias == 0).all()
        elif isinstance(part, nn.Linear | nn.Conv2d):
            matrix = part.weight.flatten(1)
            bound = math.sqrt(6 / sum(matrix.shape))  # Glorot's, qkv and the patches as one matrix
            assert 0.99 * bound < matrix.abs().max() <= bound, name
            assert abs(matrix.std() / (bound / math.sqrt(3)) - 1) < 0.02, name
            if isinstance(part, nn.Linear):
                assert (part.bias == 0).all(), name
            else:  # torch's own, as in the official code
                assert 0.9 / math.sqrt(48) < part.bias.abs().max() <= 1 / math.sqrt(48)
    for token in (module.cls_token, module.reg_token):
        assert abs(token.std() / 0.02 - 1) < 0.15
        assert abs(token.mean()) < 0.004


@pytest.mark.parametrize(
    ("options", "patch", "parameters"),
    [  # of timm's vit_*_patch16_224 and vit_huge_patch14_224 without their heads
        (ViTTiny, 16, 5_524_416),
        (ViTSmall, 16, 21_665_664),
        (ViTBase, 16, 85_798_656),
        (ViTLarge, 16, 303_301_632),
        (ViTHuge, 14, 630_764_800),
    ],
)
def test_the_papers_sizes_have_the_papers_parameters(options, patch, parameters):
    with torch.device("meta"):
        module = options(patch=patch).build(Inputs.of_images(3, (224, 224)))
    assert sum(p.numel() for p in module.parameters()) == parameters


def test_every_size_can_be_built_with_its_defaults():
    sizes = {cls for cls in BUILT_IN if issubclass(cls, ViT)}
    assert {ViTNano, ViTMicro, ViTTiny, ViTSmall, ViTBase, ViTLarge, ViTHuge} == sizes
    for options in (ViTNano(), ViTMicro()):
        module = options.build(Inputs.of_images(1, (8, 8)))
        assert (module.grid, module.out_grid, module.patch) == ((4, 4), (4, 4), (2, 2))
        assert (module.width, module.depth) == (options.width, options.depth)


def test_the_default_patch_gives_between_4x4_and_14x14_patches():
    assert [default_patch((s, s)) for s in (8, 28, 32, 64, 96, 224)] == [2, 4, 4, 8, 8, 16]


# ---- hidden positions that are kept


class Kept(ViTNano):
    """A vision transformer that was told to keep hidden positions."""

    name: ClassVar[str] = "kept"

    def build(self, inputs):
        module = super().build(inputs)
        module.keep_positions()
        return module


class TestContractOfKeptPositions(EncoderContract):
    component = Kept


@every_kind
@torch.no_grad()
def test_a_kept_position_holds_the_token_and_its_place(size, patch, channels, registers):
    module = vit(size, patch, channels, registers)
    images = torch.randn(2, channels, *size)
    length = module.grid[0] * module.grid[1]
    mask = hide(torch.rand(2, length), length // 2, module.grid)
    whole, dropped = module(images), module._embed(images, mask)
    module.keep_positions()
    module.mask_token += torch.randn_like(module.mask_token)
    again = module(images)
    assert torch.equal(
        torch.cat([again.prefix, again.patches], 1), torch.cat([whole.prefix, whole.patches], 1)
    )
    x, start = module._embed(images, mask), module.prefix
    for b in range(2):
        seen = x[b, start:][~mask.hidden[b]]
        torch.testing.assert_close(seen, dropped[b, start:])
        places = module.pos_embed[0, 1:][mask.hidden[b]]
        torch.testing.assert_close(x[b, start:][mask.hidden[b]], module.mask_token[0] + places)
    tokens = module(images, mask, (1,))
    assert tokens.seen is tokens.layers[1].seen is None
    assert tokens.patches.shape[1] == tokens.layers[1].patches.shape[1] == length


def test_nothing_is_drawn_or_added_before_positions_are_to_be_kept():
    with isolated(0, "test"):
        module = ViTNano().build(Inputs.of_images(1, (8, 8)))
        after = torch.rand(1)
    with isolated(0, "test"):
        again = Kept().build(Inputs.of_images(1, (8, 8)))
        later = torch.rand(1)
    assert "mask_token" not in {*module.state_dict(), *dict(module.named_parameters())}
    assert after != later
    assert all(torch.equal(x, again.state_dict()[n]) for n, x in module.state_dict().items())


def test_the_token_for_hidden_patches_is_small_in_the_embedding_and_not_decayed():
    module = ViTNano(width=256).build(Inputs.of_images(1, (8, 8)))
    assert "mask_token" not in module.layer_ids().keys() | module.no_weight_decay()
    with isolated(0, "test"):
        module.keep_positions()
    token = module.mask_token
    assert token.shape == (1, 1, 256)
    assert 0.01 < token.std() < token.abs().max() <= 0.02  # cut off at one deviation of .02
    assert module.layer_ids()["mask_token"] == 0
    assert "mask_token" in module.no_weight_decay()
    module.keep_positions()  # once is enough
    assert module.mask_token is token


# ---- mistakes


@pytest.mark.parametrize("shape", [(1, 3, 16, 12), (1, 1, 16, 16), (1, 3, 8, 32)])
def test_images_of_another_size_are_refused_with_both_sizes(shape):
    got = "x".join(map(str, shape[1:]))
    with pytest.raises(ConfigError, match=rf"built for images of 3x16x16 .* got {got}"):
        vit()(torch.zeros(shape))


def test_a_patch_that_does_not_divide_the_image_is_refused_with_those_that_do():
    with pytest.raises(ConfigError) as refusal:
        ViTNano(patch=5).build(Inputs.of_images(3, (12, 18)))
    assert str(refusal.value) == (
        "encoder.patch: 5x5 does not divide images of 12x18; square patches that do: 1, 2, 3, 6"
    )
    with pytest.raises(ConfigError, match="3x4 does not divide"):
        ViTNano(patch=(3, 4)).build(Inputs.of_images(3, (12, 18)))
    assert ViTNano(patch=(3, 9)).build(Inputs.of_images(3, (12, 18))).grid == (4, 2)


@pytest.mark.parametrize(("width", "heads"), [(30, 3), (32, 3)])
def test_a_width_that_heads_or_positions_do_not_divide_is_refused(width, heads):
    with pytest.raises(
        ConfigError, match=rf"encoder.width: {width} must be a multiple of 4 .*heads={heads}$"
    ):
        ViTNano(width=width, heads=heads).build(Inputs.of_images(1, (8, 8)))


# ---- tokens


def test_tokens_go_to_their_places_on_the_grid_and_the_fill_to_all_others():
    mask = mask_of((3, 4))
    patches, fill = torch.randn(3, mask.seen.shape[1], 8), torch.full((1, 1, 8), 7.0)
    made = Tokens(torch.zeros(3, 1, 8), patches, (3, 4), mask.seen).on_grid(fill)
    assert made.shape == (3, 12, 8)
    assert (made[mask.hidden] == 7).all()
    assert torch.equal(made[~mask.hidden], patches.flatten(0, 1))  # both in raster order


def test_dense_tokens_lie_on_the_grid_already():
    patches = torch.randn(2, 12, 8)
    assert Tokens(torch.zeros(2, 0, 8), patches, (3, 4)).on_grid(torch.zeros(8)) is patches
