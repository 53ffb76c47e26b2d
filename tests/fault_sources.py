"""Files that users give and what is kept of them, with what reads each: for tests/faults.py."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import messy
import numpy as np
import tiny
import torch
from faults import Kind
from PIL import Image

from maebench import Request, RunConfig, TextFiles, files
from maebench.config.sources import from_sources
from maebench.data import content, kept
from maebench.data.augment import Augment
from maebench.data.folder import Folder
from maebench.data.from_files import from_files
from maebench.data.images import Images
from maebench.data.reading import Reading
from maebench.data.torchvision_sources import read_idx
from maebench.encoders import attention
from maebench.models.export import export
from maebench.models.key_map import read_key_map
from maebench.models.load import load_foreign
from maebench.pretraining import kernels
from maebench.pretraining.checkpoints import weights_hash

SETTINGS = """\
dataset: digits
masking: {name: block, aspect: 0.5}
ratio: 0.6
budget: epochs=2
encoder: {name: vit-nano, width: 16, depth: 2, heads: 2}
evals: [knn, {name: linear-probe, l2: [0.01, 1]}]
"""
KEY_MAP = "'^module.': ''\n'^head': null\n'^(enc|trunk)[.](.*)': '\\2'\n"


def kinds(folder: Path) -> list[Kind]:
    """Every kind of file that a user gives, and of the caches, made small in this folder."""
    return [
        *_of_settings(folder / "settings"),
        *_of_weights(folder / "weights"),
        *_of_images(folder / "images"),
        *_of_texts(folder / "texts"),
        *_of_caches(folder / "caches"),
    ]


def _written(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _own(name: str, path: Path, read: Callable[[], Any], **more: Any) -> Kind:
    """A file of the user's: whatever is read of it is its fingerprint."""
    return Kind(name, path, lambda: {"fingerprint": repr(read())}, own=True, **more)


def _of_settings(folder: Path) -> list[Kind]:
    config = _written(folder / "run.yaml", SETTINGS)
    other = _written(folder / "other.yaml", "dataset: digits\nratio: 0.5\n")
    names = _written(folder / "names.yaml", KEY_MAP)
    others = _written(folder / "other-names.yaml", '"^a": b\n')

    # what is wrong with a setting is said by its name, wherever it was given
    def settings() -> Any:
        found: RunConfig = from_sources({}, (), config)
        return found.dump()

    return [
        _own("--config YAML", config, settings, others=[other], every=2, named=[""]),
        _own("--key-map YAML", names, lambda: read_key_map(names), others=[others]),
    ]


def _of_weights(folder: Path) -> list[Kind]:
    """Weights of a run as others write them: torch's, safetensors, a folder whole and in parts."""
    data = {"name": "folder", "path": messy.clean(folder / "pictures")}
    made = tiny.plan(folder / "results", dataset=data, batch=4, image_size=(8, 8), limit=None)
    model = tiny.load(folder / "results", made.run.name)
    feed = model.preprocess
    paths = {"official": folder / "w.pth", "timm": folder / "w.safetensors", "hf": folder / "hf"}
    for to, path in paths.items():
        export(model.module, "a model", to, path, feed.mean, feed.std)
    parts = folder / "parts"
    shutil.copytree(paths["hf"], parts)
    whole, part = parts / "model.safetensors", parts / "model-00001-of-00001.safetensors"
    whole.rename(part)
    shown = [*_names(part)]
    index = {"metadata": {}, "weight_map": dict.fromkeys(shown, part.name)}
    _written(parts / "model.safetensors.index.json", json.dumps(index))

    def kind(path: Path, at: str = "", every: int = 4, **more: Any) -> Kind:
        def read() -> Any:
            found = load_foreign("file", str(path), {"heads": "2"} if not at else {})
            weights = weights_hash(found.module.state_dict())
            return weights, found.preprocess.dump(), dict(found.facts)

        name = f"weights: {at or path.suffix}"
        return _own(name, path / at, read, every=every, named=[str(path), path.name], **more)

    return [
        kind(paths["official"]),
        kind(paths["timm"]),
        kind(paths["hf"], "config.json"),
        kind(paths["hf"], "model.safetensors"),
        kind(parts, "model.safetensors.index.json"),
    ]


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as held:
        return list(held.keys())


def _alone(images: Images) -> Images:
    """Images that are read by this process, whose warnings are seen."""
    return replace(images, workers=0) if hasattr(images, "workers") else images


def _pixels(images: Images) -> str:
    return hashlib.sha256(torch.cat(list(images.whole(64))).numpy().tobytes()).hexdigest()


