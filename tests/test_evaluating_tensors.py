"""Tensors on disk are those that were written, of whom they were written for, or refused."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import save_file

from maebench.errors import DamagedError, RunError
from maebench.evaluating.tensors import read_tensors, write_tensors

TENSORS = {
    "last.mean": torch.arange(6.0).reshape(2, 3),
    "1.class": torch.ones(2, dtype=torch.bfloat16),
    "count": torch.tensor(3),
}
MORE = {"python": [3, [1, 2], None], "name": "ä"}


@pytest.fixture
def path(tmp_path):
    write_tensors(tmp_path / "a.safetensors", "me", TENSORS, MORE)
    return tmp_path / "a.safetensors"


def same(mine, theirs):
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[k], theirs[k]) and mine[k].dtype == theirs[k].dtype for k in mine
    )


def test_tensors_and_what_is_beside_them_come_back(path):
    found, more = read_tensors(path, "me")
    assert same(found, TENSORS) and more == MORE


def test_those_alone_are_read_that_are_asked_for_and_there(path):
    found, _ = read_tensors(path, "me", ["count", "none"])
    assert same(found, {"count": TENSORS["count"]})


def test_no_flipped_bit_gives_other_tensors(path):
    content, refused = path.read_bytes(), 0
    for place in range(len(content)):
        flipped = content[place] ^ (1 << random.Random(place).randrange(8))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        try:
            found, more = read_tensors(path, "me")
            assert same(found, TENSORS) and more == MORE, place
        except DamagedError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 0.9 * len(content)


def test_no_flipped_bit_takes_a_tensor_away_in_silence(path):
    """A name in the header that is another is no tensor that was never there."""
    content = path.read_bytes()
    for place in range(content.index(b"last.mean"), content.index(b"last.mean") + 9):
        path.write_bytes(content[:place] + b"x" + content[place + 1 :])
        with pytest.raises(DamagedError):
            read_tensors(path, "me", ["last.mean"])


def test_another_owners_and_files_without_hashes_are_refused(path, tmp_path):
    with pytest.raises(DamagedError, match='it belongs to "me"'):
        read_tensors(path, "you")
    save_file({"a": torch.ones(1)}, tmp_path / "old.safetensors")
    with pytest.raises(DamagedError, match="no hash, as in files of an earlier version"):
        read_tensors(tmp_path / "old.safetensors", "me")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write_tensors(tmp_path / "file" / "a.safetensors", "me", TENSORS)
