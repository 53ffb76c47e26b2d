import pytest
import torch
from timm.models.hiera import Hiera as Theirs

from maebench import ConfigError, Inputs
from maebench.encoders import HieraNano, HieraTiny
from maebench.masking.mask import hide
from maebench.rng import isolated
from maebench.testing import EncoderContract
from maebench.testing.cases import images_of, mask_of
from maebench.testing.modules import shake

INPUTS = Inputs.of_images(3, (64, 64))
DEEP = {"width": 8, "depths": (1, 1, 2, 1), "heads": 1, "patch": 2}


@pytest.mark.slow
class TestContract(EncoderContract):
    component = HieraNano


@pytest.mark.slow
class TestContractOfFourStages(EncoderContract):
    component = HieraTiny(**DEEP)


def both(**options):
    """Our module and timm's with the same weights."""
    with isolated(0, "encoder"):
        ours = shake(HieraTiny(**{**DEEP, **options}).build(INPUTS))
    theirs = Theirs(
        img_size=(64, 64),
        embed_dim=8,
        stages=(1, 1, 2, 1),
        num_classes=0,
        patch_kernel=(3, 3),
        patch_stride=(2, 2),
        patch_padding=(1, 1),
    ).eval()
    own = {k: v for k, v in ours.state_dict().items() if k in theirs.state_dict()}
    assert {"pos_embed", "blocks.4.attn.qkv.weight", "patch_embed.proj.weight"} <= own.keys()
    missing = theirs.load_state_dict(own, strict=False).missing_keys
    assert all(name.startswith("head.") for name in missing)
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize("ratio", [None, 0.25, 0.75])
def test_it_is_timms_hiera_with_its_own_mask(ratio):
    ours, theirs = both()
    images = images_of(INPUTS)
    mask = None if ratio is None else mask_of(ours.grid, ratio)
    found = ours(images, mask, range(1, 6)).layers
    keep = None if mask is None else ~mask.hidden
    end, stages = theirs.forward_features(images, keep, return_intermediates=True)
    assert torch.allclose(found[5].patches, end, atol=1e-5)
    last = stages[-1].flatten(2 if mask is not None else 1, 3 if mask is not None else 2)
    assert torch.allclose(found[5].patches, last.flatten(1, -2), atol=1e-5)
    if mask is None:
        for number, stage in zip((1, 2, 4), stages, strict=False):
            assert found[number].grid == tuple(stage.shape[1:3])
            assert torch.allclose(found[number].patches, stage.flatten(1, 2), atol=1e-5)


@torch.no_grad()
def test_stages_are_fused_as_in_its_masked_autoencoder():
    ours, theirs = both()
    images, mask = images_of(INPUTS), mask_of(ours.grid, 0.5)
    _, stages = theirs.forward_features(images, ~mask.hidden, return_intermediates=True)
    total = stages[-1].flatten(1, -2)
    for conv, stage in zip(ours.fusion, stages, strict=False):
        B, K, u, v, D = stage.shape  # each unit becomes one cell
        weight = conv.weight.permute(2, 3, 1, 0).reshape(u * v * D, -1)
        total = total + stage.reshape(B, K, u * v * D) @ weight + conv.bias
    assert torch.allclose(ours(images, mask).patches, ours.norm(total), atol=1e-5)


@torch.no_grad()
def test_tokens_of_early_stages_lie_at_their_places_whatever_is_hidden():
    with isolated(0, "encoder"):
        ours = shake(HieraTiny(**DEEP).build(INPUTS))
    images, mask = images_of(INPUTS), mask_of(ours.grid, 0.5)
    # the first stage attends inside units: the same tokens with and without a mask, but for the
    # pixels of hidden neighbours that the overlapping embedding sees
    whole = ours(
        images
        * (~mask.hidden).float().view(4, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3),
        None,
        [1],
    ).layers[1]
    seen = ours(images, mask, [1]).layers[1]
    index = seen.seen[:, :, None].expand(-1, -1, seen.patches.shape[2])
    assert torch.allclose(whole.patches.gather(1, index), seen.patches, atol=1e-5)


def test_images_that_units_do_not_divide_are_refused_with_what_would_do():
    with pytest.raises(ConfigError, match="merged by 8x8 over encoder.depths"):
        HieraTiny(patch=4).build(Inputs.of_images(1, (28, 28)))
    with pytest.raises(ConfigError, match="encoder.width: 9 is no multiple of encoder.heads=2"):
        HieraNano(width=9).build(Inputs.of_images(1, (28, 28)))


def test_a_mask_of_nothing_hidden_is_no_mask():
    with isolated(0, "encoder"):
        ours = shake(HieraNano().build(Inputs.of_images(1, (28, 28))))
    images = images_of(ours.inputs)
    nothing = hide(torch.zeros(4, 49), 0, (7, 7))
    assert torch.allclose(ours(images).patches, ours(images, nothing).patches, atol=1e-6)


@pytest.mark.parametrize("depths", [(1, 1), (3, 1)])
def test_stages_in_which_units_never_meet_are_refused(depths):
    with pytest.raises(ConfigError, match=r"encoder\.depths: .* no block attends over all units"):
        HieraNano(depths=depths).build(Inputs.of_images(1, (32, 32)))


@torch.no_grad()
def test_every_unit_depends_on_every_other():
    module = HieraNano(width=8, heads=1).build(Inputs.of_images(1, (32, 32))).eval()
    images = torch.rand(1, 1, 32, 32)
    other = images.clone()
    other[:, :, -4:, -4:] += 1
    assert bool((module(images).patches != module(other).patches).any(2).all())
