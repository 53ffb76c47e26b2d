"""The control without an encoder: what the raw inputs alone are worth.

Of images they are pixels, of text the words' frequencies (TF-IDF), of other kinds the values.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maebench import files
from maebench.component import parse
from maebench.config.run import RunConfig
from maebench.data.dataset import Dataset, Splits
from maebench.data.images import Images, statistics_of
from maebench.data.preprocess import preprocess_of
from maebench.encoders.inputs import IMAGES, TEXT, Inputs
from maebench.errors import ConfigError
from maebench.models.model import LoadedModel
from maebench.plugins import Names
from maebench.pretraining import runs
from maebench.pretraining.hardware import find_device
from maebench.pretraining.plan import config_of

OF_KIND = {IMAGES: "pixels", TEXT: "tf-idf"}
OTHERS = "raw"
CONTROLS = (*OF_KIND.values(), OTHERS)
BLOCK = 4096  # windows counted at once
# The linear probe reads 49, 52 and 51 % off 128, 256 and 512 directions of pydoc, and 49 % off all
# 2,048 numbers; of fortunes 37, 40 and 44 %, of kjv (10,000 windows of 49) 34, 37 and 40 %
DIMENSIONS = 512


def control_kind(gives: str) -> str:
    """What the control of a kind of inputs is called, such as "pixels"."""
    return OF_KIND.get(gives, OTHERS)


def control_model(kind: str, rest: str, results: Path, device: str, names: Names) -> LoadedModel:
    """The control of a data set, or of the newest run's where none is named.

    A folder is named by its path, or as tables name it, by the last part of the path, where the
    runs here say which folder that is.

    Raises:
        ConfigError: the runs are on several folders of this name, or the data set's inputs have
            another control.
    """
    if not rest:
        run = runs.find_run(results, "")
        return _checked(kind, config_of(run, names), run, results, device)
    dataset = parse(Dataset, rest, names.context(), f"{kind}:")
    found = runs_titled(rest, dataset, results)
    if found and not Path(getattr(dataset, dataset.spec or "")).exists():
        if len(found) > 1:
            raise ConfigError(
                f"{kind}:{rest}: runs in {results} are on several folders of this name: write "
                + " or ".join(f"{kind}:{dataset.name}:{path}" for path in found)
            )
        (run,) = found.values()
        return _checked(kind, config_of(run, names), run, results, device)
    if found:
        here, there = getattr(dataset, dataset.spec or ""), " and ".join(found)
        warnings.warn(
            f"{kind}:{rest} is read as {here}; runs in {results} of this name are on {there}",
            stacklevel=4,
        )
    return _checked(kind, RunConfig(names, dataset=dataset), None, results, device)


def _checked(
    kind: str, config: RunConfig, run: runs.Run | None, results: Path, device: str
) -> LoadedModel:
    wanted = control_kind(config.dataset.gives)
    if kind != wanted:
        raise ConfigError(
            f"{kind}: dataset {config.dataset.title!r} yields {config.dataset.gives}, whose "
            f"control is {wanted}:{config.dataset.title}"
        )
    if run is None:
        return control_of(config, None, results, device)
    return control_of(config, run.facts, results, device, config.splits(runs.read_kept(run)))


def runs_titled(title: str, dataset: Dataset, results: Path) -> dict[str, runs.Run]:
    """The newest run on each other place, such as a folder, that tables name by this title."""
    found: dict[str, runs.Run] = {}
    if dataset.spec is None or dataset.title != title:  # a whole path was written
        return found
    for run in runs.readable_runs(results)[0]:
        kept = run.content["config"]["dataset"]
        if not isinstance(kept, Mapping) or kept.get("name") != dataset.name:
            continue
        with contextlib.suppress(ConfigError):  # of an option that is no longer there
            other = parse(type(dataset), kept, {}, str(run.folder))
            place = str(getattr(other, dataset.spec))
            if other.title == title and place != str(getattr(dataset, dataset.spec)):
                found[place] = run
    return found


def control_of(
    config: RunConfig,
    facts: Mapping[str, Any] | None,
    results: Path,
    device: str,
    splits: Splits | None = None,
) -> LoadedModel:
    """The control for a config's data; of images at its image size."""
    splits = splits or config.splits()
    kind = control_kind(config.dataset.gives)
    dataset = config.dump()["dataset"]
    if config.dataset.spec:  # the images of a copy are the same wherever it lies
        dataset.pop(config.dataset.spec)
    if kind == "pixels":
        if facts is None:
            train = splits.load("train")
            mean, std = statistics_of(train)
            facts = {"channels": train.info.channels, "mean": list(mean), "std": list(std)}
        kept = {key: facts[key] for key in ("channels", "mean", "std")}
        inputs = Inputs.of_images(kept["channels"], config.size)
        preprocess = preprocess_of(inputs, kept["mean"], kept["std"])
        weights = files.short_hash({"dataset": dataset, "size": list(config.size), **kept})
    else:
        info = splits.load("train").info
        preprocess = preprocess_of(info.inputs)
        weights = files.short_hash(
            {"dataset": dataset, "train": info.fingerprint, "as": [kind, DIMENSIONS]}
        )
    folder = files.safe_name(f"{kind}-{config.dataset.name}-{weights}")
    return LoadedModel(
        name=f"{kind}:{config.dataset.title}",
        kind=kind,
        folder=results / "models" / folder,
        module=None,
        config=config,
        splits=splits,
        preprocess=preprocess,
        weights=weights,
        device=find_device(device),
        raw=TfIdf(splits) if kind == "tf-idf" else None,
    )


class TfIdf:
    """Windows of token ids as frequencies of their tokens, rare tokens weighing more.

    Scikit-learn's `TfidfTransformer` as it comes, fitted on train: counts times
    ln((1 + N) / (1 + n)) + 1 for a token that n of N windows have, each window scaled to length 1.
    Of these thousands of numbers its `TruncatedSVD` keeps the DIMENSIONS directions in which train
    differs most, as in latent semantic analysis (Deerwester et al. 1990): probes that standardise
    what they get make rare tokens as large as frequent ones, and read less off all numbers.

    Args:
        splits: whose train tells how rare a token is; read when it is first asked.
    """

    def __init__(self, splits: Splits) -> None:
        self._splits = splits
        self._fitted: Any = None

    def __call__(self, ids_BL: Tensor) -> Tensor:
        """One number for each direction that is kept, float32 (B, DIMENSIONS) on the CPU."""
        train: Images = self._splits.load("train")
        vocabulary = train.info.inputs.vocabulary
        if self._fitted is None:
            from scipy.sparse import vstack
            from sklearn.decomposition import TruncatedSVD
            from sklearn.feature_extraction.text import TfidfTransformer
            from sklearn.pipeline import make_pipeline

            counts = vstack([counted(part, vocabulary) for part in train.whole(BLOCK)])
            directions = min(DIMENSIONS, *(side - 1 for side in counts.shape))
            svd = TruncatedSVD(directions, algorithm="arpack", random_state=0)
            self._fitted = make_pipeline(TfidfTransformer(), svd).fit(counts)
        found = self._fitted.transform(counted(ids_BL.cpu(), vocabulary))
        return torch.from_numpy(found.astype("float32"))


def counted(ids_BL: Tensor, vocabulary: int) -> Any:
    """How often each window has each token, a sparse matrix (B, V) of scipy."""
    from scipy.sparse import csr_matrix

    B, L = ids_BL.shape
    where = np.arange(B).repeat(L), ids_BL.numpy().ravel()
    return csr_matrix((np.ones(B * L), where), shape=(B, vocabulary))
