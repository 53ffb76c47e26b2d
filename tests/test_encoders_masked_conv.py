import copy

import pytest
import torch
from torch import nn

from maebench import ConfigError
from maebench.encoders.masked_conv import Seen, SeenBatchNorm, mask_layers
from maebench.masking.mask import hide
from maebench.rng import isolated

SIDE = 16


def mask_of(count=4, hidden=10, seed=0):
    scores = torch.rand(count, 16, generator=torch.Generator().manual_seed(seed))
    return hide(scores, hidden, (4, 4))


def network():
    from timm.models.resnet import BasicBlock

    with isolated(0, "encoder"):
        made = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.GELU(),
            nn.MaxPool2d(3, 2, 1),
            BasicBlock(8, 8),
            nn.AvgPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
        )
    seen = Seen()
    mask_layers(made, seen)
    return made, seen


def test_hidden_cells_are_0_after_every_layer_and_what_is_hidden_changes_nothing():
    made, seen = network()
    images, mask, found = torch.randn(4, 3, SIDE, SIDE), mask_of(), []
    for module in made.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, i, x: found.append(x))
    with seen.of(mask):
        cells = seen.at((SIDE, SIDE))
        first = made(images * cells)
        for x in found:
            here = seen.at(x.shape[2:])
            assert (x * (1 - here) == 0).all() and (x * here != 0).any()
        other = torch.where(cells > 0, images, 7.0)
        assert torch.equal(made(other * cells), first)
    assert seen.cells is None


def test_without_a_mask_it_is_the_network_itself():
    made, seen = network()
    plain = copy.deepcopy(made)
    for module in plain.modules():
        module._forward_hooks.clear()
        if isinstance(module, SeenBatchNorm):
            module.__class__ = nn.BatchNorm2d
    images = torch.randn(4, 3, SIDE, SIDE)
    for training in (True, False):
        assert torch.equal(made.train(training)(images), plain.train(training)(images))
    with seen.of(hide(torch.zeros(4, 16), 0, (4, 4))):
        assert torch.allclose(made.train()(images), plain.train()(images), atol=1e-5)


def test_statistics_of_batch_norm_are_those_of_the_seen_cells():
    seen = Seen()
    holder = nn.Sequential(nn.BatchNorm2d(5, momentum=0.3))
    mask_layers(holder, seen)
    theirs = nn.BatchNorm1d(5, momentum=0.3)
    x, mask = 3 * torch.randn(4, 5, 8, 8) + 1, mask_of()
    with seen.of(mask):
        cells = seen.at((8, 8))
        found = holder(x * cells)
    chosen = x.permute(0, 2, 3, 1)[cells[:, 0] > 0]
    assert torch.allclose(found.permute(0, 2, 3, 1)[cells[:, 0] > 0], theirs(chosen), atol=1e-5)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.allclose(getattr(holder[0], name), getattr(theirs, name), atol=1e-5)
    with seen.of(mask):
        found = holder.eval()(x * cells)
    assert torch.allclose(
        found.permute(0, 2, 3, 1)[cells[:, 0] > 0], theirs.eval()(chosen), atol=1e-5
    )


def test_a_copy_of_a_network_is_masked_by_its_own_mask():
    made, seen = network()
    holder = nn.Module()
    holder.network, holder.seen = made, seen
    other = copy.deepcopy(holder)
    images = torch.randn(4, 3, SIDE, SIDE)
    with other.seen.of(mask_of()):
        assert torch.equal(made.eval()(images), copy.deepcopy(made).eval()(images))
        cells = other.seen.at((4, 4))
        assert (other.network.eval()(images * 0 + 1) * (1 - cells) == 0).all()


def test_layers_with_channels_last_and_pooled_ones_are_masked_too():
    seen = Seen()
    made = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3))
    mask_layers(made, seen)
    with seen.of(mask_of()):
        x = made(torch.randn(4, 8, 8, 6) + 2)
        cells = seen.at((8, 8), last=True)
        assert (x * (1 - cells) == 0).all() and (x * cells != 0).any()
        assert made(torch.randn(4, 6)).shape == (4, 3)  # no map
        assert seen.at((1, 1)) is None


@pytest.mark.parametrize(
    "norm", [nn.SyncBatchNorm(4), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4)]
)
def test_norms_over_whole_maps_are_refused(norm):
    with pytest.raises(ConfigError, match=f"{type(norm).__name__} takes its mean over hidden"):
        mask_layers(nn.Sequential(norm), Seen())


def test_batch_norm_of_one_seen_cell_is_refused_as_torch_refuses_it():
    seen = Seen()
    layer = nn.Sequential(nn.BatchNorm2d(3))
    mask_layers(layer, seen)
    mask = hide(torch.arange(4.0)[None], 3, (2, 2))
    with seen.of(mask), pytest.raises(ConfigError, match="batch norm needs two seen cells"):
        layer(torch.rand(1, 3, 2, 2))
    with seen.of(mask):  # of a finer map one cell of the mask is four
        assert bool(layer(torch.rand(1, 3, 4, 4)).isfinite().all())
        layer.eval()(torch.rand(1, 3, 2, 2))
    assert bool(layer[0].running_var.isfinite().all())
