"""Reading weights never runs code, and other people's names for them become ours."""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maebench.errors import ConfigError, MaebenchError, RunError
from maebench.masking.mask import hide
from maebench.models.load import load_foreign
from maebench.models.reading import (
    as_timm,
    joined,
    read_key_map,
    read_weights,
    renamed,
    shipped,
)

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(2)}


class Runs:
    """What a malicious file holds: unpickling it would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def write(path, content, how="zip"):
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    return path


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("where", ["args", "model", "alone"])
def test_a_pickle_that_would_run_a_command_is_refused_by_name_and_does_not_run_it(
    tmp_path, how, where
):
    mark = tmp_path / "ran"
    bad = Runs(f"touch {mark}")
    # tensors in a bare pickle are themselves refused: torch loads their bytes with a function
    beside = {} if how == "pickle" else TENSORS
    content = {"args": {"model": beside, "args": bad}, "model": {"model": {"a": bad}}}
    path = write(tmp_path / "bad.pth", content.get(where, bad), how)
    with pytest.raises(RunError, match=r"bad.pth is refused: .*(posix|nt)\.system would have to"):
        read_weights(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Runs(f"touch {mark}")))  # it would have
    assert mark.exists()


@pytest.mark.parametrize(
    ("thing", "named"),
    [(torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"), (Path("a"), r"pathlib\.\w+")],
)
def test_whatever_is_no_tensor_container_or_namespace_is_refused_by_name(tmp_path, thing, named):
    path = write(tmp_path / "odd.pth", {"model": TENSORS, "args": thing})
    with pytest.raises(RunError, match=named):
        read_weights(path)


def test_a_namespace_is_let_in_and_read(tmp_path):
    args = argparse.Namespace(
        norm_pix_loss=True, output_dir="./out", betas=(0.9, 0.95), device="cuda"
    )
    path = write(tmp_path / "checkpoint-9.pth", {"model": TENSORS, "args": args, "epoch": 9})
    found = read_weights(path)
    assert found.facts == {"args": vars(args)}
    assert found.tensors.keys() == TENSORS.keys()


def test_what_is_let_in_is_no_longer_let_in_afterwards(tmp_path):
    path = write(tmp_path / "a.pth", {"model": TENSORS, "args": argparse.Namespace(a=1)})
    read_weights(path)
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("inside", [None, "model", "state_dict", "model_state_dict", "module"])
@pytest.mark.parametrize("wrapped", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_weights_are_found_wherever_checkpoints_keep_them(tmp_path, inside, wrapped, how):
    named = {wrapped + name: t for name, t in TENSORS.items()}
    content = {inside: named, "epoch": 3, "optimizer": {"state": {}}} if inside else named
    found = read_weights(write(tmp_path / "a.pth", content, how))
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], t) for name, t in TENSORS.items())


def test_safetensors_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "a.safetensors")
    assert torch.equal(
        read_weights(tmp_path / "a.safetensors").tensors["a.weight"], TENSORS["a.weight"]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, no names with weights"),
        ({"epoch": 3}, "weights are looked for at the top or under model.*it holds epoch"),
        ({}, "it holds nothing"),
        ({**TENSORS, "step": 3}, "it holds step"),
        ({"model": {**TENSORS, "step": 3}}, "it holds step"),
        ({0: torch.zeros(2)}, "it holds 0"),
        ({"model": {0: torch.zeros(2), "a": torch.zeros(2)}}, "it holds 0"),
    ],
)
def test_a_file_without_weights_is_one_line(tmp_path, content, message):
    with pytest.raises(RunError, match=message):
        read_weights(write(tmp_path / "a.pth", content))


def test_a_missing_file_and_an_empty_folder_are_one_line(tmp_path):
    with pytest.raises(RunError, match="there is no such file"):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(RunError, match="no model.safetensors or .* is in this folder"):
        read_weights(tmp_path)


def damaged(path, content):
    path.write_bytes(content)
    try:
        read_weights(path)
    except MaebenchError as error:
        assert "\n" not in str(error)


@given(st.integers(0, 10_000), st.sampled_from(["zip", "legacy", "pickle", "safetensors"]))
def test_a_file_cut_off_anywhere_is_read_or_refused_in_one_line(tmp_path_factory, cut, how):
    folder = tmp_path_factory.getbasetemp() / "cut"
    folder.mkdir(exist_ok=True)
    if how == "safetensors":
        from safetensors.torch import save

        whole, path = save(TENSORS), folder / "a.safetensors"
    else:
        path = write(folder / "a.pth", {"model": TENSORS}, how)
        whole = path.read_bytes()
    damaged(path, whole[: cut % (len(whole) + 1)])


@given(st.binary(max_size=200), st.sampled_from(["a.pth", "a.safetensors"]))
def test_any_bytes_are_refused_in_one_line(tmp_path_factory, content, name):
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    damaged(folder / name, content)


def test_a_file_that_holds_itself_is_one_line(tmp_path):
    content = {"model": {}}
    content["model"]["model"] = content["model"]
    with pytest.raises(RunError, match="weights are looked for"):
        read_weights(write(tmp_path / "a.pth", content))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_forbidden_global_is_named_whatever_the_protocol(tmp_path, protocol):
    bad = {"model": TENSORS, "x": [("posix", "system"), Runs("true")]}
    torch.save(bad, tmp_path / "zip.pth", pickle_protocol=max(2, protocol))
    bare = {"x": [("posix", "system"), Runs("true")]}
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(bare, protocol))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(RunError, match=r"is refused: .*posix\.system would"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("index", ["[]", '{"weight_map": "x"}', '{"weight_map": {"a": 5}}', "{"])
def test_an_odd_index_of_shards_is_one_line(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(RunError):
        read_weights(tmp_path)


# ---- names

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
    ],
)
def test_a_wrong_map_is_one_line(tmp_path, text, message):
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_key_map(tmp_path / "map.yaml")


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


def test_without_a_map_timms_names_stay():
    assert as_timm({"norm.weight": ONE}, None) == {"norm.weight": ONE}


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
    with pytest.raises(Exception, match="encoder is incomplete"):
        load_foreign("file", str(ckpt), {k: v for k, v in options.items() if k != "key_map"})
