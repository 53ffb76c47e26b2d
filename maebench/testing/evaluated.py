"""What evaluations are tried on: models of synthetic data, and what is noted."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maebench.config.run import RunConfig
from maebench.data.images import Images, InMemory, statistics_of
from maebench.data.preprocess import preprocess_of
from maebench.encoders import TextNano, ViTNano
from maebench.encoders.inputs import IMAGES, TEXT
from maebench.errors import PluginError
from maebench.evaluating.model import EvaluatedModel
from maebench.evaluating.rows import checked
from maebench.evaluation import Evaluation, NotApplicable, Result
from maebench.masking.grids import Random
from maebench.models.control import control_of
from maebench.models.model import LoadedModel
from maebench.objectives import MAE
from maebench.plugins import Names
from maebench.pretraining import checkpoints
from maebench.pretraining.plan import build
from maebench.rng import GLOBAL_STATES, isolated
from maebench.state import SHARED
from maebench.testing.contract import described, expect
from maebench.testing.synthetic import SPLITS, TEST, TRAIN, Synthetic, SyntheticText

# milliseconds for a whole split
ENCODERS = {
    IMAGES: ViTNano(width=16, depth=2, heads=2),
    TEXT: TextNano(width=16, depth=2, heads=2),
}
DATA = {IMAGES: Synthetic, TEXT: SyntheticText}
SURE = 3.29  # 99.9 % of a normal distribution lie within so many deviations
# What an evaluation could leave changed for all that come after it, and how it is put back.
GLOBALS = {
    what: SHARED[what]
    for what in SHARED
    if what.startswith(("torch", "whether torch", "numpy")) and what not in GLOBAL_STATES
}


# ---- the models


PLAIN, NOISY = Synthetic(), Synthetic(signal=0)
HARD = Synthetic(signal=0.2)  # a probe is right on four images in five: any option moves it
TWO = {truth: Synthetic(signal=0, classes=2, truth=truth) for truth in ("true", "flipped", "half")}
OTHERS = Synthetic(signal=0.2, others=True)  # HARD, with other test images in its second half
UNLABELLED = Synthetic(truth="none")
FEW, FEWEST = Synthetic(train=8), Synthetic(train=4)  # two images of each class, and one
KINDS = {
    "control": "raw inputs",
    "encoder": "an untrained encoder",
    "no decoder": "an untrained encoder without a decoder",
}


@dataclass(frozen=True)
class Case:
    """What an evaluation is run on."""

    data: Synthetic
    kind: str

    @classmethod
    def of(cls, data: Synthetic, kind: str, inputs: str) -> Case:
        """The same with the data of a kind of inputs."""
        options = {option: getattr(data, option) for option in Synthetic.model_fields}
        return cls(DATA[inputs](**options), kind)

    def __str__(self) -> str:
        data, what = self.data, "windows" if self.data.gives == TEXT else "images"
        shows = {PLAIN.signal: f"{what} that show their class", 0: "noise"}
        parts = [shows.get(data.signal, f"{what} that hardly show their class")]
        parts += [f"{data.train} to train on"] if data.train < TRAIN else []
        parts += [f"other {what} in the second half of test"] if data.others else []
        parts += ["no labels"] if data.truth == "none" else []
        return f"{KINDS[self.kind]} ({', '.join(parts)})"


def model_of(case: Case, folder: Path) -> LoadedModel:
    """The model of a case, its files below a folder."""
    config = RunConfig(
        Names({}, ()),  # all parts are given as objects: no plugin has to be looked for
        dataset=case.data,
        encoder=ENCODERS[case.data.gives],
        objective=MAE(),
        masking=Random(),
        evals=(),
        device="cpu",
    )
    if case.kind == "control":
        return control_of(config, None, folder, "cpu")
    splits = config.splits()
    train = splits.load("train")
    module = build(config, train.info.inputs)
    if case.kind == "no decoder":
        bare: Any = nn.Module()
        bare.encoder = module.encoder
        module = bare
    return LoadedModel(
        name=case.kind,
        kind="untrained",
        folder=folder / "models" / "untrained",
        module=module.eval().requires_grad_(False),
        config=config,
        splits=splits,
        preprocess=preprocess_of(train.info.inputs, *statistics_of(train)),
        weights=checkpoints.weights_hash(module.encoder.state_dict()),
        device="cpu",
    )


# ---- what it does with them


@dataclass(frozen=True)
class Observed(EvaluatedModel):
    """A model that notes what is asked of it."""

    labels_of: set[str] = field(default_factory=set)
    undeclared: set[str] = field(default_factory=set)
    copies: list[tuple[str, nn.Module]] = field(default_factory=list)

    def images(self, split: str) -> Images:
        """The images of a declared split."""
        if split not in self.evaluation.splits_of(self.splits.dataset.gives):
            self.undeclared.add(split)
        return super().images(split)

    def labels(self, split: str) -> Tensor:
        """Labels of a declared split."""
        self.labels_of.add(split)
        return super().labels(split)

    def encoder(self) -> nn.Module:
        """A trainable copy of the encoder."""
        made = super().encoder()
        self.copies.append((checkpoints.weights_hash(made.state_dict()), made))
        return made


@dataclass(frozen=True)
class Outcome:
    """What came of one evaluation of one case, and how the case is called.

    Args:
        evaluation: what was run.
        case: what it was run on.
        results: as the suite records them; none where `broken`.
        error: what it was ended by.
        early: whether that was before the first result.
        broken: why a result is not as declared.
        labels_of: splits whose labels were asked for.
        undeclared: splits that were asked for and not declared.
        changed: what of the model, the data and the process is no longer as it was.
        copies: for each copy of the encoder that was handed out, whether it was trained.
        strays: files that were written elsewhere than they may.
    """

    evaluation: Evaluation
    case: Case
    results: Sequence[Result]
    error: BaseException | None
    early: bool
    broken: str
    labels_of: set[str]
    undeclared: set[str]
    changed: Sequence[str]
    copies: Sequence[bool]
    strays: Sequence[str]

    def __str__(self) -> str:
        return str(self.case)

    @property
    def done(self) -> bool:
        """Whether it came to its end with results as declared."""
        return self.error is None and not self.broken

    @property
    def why(self) -> str:
        """Why it has no results."""
        if self.error is None:
            return f"on {self}: {self.broken or 'there is no headline'}"
        return f"on {self}: {described(self.error, self.evaluation)}"

    @property
    def rows(self) -> list[tuple[str, str, Any]]:
        """Metric, where and value of each result, comparable."""
        return [
            (r.metric, place(r), r.value.tolist() if isinstance(r.value, Tensor) else r.value)
            for r in self.results
        ]


def place(result: Result) -> str:
    """What tells a result apart, as text."""
    return json.dumps(dict(result.where), sort_keys=True)


def expect_reason(outcome: Outcome) -> None:
    """Nothing ended it but NotApplicable, and that before the first result."""
    applicable = not isinstance(outcome.error, NotApplicable)
    hint = "what a model cannot do raises NotApplicable(why)"
    expect(not (applicable and outcome.error), f"{outcome.why}; {hint}")
    hint = "it has already yielded results: find out before the first"
    expect(applicable or outcome.early, f"{outcome.why}; {hint}")


def difference(one: Outcome, other: Outcome) -> str:
    """The first difference of two outcomes in words, nothing where there is none."""
    if len(one.rows) != len(other.rows):
        return f"{len(one.rows)} results and {other.error or other.broken or len(other.rows)}"
    for rows in zip(one.rows, other.rows, strict=True):
        if rows[0] != rows[1]:
            means = (sum(v) / len(v) if isinstance(v, list) else v for _, _, v in rows)
            words = [f"{r[0]} {r[1]} is {mean}" for r, mean in zip(rows, means, strict=True)]
            return " and ".join(words)
    return ""


def margin(guess: float) -> float:
    """How far from its mean the share of right guesses over all test images may lie."""
    return SURE * math.sqrt(guess * (1 - guess) / TEST)


def run(evaluation: Evaluation, case: Case) -> Outcome:
    """One evaluation of one case, as the suite does it, in a temporary folder."""
    with tempfile.TemporaryDirectory() as home:
        elsewhere = Path(home) / "elsewhere"  # the working folder meanwhile: nothing belongs there
        elsewhere.mkdir()
        model = model_of(case, Path(home))
        observed = Observed(model, evaluation, model.splits, 0)
        found: list[Any] = []
        copies: list[tuple[Tensor, Tensor]] = []
        error: BaseException | None = None
        before, process = _state(model), {what: get() for what, (get, _) in GLOBALS.items()}
        try:
            with contextlib.chdir(elsewhere), isolated(0, "evaluation", evaluation.name):
                for result in evaluation.run(observed):
                    found.append(result)
                    value = getattr(result, "value", None)
                    copies += [(value, value.clone())] if isinstance(value, Tensor) else []
        except KeyboardInterrupt:
            raise
        # not only an Exception: a plugin that ends the interpreter must not end the report
        except BaseException as raised:
            error = raised
        changed = [what for what, (get, _) in GLOBALS.items() if get() != process[what]]
        for what in changed:
            GLOBALS[what][1](process[what])
        changed += [what for what, mark in _state(model).items() if mark != before[what]]
        changed += ["a value it has yielded"] * any(not torch.equal(v, c) for v, c in copies)
        kept, broken = _checked(evaluation, found, observed)
        own = (model.folder / "features", observed.artifacts)
        files = [path for path in Path(home).rglob("*") if path.is_file()]
        return Outcome(
            evaluation=evaluation,
            case=case,
            results=kept,
            error=error,
            early=not found,
            broken=broken,
            labels_of=observed.labels_of,
            undeclared=observed.undeclared,
            changed=changed,
            copies=[checkpoints.weights_hash(m.state_dict()) != h for h, m in observed.copies],
            strays=[p.name for p in files if not any(p.is_relative_to(folder) for folder in own)],
        )


def _state(model: LoadedModel) -> dict[str, str]:
    """Marks of all that an evaluation is lent."""
    marks = {}
    if model.module is not None:
        marks["the model's own weights"] = checkpoints.weights_hash(model.module.state_dict())
    for split in SPLITS:
        images: Any = model.splits.load(split)
        values = images.pixels if isinstance(images, InMemory) else images.values
        marks[f"the images of {split}"] = checkpoints.weights_hash({"": values})
        if images.info.labels is not None:
            marks[f"the labels of {split}"] = checkpoints.weights_hash({"": images.info.labels})
    return marks


def _checked(
    evaluation: Evaluation, found: Sequence[Any], model: EvaluatedModel
) -> tuple[list[Result], str]:
    """The results as the suite takes them, or why it does not."""
    kept = []
    for result in found:
        if not isinstance(result, Result):
            return [], f"run yields {result!r}, which is no Result"
        try:
            kept.append(checked(evaluation, result, model))
        except PluginError as error:
            return [], str(error)
        except (TypeError, ValueError, RuntimeError) as error:
            return [], f"{result.metric}: {type(result.value).__name__} is no value: {error}"
    return kept, ""
