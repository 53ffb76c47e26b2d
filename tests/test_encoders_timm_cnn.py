import pytest
import timm
import torch

from maebench import ConfigError, Inputs, RunConfig
from maebench.encoders.timm_cnn import TimmCNN
from maebench.masking.mask import hide
from maebench.rng import isolated
from maebench.testing import EncoderContract
from maebench.testing.cases import images_of, mask_of

INPUTS = Inputs.of_images(3, (96, 96))


@pytest.mark.slow
class TestContractOfTimmCNN(EncoderContract):
    component = TimmCNN


@pytest.mark.slow
class TestContractOfAResNetOfTimm(EncoderContract):
    component = TimmCNN(network="test_resnet")


def built(name, inputs=INPUTS):
    with isolated(0, "encoder"):
        return TimmCNN(network=name).build(inputs)


NETWORKS = ["resnet18", "convnextv2_atto", "efficientnet_b0", "regnety_002", "densenet121"]


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_with_nothing_hidden_it_is_timms_network(name):
    ours, images = built(name), images_of(INPUTS)
    theirs = timm.create_model(name, num_classes=0)
    theirs.load_state_dict(ours.network.state_dict())
    whole = theirs.eval().forward_features(images)
    found = ours.eval()(images, None, (1, ours.depth))
    assert torch.allclose(found.patches, whole.flatten(2).transpose(1, 2), atol=1e-5)
    assert sorted(found.layers) == [1, ours.depth]


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_hidden_cells_are_exactly_0_and_hidden_pixels_change_nothing(name, training):
    module, images = built(name).train(training), images_of(INPUTS)
    mask = mask_of(module.grid)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    layers = range(1, module.depth + 1)
    with module.seen.of(mask), torch.no_grad():
        pixels = module.seen.at((96, 96))
        maps, end = module._maps(images * pixels)
        for x in (*maps, end):
            assert not bool((x * (1 - module.seen.at(x.shape[2:]))).any())
    module.load_state_dict(state)
    images.requires_grad_()
    first = module(images, mask, layers)
    (slope,) = torch.autograd.grad(first.patches.square().sum(), images, retain_graph=True)
    assert float((slope * (1 - pixels)).abs().max()) == 0 < float(slope.abs().max())
    module.load_state_dict(state)
    second = module(images + 100 * (1 - pixels), mask, layers)
    assert torch.equal(first.patches, second.patches)
    for layer in layers:
        assert torch.equal(first.layers[layer].patches, second.layers[layer].patches)


def test_a_network_whose_hidden_cells_fill_up_is_refused_and_the_module_is_named():
    with pytest.raises(ConfigError, match=r"do not stay 0 after stages\.1\.blocks\.1\.xca\.\w+ "):
        built("edgenext_xx_small")


def test_a_norm_over_the_whole_map_is_refused():
    with pytest.raises(ConfigError, match="GroupNorm1? takes its mean over hidden cells too"):
        built("poolformer_s12")


def test_without_masks_over_its_layers_a_plain_network_would_be_refused(monkeypatch):
    """The check can fail: it is not satisfied by 0 in the image alone."""
    monkeypatch.setattr("maebench.encoders.timm_cnn.mask_layers", lambda network, seen: None)
    with pytest.raises(ConfigError, match="hidden cells do not stay 0 after"):
        built("test_resnet")


@pytest.mark.parametrize(
    ("name", "size", "what"),
    [
        ("resnet18", (28, 28), "of images of 28x28 it leaves 1x1 cells and masks need two"),
        ("resnet18", (80, 80), "become 5x5 and then 3x3 cells|which do not divide these"),
        ("resnet81", (96, 96), "Did you mean 'resnet"),
        ("vit_tiny_patch16_224", (224, 224), "does not end in a map of cells"),
        ("mixer_s16_224", (224, 224), "does not end in a map of cells"),
    ],
)
def test_what_cannot_be_masked_is_one_line(name, size, what):
    with pytest.raises(ConfigError, match=what) as caught:
        built(name, Inputs.of_images(3, size))
    assert "\n" not in str(caught.value)


def test_building_leaves_running_statistics_and_mode_as_timms():
    module, theirs = built("test_resnet"), timm.create_model("test_resnet", num_classes=0)
    assert module.network.training
    for name, value in theirs.state_dict().items():
        if "running" in name or "tracked" in name:
            assert torch.equal(value, module.network.state_dict()[name]), name


@pytest.mark.slow
def test_what_makes_no_token_is_not_trained():
    module = built("vgg11_bn")
    frozen = {n for n, p in module.named_parameters() if not p.requires_grad}
    assert frozen and all(n.startswith("network.pre_logits.") for n in frozen)


def test_a_learned_patch_stands_for_hidden_ones_once_positions_are_kept():
    module, images = built("test_convnext2"), images_of(INPUTS)
    module.keep_positions()
    hidden = hide(torch.arange(9.0).expand(len(images), 9), 8, module.grid)
    found = module.eval()(images, hidden)
    assert found.seen is None
    loss = found.patches.square().sum()
    (slope,) = torch.autograd.grad(loss, module.mask_patch)
    assert slope.shape == (3, 32, 32)
    assert float(slope.abs().max()) > 0


def test_it_is_named_by_what_stands_after_the_colon():
    config = RunConfig(encoder="timm-cnn:resnet18")
    assert config.encoder == TimmCNN(network="resnet18")
