"""What is no file of weights is named as what it is, with what to do about it."""

from __future__ import annotations

import gzip
import io
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch

from maebench.errors import RunError
from maebench.models.reading import read_weights

LFS = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 343249461
"""
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Google Drive - Virus\n scan &amp; warning</title>"
XML = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>'


def zipped(names):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return packed.getvalue()


def tarred():
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("vit.pth"))
    return packed.getvalue()


def arrays():
    packed = io.BytesIO()
    np.savez(packed, kernel=np.zeros(3))
    return packed.getvalue()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "a Git LFS pointer to 343,249,461 bytes that were not fetched.*git lfs pull"),
        (b"/annex/objects/SHA256E-s1--abc.pth\n", "a git-annex pointer.*git annex get"),
        (PAGE, "an HTML page .'Google Drive - Virus scan & warning'.*download it again"),
        (b"<html><body>404</body></html>", "an HTML page, no weights: the server sent it"),
        (XML, "an XML page, no weights"),
        (b"", "an empty file"),
        (b"\n \n", "a file of blanks"),
        (b'{"error": "not found"}', r"JSON .*not found"),
        (b'{"metadata": {"total_size": 3}, "weight_map": {' + b'"a": "b", ' * 900, "JSON"),
        (gzip.compress(b"weights", mtime=0), "compressed by gzip.*gunzip"),
        (tarred(), "a tar archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file"),
        (b"GGUF" + bytes(50), "a GGUF file"),
        (arrays(), "an .npz file of numpy's arrays"),
        (zipped(["a/vit.pth", "a/notes.txt"]), "a ZIP archive of a/vit.pth, a/notes.txt, no w"),
        (zipped(["m/data.pkl", "m/constants.pkl", "m/code/x.py"]), "a TorchScript archive"),
        (zipped(["m/archive_format", "m/models/model.json"]), "an archive of torch.export"),
    ],
)
def test_a_file_is_named_as_what_it_is(tmp_path, content, message, suffix):
    (tmp_path / f"vit{suffix}").write_bytes(content)
    with pytest.raises(RunError, match=message) as caught:
        read_weights(tmp_path / f"vit{suffix}")
    assert "\n" not in str(caught.value)


def test_a_program_that_torch_wrote_is_a_torchscript_archive_and_is_not_run(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.jit is no longer developed
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "a.pt")
    with pytest.raises(RunError, match="a TorchScript archive.*torch.jit.load.*state_dict"):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("__0_0.distcp", "a distributed checkpoint of torch.*dcp_to_torch"),
        ("mp_rank_00_model_states.pt", "a checkpoint of DeepSpeed.*zero_to_fp32.py"),
    ],
)
def test_a_folder_of_pieces_says_how_they_are_put_together(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(RunError, match=message):
        read_weights(tmp_path)


def test_a_shard_that_was_not_fetched_is_named(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    (tmp_path / "b.safetensors").write_bytes(LFS)
    with pytest.raises(RunError, match=r"b\.safetensors is a Git LFS pointer"):
        read_weights(tmp_path)


def test_what_a_file_holds_counts_and_not_its_suffix(tmp_path):
    from safetensors.torch import save

    tensors = {"a.weight": torch.ones(2, 3)}
    (tmp_path / "a.pth").write_bytes(save(tensors))
    torch.save(tensors, tmp_path / "b.safetensors")
    torch.save(tensors, tmp_path / "c.safetensors", _use_new_zipfile_serialization=False)
    for name in ("a.pth", "b.safetensors", "c.safetensors"):
        found = read_weights(tmp_path / name).chosen.tensors
        assert torch.equal(found["a.weight"], tensors["a.weight"])


def test_a_pipe_is_no_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(RunError, match="is no file"):
        read_weights(tmp_path / "pipe.pth")
