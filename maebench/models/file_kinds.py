"""What a file is that holds no weights, read off its content; nothing of it is run."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

from maebench.data.stand_ins import HEAD, page, pointer
from maebench.errors import RunError

# How files begin that are taken for weights by their suffix, what they are, and what to do.
BEGINNINGS = (
    (b"\x1f\x8b", "compressed by gzip", "unpack it first: gunzip"),
    (b"BZh", "compressed by bzip2", "unpack it first: bunzip2"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it first: unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it first: unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it", "weights of torch or safetensors are wanted"),
    (b"\x93NUMPY", "an array of numpy", "weights of torch or safetensors are wanted"),
    (b"GGUF", "a GGUF file", "weights of torch or safetensors are wanted"),
)


def refuse_other_kinds(path: Path) -> None:
    """Refuses a file that is no weights at all, by what it is.

    Raises:
        RunError: says what it is and how to get at weights.
    """
    if not path.is_file():
        raise RunError(f"file:{path} is no file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise RunError(f"file:{path} cannot be read: {error.strerror or error}") from error
    found = pointer(head) or page(head) or text(head) or packed(path, head)
    if found:
        what, advice = found
        raise RunError(f"file:{path} is {what}, no weights: {advice}")


def is_safetensors(path: Path) -> bool:
    """Whether it begins as safetensors do: the length of a JSON header, and that header."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def text(head: bytes) -> tuple[str, str] | None:
    """An empty file, or one of JSON, such as the answer of a server or the index of shards."""
    if not head.strip():
        return ("an empty file" if not head else "a file of blanks"), "download it again"
    if head.lstrip()[:1] not in b"{[":
        return None
    try:
        json.loads(head)
    except UnicodeDecodeError:
        return None
    except json.JSONDecodeError as error:
        if error.pos < len(head.rstrip()) - 64:  # cut off by us at the earliest near the end
            return None
    shown = " ".join(head[:64].decode("utf-8", "replace").split())
    return f"JSON ({shown} ...)", "weights of torch or safetensors are wanted"


def packed(path: Path, head: bytes) -> tuple[str, str] | None:
    """An archive, or a file of another library."""
    for beginning, what, advice in BEGINNINGS:
        if head.startswith(beginning):
            return what, advice
    if head[257:262] == b"ustar" and tarfile.is_tarfile(path):
        return "a tar archive", "unpack it first: tar -xf"
    return zipped(path) if head.startswith(b"PK\x03\x04") else None


def zipped(path: Path) -> tuple[str, str] | None:
    """A ZIP archive that torch.save did not write: a program with its weights, or other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None  # cut off: said by whoever reads it
    inside = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        again = "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        return "a TorchScript archive, a program with its weights", f"save these alone: {again}"
    if inside & {"archive_format", "serialized_exported_program.json"}:
        again = "torch.save(torch.export.load(FILE).state_dict, 'weights.pth')"
        return "an archive of torch.export, a program", f"save its weights alone: {again}"
    if names and all(name.endswith(".npy") for name in names):
        return "an .npz file of numpy's arrays", "weights of torch or safetensors are wanted"
    if "data.pkl" not in inside:
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"a ZIP archive of {some or 'nothing'}", "unpack it first"
    return None


def folder_kind(folder: Path) -> tuple[str, str] | None:
    """A folder of weights in pieces that only their own library puts together."""
    if any(folder.glob("*.distcp")):
        again = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE"
        return "a distributed checkpoint of torch", f"put it together: {again}"
    if (folder / "zero_to_fp32.py").exists() or any(folder.glob("*model_states.pt")):
        return "a checkpoint of DeepSpeed", "put it together: python zero_to_fp32.py . weights.pth"
    return None
