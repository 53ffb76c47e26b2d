"""Models of timm: tokens and pooled maps as timm gives them, weights with a verdict."""

from __future__ import annotations

import math

import pytest
import timm
import torch

from maebench import ConfigError
from maebench.errors import RunError
from maebench.masking.mask import hide
from maebench.models.from_timm import TimmEncoder
from maebench.models.load import load_foreign

# Small ones of unlike families: prefix tokens, none, registers alone, NCHW and NHWC maps, several
# scales at once, an undeclared class token.
QUICK = ("vit_tiny_patch16_224", "resnet10t", "swin_tiny_patch4_window7_224")
SLOW = (
    *(
        "convnext_atto",
        "eva02_tiny_patch14_224",
        "mixer_s32_224",
        "deit_tiny_distilled_patch16_224",
    ),
    *("hiera_tiny_224", "levit_128s", "cait_xxs24_224", "xcit_nano_12_p16_224", "efficientnet_b0"),
    *("naflexvit_base_patch16_gap", "coat_tiny", "volo_d1_224", "crossvit_9_240", "nest_tiny"),
    *("vit_relpos_small_patch16_224", "mambaout_femto", "densenet121", "vit_small_patch16_dinov3"),
    *("vit_base_patch16_siglip_224", "maxvit_nano_rw_256", "samvit_base_patch16_224"),
)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
@torch.no_grad()
@pytest.mark.slow
def test_features_are_timms_own(name):
    made = load_foreign("timm", name, {})
    encoder, model = made.module.encoder, made.module.encoder.model
    size = made.preprocess.size
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    tokens = encoder(images, None, (1, encoder.depth))
    features = model.forward_features(images)
    last = features[0] if isinstance(features, (list, tuple)) else features
    if last.ndim == 4:
        rows = 1 if getattr(model, "output_fmt", "NCHW") == "NHWC" else 2
        torch.testing.assert_close(tokens.patches.mean(1), last.mean((rows, rows + 1)))
    elif isinstance(features, (list, tuple)):
        pooled = model.forward_head(features, pre_logits=True)
        torch.testing.assert_close(tokens.patches[:, 0], pooled)
    else:
        torch.testing.assert_close(torch.cat([tokens.prefix, tokens.patches], 1), last)
    assert tokens.patches.shape == (2, math.prod(encoder.grid), encoder.width)
    assert set(tokens.layers) == {1, encoder.depth}
    assert all(level.patches.isfinite().all() for level in tokens.layers.values())
    names = {f"model.{n}" for n, _ in model.named_parameters()}
    assert encoder.layer_ids().keys() == names
    assert set(encoder.layer_ids().values()) <= set(range(encoder.depth + 2))
    assert encoder.no_weight_decay() <= names


def test_registers_alone_are_no_class_token():
    one = TimmEncoder(
        timm.models.VisionTransformer(
            img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=0,
            class_token=False, reg_tokens=2, global_pool="avg",
        ),
        (16, 16),
        3,
    )  # fmt: skip
    assert (one.prefix, one.class_token) == (2, False)


def test_the_images_pass_the_weights_own_preprocessing():
    made = load_foreign("timm", "vit_tiny_patch16_224", {})
    assert made.preprocess.dump() == {
        "size": [224, 224],
        "channels": 3,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "crop": 0.9,
    }
    changed = load_foreign("timm", "resnet10t", {"image_size": "64", "crop": "1", "mean": "0"})
    assert (changed.preprocess.size, changed.preprocess.crop) == ((64, 64), 1)
    assert changed.preprocess.mean == (0.0, 0.0, 0.0)


def test_random_weights_say_so_in_name_and_verdict_and_are_the_same_each_time():
    one, other = (load_foreign("timm", "vit_tiny_patch16_224", {}) for _ in range(2))
    assert one.name == "timm:vit_tiny_patch16_224 (random weights)"
    assert "random weights" in str(one.verdict)
    assert "--download" in str(one.verdict)
    state = other.module.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in one.module.state_dict().items())


def test_making_one_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_foreign("timm", "resnet10t", {"image_size": "64"})
    assert torch.equal(torch.get_rng_state(), before)


NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def weights():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return timm.create_model(NAME).state_dict()


def load(tmp_path, tensors):
    torch.save(tensors, tmp_path / "weights.pth")
    return load_foreign("timm", NAME, {"weights": str(tmp_path / "weights.pth")})


