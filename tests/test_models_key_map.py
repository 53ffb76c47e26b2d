"""Other people's names for weights become ours through key maps."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
import torch

from maebench.errors import ConfigError
from maebench.masking.mask import hide
from maebench.models import key_map
from maebench.models.key_map import joined, read_key_map, renamed, shipped
from maebench.models.load import load_foreign

ONE, TWO = torch.zeros(1), torch.ones(1)


def test_expressions_are_tried_from_top_to_bottom_and_null_leaves_out():
    key_map = {r"^backbone\.": "", r"^layer(\d)\.": r"blocks.\1.", "^head": None}
    tensors = {"backbone.layer3.w": ONE, "head.w": TWO, "norm.w": TWO}
    assert renamed(tensors, key_map) == {"blocks.3.w": ONE, "norm.w": TWO}


def test_two_weights_of_one_name_are_refused():
    with pytest.raises(ConfigError, match=r"gives a\.w and b\.w the same name w"):
        renamed({"a.w": ONE, "b.w": TWO}, {r"^[ab]\.": ""})


def test_a_map_that_finds_nothing_is_refused_with_some_names():
    with pytest.raises(ConfigError, match=r"no expression finds a weight; the names are a\.w"):
        renamed({"a.w": ONE}, {"^x": ""})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'[': x", r"'\[': unterminated character set"),
        ("'a': '\\2'", "invalid group reference 2"),
        ("- a", "lines of 'regular expression: replacement' are wanted, got"),
        ("", "are wanted, got None"),
        ("a: 3", "'a': 3 must be an expression and a text or null"),
        ("a: [", "is no YAML"),
        ("'((a{1000}){1000}){1000}': x", "1,000 repetitions by counts in braces, multiplied"),
        ("'" + 1001 * "a" + "': x", r"'a{40}\.\.\.': 1,000 characters"),
        ("'" + 400 * "(" + 400 * ")" + "': x", r"'\({40}\.\.\.': "),
    ],
)
def test_a_wrong_map_is_one_line(tmp_path, text, message):
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_key_map(tmp_path / "map.yaml")


@pytest.mark.parametrize("pattern", ["(a|a)*$", "(a|aa)+$"])
def test_an_expression_that_never_ends_is_stopped_and_named(monkeypatch, pattern):
    monkeypatch.setattr(key_map, "SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(ConfigError, match="was tried on 'a{40}...' for too long") as caught:
        renamed({"a" * 60 + "!": ONE}, {pattern: "x"})
    assert repr(pattern) in str(caught.value) and time.monotonic() - start < 3


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*)*x"])
def test_an_expression_on_which_re_never_ends_finds_nothing_at_once(pattern):
    with pytest.raises(ConfigError, match="no expression finds a weight"):
        renamed({"a" * 60 + "!": ONE}, {pattern: "x"})


def test_the_time_is_that_of_all_names_together(monkeypatch):
    monkeypatch.setattr(key_map, "SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(ConfigError, match="for too long"):
        renamed({"a" * 16 + f"!{n}": ONE for n in range(200)}, {"(a|a)*$": r"\g<0>"})
    assert time.monotonic() - start < 3


def test_a_name_that_each_line_doubles_is_refused():
    doubling = {f"(?:){n * 'x?'}^(.*)$": r"\1\1" for n in range(40)}
    with pytest.raises(ConfigError, match=r"a name of 1,024 characters, and 1,000 are the most"):
        renamed({"a": ONE}, doubling)


TIMM = [f"blocks.{n}.{part}" for n in (0, 11) for part in ("attn.qkv.weight", "mlp.fc1.bias")]
HUBS = [
    f"{before}{layer}.3.{part}"
    for before in ("", "vit.", "backbone.vit.", "decoder.", "online_")
    for layer in ("encoder.layer", "layers", "decoder_layers", "decoder_encoder.layer", "blocks")
    for part in (
        *("attention.attention.query.weight", "attention.output.dense.bias", "attention.q_proj.w"),
        *("intermediate.dense.weight", "output.dense.bias", "layernorm_before.weight"),
    )
]
ENDS = ["embeddings.cls_token", "vit.embeddings.mask_token", "layernorm.bias", "classifier.weight"]


@pytest.mark.parametrize("name", shipped())
def test_shipped_maps_rename_as_pythons_own_expressions_do(name):
    for weight in (
        *TIMM,
        *HUBS,
        *ENDS,
        *(f"backbone.{end}" for end in ENDS),
        "online_classifier.w",
    ):
        wanted = weight
        for pattern, replacement in read_key_map(name).items():
            if wanted is not None and re.search(pattern, wanted):
                wanted = None if replacement is None else re.sub(pattern, replacement, wanted)
        found = renamed(
            {weight: ONE, "backbone.mask_token": TWO, "vit.mask_token": TWO}, read_key_map(name)
        )
        assert [n for n, tensor in found.items() if tensor is ONE] == ([wanted] if wanted else [])


def test_a_missing_map_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_key_map(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="unknown key map 'lightli'.*Did you mean 'lightly'"):
        read_key_map("lightli")


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_map_is_read_by_its_name(name):
    assert read_key_map(name)


def test_queries_keys_and_values_become_one_matrix_and_a_missing_bias_is_zero():
    parts = {f"blocks.0.attn.{p}.weight": torch.full((2, 2), float(i)) for i, p in enumerate("qkv")}
    biases = {"blocks.0.attn.q.bias": torch.ones(2), "blocks.0.attn.v.bias": torch.ones(2)}
    made = joined({**parts, **biases})
    assert made.keys() == {"blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias"}
    assert made["blocks.0.attn.qkv.weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert made["blocks.0.attn.qkv.bias"].tolist() == [1, 1, 0, 0, 1, 1]


# Written by lightly in a process of its own: its import is slow, warns, and is not ours to mend.
LIGHTLY = """
import sys, torch
from timm.models.vision_transformer import VisionTransformer
from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
torch.manual_seed(0)
vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=0)
model = torch.nn.Module()
model.backbone = MaskedVisionTransformerTIMM(vit=vit)
model.decoder = MAEDecoderTIMM(num_patches=16, patch_size=4, embed_dim=24, decoder_embed_dim=16,
    decoder_depth=2, decoder_num_heads=2, mlp_ratio=4.0, proj_drop_rate=0.0, attn_drop_rate=0.0)
