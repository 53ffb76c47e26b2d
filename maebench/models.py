"""MODEL strings to something that encodes: a run, its floor, raw pixels, or others' weights.

Where a run is asked for: its name or folder. `untrained:RUN` is that run's encoder at step 0,
`pixels:DATASET` the control without an encoder; both take the newest run where nothing follows.
`file:PATH`, `timm:NAME` and `hf:NAME` are models that maebench did not train; what their weights
do not say follows as `,heads=6`.
"""

from __future__ import annotations

import re
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
from maebench.data.preprocess import Preprocess, Ready
from maebench.data.splits import Splits
from maebench.errors import ConfigError, RunError, unknown
from maebench.evaluation import NotApplicable
from maebench.hardware import find_device
from maebench.objectives.objective import Board
from maebench.plugins import Names, installed
from maebench.pretrain import build, inputs_of
from maebench.rng import Draws
from maebench.weights.foreign import Foreign
from maebench.weights.given import USES, split_spec
from maebench.weights.load import load_foreign
from maebench.weights.verdict import Verdict

FOREIGN = ("file", "timm", "hf")
KINDS = ("untrained", "pixels", *FOREIGN)  # prefixes of MODEL strings; without one it is a run


@dataclass(frozen=True)
class LoadedModel:
    """Anything that can be evaluated.

    Args:
        name: as in tables: the run's name, `untrained:<run>`, `pixels:<dataset>`, `timm:<name>`.
        kind: "run", "untrained", "pixels", "file", "timm" or "hf".
        folder: where features, records and pictures of this model go.
        module: the objective around the encoder, in eval mode; None for pixels.
        config: the run's settings; of other kinds, what the data set's preset gives.
        splits: the data it was made on, or is tested on where it comes from elsewhere.
        preprocess: what images go through before the encoder.
        weights: a hash of the encoder's weights; of the settings for pixels.
        device: where it lies.
        run: the run it belongs to, or None.
        verdict: how weights from elsewhere fit; None for maebench's own.
        no_decoder: why it cannot reconstruct, where its weights say so.
    """

    name: str
    kind: str
    folder: Path
    module: Any
    config: RunConfig
    splits: Splits
    preprocess: Preprocess
    weights: str
    device: str
    run: runs.Run | None = None
    verdict: Verdict | None = None
    no_decoder: str = ""

    @property
    def encoder(self) -> Any:
        """The encoder, or None for pixels."""
        return None if self.module is None else self.module.encoder

    @property
    def normalise(self) -> Ready:
        """Pixels in 0..255 to the encoder's input, as it was trained."""
        return self.preprocess.on(self.device)

    def pools(self) -> tuple[str, ...]:
        """Which poolings there are, the one to prefer first."""
        if self.encoder is None:
            return ("flat",)
        return ("mean", "cls") if has_class_token(self.encoder) else ("mean",)

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
        found = self.encode_all(images, () if layer is None else (layer,))
        pool = pool_of(self, pool)
        if (layer, pool) not in found:  # its class token joins in later
            raise ConfigError(f"layer {layer} of {self.name} has no {pool}")
        return found[layer, pool]

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
            if has_class_token(self.encoder) and level.prefix.shape[1]:
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
        self.preprocess.check(self.name, tuple(images.shape[1:]))

    def decoder(self) -> Any:
        """The whole module, where it can reconstruct.

        Raises:
            NotApplicable: there is no decoder.
        """
        if self.module is None:
            raise NotApplicable("raw pixels have no decoder")
        if self.no_decoder:
            raise NotApplicable(self.no_decoder)
        if not hasattr(self.module, "reconstruct"):
            objective = self.config.objective
            why = f": {objective.no_decoder}" if objective.no_decoder else ""
            raise NotApplicable(f"objective {objective.name!r} does not reconstruct{why}")
        return self.module

    @torch.no_grad()
    def pictures(self, images: Tensor, draws: Draws) -> Mapping[str, Board]:
        """The objective's own pictures by name (see Objective); empty where it has none."""
        if not hasattr(self.module, "pictures"):
            return {}
        found: Mapping[str, Board] = self.module.pictures(images, draws)
        return found


def has_class_token(encoder: Any) -> bool:
    """Whether the first prefix token is one; registers alone are none."""
    return bool(getattr(encoder, "class_token", encoder.prefix))


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
    *,
    data: Mapping[str, Any] | None = None,
    key_map: str | Path | None = None,
    download: bool = False,
) -> LoadedModel:
    """The model that a MODEL string names; the newest run where it is empty.

    Args:
        spec: such as "", "untrained:", "file:mae.pth,target=pixels" or "timm:resnet18".
        results: where runs lie.
        device: to put it on.
        names: the installed components.
        data: for a model from elsewhere, what it is to be tested on, as fields of RunConfig
            (dataset, data_dir, limit, image_size ...); the newest run's data where it is left out.
        key_map: for `file:` and `timm:NAME,weights=FILE`, regular expressions for the weights'
            names, a YAML file.
        download: whether a hub may be asked for weights.

    Raises:
        MaebenchError: there is none, or its weights are missing, damaged or do not fit.
    """
    folder = runs.results_folder(results)
    names = names or installed()
    kind, colon, rest = spec.partition(":")
    if colon and kind not in KINDS and not Path(spec).exists():
        raise ConfigError(unknown("kind of model", kind, [f"{k}:" for k in KINDS], repr(spec)))
    if kind in FOREIGN and colon:
        name, options = split_spec(rest)
        if key_map is not None:
            if "key_map" not in USES[kind]:
                raise ConfigError(f"--key-map: {spec} has names that are known")
            options.setdefault("key_map", str(key_map))
        made = load_foreign(kind, name, options, download)
        return foreign_model(made, kind, folder, device, names, data or {})
    if kind == "pixels" and colon:
        return pixels_model(rest, folder, device, names)
    if kind == "untrained" and colon:
        return untrained_model(runs.find_run(folder, rest), folder, device, names)
    return trained_model(runs.find_run(folder, spec), device, names)


