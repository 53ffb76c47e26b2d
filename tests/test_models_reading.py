"""Reading weights never runs code, and what cannot be read is one line."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maebench.errors import MaebenchError, RunError
from maebench.models.reading import read_weights

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
