"""Weights fine-tuned on pooled tokens give timm's pooled features, their last norm included."""

from __future__ import annotations

import pytest
import timm
import torch

from maebench.errors import RunError
from maebench.models.load import load_foreign, load_model

SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def theirs():
    """As the official fine-tuning code saves it: fc_norm, no norm, a head."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = timm.models.VisionTransformer(**SIZES, num_classes=5, global_pool="avg").eval()
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model


@pytest.fixture
def spec(theirs, tmp_path):
    assert "fc_norm.weight" in theirs.state_dict() and "norm.weight" not in theirs.state_dict()
    torch.save({"model": theirs.state_dict()}, tmp_path / "finetuned.pth")
    return f"file:{tmp_path / 'finetuned.pth'},heads=3,image-size=16"


def load(spec, tmp_path):
    return load_model(spec, tmp_path / "results", "cpu", data={"dataset": "digits", "limit": 20})


@torch.no_grad()
def test_mean_pooling_is_timms_pooled_feature_and_cls_is_the_bare_token(theirs, spec, tmp_path):
    model = load(spec, tmp_path)
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    pixels = model.normalise(images)
    features = theirs.forward_features(pixels)
    pooled = theirs.forward_head(features, pre_logits=True)
    torch.testing.assert_close(model.encode(images), pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.encode(images, pool="cls"), features[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.patches(images), features[:, 1:], atol=1e-5, rtol=0)
    before = theirs.forward_intermediates(pixels, intermediates_only=True, output_fmt="NLC")
    torch.testing.assert_close(model.encode(images, 1), before[0].mean(1), atol=1e-5, rtol=0)


def test_the_verdict_says_what_each_pooling_means(spec, tmp_path):
    verdict = load(spec, tmp_path).verdict
    assert verdict.unused == ("head.bias", "head.weight")
    (note,) = verdict.notes
    assert "fc_norm, comes after pooling: applied to the mean" in note
    assert "cls is the class token without a norm" in note


def test_the_norm_belongs_to_the_last_layer_and_counts_in_the_hash(theirs, spec, tmp_path):
    model = load(spec, tmp_path)
    ids = model.encoder.layer_ids()
    assert ids["fc_norm.weight"] == ids["fc_norm.bias"] == model.encoder.depth + 1
    assert not any(name.startswith("norm.") for name in ids)
    tensors = theirs.state_dict()
    torch.save({**tensors, "fc_norm.bias": tensors["fc_norm.bias"] + 1}, tmp_path / "other.pth")
    other = load(spec.replace("finetuned", "other"), tmp_path)
    assert other.weights != model.weights


def test_a_norm_beside_it_is_used_as_before(theirs, spec, tmp_path):
    tensors = theirs.state_dict()
    both = {**tensors, "norm.weight": torch.ones(24), "norm.bias": torch.zeros(24)}
    torch.save(both, tmp_path / "both.pth")
    verdict = load(spec.replace("finetuned", "both"), tmp_path).verdict
    assert "fc_norm.weight" in verdict.unused
    assert verdict.notes == ()


def test_without_either_norm_the_encoder_is_incomplete(theirs, spec, tmp_path):
    tensors = {n: t for n, t in theirs.state_dict().items() if not n.startswith("fc_norm")}
    torch.save(tensors, tmp_path / "none.pth")
    with pytest.raises(RunError, match=r"missing norm\.bias, norm\.weight"):
        load(spec.replace("finetuned", "none"), tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224"])
def test_timms_model_takes_them_too(tmp_path, name):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = timm.create_model(name, global_pool="avg").eval()
        theirs.fc_norm.weight.uniform_()
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    made = load_foreign("timm", name, {"weights": str(tmp_path / "a.pth")})
    assert made.verdict.text == "complete"
    assert any("fc_norm" in note for note in made.verdict.notes)
    images = torch.randn(1, 3, 224, 224)
    encoder = made.module.encoder
    pooled = encoder.pooled_norms["mean"](encoder(images).patches.mean(1))
    own = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
    torch.testing.assert_close(pooled, own, atol=1e-5, rtol=0)
    assert made.facts["pooled_norms"] == ["mean"]


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["beit_base_patch16_224", "eva02_tiny_patch14_224", "vit_medium_patch16_gap_256"]
)
def test_pooled_features_of_timms_own_are_those_that_its_head_sees(name):
    made = load_foreign("timm", name, {})
    encoder, model = made.module.encoder, made.module.encoder.model
    images = torch.randn(1, 3, *made.preprocess.size)
    norm = encoder.pooled_norms.get("mean", torch.nn.Identity())
    pooled = norm(encoder(images).patches.mean(1))
    own = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(pooled, own)
