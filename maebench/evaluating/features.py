"""One pass over a split gives every pooling and layer, kept on disk by content."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from maebench import files
from maebench.data.images import Images
from maebench.errors import ConfigError, RunError
from maebench.evaluation import NotApplicable
from maebench.models.model import LoadedModel, pool_of

BATCH = 256  # images per forward pass; features do not depend on it beyond rounding
VERSION = 1  # raised when features of the same weights and images change
Progress = Callable[[Iterable[Tensor], int, str], Iterable[Tensor]]


def features(
    model: LoadedModel,
    images: Images,
    layer: int | None = None,
    pool: str = "mean",
    progress: Progress = lambda steps, total, what: steps,
) -> Tensor:
    """Features of all images of a split, float32 (N, D) on the CPU.

    The pass that finds nothing on disk keeps all poolings, and all layers where one is asked for.

    Raises:
        NotApplicable: a feature is not finite.
        ConfigError: a layer or pooling that the model has not.
    """
    pool = pool_of(model, pool)
    if layer is not None and (model.encoder is None or not 1 <= layer <= model.encoder.depth):
        depth = 0 if model.encoder is None else model.encoder.depth
        raise ConfigError(f"layer {layer}: {model.name} has blocks 1 to {depth}")
    every = () if model.encoder is None else tuple(range(1, model.encoder.depth + 1))
    layers = () if layer is None else every
    path = _path(model, images, layers)
    found = _read(path)
    if found is None and layers != every:  # a pass for all layers has the last one too
        found = _read(_path(model, images, every))
    if found is None:
        total = -(-len(images) // BATCH)
        parts = [
            model.encode_all(batch, layers)
            for batch in progress(images.whole(BATCH), total, f"features of {model.kind}")
        ]
        found = {
            f"{at or 'last'}.{how}": torch.cat([p[at, how] for p in parts]) for at, how in parts[0]
        }
        _write(path, found)
    if f"{layer or 'last'}.{pool}" not in found:  # a class token that joins in later
        raise NotApplicable(f"layer {layer} of {model.name} has no {pool}")
    value = found[f"{layer or 'last'}.{pool}"]
    if not bool(value.isfinite().all()):
        raise NotApplicable(f"features of {model.name} are not finite")
    return value


def _path(model: LoadedModel, images: Images, layers: tuple[int, ...]) -> files.Path:
    return model.folder / "features" / f"{cache_key(model, images, layers)}.safetensors"


def cache_key(model: LoadedModel, images: Images, layers: tuple[int, ...]) -> str:
    """A hash of all that features depend on: weights, pre-processing, images, layers, version."""
    parts = [
        model.weights,
        repr(model.preprocess),
        images.info.fingerprint,
        repr(layers),
        str(VERSION),
    ]
    return hashlib.blake2b("/".join(parts).encode(), digest_size=10).hexdigest()


def _read(path: files.Path) -> dict[str, Tensor] | None:
    try:
        return load_file(path) if path.exists() else None
    except (SafetensorError, OSError):
        return None  # cut off: the pass is made again and the file replaced


def _write(path: files.Path, found: dict[str, Tensor]) -> None:
    try:
        files.write(path, lambda beside: save_file(found, beside))
    except (
        RunError,
        SafetensorError,
    ) as error:  # a cache: without it the next evaluation is slower, no more
        warnings.warn(f"features are not kept: {error}", stacklevel=2)
