"""ViT and DINOv2 of transformers: their hidden states as tokens, their pre-processing, a verdict."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from maebench import ConfigError
from maebench.errors import RunError
from maebench.masking.mask import hide
from maebench.models.load import load_foreign

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 16,
    "patch_size": 4,
}
PREPROCESSOR = {
    "do_resize": True,
    "size": {"shortest_edge": 18},
    "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16},
    "resample": 3,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.3, 0.4],
}


def made(kind):
    """A model of transformers, small, every weight drawn."""
    import transformers as t

    torch.manual_seed(0)
    model = {
        "vit": lambda: t.ViTModel(t.ViTConfig(**SIZES, intermediate_size=48)),
        "classifier": lambda: t.ViTForImageClassification(
            t.ViTConfig(**SIZES, intermediate_size=48, num_labels=5)
        ),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**SIZES)),
        "registers": lambda: t.Dinov2WithRegistersModel(
            t.Dinov2WithRegistersConfig(**SIZES, num_register_tokens=2)
        ),
    }[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model.eval()


@pytest.fixture(scope="module", params=["vit", "classifier", "dinov2", "registers"])
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng():
        model = made(request.param)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return request.param, model, folder


@torch.no_grad()
def test_tokens_are_the_hidden_states(saved):
    kind, theirs, folder = saved
    for prefix in ("hf", "file"):
        encoder = load_foreign(prefix, str(folder), {}).module.encoder
        images = torch.randn(2, 3, 16, 16)
        found = getattr(theirs, "vit", theirs)(images, output_hidden_states=True)
        tokens = encoder(images, None, (1, 3))
        both = torch.cat([tokens.prefix, tokens.patches], 1)
        torch.testing.assert_close(both, found.last_hidden_state, atol=1e-5, rtol=0)
        for layer, level in tokens.layers.items():
            both = torch.cat([level.prefix, level.patches], 1)
            torch.testing.assert_close(both, found.hidden_states[layer], atol=1e-5, rtol=0)
        assert encoder.prefix == (3 if kind == "registers" else 1)
        assert (encoder.depth, encoder.width, encoder.grid) == (3, 24, (4, 4))
        assert set(encoder.layer_ids().values()) == {0, 1, 2, 3, 4}


def test_the_preprocessing_beside_the_weights_comes_with_them(saved):
    found = load_foreign("hf", str(saved[2]), {}).preprocess.dump()
    assert (found["mean"], found["std"]) == (PREPROCESSOR["image_mean"], PREPROCESSOR["image_std"])
    assert (found["size"], found["interpolation"]) == ([16, 16], "bicubic")
    assert found["crop"] == pytest.approx(16 / 18)


def test_the_verdict_says_whether_a_classifier_is_there(saved):
    verdict = load_foreign("hf", str(saved[2]), {}).verdict
    assert verdict.text == ("complete" if saved[0] == "classifier" else "head only missing")
    assert any("classifier" in name for name in verdict.unused) == (saved[0] == "classifier")


@torch.no_grad()
def test_another_size_interpolates_positions_as_transformers_does(saved):
    kind, theirs, folder = saved
    encoder = load_foreign("hf", str(folder), {"image_size": "24"}).module.encoder
    images = torch.randn(1, 3, 24, 24)
    more = {} if kind in ("dinov2", "registers") else {"interpolate_pos_encoding": True}
    found = getattr(theirs, "vit", theirs)(images, **more).last_hidden_state
    tokens = encoder(images)
    both = torch.cat([tokens.prefix, tokens.patches], 1)
    torch.testing.assert_close(both, found, atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="22x22 is no multiple of the patch 4"):
        load_foreign("hf", str(folder), {"image_size": "22"})


def test_a_renamed_key_is_refused(saved, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(saved[2], folder)
    tensors = load_file(folder / "model.safetensors")
    name = next(n for n in tensors if n.endswith("1.attention.attention.key.weight"))
    tensors[name.replace("key", "kee")] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"encoder is incomplete: missing .*left over .*kee"):
        load_foreign("hf", str(folder), {})


def test_without_preprocessing_it_is_asked_for(tmp_path):
    made("vit").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no preprocessor_config.json says .*,mean=0.5"):
        load_foreign("hf", str(tmp_path), {})
    found = load_foreign("hf", str(tmp_path), {"mean": "0.5", "std": "0.5"})
    assert found.preprocess.mean == (0.5, 0.5, 0.5)


def test_another_kind_of_model_is_refused_and_so_is_a_hub_that_was_not_to_be_asked(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(
        ConfigError, match="unknown kind of model 'gpt2'.*There is: bert, deit, dinov2"
    ):
        load_foreign("hf", str(tmp_path), {})
    with pytest.raises(RunError, match="nothing was downloaded: --download asks the hub") as caught:
        load_foreign("hf", "nobody/nothing", {})
    assert "\n" not in str(caught.value)


def test_it_hides_no_patches(saved):
    encoder = load_foreign("hf", str(saved[2]), {}).module.encoder
    with pytest.raises(ConfigError, match="hides no patches"):
        encoder(torch.zeros(1, 3, 16, 16), hide(torch.rand(1, 16), 8, (4, 4)))


def copied(folder, tmp_path):
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change(folder, tmp_path, **config):
    copy = copied(folder, tmp_path)
    content = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**content, **config}))
    return copy


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "asks for quantization_config"),
        ({"auto_map": {"AutoModel": "evil.Evil"}}, "asks for auto_map"),
        ({"patch_size": 0}, "cannot be read: "),
        ({"image_size": "x"}, "hf:"),
        ({"hidden_size": 48}, "encoder is incomplete: .*other shape"),
    ],
)
def test_a_folder_that_asks_for_more_than_weights_or_for_what_cannot_be_is_one_line(
    saved, tmp_path, config, message
):
    with pytest.raises((RunError, ConfigError), match=message) as caught:
        load_foreign("hf", str(change(saved[2], tmp_path, **config)), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: (100 * t).to(torch.int8), "weights of int8 where real numbers are wanted"),
        (lambda t: t * torch.inf, "NaN or infinity in"),
    ],
)
def test_weights_that_are_no_finite_real_numbers_are_refused(saved, tmp_path, change, message):
    from safetensors.torch import load_file, save_file

    copy = copied(saved[2], tmp_path)
    tensors = load_file(copy / "model.safetensors")
    name = next(n for n in tensors if "layer.1." in n and n.endswith("weight") and "norm" not in n)
    tensors[name] = change(tensors[name])
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match=f"{message}.*{name}"):
        load_foreign("hf", str(copy), {})


def test_files_of_which_one_is_of_another_version_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    with torch.random.fork_rng():
        made("vit").save_pretrained(tmp_path, max_shard_size="20KB")
    content = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    name, first = next(iter(content.items()))
    last = tmp_path / max(content.values())
    assert last.name != first
    stale = {name: torch.full_like(load_file(tmp_path / first)[name], 7.0)}
    save_file(load_file(last) | stale, last, metadata={"format": "pt"})
    with pytest.raises(RunError, match=f"{name} in files where the index does not look for"):
        load_foreign("hf", str(tmp_path), {"mean": "0.5", "std": "0.5"})


def test_of_two_files_of_weights_in_a_folder_it_is_said_which_was_taken(saved, tmp_path):
    copy = copied(saved[2], tmp_path)
    torch.save({}, copy / "pytorch_model.bin")
    (note,) = load_foreign("hf", str(copy), {}).verdict.notes
    assert note.startswith("model.safetensors was taken; the folder holds pytorch_model.bin too")


def test_a_folder_cannot_choose_its_attention_or_precision(saved, tmp_path):
    asks = {"attn_implementation": "nobody/kernel", "_attn_implementation": "nobody/kernel"}
    copy = change(saved[2], tmp_path, dtype="float16", **asks)
    encoder = load_foreign("hf", str(copy), {}).module.encoder
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert encoder.model.config._attn_implementation == "sdpa"


def test_what_changes_the_function_and_not_the_weights_changes_the_facts(saved, tmp_path):
    one = load_foreign("hf", str(saved[2]), {}).facts
    other = load_foreign("hf", str(change(saved[2], tmp_path, layer_norm_eps=0.1)), {}).facts
    assert one == load_foreign("hf", str(saved[2]), {}).facts != other


@pytest.mark.parametrize(
    ("preprocessor", "message"),
    [
        ({"size": 16}, "no preprocessor_config.json says mean"),
        ({**PREPROCESSOR, "resample": 1}, "resample in preprocessor_config.json is 1"),
        ({**PREPROCESSOR, "image_mean": [0.5]}, "3 numbers"),
    ],
)
def test_a_preprocessor_that_is_not_understood_is_one_line(saved, tmp_path, preprocessor, message):
    copy = change(saved[2], tmp_path)
    (copy / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    with pytest.raises((RunError, ConfigError), match=message):
        load_foreign("hf", str(copy), {})


def test_a_preprocessor_that_does_not_normalise_is_obeyed(saved, tmp_path):
    copy = change(saved[2], tmp_path)
    preprocessor = {**PREPROCESSOR, "do_normalize": False}
    (copy / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    made = load_foreign("hf", str(copy), {}).preprocess
    assert (made.mean, made.std) == ((0.0,) * 3, (1.0,) * 3)


def test_what_its_config_says_is_not_said_again(saved):
    with pytest.raises(ConfigError, match="its config.json says all; leave out heads"):
        load_foreign("file", str(saved[2]), {"heads": "3"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_hidden_layers": 10**9}, "states 1,000,000,000 blocks, and there are"),
        ({"hidden_size": 3 * 10**6}, "a network of [0-9,]{12,} numbers, and its weights are"),
        ({"num_channels": 10**9}, "a network of [0-9,]{12,} numbers"),
        ({"image_size": 10**6}, "a network of [0-9,]{12,} numbers"),
    ],
)
def test_a_config_that_states_a_far_larger_network_than_the_weights_is_refused_at_once(
    saved, tmp_path, config, message
):
    copy = change(saved[2], tmp_path, **config)
    start = time.monotonic()
    with pytest.raises(RunError, match=message):
        load_foreign("hf", str(copy), {})
    assert time.monotonic() - start < 3


def test_a_preprocessor_that_wants_absurd_images_is_refused(saved, tmp_path):
    copy = copied(saved[2], tmp_path)
    (copy / "preprocessor_config.json").write_text(
        json.dumps({**PREPROCESSOR, "crop_size": {"height": 10**6, "width": 10**6}})
    )
    with pytest.raises(ConfigError, match="images of 3x1000000x1000000 .* 16384 pixels of a side"):
        load_foreign("hf", str(copy), {})
