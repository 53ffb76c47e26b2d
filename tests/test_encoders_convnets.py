import pytest
import timm
import torch
from pydantic import ValidationError

from maebench import ConfigError, Inputs, RunConfig
from maebench.encoders import (
    ConvNeXtNano,
    ConvNeXtNanoLeaky,
    ConvNeXtTiny,
    ResNet18,
    ResNetNano,
)
from maebench.encoders.convnets import finer
from maebench.pretraining.plan import prepare
from maebench.rng import isolated
from maebench.testing import EncoderContract
from maebench.testing.cases import images_of, mask_of
from maebench.testing.modules import shake

pytestmark = pytest.mark.slow  # models are trained and asked anew


class TestContractOfConvNeXt(EncoderContract):
    component = ConvNeXtNano


class TestContractOfResNet(EncoderContract):
    component = ResNetNano


class TestContractOfTheLeakyControl(EncoderContract):
    component = ConvNeXtNanoLeaky


INPUTS = Inputs.of_images(3, (64, 64))


def ours_and_theirs(name):
    """A module of ours and a network of timm with the same weights, with nothing hidden."""
    with isolated(0, "encoder"):
        if name == "resnet18":
            ours = shake(ResNet18(patch=4).build(INPUTS))
            theirs = timm.create_model(name, num_classes=0)
        else:
            ours = shake(ConvNeXtTiny(widths=(40, 80, 160, 320), depths=(2, 2, 6, 2)).build(INPUTS))
            theirs = timm.create_model(name, num_classes=0, conv_mlp=True)
    names = {
        **{"conv1": "stem.0", "bn1": "stem.1", "stem": "stem"},
        **{f"layer{s + 1}": f"stages.{s}" for s in range(4)},
        **{f"stages.{s}.downsample": f"leads.{s}" for s in range(4)},
        **{f"stages.{s}.blocks": f"stages.{s}" for s in range(4)},
    }
    mine, own = ours.state_dict(), {}
    for their in theirs.state_dict():
        start = next((n for n in names if their.startswith(f"{n}.")), None)
        if start is not None:
            own[their] = mine.pop(names[start] + their.removeprefix(start))
    assert set(mine) <= {"norm.weight", "norm.bias"}
    missing = theirs.load_state_dict(own, strict=False).missing_keys
    assert all(name.startswith("head.") for name in missing)
    return ours, theirs.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "convnextv2_atto"])
def test_with_nothing_hidden_it_is_timms_network(name):
    ours, theirs = ours_and_theirs(name)
    images = images_of(INPUTS)
    last = ours(images, None, [ours.depth]).layers[ours.depth]
    whole = theirs.forward_features(images)
    assert tuple(whole.shape[2:]) == last.grid == ours.out_grid == (2, 2)
    scale = whole.abs().max()
    assert torch.allclose(last.patches, whole.flatten(2).transpose(1, 2), atol=1e-5 * scale)


@torch.no_grad()
@pytest.mark.parametrize("cls", [ConvNeXtNano, ResNetNano])
def test_tokens_are_the_seen_cells_of_maps_that_are_0_elsewhere(cls):
    with isolated(0, "encoder"):
        module = shake(cls().build(Inputs.of_images(1, (28, 28))))
    images, mask = images_of(module.inputs), mask_of(module.grid, 0.75)
    maps = []
    for stage in module.stages:
        stage[-1].register_forward_hook(lambda m, i, x: maps.append(x))
    tokens = module(images, mask, [2, 4])
    for number, x in zip((2, 4), maps, strict=True):
        level = tokens.layers[number]
        assert level.grid == tuple(x.shape[2:])
        full = level.on_grid(torch.zeros(1))
        assert torch.equal(full, x.flatten(2).transpose(1, 2))
    assert tokens.seen.tolist() == mask.seen.tolist()
    assert tokens.layers[2].seen.shape[1] == 4 * mask.seen.shape[1]


def test_places_on_a_finer_grid_are_those_of_the_seen_cells():
    mask = mask_of((3, 4), 0.5)
    places = finer(mask, (6, 8))
    for image in range(len(places)):
        rows, columns = places[image] // 8 // 2, places[image] % 8 // 2
        assert set((rows * 4 + columns).tolist()) == set(mask.seen[image].tolist())
        assert (places[image].diff() > 0).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="do not divide images of 30x30"):
        ResNetNano().build(Inputs.of_images(1, (30, 30)))
    with pytest.raises(ConfigError, match="encoder.widths: \\(8, 16, 32\\) must name one number"):
        ConvNeXtNano(widths=(8, 16, 32)).build(Inputs.of_images(1, (28, 28)))


@torch.no_grad()
def test_the_leaky_control_is_the_same_network_that_fills_what_is_hidden():
    inputs = Inputs.of_images(3, (32, 32))
    with isolated(0, "encoder"):
        plain = ConvNeXtNano().build(inputs)
    with isolated(0, "encoder"):
        leaky = ConvNeXtNanoLeaky().build(inputs)
    for name, value in leaky.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name
    leaky, plain = shake(leaky).eval(), shake(plain).eval()
    images, mask = images_of(inputs), mask_of(leaky.grid)
    found, honest = leaky(images, mask), plain(images, mask)
    assert found.seen is None
    assert torch.equal(honest.seen, mask.seen)
    filled = found.patches[mask.hidden]
    assert float(filled.std(dim=0).max()) > 0, "what lies around has spilled into the holes"


def test_an_encoder_that_greys_hidden_patches_out_must_declare_it():
    class Undeclared(ConvNeXtNanoLeaky):
        leaky = False

        def build(self, inputs):
            return ConvNeXtNanoLeaky(**self.model_dump(exclude={"name"})).build(inputs)

    class Overdeclared(ConvNeXtNano):
        leaky = True

        def build(self, inputs):
            return ConvNeXtNano(**self.model_dump(exclude={"name"})).build(inputs)

    class TestUndeclared(EncoderContract):
        component = Undeclared

    class TestOverdeclared(EncoderContract):
        component = Overdeclared

    for contract, told in (
        (TestUndeclared, "does not declare leaky"),
        (TestOverdeclared, "can tell"),
    ):
        with pytest.raises(AssertionError, match=told):
            contract().test_a_hidden_patch_is_no_grey_one_or_it_says_so()


def test_an_even_kernel_is_refused():
    with pytest.raises(ValidationError, match="an odd side is wanted"):
        ConvNeXtNano(kernel=4)


def test_a_run_of_the_leaky_control_says_what_it_is(tmp_path):
    made = {"encoder": ConvNeXtNanoLeaky(widths=(8, 16), depths=(1, 1)), "limit": 20}
    made |= {"budget": "steps=1", "batch": 4, "device": "cpu"}
    with pytest.warns(
        UserWarning, match="convnext-nano-leaky is a control: hidden patches are grey"
    ):
        prepare(RunConfig(**made), tmp_path)
    prepare(RunConfig(**made, objective="supervised"), tmp_path)