def foreign_model(
    made: Foreign, kind: str, results: Path, device: str, names: Names, data: Mapping[str, Any]
) -> LoadedModel:
    """A model from elsewhere on the data it is to be tested on.

    Raises:
        ConfigError: no data set is given and there is no run to take it from.
    """
    config = data_config(made.preprocess, results, names, data)
    place = find_device(device)
    module = made.module.to(place)
    # heads, epsilons and the like change numbers and are no weights
    weights = checkpoints.weights_hash(module.encoder.state_dict())
    mark = short_hash({"weights": weights, **made.facts}) if made.facts else weights
    told = {"name": made.name, "weights": mark, "preprocessing": made.preprocess.dump()}
    told["facts"] = dict(made.facts)
    folder = results / "models" / files.safe_name(f"{kind}-{_plain(made.name)}-{short_hash(told)}")
    files.write_json(folder / "model.json", {**told, **made.verdict.dump()})
    return LoadedModel(
        name=made.name,
        kind=kind,
        folder=folder,
        module=module,
        config=config,
        splits=config.splits(),
        preprocess=made.preprocess,
        weights=mark,
        device=place,
        verdict=made.verdict,
        no_decoder=made.no_decoder,
    )


def data_config(
    preprocess: Preprocess, results: Path, names: Names, data: Mapping[str, Any]
) -> RunConfig:
    """The data of the newest run with what is asked for instead, at the size that suits a model.

    A data set of smaller images than the model takes is kept as it is and enlarged on the way in;
    of larger ones the split is cut at the size from which the model's centre crop is taken.
    """
    newest = next(iter(reversed(runs.all_runs(results))), None)
    if newest is None and not data.get("dataset"):
        raise ConfigError(
            "a model from elsewhere is tested on the newest run's data, and there is "
            "no run: give --dataset (and --data-dir)"
        )
    base: dict[str, Any] = {}
    if newest is not None:
        own = newest.config(names)
        base = {"dataset": own.dataset, "data_dir": own.data_dir, "limit": own.limit}
        base |= {"on_bad_image": own.on_bad_image}
    return sized(RunConfig(names, **given_over(base, data, names)), preprocess, data)


def given_over(base: Mapping[str, Any], data: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Data settings over others; another data set does not keep the limit and the size."""
    kept = dict(base)
    if data.get("dataset"):
        asked = parse(Dataset, data["dataset"], names.context(), "--dataset")
        before = base.get("dataset")
        if before is None or asked.name != before.name:
            kept.pop("limit", None)
            kept.pop("image_size", None)
    return {**kept, **data}


def sized(config: RunConfig, preprocess: Preprocess, data: Mapping[str, Any]) -> RunConfig:
    """The config with images of the size to hand to this pre-processing."""
    if data.get("image_size"):
        return config
    small = all(own < side for own, side in zip(config.size, preprocess.size, strict=True))
    if small and not config.dataset.any_size:
        return config
    return config.model_copy(update={"image_size": preprocess.resized})


def _plain(name: str) -> str:
    """A model's name as a part of a folder's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.partition(":")[2]).strip("-.")[-80:] or "model"


def trained_model(
    run: runs.Run, device: str, names: Names, config: RunConfig | None = None
) -> LoadedModel:
    """A run with the weights of its last step; `config` saves looking up its components by name.

    Raises:
        RunError: it is not finished.
    """
    config = config or run.config(names)
    found = checkpoints.load_newest(run.folder / "checkpoint")
    done = found[1]["step"] if found else 0
    if found is None or done != found[1]["total"]:
        steps = run.facts["steps"]
        far = f"{done} of {steps} steps" if steps else f"{done} steps"
        raise RunError(
            f"run {run.name} is not finished ({far}): the command that started it goes on with it"
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
        preprocess=Preprocess(config.size, kept["channels"], kept["mean"], kept["std"]),
        weights=mark,
        device=find_device(device),
    )


def _loaded(
    name: str, kind: str, folder: Path, module: Any, config: RunConfig, run: runs.Run, device: str
) -> LoadedModel:
    place = find_device(device)
    module = module.to(place).eval().requires_grad_(False)
    mark = checkpoints.weights_hash(module.encoder.state_dict())
    facts = run.facts
    feed = Preprocess(config.size, facts["channels"], facts["mean"], facts["std"])
    return LoadedModel(name, kind, folder, module, config, config.splits(), feed, mark, place, run)
