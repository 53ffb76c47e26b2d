"""MODEL strings to something that encodes: a run, its untrained floor, or raw pixels.

Where a run is asked for: its name or folder. `untrained:RUN` is that run's encoder at step 0,
`pixels:DATASET` the control without an encoder; both take the newest run where nothing follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maebench import checkpoints, files, runs
from maebench.component import parse
from maebench.config import RunConfig, short_hash
from maebench.data.dataset import Dataset
from maebench.data.normalise import Normalise
from maebench.data.splits import Splits
from maebench.errors import ConfigError, RunError, unknown
from maebench.evaluation import NotApplicable
from maebench.hardware import find_device
from maebench.plugins import Names, installed
from maebench.pretrain import build, inputs_of

KINDS = ("untrained", "pixels")  # prefixes of MODEL strings; without one it is a run


@dataclass(frozen=True)
class LoadedModel:
    """Anything that can be evaluated.

    Args:
        name: as in tables: the run's name, `untrained:<run>` or `pixels:<dataset>`.
        kind: "run", "untrained" or "pixels".
        folder: where features, records and pictures of this model go.
        module: the objective around the encoder, in eval mode; None for pixels.
        config: the run's settings; for pixels, what the data set's preset gives.
        splits: the data it was made on.
        facts: grid, patch, channels, mean, std ... of the run.
        weights: a hash of the encoder's weights; of the settings for pixels.
        device: where it lies.
        run: the run it belongs to, or None.
    """

    name: str
    kind: str
    folder: Path
    module: Any
    config: RunConfig
    splits: Splits
    facts: Mapping[str, Any]
    weights: str
    device: str
    run: runs.Run | None = None

    @property
    def encoder(self) -> Any:
        """The encoder, or None for pixels."""
        return None if self.module is None else self.module.encoder

    @property
    def normalise(self) -> Normalise:
        """Pixels in 0..255 to the encoder's input, with the statistics of its training data."""
        return Normalise(self.facts["mean"], self.facts["std"], self.device)

    def pools(self) -> tuple[str, ...]:
        """Which poolings there are, the one to prefer first."""
        if self.encoder is None:
            return ("flat",)
        return ("mean", "cls") if self.encoder.prefix else ("mean",)

    @torch.no_grad()
    def encode(self, images: Tensor, layer: int | None = None, pool: str = "mean") -> Tensor:
        """Features of images, every patch seen, float32 (B, D) on the CPU.

        Args:
            images: uint8 or float pixels in 0..255, (B, C, H, W) as the encoder was built for.
            layer: block number from 1; None is after the last norm.
            pool: "mean" of the patch tokens, "cls", or "flat" for pixels.

        Raises:
            ConfigError: images of another size, or a layer or pooling this model has not.
        """
        return self.encode_all(images, () if layer is None else (layer,))[
            layer, pool_of(self, pool)
        ]

    @torch.no_grad()
    def encode_all(
        self, images: Tensor, layers: Sequence[int] = ()
    ) -> dict[tuple[int | None, str], Tensor]:
        """Features of every pooling, after the last norm and after each asked-for block."""
        self.check_images(images)
        pixels = self.normalise(images)
        if self.encoder is None:
            return {(None, "flat"): pixels.flatten(1).cpu()}
        wrong = [layer for layer in layers if not 1 <= layer <= self.encoder.depth]
        if wrong:
            raise ConfigError(f"layer {wrong[0]}: {self.name} has blocks 1 to {self.encoder.depth}")
        tokens = self.encoder(pixels, None, tuple(layers))
        found = {}
        for layer, level in ((None, tokens), *tokens.layers.items()):
            found[layer, "mean"] = level.patches.mean(1).float().cpu()
            if self.encoder.prefix:
                found[layer, "cls"] = level.prefix[:, 0].float().cpu()
        return found

    @torch.no_grad()
    def patches(self, images: Tensor, layer: int | None = None) -> Tensor:
        """Patch tokens of images, float32 (B, N, D) on the CPU; `layer` as in `encode`."""
        self.check_images(images)
        tokens = self.encoder(self.normalise(images), None, () if layer is None else (layer,))
        level = tokens if layer is None else tokens.layers[layer]
        return level.patches.float().cpu()

    def check_images(self, images: Tensor) -> None:
        """Refuses images of another size or channel count.

        Raises:
            ConfigError: names both.
        """
        wanted = (self.facts["channels"], *self.config.size)
        if images.ndim != 4 or tuple(images.shape[1:]) != wanted:
            shape = "x".join(map(str, wanted))
            raise ConfigError(
                f"{self.name} was built for images of {shape} (channels x rows x columns), "
                f"got {'x'.join(map(str, images.shape[1:]))}"
            )

    def decoder(self) -> Any:
        """The whole module, where it can reconstruct.

        Raises:
            NotApplicable: there is no decoder.
        """
        if self.module is None:
            raise NotApplicable("raw pixels have no decoder")
        if not hasattr(self.module, "reconstruct"):
            raise NotApplicable(f"objective {self.config.objective.name!r} does not reconstruct")
        return self.module