model.eval()
images, noise = torch.randn(2, 3, 16, 16), torch.rand(2, 16)
order = noise.argsort(1)
keep = torch.cat([torch.zeros(2, 1, dtype=torch.int64), order[:, :4].sort(1).values + 1], 1)
with torch.no_grad():
    whole = model.backbone.encode(images)
    seen = model.decoder.embed(model.backbone.encode(images, idx_keep=keep))
    full = model.decoder.mask_token.repeat(2, 17, 1).scatter(
        1, keep[:, :, None].expand(-1, -1, 16), seen)
    predicted = model.decoder.predict(model.decoder.decode(full))[:, 1:]
torch.save({"state_dict": model.state_dict(), "epoch": 3}, sys.argv[1])
torch.save({"images": images, "noise": noise, "whole": whole, "predicted": predicted}, sys.argv[2])
"""


@pytest.mark.slow
def test_lightlys_map_reads_a_checkpoint_that_lightly_wrote(tmp_path):
    ckpt, numbers = tmp_path / "last.ckpt", tmp_path / "numbers.pt"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIGHTLY, ckpt, numbers], check=True, timeout=300
    )
    options = {"heads": "3", "decoder_heads": "2", "target": "pixels", "key_map": "lightly"}
    made = load_foreign("file", str(ckpt), options)
    assert (made.verdict.text, made.no_decoder, made.verdict.unused) == ("complete", "", ())
    theirs = torch.load(numbers, weights_only=True)
    mask = hide(theirs["noise"], 12, (4, 4))
    with torch.no_grad():
        tokens = made.module.encoder(theirs["images"])
        both = torch.cat([tokens.prefix, tokens.patches], 1)
        torch.testing.assert_close(both, theirs["whole"], atol=1e-5, rtol=0)
        predicted = made.module.reconstruct(theirs["images"], mask).prediction
        torch.testing.assert_close(predicted, theirs["predicted"], atol=1e-5, rtol=0)
    # its encoder below a name and the decoder beside it are found without the map too
    plain = load_foreign("file", str(ckpt), {k: v for k, v in options.items() if k != "key_map"})
    assert (plain.verdict.text, plain.verdict.unused) == ("complete", ("backbone.mask_token",))
    mapped = made.module.state_dict()
    assert all(torch.equal(t, mapped[n]) for n, t in plain.module.state_dict().items())
