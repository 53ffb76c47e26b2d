"""Other people's masked autoencoders give the numbers that their own code gives."""

from __future__ import annotations

import argparse
import json
import re
import time

import pytest
import torch
from torch import Tensor

from maebench import Batch, ConfigError, MaebenchError
from maebench.encoders.blocks import sincos_positions
from maebench.errors import RunError
from maebench.masking.mask import hide
from maebench.models.load import load_foreign
from maebench.rng import Draws

B, SIDE, PATCH, WIDTH, HEADS = 2, 16, 4, 24, 3
NOISE = torch.rand(B, 16, generator=torch.Generator().manual_seed(2))
IMAGES = torch.randn(B, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
MASK = hide(NOISE, 12, (4, 4))


def hugging_face(normalised=True, eps=1e-12, **changes):
    """Their model with every weight drawn, positions and tokens included."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        **{
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
            "intermediate_size": 4 * WIDTH,
            "layer_norm_eps": eps,
            "image_size": SIDE,
            "patch_size": PATCH,
            "decoder_hidden_size": 16,
            "decoder_num_hidden_layers": 2,
            "decoder_num_attention_heads": 2,
            "decoder_intermediate_size": 64,
            "norm_pix_loss": normalised,
            **changes,
        }
    )
    model = ViTMAEForPreTraining(config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        model.decoder.decoder_pos_embed[:, 0] = 0  # the class token's, as sin-cos positions have it
        # positions that show their grid, as in the official code
        model.vit.embeddings.position_embeddings[0, 1:] = sincos_positions((4, 4), WIDTH)
    return model


HUB = (  # what the hub's files are called, from transformers 4
    ("vit.layers.", "vit.encoder.layer."),
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)


def hub_names(model) -> dict[str, Tensor]:
    made = {}
    for name, value in model.state_dict().items():
        for now, before in HUB:
            name = name.replace(now, before)
        made[name] = value.contiguous()
    return made


def official_names(model) -> dict[str, Tensor]:
    """The weights as the official code calls them: its full checkpoints' 12 a block and 18."""
    own = model.state_dict()
    made = {}
    for name, value in own.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:
            value = torch.cat([own[name.replace("q_proj", f"{p}_proj")] for p in "qkv"])
        for theirs, official in (
            ("vit.layers.", "blocks."),
            ("decoder.decoder_layers.", "decoder_blocks."),
            ("vit.embeddings.patch_embeddings.projection.", "patch_embed.proj."),
            ("vit.embeddings.cls_token", "cls_token"),
            ("vit.embeddings.position_embeddings", "pos_embed"),
            ("vit.layernorm.", "norm."),
            (".layernorm_before.", ".norm1."),
            (".layernorm_after.", ".norm2."),
            (".attention.q_proj.", ".attn.qkv."),
            (".attention.o_proj.", ".attn.proj."),
            ("decoder.", ""),
        ):
            name = name.replace(theirs, official)
        made[name] = value
    return made


def encoder_only(tensors):
    return {
        name: t for name, t in tensors.items() if not name.startswith(("decoder", "mask_token"))
    }


def write_folder(model, folder, how):
    from safetensors.torch import save_file

    model.save_pretrained(folder)  # config.json, and the names of the installed version
    if how == "installed":
        return
    (folder / "model.safetensors").unlink()
    if how == "hub":
        save_file(hub_names(model), folder / "model.safetensors", metadata={"format": "pt"})
    elif how == "memory":
        save_file(model.state_dict(), folder / "model.safetensors")
    else:
        torch.save(hub_names(model), folder / "pytorch_model.bin")


def same_numbers(module, theirs, atol=1e-5):
    """Loss, prediction and features under one mask, and features of whole images."""
    ids = torch.arange(B)
    with torch.no_grad():
        found = theirs(IMAGES, noise=NOISE)
        assert torch.equal(found.mask.bool(), MASK.hidden)
        loss = module(Batch(IMAGES, ids, Draws(0, "objective", ids), MASK))["loss"]
        torch.testing.assert_close(loss, found.loss, atol=atol, rtol=0)
        made = module.reconstruct(IMAGES, MASK)
        torch.testing.assert_close(made.prediction, found.logits, atol=atol, rtol=0)
        same_features(module, theirs, atol)


@torch.no_grad()
def same_features(module, theirs, atol=1e-5):
    before, theirs.config.mask_ratio = theirs.config.mask_ratio, 0.0
    order = torch.arange(16.0).expand(B, -1)
    whole = theirs.vit(IMAGES, noise=order, output_hidden_states=True)
    theirs.config.mask_ratio = before
    tokens = module.encoder(IMAGES, None, (1,))
    both = torch.cat([tokens.prefix, tokens.patches], 1)
    torch.testing.assert_close(both, whole.last_hidden_state, atol=atol, rtol=0)
    first = torch.cat([tokens.layers[1].prefix, tokens.layers[1].patches], 1)
    torch.testing.assert_close(first, whole.hidden_states[1], atol=atol, rtol=0)


# ---- Hugging Face's files


@pytest.mark.parametrize("how", ["installed", "hub", "memory", "bin"])
@pytest.mark.parametrize("normalised", [True, False])
def test_a_folder_of_vitmae_gives_hugging_faces_numbers(tmp_path, how, normalised):
    theirs = hugging_face(normalised)
    write_folder(theirs, tmp_path, how)
    for kind in ("file", "hf"):
        made = load_foreign(kind, str(tmp_path), {})
        assert (made.verdict.text, made.no_decoder) == ("complete", "")
        assert made.verdict.missing == made.verdict.unused == ()
        assert (
            made.module.target.space == "normalised-pixels"
        ) == normalised  # read off config.json
        same_numbers(made.module, theirs)


def test_a_folder_in_several_files_is_read_whole(tmp_path):
    theirs = hugging_face()
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    same_numbers(load_foreign("hf", str(tmp_path), {}).module, theirs)


def test_a_shard_that_lies_elsewhere_is_refused(tmp_path):
    hugging_face().save_pretrained(tmp_path, max_shard_size="40KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {k: f"../{v}" for k, v in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    with pytest.raises(RunError, match="names '../model-.*', which is no file beside it"):
        load_foreign("hf", str(tmp_path), {})


def test_an_encoder_alone_of_hugging_face_is_read_too(tmp_path):
    theirs = hugging_face()
    theirs.vit.save_pretrained(tmp_path)
    made = load_foreign("hf", str(tmp_path), {})
    assert (made.verdict.text, made.no_decoder) == (
        "decoder missing",
        "the weights hold no decoder",
    )
    same_features(made.module, theirs)


# ---- the official code's three kinds of file


@pytest.mark.parametrize("normalised", [True, False])
def test_a_full_official_checkpoint_gives_the_same_numbers(tmp_path, normalised):
    theirs = hugging_face(normalised, eps=1e-6)
    torch.save({"model": official_names(theirs)}, tmp_path / "full.pth")
    target = "normalised-pixels" if normalised else "pixels"
    options = {"heads": "3", "decoder_heads": "2", "target": target}
    made = load_foreign("file", str(tmp_path / "full.pth"), options)
    assert made.verdict.text == "complete"
    assert made.verdict.used == 6 + 12 * 2 + 8 + 12 * 2  # as in the official code, of depth 2 and 2
    same_numbers(made.module, theirs)
    assert made.name.endswith(f"full.pth,heads=3,decoder-heads=2,target={target}")


def test_an_encoder_only_official_checkpoint_cannot_reconstruct(tmp_path):
    theirs = hugging_face(eps=1e-6)
    torch.save({"model": encoder_only(official_names(theirs))}, tmp_path / "encoder.pth")
    made = load_foreign("file", str(tmp_path / "encoder.pth"), {"heads": "3"})
    assert made.verdict.text == "decoder missing"
    assert made.no_decoder == "the weights hold no decoder"
    assert not hasattr(made.module, "reconstruct")
    same_features(made.module, theirs)


def test_a_training_checkpoint_says_its_target_in_its_arguments(tmp_path):
    theirs = hugging_face(True, eps=1e-6)
    optimiser = torch.optim.AdamW(theirs.parameters())
    args = argparse.Namespace(norm_pix_loss=True, mask_ratio=0.75, model="mae_vit_tiny")
    content = {"model": official_names(theirs), "optimizer": optimiser.state_dict(), "epoch": 9}
    torch.save({**content, "args": args, "scaler": {}}, tmp_path / "checkpoint-9.pth")
    path = str(tmp_path / "checkpoint-9.pth")
    made = load_foreign("file", path, {"heads": "3", "decoder_heads": "2"})
    assert made.module.target.space == "normalised-pixels"
    same_numbers(made.module, theirs)


def test_what_nobody_says_of_a_decoder_is_asked_for_when_it_is_needed(tmp_path):
    torch.save({"model": official_names(hugging_face())}, tmp_path / "full.pth")
    made = load_foreign("file", str(tmp_path / "full.pth"), {"heads": "3"})
    assert "heads of a decoder of width 16 are not known: ,decoder-heads=N" in made.no_decoder
    options = {"heads": "3", "decoder_heads": "2"}
    made = load_foreign("file", str(tmp_path / "full.pth"), options)
    assert "do not say what they predict: add ,target=" in made.no_decoder
    assert made.verdict.text == "complete"
    assert not hasattr(made.module, "reconstruct")


# ---- timm


@torch.no_grad()
@pytest.mark.parametrize("kind", ["plain", "registers", "no_embed_class", "oblong"])
def test_a_vision_transformer_of_timm_gives_timms_features(tmp_path, kind):
    from safetensors.torch import save_file
    from timm.models import VisionTransformer

    kinds = {
        "plain": {},
        "registers": {"reg_tokens": 2},
        "no_embed_class": {"no_embed_class": True, "reg_tokens": 1},
        "oblong": {"img_size": (8, 16)},
    }
    theirs = VisionTransformer(
        **{
            "img_size": SIDE,
            "patch_size": PATCH,
            "embed_dim": WIDTH,
            "depth": 2,
            "num_heads": HEADS,
            "num_classes": 7,
            **kinds[kind],
        }
    ).eval()
    for parameter in theirs.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape))
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    # drawn positions show no grid: the size has to be stated
    options = {"heads": "3", "image_size": "8,16" if kind == "oblong" else "16"}
    square = kind in ("plain", "registers")
    message = r"do not show their grid.*,image-size=16$" if square else "no square grid.*=96,192$"
    with pytest.raises(ConfigError, match=message):
        load_foreign("file", str(tmp_path / "vit.safetensors"), {"heads": "3"})
    made = load_foreign("file", str(tmp_path / "vit.safetensors"), options)
    assert made.verdict.unused == ("head.bias", "head.weight")
    images = IMAGES[:, :, :8] if kind == "oblong" else IMAGES
    tokens = made.module.encoder(images)
    both = torch.cat([tokens.prefix, tokens.patches], 1)
    torch.testing.assert_close(both, theirs.forward_features(images), atol=1e-5, rtol=0)


