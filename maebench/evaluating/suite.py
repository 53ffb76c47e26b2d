"""One evaluation of one model: splits, draws, time, statistics, record."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

import maebench
from maebench import files
from maebench.data.dataset import Splits
from maebench.encoders.inputs import takes
from maebench.errors import ConfigError, DamagedError, DataError, MaebenchError, RunError
from maebench.evaluating import partial, records
from maebench.evaluating.model import EvaluatedModel, Progress, no_progress
from maebench.evaluating.rows import (
    check_complete,
    checked,
    empty,
    held_out,
    mark_ranges,
    row_of,
)
from maebench.evaluation import Evaluation, NotApplicable, Result
from maebench.models.model import LoadedModel
from maebench.plugins import Names, contained, ended_by, installed
from maebench.pretraining import checkpoints, mixture, runs, stopping
from maebench.pretraining.hardware import check_answers, out_of_memory
from maebench.pretraining.memory import what_there_is
from maebench.rng import isolated


def check_fits(model: LoadedModel, splits: Splits, evaluation: Evaluation) -> None:
    """Refuses a data set of another size or channel count than the model was built for.

    Raises:
        DataError: names both.
    """
    for split in splits_of(evaluation, splits):
        inputs = splits.load(split).info.inputs
        if inputs.kind != model.preprocess.kind:
            raise DataError(
                f"{splits.dataset.name}: {model.name} was built for {model.preprocess.kind}, these "
                f"are {inputs.kind}"
            )
        try:
            model.preprocess.check(model.name, inputs.shape)
        except ConfigError as error:
            raise DataError(f"{splits.dataset.name}: {error}") from error


def splits_of(evaluation: Evaluation, splits: Splits) -> Sequence[str]:
    """The splits of this data set that an evaluation may touch."""
    return evaluation.splits_of(splits.dataset.gives)


def record_path(model: LoadedModel, evaluation: Evaluation, splits: Splits, seed: int) -> Path:
    """Where the rows of this evaluation lie: by its version, options, data and seed."""
    test = splits.load(evaluation.test)
    spec = {
        "options": evaluation.suited(splits.dataset.gives).model_dump(mode="json"),
        "weights": model.weights,
        "module": _weights(model),  # the decoder too
        "data": {s: splits.load(s).info.fingerprint for s in splits_of(evaluation, splits)},
        "test": test.info.fingerprint,
    }
    touched = dict.fromkeys((*splits_of(evaluation, splits), "test"))
    groups = {s: splits.load(s).info.groups for s in touched}
    if any(g is not None for g in groups.values()):  # they change intervals and folds
        spec["groups"] = {s: None if g is None else g.tolist() for s, g in groups.items()}
    maps = {s: splits.load(s).info.maps for s in splits_of(evaluation, splits)}
    if evaluation.dense and any(m is not None for m in maps.values()):
        spec["maps"] = {s: None if m is None else m.fingerprint for s, m in maps.items()}
    features = model.config.machine.features
    if features != "fp32" and not evaluation.changes_encoder:
        spec["features"] = features
    if model.precision != "fp32" and not evaluation.changes_encoder:
        spec["precision"] = model.precision
    name = f"{evaluation.name}-v{evaluation.version}-{files.short_hash(spec)}-s{seed}"
    return model.folder / "records" / f"{name}.json"


@contained()
def evaluate(
    model: LoadedModel,
    evaluation: Evaluation,
    seed: int = 0,
    splits: Splits | None = None,
    names: Names | None = None,
    progress: Progress = no_progress,
    again: bool = False,
) -> Path:
    """Runs one evaluation of one model, unless it is done, and gives the file of its rows.

    What the model cannot do becomes a row that says so; what fails becomes a row with the reason,
    is tried again next time, and takes nothing else with it.

    Raises:
        DataError: the images cannot be loaded, or the model was built for others.
        DeviceError: its GPU has failed before.
    """
    check_answers(model.device)
    splits = splits or model.splits
    check_fits(model, splits, evaluation)
    names = names or installed()
    path = record_path(model, evaluation, splits, seed)
    if not again and _is_done(path):
        return path
    started = time.monotonic()
    seen = EvaluatedModel(model, evaluation, splits, seed, progress, path.stem)
    shared = _shared(model, evaluation, splits, seed, names)
    results, status, reason = _run(seen, path)
    shared |= {
        "precision": seen.precision,
        "seconds": time.monotonic() - started + seen.seconds_before,
        "status": status,
        "reason": reason,
    }
    rows = [shared | row_of(seen, result) for result in results]
    values: dict[str, NDArray[Any]] = {}
    for row, result in zip(rows, results, strict=True):
        if isinstance(result.value, Tensor):
            values[records.value_name(row)] = result.value.double().cpu().numpy()
        if result.kept is not None:
            values[records.kept_name(row)] = result.kept.cpu().numpy()
    info = splits.load(evaluation.test).info
    values["ids"] = info.ids.numpy()
    if info.groups is not None:
        values["groups"] = info.groups.numpy()
    if held_out(rows, values):
        train, index = splits.load("train").info, seen.folds().index
        values["held_out_ids"] = train.ids[index].numpy()
        if train.groups is not None:
            values["held_out_groups"] = train.groups[index].numpy()
    mark_ranges(rows, values)
    rows = rows or [shared | empty(evaluation)]
    if model.run is not None and not (model.run.folder / "config.json").exists():
        raise RunError(f"{model.run.folder} was removed while it was evaluated: nothing is kept")
    records.write(path.parent, path.stem, rows, values)
    partial.clear(model.folder, path.stem)
    for left in files.abandoned(model.folder):  # by processes that were killed, here or in features
        files.remove(left)
    return path


def _is_done(path: Path) -> bool:
    """Whether the rows are there and whole, and are no failure's; what is damaged is said.

    Raises:
        RunError: they are of a newer maebench, which this one must not replace.
    """
    if not path.exists():
        return False
    try:
        return all(row["status"] != "failed" for row in records.whole(path))
    except DamagedError as error:
        stopping.check()
        warnings.warn(f"{str(error).removesuffix(records.AGAIN)}evaluated again", stacklevel=3)
        return False


def _run(model: EvaluatedModel, path: Path) -> tuple[list[Result], str, str]:
    """The results with "ok", or none with another status and the reason.

    The next evaluation gets the weights that were loaded, whatever this one does to them.
    """
    evaluation, loaded = model.evaluation, model.loaded
    before = _weights(loaded)
    state = {} if loaded.module is None else loaded.module.state_dict()
    saved = {name: value.to("cpu", copy=True) for name, value in state.items()}
    results: list[Result] = []
    status, reason = "ok", ""
    try:
        with isolated(model.seed, "evaluation", evaluation.name, device=model.device):
            _check_kind(evaluation, model)
            results = [checked(evaluation, r, model) for r in evaluation.run(model)]
        check_complete(evaluation, results)
    except NotApplicable as error:
        status, reason, results = "not applicable", str(error), []
    except MaebenchError as error:
        status, reason, results = "failed", str(error), []
    except BaseException as error:
        stopping.check()
        found = ended_by(error)
        if found is None and not isinstance(error, Exception):  # Ctrl-C, or the caller's own
            raise
        status, results = "failed", []
        reason = str(found or f"{type(error).__name__}: {error}")
        if out_of_memory(error):
            reason = f"out of memory: {what_there_is(loaded.device, error)}"
            traceback.clear_frames(error.__traceback__)
        files.write_text(path.with_suffix(".traceback"), traceback.format_exc())
    stopping.check()
    try:
        if _weights(loaded) == before:
            return results, status, reason
    except RuntimeError as error:  # the GPU has failed: the next evaluation says so
        return [], "failed", reason or f"{type(error).__name__}: {error}"
    loaded.module.load_state_dict(saved)
    files.remove(loaded.folder / "features")
    return [], "failed", f"evaluation {evaluation.name!r} changed the frozen encoder"


def _check_kind(evaluation: Evaluation, model: EvaluatedModel) -> None:
    """Refuses inputs of a kind that the evaluation does not take.

    Raises:
        NotApplicable: names both.
    """
    if not takes(evaluation, kind := model.inputs.kind):
        raise NotApplicable(f"it takes {' and '.join(evaluation.takes)}, not {kind}")


def _weights(model: LoadedModel) -> str:
    return "" if model.module is None else checkpoints.weights_hash(model.module.state_dict())


def _shared(
    model: LoadedModel, evaluation: Evaluation, splits: Splits, seed: int, names: Names
) -> records.Row:
    cls = type(evaluation)
    origin = names.origin(cls)
    test = splits.load(evaluation.test)
    skipped = sum(len(splits.load(s).info.skipped) for s in splits_of(evaluation, splits))
    return {
        "model": model.name,
        "model_kind": model.kind,
        "run": model.run.name if model.run else None,
        "weights": str(model.verdict) if model.verdict else None,
        "weights_hash": _weights(model) or model.weights,
        "dataset": splits.dataset.changed(),
        "dataset_fingerprint": test.info.fingerprint,
        **_train(evaluation, splits),
        "split": evaluation.test,
        "examples": len(test),
        "skipped": skipped,
        "remarks": _remarks(model, splits) or None,
        "inputs": test.info.inputs.kind,
        "evaluation": evaluation.name,
        "evaluation_version": evaluation.version,
        "protocol": evaluation.protocol_name,
        "options": evaluation.changed_on(splits.dataset.gives),
        "seed": seed,
        "device": model.device,
        "source": f"{cls.__module__}:{cls.__name__}",
        "package": origin.package,
        "package_version": origin.version,
        "maebench_version": maebench.__version__,
        "created": runs.now(),
    }


def _remarks(model: LoadedModel, splits: Splits) -> str:
    """What was lost or found in the images, and whether they are still those of the run."""
    found = [
        f"{split}: {remark.text}" if split else remark.text for split, remark in splits.remarks()
    ]
    if model.run is not None and splits is model.splits and splits.has("train"):
        now = splits.load("train").info.fingerprint
        if now != model.run.facts["fingerprint"]:
            found.append("the train images are not those any more that the run was pretrained on")
    if model.kind == "run" and model.run is not None:
        found += filter(None, [mixture.remark(model.run)])
    return "; ".join(found)


def _train(evaluation: Evaluation, splits: Splits) -> records.Row:
    """What of train an evaluation sees."""
    if "train" not in splits_of(evaluation, splits):
        return {"train_examples": None, "train_fingerprint": None}
    train = splits.load("train")
    return {"train_examples": len(train), "train_fingerprint": train.info.fingerprint}
