"""Weights on disk: one safetensors file and a manifest with hashes per checkpoint; no pickle."""

from __future__ import annotations

import contextlib
import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from maebench import files
from maebench.errors import DamagedError, ReadOnlyError, RunError
from maebench.pretraining import stopping

STATE, MANIFEST = "state.safetensors", "manifest.json"
KEPT = 2  # the newest and one before it, in case the newest is damaged


Store = Callable[[Path, int, Mapping[str, Tensor], Mapping[str, Any]], float]


def store(
    folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> float:
    """Writes the checkpoint of a step as a whole and removes all but the newest two.

    Args:
        folder: of the run's checkpoints.
        step: of this one.
        tensors: all of the state, on the CPU.
        facts: what else the manifest holds.

    Returns:
        The seconds that it took.

    Raises:
        RunError: the disk is full; the checkpoints before stay.
    """
    began = time.monotonic()

    def fill(beside: Path) -> None:
        whole = {name: value.detach().contiguous() for name, value in tensors.items()}
        try:
            save_file(whole, beside / STATE)
        except SafetensorError as error:  # a full disk, which is no OSError there
            raise OSError(str(error)) from error
        manifest = {
            "step": step,
            "sha256": files.sha256(beside / STATE),
            "weights": weights_hash({k: t for k, t in whole.items() if k.startswith("model.")}),
            **facts,
        }
        files.write_sealed(beside / MANIFEST, manifest, _whose(folder / folder_name(step)))

    files.write_folder(folder / folder_name(step), fill)
    for old in steps(folder)[:-KEPT]:
        files.remove(old)
    return time.monotonic() - began


@contextlib.contextmanager
def storing(device: str) -> Iterator[Store]:
    """Gives `store`; of a GPU's state one that is done while the next steps are computed.

    Tensors are copied in the order of the GPU's work, so before the next update, and written by a
    thread. The next call waits for it, gives the seconds that it took, and raises what went wrong,
    as the end does; where the run ends by an error of its own, that one is raised with a note.
    """
    if torch.device(device).type != "cuda":
        yield store
        return
    writing: list[Future[float]] = []

    def later(
        folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> float:
        took = writing.pop().result() if writing else 0.0
        copies, arrived = off_device(tensors, device)

        def write() -> float:
            arrived()
            return store(folder, step, copies, facts)

        writing.append(pool.submit(write))
        return took

    with ThreadPoolExecutor(1) as pool:
        try:
            yield later
        except BaseException as error:
            if writing and (why := writing.pop().exception()):
                error.add_note(f"and the checkpoint before was not written: {why}")
            raise
        if writing:
            writing.pop().result()


def off_device(
    tensors: Mapping[str, Tensor], device: str
) -> tuple[dict[str, Tensor], Callable[[], None]]:
    """Copies on the CPU, which are there when what comes with them has returned."""
    copies = {
        name: torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
        for name, value in tensors.items()
    }
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(device))
    return copies, done.synchronize


def steps(folder: Path) -> list[Path]:
    """The complete checkpoints, the newest last."""
    return sorted(p.parent for p in folder.glob(f"step-*/{MANIFEST}"))


def newest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the newest checkpoint that has a readable one; weights are not checked."""
    for path in reversed(steps(folder)):
        with contextlib.suppress(RunError):
            return read_manifest(path)
    return None


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of one checkpoint.

    Raises:
        RunError: it is missing, cut off, or speaks of another step than its folder.
    """
    manifest = files.read_sealed(path / MANIFEST, _whose(path))
    if path.name != folder_name(manifest.get("step")):
        raise DamagedError(f"checkpoint {path} is damaged: its manifest names another step")
    if not isinstance(manifest.get("spent", {}), dict):
        raise DamagedError(f"checkpoint {path} is damaged: its manifest is not whole")
    return manifest


def _whose(path: Path) -> str:
    """The run and the step that a checkpoint belongs to."""
    return f"{path.parents[1].name}/{path.name}"


def folder_name(step: object) -> str:
    """The folder of a step's checkpoint; names sort as steps do."""
    return f"step-{step:09d}" if isinstance(step, int) else ""


def load_newest(folder: Path, move: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and manifest of the newest whole checkpoint.

    Args:
        folder: of the run's checkpoints.
        move: whether damaged ones are moved aside, which only the holder of the run's lock may.
    """
    for path in reversed(steps(folder)):
        try:
            return load(path)
        except RunError as error:
            stopping.check()
            moved = ""
            with contextlib.suppress(ReadOnlyError):  # it stays, and is passed over again
                moved = f"; moved to {files.move_aside(path).name}" if move else ""
            warnings.warn(f"{error}{moved}", stacklevel=2)
    return None


def is_whole(path: Path) -> bool:
    """Whether the bytes of a checkpoint are those that were written."""
    try:
        manifest = read_manifest(path)
        return bool(files.sha256(path / STATE) == manifest.get("sha256"))
    except (RunError, OSError):
        return False


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and manifest of one checkpoint.

    Raises:
        RunError: a file is missing, cut off or has other bytes than were written.
    """
    manifest = read_manifest(path)
    try:
        if files.sha256(path / STATE) != manifest.get("sha256"):
            raise DamagedError(f"checkpoint {path} is damaged: its bytes are not those written")
        return load_file(path / STATE), manifest
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"checkpoint {path} cannot be read: {error}") from error


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """Twenty hex digits of names, shapes and values."""
    mark = hashlib.blake2b(digest_size=10)
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        mark.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        mark.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return mark.hexdigest()


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, without it."""
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def load_strictly(module: Any, tensors: Mapping[str, Tensor], what: str) -> None:
    """Loads weights into a module whose names and shapes are exactly these.

    Raises:
        RunError: names what is missing, what is left over and what has another shape.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    extra = sorted(tensors.keys() - own.keys())
    shapes = [k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape]
    if missing or extra or shapes:
        raise RunError(
            f"the weights of {what} do not fit: missing {missing or 'none'}, "
            f"left over {extra or 'none'}, other shape {sorted(shapes) or 'none'}"
        )
    module.load_state_dict(tensors)