def test_parts_that_change_the_function_are_not_dropped(tmp_path):
    from timm.models import VisionTransformer

    size = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 1, "num_heads": 3}
    theirs = VisionTransformer(**size, init_values=1e-5)
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ConfigError, match=r"has no blocks.0.ls1.gamma.*timm:NAME,weights="):
        load_foreign("file", str(tmp_path / "vit.pth"), {"heads": "3", "image_size": "16"})


# ---- what does not fit


def saved(tmp_path, tensors):
    torch.save({"model": tensors}, tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


def test_a_renamed_key_of_the_encoder_is_refused_with_its_name_and_the_nearest(tmp_path):
    tensors = encoder_only(official_names(hugging_face()))
    tensors["blocks.1.attn.qkw.weight"] = tensors.pop("blocks.1.attn.qkv.weight")
    with pytest.raises(RunError) as caught:
        load_foreign("file", saved(tmp_path, tensors), {"heads": "3"})
    assert "encoder is incomplete" in str(caught.value)
    assert "missing blocks.1.attn.qkv.weight (is it blocks.1.attn.qkw.weight?)" in str(caught.value)
    assert "left over blocks.1.attn.qkw.weight" in str(caught.value)


def test_every_key_of_the_encoder_is_needed(tmp_path):
    whole = encoder_only(official_names(hugging_face()))
    assert len(whole) == 6 + 12 * 2
    for name in whole:
        tensors = {k: v for k, v in whole.items() if k != name}
        with pytest.raises(MaebenchError, match=f"missing .*{name}"):
            load_foreign("file", saved(tmp_path, tensors), {"heads": "3"})


ODD = [
    (lambda t: (100 * t).to(torch.int8), "weights of int8 where real numbers are wanted"),
    (lambda t: t.to(torch.complex64), "weights of complex64"),
    (lambda t: torch.where(t > t.mean(), torch.nan, t), "NaN or infinity in"),
    (lambda t: torch.where(t > t.mean(), torch.inf, t), "NaN or infinity in"),
]


@pytest.mark.parametrize(("change", "message"), ODD)
@pytest.mark.parametrize("name", ["blocks.1.attn.qkv.weight", "decoder_blocks.0.mlp.fc1.bias"])
def test_weights_that_are_no_finite_real_numbers_are_refused(tmp_path, name, change, message):
    tensors = official_names(hugging_face())
    tensors[name] = change(tensors[name])
    options = {"heads": "3", "decoder_heads": "2", "target": "pixels"}
    with pytest.raises(RunError, match=f"{message}.* {name}"):
        load_foreign("file", saved(tmp_path, tensors), options)


def test_a_head_that_is_not_used_may_hold_anything(tmp_path):
    tensors = encoder_only(official_names(hugging_face()))
    tensors["head.weight"] = torch.full((3, WIDTH), torch.nan)
    made = load_foreign("file", saved(tmp_path, tensors), {"heads": "3"})
    assert made.verdict.unused == ("head.weight",)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_become_single(tmp_path, dtype):
    tensors = encoder_only(official_names(hugging_face()))
    given = {name: t.to(dtype) for name, t in tensors.items()}
    own = load_foreign("file", saved(tmp_path, given), {"heads": "3"}).module.encoder.state_dict()
    for name, tensor in given.items():
        assert torch.equal(own[name], tensor.float()), name


def test_weights_in_another_order_of_memory_are_the_same_weights(tmp_path):
    tensors = encoder_only(official_names(hugging_face()))
    given = {
        name: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t.T.clone().T
        for name, t in tensors.items()
        if t.ndim in (2, 4)
    }
    assert not all(t.is_contiguous() for t in given.values())
    options = {"heads": "3"}
    own = load_foreign("file", saved(tmp_path, tensors | given), options).module.encoder
    for name, tensor in own.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def test_a_distilled_transformer_is_named_as_that(tmp_path):
    tensors = encoder_only(official_names(hugging_face()))
    tensors["dist_token"] = torch.zeros(1, 1, WIDTH)
    tensors["pos_embed"] = torch.cat([torch.zeros(1, 1, WIDTH), tensors["pos_embed"]], 1)
    for more in ({}, {"image_size": "16"}):
        with pytest.raises(ConfigError, match="has a distillation token.*timm:NAME,weights="):
            load_foreign("file", saved(tmp_path, tensors), {"heads": "3", **more})


def test_a_weight_of_another_shape_is_refused(tmp_path):
    tensors = encoder_only(official_names(hugging_face()))
    tensors["norm.bias"] = tensors["norm.bias"][:5]
    with pytest.raises(RunError, match=r"other shape norm\.bias"):
        load_foreign("file", saved(tmp_path, tensors), {"heads": "3"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"number of attention heads of an encoder of width 24 cannot be read.*,heads=6"),
        ({"heads": "5"}, "heads=5 does not divide the width 24"),
        ({"heads": "0"}, "heads: Input should be greater than 0, given '0'"),
        ({"heads": "3", "image_size": "12"}, "image-size 12,12 does not fit 17 positions of 4x4"),
        ({"heads": "3", "image_size": "1,2,3"}, "image-size: a side or rows,columns"),
        ({"heads": "3", "mean": "0.1,0.2"}, "mean: 3 numbers are wanted, given 2"),
        ({"heads": "3", "crop": "2"}, "crop: Input should be less than or equal to 1"),
        ({"heads": "3", "mean": "nan"}, "mean.*finite"),
        ({"hedas": "3"}, "unknown option 'hedas'.*Did you mean 'heads'"),
        ({"weights": "x"}, "unknown option 'weights'"),  # timm's alone
    ],
)
def test_an_option_that_is_missing_or_wrong_is_one_line(tmp_path, options, message):
    path = saved(tmp_path, encoder_only(official_names(hugging_face())))
    with pytest.raises(ConfigError, match=message):
        load_foreign("file", path, options)