@torch.no_grad()
def test_weights_of_a_file_are_complete_and_give_their_features(tmp_path, weights):
    made = load(tmp_path, weights)
    assert (made.verdict.text, made.verdict.used) == ("complete", len(weights))
    assert made.name == f"timm:{NAME},weights={tmp_path / 'weights.pth'}"
    model = timm.create_model(NAME)
    model.load_state_dict(weights)
    images = torch.randn(1, 3, 224, 224)
    tokens = made.module.encoder(images)
    both = torch.cat([tokens.prefix, tokens.patches], 1)
    torch.testing.assert_close(both, model.eval().forward_features(images), atol=1e-5, rtol=0)


def test_a_missing_or_other_head_is_no_matter_and_is_in_the_verdict(tmp_path, weights):
    headless = {k: v for k, v in weights.items() if not k.startswith("head")}
    made = load(tmp_path, headless)
    assert made.verdict.text == "head only missing"
    assert made.verdict.missing == ("head.bias", "head.weight")
    other = {**headless, "head.weight": torch.zeros(7, 192), "head.bias": torch.zeros(7)}
    assert load(tmp_path, other).verdict.text == "head only missing"


def test_a_pretrained_decoder_beside_the_encoder_is_not_used_and_in_the_verdict(tmp_path, weights):
    extra = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 192)}
    assert load(tmp_path, {**weights, **extra}).verdict.unused == (
        "decoder_embed.weight",
        "mask_token",
    )


@pytest.mark.parametrize("how", ["renamed", "missing", "shape", "more"])
def test_an_encoder_that_is_not_filled_is_refused_with_the_key(tmp_path, weights, how):
    tensors, key = dict(weights), "blocks.3.mlp.fc1.weight"
    if how == "renamed":
        tensors["blocks.3.mlp.fcl.weight"] = tensors.pop(key)
    elif how == "missing":
        del tensors[key]
    elif how == "shape":
        tensors[key] = tensors[key][:5]
    else:
        key = tensors_key = "blocks.3.ls1.gamma"
        tensors[tensors_key] = torch.ones(192)
    with pytest.raises(RunError, match=f"encoder is incomplete: .*{key}"):
        load(tmp_path, tensors)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_tiny_patch16_244", {}, "unknown model of timm.*Did you mean 'vit_tiny_patch16_224'"),
        ("vit_tiny_patch16_224.nope", {}, "unknown weights of timm.*augreg_in21k"),
        ("", {}, "names nothing: write timm:NAME"),
        (NAME, {"image_size": "100"}, "image-size 100,100: "),
        (NAME, {"heads": "3"}, "unknown option 'heads'"),
        (NAME, {"weights": "none.pth"}, "there is no such file"),
    ],
)
def test_a_wrong_name_or_option_is_one_line(name, options, message):
    with pytest.raises((ConfigError, RunError), match=message) as caught:
        load_foreign("timm", name, options)
    assert "\n" not in str(caught.value)


def test_it_hides_no_patches():
    encoder = load_foreign("timm", "resnet10t", {"image_size": "64"}).module.encoder
    with pytest.raises(ConfigError, match="hides no patches"):
        encoder(torch.zeros(1, 3, 64, 64), hide(torch.rand(1, 4), 2, (2, 2)))


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("size", [(250, 250), (300, 330)])
def test_images_are_cut_as_timms_own_transform_cuts_them(name, size):
    from PIL import Image

    made = load_foreign("timm", name, {})
    blocks = torch.randint(0, 256, (3, 10, 10), generator=torch.Generator().manual_seed(0))
    picture = blocks.repeat_interleave(33, 1).repeat_interleave(33, 2)[:, : size[0], : size[1]]
    picture = picture.to(torch.uint8)
    data = timm.data.resolve_model_data_config(made.module.encoder.model)
    theirs = timm.data.create_transform(**data)(Image.fromarray(picture.permute(1, 2, 0).numpy()))
    ours = made.preprocess.on("cpu")(picture[None])[0]
    assert (ours - theirs).abs().mean() < 0.02


@pytest.mark.slow
def test_a_class_token_that_joins_in_later_is_named(tmp_path):
    from maebench import NotApplicable
    from maebench.evaluating.features import features
    from maebench.models.load import load_model

    spec = "timm:cait_xxs24_224"
    model = load_model(spec, tmp_path, "cpu", data={"dataset": "digits", "limit": 20})
    images = model.splits.load("train")
    with pytest.raises(ConfigError, match="layer 2 of .* has no cls"):
        model.encode(images.pick([0]), 2, "cls")
    with pytest.raises(NotApplicable, match="layer 2 of .* has no cls"):
        features(model, images.subset(torch.arange(2)), 2, "cls")
    assert model.encode(images.pick([0]), None, "cls").shape == (1, 192)
