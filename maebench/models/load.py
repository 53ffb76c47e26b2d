"""MODEL strings to something that encodes: a run, its floor, raw pixels, or others' weights.

Where a run is asked for: its name or folder. `untrained:RUN` is that run's encoder at step 0,
`pixels:DATASET` the control without an encoder; both take the newest run where nothing follows.
`file:PATH`, `timm:NAME` and `hf:NAME` are models that maebench did not train; what their weights
do not say follows as `,heads=6`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maebench import files
from maebench.component import parse
from maebench.config.run import RunConfig
from maebench.data.dataset import Dataset, Splits
from maebench.data.images import channel_statistics
from maebench.data.preprocess import Preprocess
from maebench.errors import ConfigError, RunError, unknown
from maebench.models import from_hf, from_timm
from maebench.models.from_file import from_weights
from maebench.models.model import LoadedModel
from maebench.models.reading import read_weights
from maebench.models.weights import (
    RANDOM,
    USES,
    Foreign,
    SpecOptions,
    adapted,
    read_given,
    split_spec,
)
from maebench.plugins import Names, installed
from maebench.pretraining import checkpoints, runs
from maebench.pretraining.hardware import find_device
from maebench.pretraining.plan import build, config_of, inputs_of

FOREIGN = ("file", "timm", "hf")
KINDS = ("untrained", "pixels", *FOREIGN)  # prefixes of MODEL strings; without one it is a run


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
    mark = files.short_hash({"weights": weights, **made.facts}) if made.facts else weights
    told = {"name": made.name, "weights": mark, "preprocessing": made.preprocess.dump()}
    told["facts"] = dict(made.facts)
    folder = (
        results / "models" / files.safe_name(f"{kind}-{_plain(made.name)}-{files.short_hash(told)}")
    )
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
        own = config_of(newest, names)
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
    run: runs.Run,
    device: str,
    names: Names,
    config: RunConfig | None = None,
    splits: Splits | None = None,
) -> LoadedModel:
    """A run with the weights of its last step; `config` saves looking up its components by name.

    Raises:
        RunError: it is not finished.
    """
    config = config or config_of(run, names)
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
    return _loaded(run.name, "run", run.folder, module, config, run, device, splits)


def untrained_model(
    run: runs.Run,
    results: Path,
    device: str,
    names: Names,
    config: RunConfig | None = None,
    splits: Splits | None = None,
) -> LoadedModel:
    """A run's model at step 0: the floor that pretraining has to beat."""
    config = config or config_of(run, names)
    module = build(config, inputs_of(config, run.facts))
    mark = checkpoints.weights_hash(module.encoder.state_dict())
    folder = results / "models" / files.safe_name(f"untrained-{run.name}-{mark[:10]}")
    return _loaded(
        f"untrained:{run.name}", "untrained", folder, module, config, run, device, splits
    )


def pixels_model(rest: str, results: Path, device: str, names: Names) -> LoadedModel:
    """Raw pixels of a data set, or of the newest run's where none is named: the control."""
    if not rest:
        run = runs.find_run(results, "")
        return pixels_of(config_of(run, names), run.facts, results, device)
    dataset = parse(Dataset, rest, names.context(), "pixels:")
    config = RunConfig(names, dataset=dataset)
    return pixels_of(config, None, results, device)


def pixels_of(
    config: RunConfig,
    facts: Mapping[str, Any] | None,
    results: Path,
    device: str,
    splits: Splits | None = None,
) -> LoadedModel:
    """The control for a config's data, at its image size."""
    splits = splits or config.splits()
    if facts is None:
        train = splits.load("train")
        mean, std = channel_statistics(train)
        facts = {"channels": train.info.channels, "mean": list(mean), "std": list(std)}
    kept = {key: facts[key] for key in ("channels", "mean", "std")}
    spec = {"dataset": config.dump()["dataset"], "size": list(config.size), **kept}
    mark = files.short_hash(spec)
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
    name: str,
    kind: str,
    folder: Path,
    module: Any,
    config: RunConfig,
    run: runs.Run,
    device: str,
    splits: Splits | None,
) -> LoadedModel:
    place = find_device(device)
    module = module.to(place).eval().requires_grad_(False)
    mark = checkpoints.weights_hash(module.encoder.state_dict())
    facts = run.facts
    feed = Preprocess(config.size, facts["channels"], facts["mean"], facts["std"])
    splits = splits or config.splits()
    return LoadedModel(name, kind, folder, module, config, splits, feed, mark, place, run)


WANTS = {"file": "PATH", "timm": "NAME, such as timm:vit_tiny_patch16_224", "hf": "OWNER/NAME"}


def load_foreign(
    kind: str, name: str, options: Mapping[str, str], download: bool = False
) -> Foreign:
    """The model that `file:`, `timm:` or `hf:` and a name mean.

    Args:
        kind: "file", "timm" or "hf".
        name: what follows the colon, without options.
        options: those of the MODEL string.
        download: whether a hub may be asked.

    Raises:
        MaebenchError: there is no such model, its weights do not fit, or an option is wrong.
    """
    spec = f"{kind}:{name}"
    if not name:
        raise ConfigError(f"{spec} names nothing: write {kind}:{WANTS[kind]}")
    given = read_given(kind, spec, options)
    made = LOADERS[kind](name, given, spec, download)
    made.module.eval().requires_grad_(False)
    changed = adapted(made.preprocess, given, spec)
    shown = "".join(f",{k.replace('_', '-')}={v}" for k, v in options.items() if k != "key_map")
    label = f" ({RANDOM})" if made.verdict.text == RANDOM else ""
    return replace(made, name=f"{made.name}{shown}{label}", preprocess=changed)


def from_file(path: str, given: SpecOptions, spec: str, download: bool) -> Foreign:
    """A vision transformer's checkpoint, with or without a decoder; or a folder of transformers."""
    place = Path(path).expanduser()
    if place.is_dir() and from_hf.kind_of(place) in from_hf.TYPES:
        moot = [key.replace("_", "-") for key in USES["file"] if getattr(given, key) is not None]
        if moot:
            raise ConfigError(f"{spec}: its config.json says all; leave out {', '.join(moot)}")
        return from_hf.from_folder(place, given, spec)
    return from_weights(read_weights(place), given, spec)


LOADERS = {"file": from_file, "timm": from_timm.from_timm, "hf": from_hf.from_hf}