def test_the_heads_of_the_official_sizes_are_known(tmp_path):
    from timm.models import VisionTransformer

    theirs = VisionTransformer(img_size=32, patch_size=16, embed_dim=768, depth=1, num_heads=12)
    made = load_foreign("file", saved(tmp_path, theirs.state_dict()), {"image_size": "32"})
    assert made.module.encoder.blocks[0].attn.num_heads == 12
    with torch.no_grad():
        images = torch.randn(1, 3, 32, 32)
        tokens = made.module.encoder(images)
        both = torch.cat([tokens.prefix, tokens.patches], 1)
        torch.testing.assert_close(both, theirs.eval().forward_features(images), atol=1e-5, rtol=0)


def test_grey_weights_do_not_say_their_mean(tmp_path):
    theirs = hugging_face(num_channels=1)
    path = saved(tmp_path, encoder_only(official_names(theirs)))
    with pytest.raises(ConfigError, match="mean and deviation of its 1 channels.*,mean=0.5"):
        load_foreign("file", path, {"heads": "3"})
    made = load_foreign("file", path, {"heads": "3", "mean": "0.5", "std": "0.25"})
    assert (made.preprocess.mean, made.preprocess.std) == ((0.5,), (0.25,))


# ---- what stands beside weights may be anything


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_attention_heads", "three", "num_attention_heads beside the weights is 'three'"),
        ("num_attention_heads", 0, "num_attention_heads beside the weights is 0"),
        ("image_size", [16], r"image_size beside the weights is \[16\]"),
        ("image_size", "big", "image_size beside the weights is 'big'"),
        ("layer_norm_eps", "x", "layer_norm_eps beside the weights is 'x'"),
        ("model_type", 7, "unknown kind of model '7'"),
    ],
)
def test_a_config_that_says_something_odd_is_one_line(tmp_path, key, value, message):
    hugging_face().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(MaebenchError, match=message):
        load_foreign("hf", str(tmp_path), {})


