"""Which model a MODEL string means: a run, its floor, raw pixels, or others' weights.

Where a run is asked for: its name or folder. `untrained:RUN` is that run's encoder at step 0,
`pixels:DATASET` the control without an encoder, of text `tf-idf:DATASET`, of other kinds
`raw:DATASET`; all take the newest run where nothing follows.
`file:PATH`, `timm:NAME` and `hf:NAME` are models that maebench did not train; what their weights
do not say follows as `,heads=6`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maebench import files
from maebench.component import parse
from maebench.config.run import RunConfig
from maebench.data.dataset import Dataset, Splits
from maebench.data.preprocess import AsItIs, Preprocess, preprocess_of
from maebench.errors import ConfigError, ReadOnlyError, RunError, unknown
from maebench.models import from_hf, from_timm, preprocessing
from maebench.models.control import CONTROLS, control_model
from maebench.models.from_file import from_weights
from maebench.models.model import LoadedModel
from maebench.models.reading import read_weights
from maebench.models.spec import USES, SpecOptions, read_spec_options, split_spec
from maebench.models.weights import RANDOM, ForeignModel
from maebench.plugins import Names, contained, installed
from maebench.pretraining import checkpoints, runs
from maebench.pretraining.hardware import find_device
from maebench.pretraining.plan import build, config_of, inputs_of

# what follows the colon of a model that maebench did not train
FOREIGN = {"file": "PATH", "timm": "NAME, such as timm:vit_tiny_patch16_224", "hf": "OWNER/NAME"}
KINDS = ("untrained", *CONTROLS, *FOREIGN)  # prefixes of MODEL strings; without one it is a run


@contained()
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
        name, texts = split_spec(kind, rest)
        if key_map is not None:
            if "key_map" not in USES[kind]:
                raise ConfigError(f"--key-map: {spec} has names that are known")
            texts.setdefault("key_map", str(key_map))
        foreign = load_foreign(kind, name, texts, download)
        return foreign_model(foreign, kind, folder, device, names, data or {})
    if kind in CONTROLS and colon:
        return control_model(kind, rest, folder, device, names)
    if kind == "untrained" and colon:
        return untrained_model(runs.find_run(folder, rest), folder, device, names)
    return trained_model(runs.find_run(folder, spec), device, names)


# ---- runs, and what they are compared with


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
    found = checkpoints.load_newest(run.folder / "checkpoint", move=False)
    done = found[1]["step"] if found else 0
    if found is None or done != found[1].get("total"):
        steps = run.facts["steps"]
        far = f"{done} of {steps} steps" if steps else f"{done} steps"
        raise RunError(
            f"run {run.name} is not finished ({far}): the command that started it goes on with it"
        )
    module = build(config, inputs_of(config, run.facts))
    checkpoints.load_strictly(module, checkpoints.part(found[0], "model."), run.name)
    return _of_run(run.name, "run", run.folder, module, config, run, device, splits)


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
    weights = checkpoints.weights_hash(module.encoder.state_dict())
    folder = results / "models" / files.safe_name(f"untrained-{run.name}-{weights[:10]}")
    return _of_run(
        f"untrained:{run.name}", "untrained", folder, module, config, run, device, splits
    )


def _of_run(
    name: str,
    kind: str,
    folder: Path,
    module: Any,
    config: RunConfig,
    run: runs.Run,
    device: str,
    splits: Splits | None,
) -> LoadedModel:
    """A model whose module is that of a run, on its device, frozen and in eval mode."""
    facts, device = run.facts, find_device(device)
    module = module.to(device).eval().requires_grad_(False)
    return LoadedModel(
        name=name,
        kind=kind,
        folder=folder,
        module=module,
        config=config,
        splits=splits or config.splits(runs.read_kept(run)),
        preprocess=preprocess_of(inputs_of(config, facts), facts["mean"], facts["std"]),
        weights=checkpoints.weights_hash(module.encoder.state_dict()),
        device=device,
        run=run,
    )


# ---- weights from elsewhere


def load_foreign(
    kind: str, name: str, texts: Mapping[str, str], download: bool = False
) -> ForeignModel:
    """The model that `file:`, `timm:` or `hf:` and a name mean.

    Args:
        kind: "file", "timm" or "hf".
        name: what follows the colon, without options.
        texts: the options of the MODEL string, as they are written.
        download: whether a hub may be asked.

    Raises:
        MaebenchError: there is no such model, its weights do not fit, or an option is wrong.
    """
    spec = f"{kind}:{name}"
    if not name:
        raise ConfigError(f"{spec} names nothing: write {kind}:{FOREIGN[kind]}")
    options = read_spec_options(kind, spec, texts)
    if kind == "timm":
        found = from_timm.from_timm(name, options, spec, download)
    elif kind == "hf":
        found = from_hf.from_hf(name, options, spec, download)
    else:
        found = from_path(files.with_home(name), options, spec)
    found.module.eval().requires_grad_(False)
    shown = "".join(f",{k.replace('_', '-')}={v}" for k, v in texts.items() if k != "key_map")
    label = f" ({RANDOM})" if found.verdict.text == RANDOM else ""
    return replace(
        found,
        name=f"{found.name}{shown}{label}",
        preprocess=preprocessing.with_options(found.preprocess, options, spec)
        if isinstance(found.preprocess, Preprocess)
        else found.preprocess,
    )


def from_path(path: Path, options: SpecOptions, spec: str) -> ForeignModel:
    """A vision transformer's checkpoint, with or without a decoder; or a folder of transformers.

    Raises:
        ConfigError: the folder says itself what an option says.
    """
    if not path.is_dir() or from_hf.kind_of(path) not in (*from_hf.TYPES, "bert"):
        return from_weights(read_weights(path, options.key), options, spec)
    of_weights = USES["file"] - {"length"}  # which a BERT's do not say
    moot = [key.replace("_", "-") for key in of_weights if getattr(options, key) is not None]
    if moot:
        raise ConfigError(f"{spec}: its config.json says all; leave out {', '.join(moot)}")
    return from_hf.from_folder(path, options, spec)


def foreign_model(
    foreign: ForeignModel,
    kind: str,
    results: Path,
    device: str,
    names: Names,
    data: Mapping[str, Any],
) -> LoadedModel:
    """A model from elsewhere on the data it is to be tested on.

    Raises:
        ConfigError: nobody names a data set and there is no run to take it from.
    """
    config = data_config(foreign.preprocess, results, names, data)
    device = find_device(device)
    module = foreign.module.to(device)
    weights = checkpoints.weights_hash(module.encoder.state_dict())
    if foreign.facts:  # heads, epsilons and the like change numbers and are no weights
        weights = files.short_hash({"weights": weights, **foreign.facts})
    content = {
        "name": foreign.name,
        "weights": weights,
        "preprocessing": foreign.preprocess.dump(),
        "facts": dict(foreign.facts),
    }
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", foreign.name.partition(":")[2]).strip("-.")[-80:]
    safe = files.safe_name(f"{kind}-{plain or 'model'}-{files.short_hash(content)}")
    folder = results / "models" / safe
    with contextlib.suppress(ReadOnlyError):  # `maebench eval` says that nothing is kept
        files.write_sealed(folder / "model.json", content | foreign.verdict.dump(), folder.name)
    return LoadedModel(
        name=foreign.name,
        kind=kind,
        folder=folder,
        module=module,
        config=config,
        splits=config.splits(foreign.kept),
        preprocess=foreign.preprocess,
        weights=weights,
        device=device,
        verdict=foreign.verdict,
        no_decoder=foreign.no_decoder,
    )


def data_config(
    preprocess: Preprocess | AsItIs, results: Path, names: Names, data: Mapping[str, Any]
) -> RunConfig:
    """The data of the newest run with what is asked for instead, at the size that suits a model."""
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
        base |= {"on_bad_image": own.on_bad_image, "data": own.data.model_dump()}
        # by which a split's fingerprint is of pixels or of files
        base["machine"] = {"memory_gb": own.machine.memory_gb}
    config = RunConfig(names, **merged_data(base, data, names))
    if data.get("image_size") or isinstance(preprocess, AsItIs):
        return config
    return sized(config, preprocess)


def merged_data(base: Mapping[str, Any], data: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Data settings over others; another data set does not keep the limit, the size and the crops.

    How files are read is kept where it is not asked for otherwise.
    """
    kept = dict(base)
    if "data" in data:
        data = {**data, "data": {**base.get("data", {}), **data["data"]}}
    if data.get("dataset"):
        asked = parse(Dataset, data["dataset"], names.context(), "--dataset")
        before = base.get("dataset")
        if before is None or asked != before:
            for key in ("limit", "image_size", "augment"):
                kept.pop(key, None)
    return {**kept, **data}


def sized(config: RunConfig, preprocess: Preprocess) -> RunConfig:
    """The config with images of the size to hand to this pre-processing.

    A data set of smaller images than the model takes is kept as it is and enlarged on the way in;
    of larger ones the split is cut at the size from which the model's centre crop is taken.
    """
    small = all(own < side for own, side in zip(config.size, preprocess.size, strict=True))
    if small and not config.dataset.any_size:
        return config
    return config.model_copy(update={"image_size": preprocess.resized})