def _of_images(folder: Path) -> list[Kind]:
    """Images of folders, their label maps, and MNIST's files."""
    messy.clean(folder / "png")
    for split in ("train", "test"):
        for i in range(4):
            picture = messy.noise(24, 30, 3, seed=i + len(split) * 10)
            messy.save(folder / f"jpg/{split}/{'ab'[i % 2]}/{i}.jpg", picture)
            messy.save(folder / f"maps/{split}/{i}.jpg", picture)
            classes = messy.noise(24, 30, seed=i + len(split)) % 3
            messy.save(folder / f"maps/masks/{split}/{i}.png", classes)

    def folder_of(name: str, file: str, other: str, limit: int, every: int) -> Kind:
        def read() -> dict[str, Any]:
            how = {"image_size": (12, 15), "memory_limit": limit}
            images = _alone(Folder(path=folder / name).load(Request("train", **how)))
            info, maps = images.info, images.info.maps
            found = {"fingerprint": info.fingerprint, "pixels": _pixels(images)}
            if maps is not None:
                found["fingerprint"] += maps.fingerprint
                found["maps"] = maps.pick(list(range(len(maps)))).tolist()
            return {**found, "labels": None if info.labels is None else info.labels.tolist()}

        where = "in memory" if limit else "from files"
        path, others = folder / name / file, [folder / name / other]
        # a folder whose images are all gone but one, or of one that has no map, is told as a whole
        named = [str(folder / name), Path(file).name]
        title = f"{Path(file).suffix} of {name}/, {where}"
        return Kind(title, path, read, others, every=every, own=True, named=named)

    kinds = [
        folder_of(name, file, other, limit, 2)
        for name, file, other in (
            ("png", "train/a/0.png", "train/b/1.png"),
            ("jpg", "train/a/0.jpg", "train/b/1.jpg"),
            ("maps", "masks/train/0.png", "masks/train/1.png"),
        )
        for limit in (2**30, 0)
    ]
    numbers = _written(
        folder / "idx" / "train-images-idx3-ubyte",
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 5, 6, 6) + messy.noise(5, 6, 6).tobytes(),
    )
    return [*kinds, _own("IDX", numbers, lambda: _of_array(read_idx(numbers)))]


def _of_array(values: np.ndarray) -> tuple[Any, ...]:
    return values.shape, values.tobytes()


def _of_texts(folder: Path) -> list[Kind]:
    """Plain text, and lines of JSON."""
    words = [f"{i} {i * i} word{i} and more of them, {'abc'[i % 3]}." for i in range(200)]
    plain = _written(folder / "plain" / "one.txt", "\n\n".join(words))
    other = _written(folder / "other.txt", "\n\n".join(reversed(words)))
    rows = "\n".join(json.dumps({"text": t, "label": i % 2}) for i, t in enumerate(words))
    lines = _written(folder / "lines" / "all.jsonl", rows)

    def of(path: Path) -> Callable[[], dict[str, Any]]:
        def read() -> dict[str, Any]:
            rows = TextFiles(path=path, length=6, vocabulary=300).load(Request("train"))
            labels = rows.info.labels
            tokens = torch.cat(list(rows.whole(64)))
            found = {"labels": None if labels is None else labels.tolist()}
            return {"fingerprint": rows.info.fingerprint, "tokens": tokens.tolist(), **found}

        return read

    return [
        Kind(path.suffix, path, of(path), others, every=4, own=True, named=[path.name])
        for path, others in ((plain, [other]), (lines, []))
    ]


def _of_caches(folder: Path) -> list[Kind]:
    """What is kept between commands."""
    for i in range(6):
        picture = Image.fromarray(messy.noise(20 + i, 30 - i, 3, seed=i))
        held = io.BytesIO()
        picture.save(held, "png" if i % 2 else "jpeg")
        _written(folder / "files" / f"{i}.{'png' if i % 2 else 'jpg'}", held.getvalue())
    paths = sorted((folder / "files").iterdir())

    def known() -> dict[str, Any]:
        with mock.patch.object(content, "TICK_NS", -(10**18)):
            found = content.known(paths, folder / "files", True)
        return {file.path.name: [file.digest, sorted(file.traits)] for file in found}

    def decoded() -> dict[str, Any]:
        how = Reading(cache_gb=1.0)
        split = from_files(paths, None, [], folder, (16, 16), 3, "fail", 0, reading=how)
        images = _alone(split)
        listed = {part.kind for part in kept.parts()}
        crops = images.crops([(torch.arange(6), torch.arange(6))], Augment(shift=2), 0, "cpu")
        pixels = _of_array(torch.cat([batch.images for batch in crops]).numpy())
        return {"pixels": pixels, "kinds": sorted(listed - {"attention.json"})}

    known(), decoded()
    cache = files.cache_folder()
    (by_name,) = (p for p in (cache / "files").iterdir() if "0.jpg" in p.read_text())
    (split,) = (cache / kept.DECODED).iterdir()
    choices = {"a machine, 4 x 2": True, "a machine, 8 x 2": False}
    costs = {"a shape": {"cost": 34.5, "gain": 1.4}, "another": {"cost": 50.0, "gain": 1.1}}
    for name, value in (("attention", choices), ("compiling", costs)):
        files.write_sealed(cache / f"{name}.json", value, name)
    made: dict[str, Any] = {"absent": "it is found out again", "nothing": (None, b"{}")}
    return [
        Kind("cache: files/*.json", by_name, known),
        *(
            Kind(f"cache: decoded/*/{name}", split / name, decoded, root=split, every=8)
            for name in ("pixels", "index", "about.json")
        ),
        Kind("cache: attention.json", cache / "attention.json", attention._read, **made),
        Kind("cache: compiling.json", cache / "compiling.json", kernels._known, **made),
    ]