@pytest.mark.parametrize("value", [[1], "no", [1, 2, "x"], {"a": 1}])
def test_a_preprocessor_that_says_something_odd_is_one_line(tmp_path, value):
    hugging_face().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": value}))
    with pytest.raises(RunError, match="image_mean in preprocessor_config.json is .*3 numbers"):
        load_foreign("hf", str(tmp_path), {})


@pytest.mark.parametrize(
    "facts", ["[]", '"x"', '{"heads": "x"}', '{"mean": 3, "std": 4}', '{"image_size": {}}']
)
def test_an_export_whose_facts_were_changed_is_read_or_one_line(tmp_path, facts):
    from safetensors.torch import save_file

    tensors = encoder_only(official_names(hugging_face()))
    save_file(tensors, tmp_path / "a.safetensors", metadata={"maebench": facts})
    try:
        load_foreign("file", str(tmp_path / "a.safetensors"), {"heads": "3"})
    except MaebenchError as error:
        assert "beside the weights is" in str(error)


def test_grey_weights_of_hugging_face_take_their_preprocessors_mean(tmp_path):
    hugging_face(num_channels=1).save_pretrained(tmp_path)
    preprocessor = {"image_mean": [0.3], "image_std": [0.2], "resample": 2, "size": 16}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    made = load_foreign("hf", str(tmp_path), {}).preprocess
    assert (made.mean, made.std, made.interpolation) == ((0.3,), (0.2,), "bilinear")


