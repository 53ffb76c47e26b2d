"""Weights are read from files and folders by their content; the rest is refused in one line."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maebench.errors import MaebenchError, RunError
from maebench.models.reading import read_weights

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(2)}


def write(path, content, how="zip"):
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    return path


def test_safetensors_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "a.safetensors")
    assert torch.equal(
        read_weights(tmp_path / "a.safetensors").chosen.tensors["a.weight"], TENSORS["a.weight"]
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


@pytest.mark.parametrize("index", ["[]", '{"weight_map": "x"}', '{"weight_map": {"a": 5}}', "{"])
def test_an_odd_index_of_shards_is_one_line(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(RunError):
        read_weights(tmp_path)