def pool_of(model: LoadedModel, pool: str) -> str:
    """The pooling to use: what is asked for, or "flat" where there are no tokens.

    Raises:
        ConfigError: the model has no such pooling.
    """
    if model.encoder is None:
        return "flat"
    if pool not in model.pools():
        raise ConfigError(unknown("pooling", pool, model.pools(), model.name))
    return pool


def load_model(
    spec: str = "",
    results: str | Path | None = None,
    device: str = "auto",
    names: Names | None = None,
) -> LoadedModel:
    """The model that a MODEL string names; the newest run where it is empty.

    Raises:
        MaebenchError: there is none, or its weights are missing or damaged.
    """
    folder = runs.results_folder(results)
    names = names or installed()
    kind, colon, rest = spec.partition(":")
    if colon and kind not in KINDS and not Path(spec).exists():
        raise ConfigError(unknown("kind of model", kind, [f"{k}:" for k in KINDS], repr(spec)))
    if kind == "pixels" and colon:
        return pixels_model(rest, folder, device, names)
    if kind == "untrained" and colon:
        return untrained_model(runs.find_run(folder, rest), folder, device, names)
    return trained_model(runs.find_run(folder, spec), device, names)


def trained_model(
    run: runs.Run, device: str, names: Names, config: RunConfig | None = None
) -> LoadedModel:
    """A run with the weights of its last step; `config` saves looking up its components by name.

    Raises:
        RunError: it is not finished.
    """
    config = config or run.config(names)
    found = checkpoints.load_newest(run.folder / "checkpoint")
    steps = run.facts["steps"]
    done = found[1]["step"] if found else 0
    if found is None or done < steps:
        raise RunError(
            f"run {run.name} is not finished ({done} of {steps} steps): "
            "the command that started it goes on with it"
        )
    module = build(config, inputs_of(config, run.facts))
    checkpoints.load_strictly(module, checkpoints.part(found[0], "model."), run.name)
    return _loaded(run.name, "run", run.folder, module, config, run, device)


def untrained_model(
    run: runs.Run, results: Path, device: str, names: Names, config: RunConfig | None = None
) -> LoadedModel:
    """A run's model at step 0: the floor that pretraining has to beat."""
    config = config or run.config(names)
    module = build(config, inputs_of(config, run.facts))
    mark = checkpoints.weights_hash(module.encoder.state_dict())
    folder = results / "models" / files.safe_name(f"untrained-{run.name}-{mark[:10]}")
    return _loaded(f"untrained:{run.name}", "untrained", folder, module, config, run, device)


def pixels_model(rest: str, results: Path, device: str, names: Names) -> LoadedModel:
    """Raw pixels of a data set, or of the newest run's where none is named: the control."""
    if not rest:
        run = runs.find_run(results, "")
        return pixels_of(run.config(names), run.facts, results, device)
    dataset = parse(Dataset, rest, names.context(), "pixels:")
    config = RunConfig(names, dataset=dataset)
    return pixels_of(config, None, results, device)


def pixels_of(
    config: RunConfig, facts: Mapping[str, Any] | None, results: Path, device: str
) -> LoadedModel:
    """The control for a config's data, at its image size."""
    from maebench.data.images import channel_statistics

    splits = config.splits()
    if facts is None:
        train = splits.load("train")
        mean, std = channel_statistics(train)
        facts = {"channels": train.about.channels, "mean": list(mean), "std": list(std)}
    kept = {key: facts[key] for key in ("channels", "mean", "std")}
    spec = {"dataset": config.dump()["dataset"], "size": list(config.size), **kept}
    mark = short_hash(spec)
    folder = results / "models" / files.safe_name(f"pixels-{config.dataset.name}-{mark}")
    return LoadedModel(
        name=f"pixels:{config.dataset.name}",
        kind="pixels",
        folder=folder,
        module=None,
        config=config,
        splits=splits,
        facts=kept,
        weights=mark,
        device=find_device(device),
    )


def _loaded(
    name: str, kind: str, folder: Path, module: Any, config: RunConfig, run: runs.Run, device: str
) -> LoadedModel:
    place = find_device(device)
    module = module.to(place).eval().requires_grad_(False)
    mark = checkpoints.weights_hash(module.encoder.state_dict())
    return LoadedModel(
        name, kind, folder, module, config, config.splits(), run.facts, mark, place, run
    )