@pytest.mark.parametrize("grid", [(2, 8), (2, 4), (4, 6), (4, 4)])
def test_a_grid_of_sin_cos_positions_is_read_off_them(tmp_path, grid):
    tensors = encoder_only(official_names(hugging_face()))
    tensors["pos_embed"] = torch.cat([torch.zeros(1, WIDTH), sincos_positions(grid, WIDTH)])[None]
    made = load_foreign("file", saved(tmp_path, tensors), {"heads": "3"})
    assert made.module.encoder.grid == grid


def test_a_decoder_that_cannot_be_used_is_not_called_missing(tmp_path):
    path = saved(tmp_path, official_names(hugging_face()))
    verdict = load_foreign("file", path, {"heads": "3"}).verdict
    assert verdict.text == "decoder not usable"
    assert ",decoder-heads=N" in str(verdict)


def test_another_activation_is_refused(tmp_path):
    hugging_face(hidden_act="relu").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="activation is 'relu'"):
        load_foreign("hf", str(tmp_path), {})


def test_what_a_folder_of_timm_says_of_its_images_comes_with_its_weights(tmp_path):
    from safetensors.torch import save_file

    save_file(encoder_only(official_names(hugging_face())), tmp_path / "model.safetensors")
    cfg = {"mean": [0.5] * 3, "std": [0.4] * 3, "interpolation": "bilinear", "crop_pct": 0.9}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": cfg}))
    made = load_foreign("file", str(tmp_path), {"heads": "3"}).preprocess
    assert (made.mean, made.std, made.interpolation) == ((0.5,) * 3, (0.4,) * 3, "bilinear")
    assert made.crop == pytest.approx(16 / int(16 / 0.9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": "3", "mean": "123.7,116.3,103.5"}, "mean: of pixels in 0..1, not 0..255"),
        ({"heads": "3", "crop": "0.01"}, "crop: Input should be greater than or equal to 0.1"),
    ],
)
def test_a_value_on_another_scale_is_refused(tmp_path, options, message):
    path = saved(tmp_path, encoder_only(official_names(hugging_face())))
    with pytest.raises(ConfigError, match=message):
        load_foreign("file", path, options)


