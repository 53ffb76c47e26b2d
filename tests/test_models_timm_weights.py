"""A file's weights in a model of timm: of another image size, of several sets, below wrappers."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from maebench.encoders.blocks import sincos_positions
from maebench.errors import ConfigError, RunError
from maebench.models.load import load_foreign

NAME = "vit_tiny_patch16_224"
SHALLOW = partial(timm.create_model, depth=2)  # two blocks do as well as twelve


def network(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return SHALLOW(NAME, num_classes=0, **changes).eval()


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    monkeypatch.setattr(timm, "create_model", SHALLOW)


@pytest.fixture(scope="module")
def trained_at_64():
    return network(img_size=64)


def load(tmp_path, tensors, **options):
    torch.save(tensors, tmp_path / "weights.pth")
    return load_foreign("timm", NAME, {"weights": str(tmp_path / "weights.pth"), **options})


@torch.no_grad()
def test_weights_of_another_size_are_taken_at_their_own(tmp_path, trained_at_64):
    made = load(tmp_path, trained_at_64.state_dict(), image_size="64")
    images = torch.randn(1, 3, 64, 64)
    tokens = made.module.encoder(images)
    both = torch.cat([tokens.prefix, tokens.patches], 1)
    torch.testing.assert_close(both, trained_at_64.forward_features(images), atol=1e-5, rtol=0)
    assert (made.verdict.notes, made.preprocess.size) == ((), (64, 64))


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 96), (32, 128), (224, 224)])
def test_weights_of_another_size_are_resampled_by_timm_with_a_word(tmp_path, size):
    theirs = network(img_size=64)
    theirs.pos_embed[0, 1:] = sincos_positions((4, 4), 192)
    tensors = {n: t.clone() for n, t in theirs.state_dict().items()}
    made = load(tmp_path, tensors, image_size=f"{size[0]},{size[1]}")
    assert made.verdict.notes == (f"positions of 64x64 images resampled for {size[0]}x{size[1]}",)
    grid = size[0] // 16, size[1] // 16
    wanted = resample_abs_pos_embed(tensors["pos_embed"], grid, (4, 4), num_prefix_tokens=1)
    torch.testing.assert_close(made.module.encoder.model.pos_embed, wanted)
    assert made.module.encoder.grid == grid


def test_without_a_size_the_one_of_the_weights_is_asked_for(tmp_path, trained_at_64):
    tensors = dict(trained_at_64.state_dict())
    tensors["pos_embed"] = torch.cat([torch.zeros(1, 192), sincos_positions((4, 4), 192)])[None]
    with pytest.raises(ConfigError, match=r"of 4x4 patches, images of 64x64: add ,image-size=64"):
        load(tmp_path, tensors)


def test_positions_that_show_no_grid_and_fit_no_stated_one_are_asked_for(tmp_path, trained_at_64):
    with pytest.raises(ConfigError, match="17 learned positions do not show their grid"):
        load(tmp_path, trained_at_64.state_dict(), image_size="96")
    content = {"state_dict": trained_at_64.state_dict(), "args": {"img_size": 64}}
    made = load(tmp_path, content, image_size="96")
    assert made.verdict.notes == ("positions of 64x64 images resampled for 96x96",)


def test_an_oblong_grid_of_as_many_patches_is_not_taken_for_the_square_one(tmp_path):
    tensors = network().state_dict()
    oblong = torch.cat([torch.zeros(1, 192), sincos_positions((7, 28), 192)])[None]
    with pytest.raises(ConfigError, match=r"of 7x28 patches, images of 112x448"):
        load(tmp_path, {**tensors, "pos_embed": oblong})
    made = load(tmp_path, {**tensors, "pos_embed": oblong}, image_size="112,448")
    torch.testing.assert_close(made.module.encoder.model.pos_embed, oblong)


def test_a_set_of_weights_is_chosen_by_its_key(tmp_path):
    raw = network().state_dict()
    mean = {n: t + 1 for n, t in raw.items()}
    content = {"state_dict": raw, "state_dict_ema": mean, "epoch": 3}
    made = load(tmp_path, content)
    assert made.verdict.notes[0].startswith("the raw weights of key state_dict were taken")
    made = load(tmp_path, content, key="state_dict_ema")
    own = made.module.encoder.model.state_dict()
    assert made.verdict.notes == ()
    assert all(torch.equal(own[n], mean[n]) for n in own)
    assert made.name.endswith(",key=state_dict_ema")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model._orig_mod.backbone."])
def test_wrappers_and_a_whole_model_below_a_name_are_seen_through(tmp_path, prefix):
    raw = network().state_dict()
    wrapped = {f"{prefix}{n.replace('blocks.1.', 'blocks.1._orig_mod.')}": raw[n] for n in raw}
    made = load(tmp_path, wrapped)
    own = made.module.encoder.model.state_dict()
    assert all(torch.equal(own[n], raw[n]) for n in own)
    assert made.verdict.unused == ()


def test_what_lies_beside_a_whole_model_is_not_used_and_in_the_verdict(tmp_path):
    wrapped = {f"backbone.{n}": t for n, t in network().state_dict().items()}
    made = load(tmp_path, {**wrapped, "projector.0.weight": torch.ones(3, 3)})
    assert made.verdict.unused == ("projector.0.weight",)


def test_weights_that_are_no_finite_real_numbers_are_refused(tmp_path):
    own = network().state_dict()
    name = "blocks.1.mlp.fc1.weight"
    for odd, message in (
        ((100 * own[name]).to(torch.int8), "weights of int8 where real numbers are wanted"),
        (own[name] * torch.nan, "NaN or infinity in"),
    ):
        with pytest.raises(RunError, match=f"{message}.* {name}"):
            load(tmp_path, {**own, name: odd})


def test_counters_beside_weights_stay_whole_numbers(tmp_path, monkeypatch):
    monkeypatch.undo()  # a residual network has no depth
    with torch.random.fork_rng():
        tensors = timm.create_model("resnet18", num_classes=0).state_dict()
    tensors["bn1.num_batches_tracked"] = torch.tensor(7)
    torch.save(tensors, tmp_path / "weights.pth")
    made = load_foreign("timm", "resnet18", {"weights": str(tmp_path / "weights.pth")})
    assert made.module.encoder.state_dict()["model.bn1.num_batches_tracked"] == 7


def test_a_key_without_a_file_is_refused():
    with pytest.raises(ConfigError, match="a key is for ,weights=FILE, which is not given"):
        load_foreign("timm", NAME, {"key": "model"})
