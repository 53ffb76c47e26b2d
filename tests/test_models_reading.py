"""Weights are read from files and folders by their content; the rest is refused in one line."""

from __future__ import annotations

import json
import resource
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from saved import write

from maebench.errors import MaebenchError, RunError
from maebench.models.reading import read_weights

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(2)}


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


# ---- weights in several files, and tensors that hold no plain numbers


def shards(folder, first, second, index):
    """Two files of weights, 1.0 each where a value is not given, and the index that names them."""
    for name, tensors in (("a.safetensors", first), ("b.safetensors", second)):
        save_file({n: torch.full((2, 2), value) for n, value in tensors.items()}, folder / name)
    content = {"weight_map": {n: f"{place}.safetensors" for n, place in index.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return folder


def test_the_index_says_from_which_file_a_weight_is_taken(tmp_path):
    for stale in ({"x": 9.0}, {"y": 9.0}):
        first, second = {"x": 1.0, **stale}, {"y": 1.0, **stale}
        first["x"] = second["y"] = 1.0
        found = read_weights(shards(tmp_path, first, second, {"x": "a", "y": "b"}))
        assert {n: t.unique().tolist() for n, t in found.chosen.tensors.items()} == {
            "x": [1.0],
            "y": [1.0],
        }
        assert found.stray == tuple(stale)
        said = "1 weight left out that the index looks for elsewhere or does not name"
        assert found.chosen.note == said


def test_a_weight_that_is_not_where_the_index_says_is_refused(tmp_path):
    shards(tmp_path, {"x": 1.0}, {"y": 1.0}, {"x": "a", "y": "b", "z": "b"})
    with pytest.raises(RunError, match=r"says that z is in b\.safetensors, and it is not"):
        read_weights(tmp_path)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # files that were written before
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "is quantised"),
        (lambda t: t.to_sparse(), "is sparse"),
        (lambda t: t.to("meta"), "without values, on the device meta"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_refused(tmp_path, change, message):
    content = {"a.weight": torch.ones(2, 2), "b.weight": change(torch.ones(2, 2))}
    with pytest.raises(RunError, match=rf"a\.pth: b\.weight .*{message}"):
        read_weights(write(tmp_path / "a.pth", content))


def test_weights_in_several_files_of_torch_are_read_by_their_index(tmp_path):
    for name in ("x", "y"):
        torch.save({name: torch.ones(2, 2)}, tmp_path / f"{name}.bin")
    content = {"weight_map": {"x": "x.bin", "y": "y.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(content))
    found = read_weights(tmp_path)
    assert sorted(found.chosen.tensors) == ["x", "y"] and found.chosen.note == ""
    assert found.path == tmp_path
    alone = read_weights(tmp_path / "pytorch_model.bin.index.json")
    assert sorted(alone.chosen.tensors) == ["x", "y"]


@pytest.mark.parametrize("other", ["pytorch_model.bin", "model.safetensors.index.json"])
def test_of_two_files_of_weights_in_a_folder_it_is_said_which_was_taken(tmp_path, other):
    shards(tmp_path, {"x": 2.0}, {"y": 2.0}, {"x": "a", "y": "b"})
    if other == "pytorch_model.bin":
        (tmp_path / "model.safetensors.index.json").unlink()
        torch.save({"x": torch.zeros(2, 2)}, tmp_path / other)
    save_file({"x": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    found = read_weights(tmp_path)
    assert found.chosen.tensors["x"].unique().tolist() == [1.0]
    said = f"model.safetensors was taken; the folder holds {other} too, which may be others"
    assert found.chosen.note == said


def header(text: str | bytes, length: int | None = None, data: bytes = b"") -> bytes:
    """A file of safetensors with this header, whatever length it states."""
    content = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(content) if length is None else length) + content + data


def tensor(shape: str, offsets: str, dtype: str = "F32") -> str:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


HOSTILE = {
    "a length beyond all addresses": header('{"a":1}', 2**63),
    "a length beyond the file": header('{"a":1}', 2**20),
    "a length beyond what is allowed": header(b"{" + b" " * 2**27),
    "nested without end": header('{"a":' * 100_000),
    "two tensors of the same bytes": header(
        f'{{"a":{tensor("[1]", "[0,4]")},"b":{tensor("[1]", "[0,4]")}}}', data=bytes(4)
    ),
    "a shape that overflows": header(f'{{"a":{tensor(f"[{2**62},4]", "[0,4]")}}}', data=bytes(4)),
    "more bytes than there are": header(f'{{"a":{tensor(f"[{2**40}]", f"[0,{2**42}]")}}}'),
    "offsets that go back": header(f'{{"a":{tensor("[1]", "[4,0]")}}}', data=bytes(4)),
    "bytes that belong to nobody": header(f'{{"a":{tensor("[1]", "[4,8]")}}}', data=bytes(8)),
    "a negative shape": header(f'{{"a":{tensor("[-1]", "[0,4]")}}}', data=bytes(4)),
    "a kind of number that is none": header(
        f'{{"a":{tensor("[1]", "[0,4]", "F3")}}}', data=bytes(4)
    ),
    "no text in the metadata": header('{"__metadata__":{"a":[1]}}'),
    "no UTF-8": header(b'{"\xff":1}'),
    "no header": header(""),
    "a list": header("[1]"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_is_one_line_and_takes_no_memory(tmp_path, what):
    path = tmp_path / "model.safetensors"
    path.write_bytes(HOSTILE[what])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError) as caught:
        read_weights(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB, and the file's own
    assert grown < 2**16 + path.stat().st_size // 2**9
