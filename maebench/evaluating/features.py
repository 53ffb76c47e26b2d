"""One pass over a split gives every pooling and layer, kept on disk by content."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from maebench.data.images import Images
from maebench.errors import ConfigError, DamagedError, RunError
from maebench.evaluating.tensors import read_tensors, write_tensors
from maebench.evaluation import NotApplicable
from maebench.models.model import LoadedModel, pool_of
from maebench.pretraining import stopping

BATCH = 256  # images per forward pass; features do not depend on it beyond rounding
VERSION = 1  # raised when features of the same weights and images change
# Of all layers and poolings of a split: up to so much the first pass keeps them all, in memory
# while it goes on and then on disk. 60,000 images have 0.6 GB by 192 x 6, 2.4 by ViT-S.
EVERY = 2**30
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Progress = Callable[[Iterable[Tensor], int, str], Iterable[Tensor]]


def features(
    model: LoadedModel,
    images: Images,
    layer: int | None = None,
    pool: str = "mean",
    progress: Progress = lambda steps, total, what: steps,
) -> Tensor:
    """Features of all images of a split, float32 (N, D) on the CPU.

    One pass gives all poolings, and all layers where one is asked for or where they are no more
    than EVERY bytes. Kept in bfloat16 (`machine.features`) they take half of the space, and each
    number differs by up to 2^-8 of itself; they are rounded before they are used, so that it is
    the same number whether it was just computed or read.

    Raises:
        NotApplicable: a feature is not finite.
        ConfigError: a layer or pooling that the model has not.
    """
    pool = pool_of(model, pool)
    if layer is not None and (model.encoder is None or not 1 <= layer <= model.encoder.depth):
        depth = 0 if model.encoder is None else model.encoder.depth
        raise ConfigError(f"layer {layer}: {model.name} has blocks 1 to {depth}")
    every = () if model.encoder is None else tuple(range(1, model.encoder.depth + 1))
    name = f"{layer or 'last'}.{pool}"
    found = None
    for layers in ((), every) if layer is None else (every,):  # all of them have the end too
        if found is None:
            found = _read(_path(model, images, layers), name, len(images))
    if found is None:
        layers = every if layer is not None or _bytes(model, images, every) <= EVERY else ()
        made = _encoded(model, images, layers, progress)
        _write(_path(model, images, layers), made)
        found = made.get(name, torch.empty(0))
    if not len(found):  # a class token that joins in later
        raise NotApplicable(f"layer {layer} of {model.name} has no {pool}")
    if not bool(found.isfinite().all()):
        raise NotApplicable(f"features of {model.name} are not finite")
    return found.float()


def _encoded(
    model: LoadedModel, images: Images, layers: tuple[int, ...], progress: Progress
) -> dict[str, Tensor]:
    """Features of one pass by layer and pooling, in the precision that they are kept in."""
    found: dict[str, Tensor] = {}
    steps = -(-len(images) // BATCH)
    done = 0
    for batch in progress(images.whole(BATCH), steps, f"features of {model.kind}"):
        for (at, how), part in model.encode_all(batch, layers).items():
            name = f"{at or 'last'}.{how}"
            if name not in found:
                dtype = DTYPES[model.config.machine.features]
                found[name] = torch.empty(len(images), part.shape[1], dtype=dtype)
            found[name][done : done + len(part)] = part
        done += len(batch)
    return found


def _bytes(model: LoadedModel, images: Images, layers: tuple[int, ...]) -> int:
    """About how much the features of these layers and of the end take."""
    if model.encoder is None:
        return 0
    each = model.encoder.width * DTYPES[model.config.machine.features].itemsize
    return len(images) * (len(layers) + 1) * len(model.pools()) * each


def _path(model: LoadedModel, images: Images, layers: tuple[int, ...]) -> Path:
    return model.folder / "features" / f"{cache_key(model, images, layers)}.safetensors"


def cache_key(model: LoadedModel, images: Images, layers: tuple[int, ...]) -> str:
    """A hash of all that features depend on: weights, pre-processing, images, layers, version.

    And of the precisions that they are computed and kept in.
    """
    parts = [
        model.weights,
        repr(model.preprocess),
        images.info.fingerprint,
        repr(layers),
        str(VERSION),
    ]
    if model.config.machine.features != "fp32":
        parts.append(model.config.machine.features)
    if model.precision != "fp32":
        parts.append(f"computed in {model.precision}")
    return hashlib.blake2b("/".join(parts).encode(), digest_size=10).hexdigest()


def _read(path: Path, name: str, num_images: int) -> Tensor | None:
    """One layer and pooling of a file, empty where it has not got it; None without a whole file.

    Whatever is not as it was written is said, and the pass is made again.
    """
    if not path.exists():
        return None
    try:
        found, _ = read_tensors(path, path.stem, [name])
        if name not in found:
            return torch.empty(0)
        if found[name].ndim != 2 or len(found[name]) != num_images:
            shape = tuple(found[name].shape)
            raise DamagedError(f"{path} is damaged: shape {shape} of {num_images} images")
        return found[name]
    except DamagedError as error:
        stopping.check()
        warnings.warn(f"features {error}; they are computed again", stacklevel=4)
        return None


def _write(path: Path, found: dict[str, Tensor]) -> None:
    try:
        write_tensors(path, path.stem, found)
    except RunError as error:  # a cache: without it the next evaluation is slower, no more
        warnings.warn(f"features are not kept: {error}", stacklevel=2)