# ---- several sets of weights, wrappers, grids: end to end


def test_the_verdict_says_which_of_raw_and_averaged_weights_were_taken(tmp_path):
    raw = encoder_only(official_names(hugging_face()))
    mean = {name: tensor + 1 for name, tensor in raw.items()}
    mean["pos_embed"] = raw["pos_embed"]
    torch.save({"model": raw, "model_ema": mean, "epoch": 9}, tmp_path / "a.pth")
    made = load_foreign("file", str(tmp_path / "a.pth"), {"heads": "3"})
    assert "the raw weights of key model were taken; the file holds model_ema too: " in str(
        made.verdict
    )
    assert torch.equal(made.module.encoder.norm.bias, raw["norm.bias"])
    other = load_foreign("file", str(tmp_path / "a.pth"), {"heads": "3", "key": "model_ema"})
    assert "raw" not in str(other.verdict)
    assert torch.equal(other.module.encoder.norm.bias, mean["norm.bias"])
    assert other.name.endswith(",key=model_ema")
    with pytest.raises(ConfigError, match="unknown key 'model_eam'.*Did you mean 'model_ema'"):
        load_foreign("file", str(tmp_path / "a.pth"), {"heads": "3", "key": "model_eam"})


@pytest.mark.parametrize("prefix", ["_orig_mod.module.", "model.encoder.", "net.module._orig_mod."])
@pytest.mark.parametrize("names", ["official", "hub"])
def test_a_full_model_below_any_name_gives_the_same_numbers(tmp_path, prefix, names):
    theirs = hugging_face(True, eps=1e-6)
    plain = official_names(theirs) if names == "official" else hub_names(theirs)
    tensors = {f"{prefix}{name}": tensor for name, tensor in plain.items()}
    tensors["n_averaged"] = torch.tensor(5)
    torch.save({"state_dict": tensors}, tmp_path / "a.ckpt")
    options = {"heads": "3", "decoder_heads": "2", "target": "normalised-pixels"}
    made = load_foreign("file", str(tmp_path / "a.ckpt"), options)
    assert (made.verdict.text, made.verdict.unused) == ("complete", ())
    assert made.verdict.notes == ("averaged over 5 models",)
    same_numbers(made.module, theirs)


def test_learned_positions_of_2_x_8_are_not_taken_for_4_x_4(tmp_path):
    from timm.models import VisionTransformer

    theirs = VisionTransformer(
        img_size=(8, 32), patch_size=PATCH, embed_dim=WIDTH, depth=1, num_heads=HEADS
    ).eval()
    path = saved(tmp_path, theirs.state_dict())
    with pytest.raises(ConfigError, match="do not show their grid, which may be 1x16, 2x8, 4x4"):
        load_foreign("file", path, {"heads": "3"})
    made = load_foreign("file", path, {"heads": "3", "image_size": "8,32"})
    images = torch.randn(2, 3, 8, 32)
    with torch.no_grad():
        tokens = made.module.encoder(images)
        both = torch.cat([tokens.prefix, tokens.patches], 1)
        torch.testing.assert_close(both, theirs.forward_features(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.999999999.norm1.weight": torch.zeros(24)}, "the encoder is incomplete: missing"),
        ({"decoder_blocks.999999999.norm1.weight": torch.zeros(16)}, "the decoder is no plain one"),
        ({"patch_embed.proj.weight": torch.zeros(3 * 2**17, 1, 1, 1)}, "incomplete|equal to 32768"),
        ({"decoder_embed.weight": torch.zeros(2**20, 1)}, "no plain one|equal to 32768"),
        ({"blocks.0.mlp.fc1.weight": torch.zeros(2**24, 1)}, "mlp_ratio: .* less than or equal"),
        ({"reg_token": torch.zeros(1, 10**12, 0)}, "other shape reg_token"),
        ({"patch_embed.proj.weight": torch.zeros(24, 3, 0, 4)}, "other shape patch_embed"),
        ({"patch_embed.proj.weight": torch.zeros(24, 3)}, "other shape patch_embed"),
        ({"pos_embed": torch.zeros(1, 2**17, 24)}, "131,072 positions, and 66,560 are the most"),
    ],
)
def test_sizes_that_the_weights_do_not_fill_are_refused_before_anything_is_built(
    tmp_path, change, message
):
    tensors = official_names(hugging_face()) | change
    options = {"heads": "3", "decoder_heads": "2", "target": "pixels"}
    path = saved(tmp_path, tensors)
    start = time.monotonic()
    try:
        text = load_foreign("file", path, options).no_decoder
    except MaebenchError as error:
        text = str(error)
    assert re.search(message, text)
    assert time.monotonic() - start < 3
