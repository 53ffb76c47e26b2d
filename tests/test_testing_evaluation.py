"""The contract of evaluations: what ships keeps to it, and each planted bug is named."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from pydantic import Field
from sklearn.metrics import silhouette_samples

from maebench import Evaluation, Metric, NotApplicable, Request, Result
from maebench.testing import examine
from maebench.testing.contract import Broken, NotChecked
from maebench.testing.evaluated import HARD, NOISY, PLAIN, TWO
from maebench.testing.evaluation import EvaluationContract
from maebench_evals.finetune import Finetune
from maebench_evals.knn import KNN
from maebench_evals.linear_probe import LinearProbe
from maebench_evals.reconstruction import ReconstructionQuality

pytestmark = pytest.mark.slow  # every planted error is built and asked anew

ROOT = Path(__file__).parent.parent
TOP1 = Metric.accuracy()
VALIDATION = Metric.accuracy("the same on the images held out of train", held_out=True)


def from_file(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def contract(tested, **more):
    """A plugin author's test class."""
    return type("TestIt", (EvaluationContract,), {"component": tested, **more})


def nothing_chosen(model):
    """For those that have one setting only."""
    return Result("validation_top1", torch.zeros(len(model.folds().index)))


# ---- healthy evaluations, small enough to break


class Nearest(Evaluation):
    """Top-1 of the nearest class mean of features raised to a power chosen on train."""

    name: ClassVar[str] = "nearest"
    changes_encoder: ClassVar[bool] = False
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": TOP1,
        "validation_top1": VALIDATION,
    }
    powers: tuple[float, ...] = Field((1.0, 3.0), description="to try", examples=[(0.5,), (2.0,)])
    distance: Literal["euclidean", "manhattan"] = Field("euclidean", description="what near is")

    def run(self, model):
        labels, right = self.labels(model), self.right(model)
        train, test = self.features(model, "train"), self.features(model, "test")

        def right_of(fit, held):
            predicted = [
                self.predicted(train[fit], labels[fit], train[held], power) for power in self.powers
            ]
            return torch.stack(predicted) == labels[held]

        outcomes = dict(zip(self.powers, model.folds().outcomes(right_of), strict=True))
        scores = {power: outcomes[power].mean().item() for power in self.powers}
        predicted = {p: self.predicted(train, labels, test, p) for p in self.powers}
        chosen = self.choose(scores, {p: (predicted[p] == right).double() for p in self.powers})
        for power in self.powers:
            where = {"power": power} | ({"chosen": True} if power == chosen else {})
            yield Result("validation_top1", outcomes[power], where)
            yield Result("top1", self.value(predicted[power], right), where)

    def labels(self, model):
        return model.labels("train")

    def right(self, model):
        return model.labels("test")

    def features(self, model, split):
        return model.features(split)

    def choose(self, scores, on_test):
        return max(scores, key=lambda power: (scores[power], -power))

    def value(self, predicted, right):
        return (predicted == right).double()

    def predicted(self, train, labels, test, power):
        return self.distances(train, labels, test, power).argmin(1)

    def distances(self, train, labels, test, power):
        train, test = (x.sign() * x.abs() ** power for x in (train, test))
        classes = int(labels.max()) + 1
        means = torch.stack([train[labels == c].mean(0) for c in range(classes)])
        return torch.cdist(test, means, p=2.0 if self.distance == "euclidean" else 1.0)


class Head(Evaluation):
    """Top-1 of a head that is trained together with the encoder for a few steps."""

    name: ClassVar[str] = "head"
    changes_encoder: ClassVar[bool] = True
    metrics: ClassVar[dict[str, Metric]] = {"top1": TOP1}
    steps: int = Field(12, ge=1, description="number of updates")

    def run(self, model):
        encoder, labels, right = self.encoder(model), model.labels("train"), self.right(model)
        head = torch.nn.Linear(encoder.width, len(model.class_names()))
        parameters = [*head.parameters(), *self.trained(encoder)]
        adam = torch.optim.Adam(parameters, 0.01)
        images, test = (
            model.normalise(torch.cat(list(model.images(split).whole(64))))
            for split in ("train", "test")
        )
        for _ in range(self.steps):
            logits = head(encoder(images).patches.mean(1))
            adam.zero_grad()
            torch.nn.functional.cross_entropy(logits, labels).backward()
            adam.step()
        with torch.no_grad():
            predicted = head(encoder(test).patches.mean(1)).argmax(1)
        yield Result("top1", (predicted == right).double())

    def encoder(self, model):
        return model.encoder()

    def trained(self, encoder):
        return encoder.parameters()

    def right(self, model):
        return model.labels("test")


class Loss(Nearest):
    """The loss of test images by their distances to the class means: no share, less is better."""

    name: ClassVar[str] = "loss"
    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric(
            help="cross entropy of the true class",
            unit="nats",
            higher_is_better=False,
            low=0,
            main=True,
        )
    }

    def run(self, model):
        labels, right = model.labels("train"), model.labels("test")
        train, test = model.features("train"), model.features("test")
        distance = self.distances(train, labels, test, self.powers[0])
        logits = self.logits(-distance, right)
        yield Result("loss", torch.nn.functional.cross_entropy(logits, right, reduction="none"))

    def logits(self, logits, right):
        return logits


class TopTwo(Nearest):
    """Whether the class is among the two nearest."""

    metrics: ClassVar[dict[str, Metric]] = {
        "top1": replace(TOP1, guess=0.5),
        "validation_top1": Nearest.metrics["validation_top1"],
    }

    def run(self, model):
        labels, right = model.labels("train"), model.labels("test")
        train, test = model.features("train"), model.features("test")
        two = self.distances(train, labels, test, self.powers[0]).argsort(1)[:, :2]
        yield nothing_chosen(model)
        yield Result("top1", (two == right[:, None]).any(1).double())


class Brier(Loss):
    """A graded number in a range whose ends are not reached on the plainest images."""

    metrics: ClassVar[dict[str, Metric]] = {
        "loss": Metric(help="Brier score", higher_is_better=False, low=0, high=2, main=True)
    }

    def run(self, model):
        labels, right = model.labels("train"), model.labels("test")
        train, test = model.features("train"), model.features("test")
        share = (
            -self.distances(train, labels, test, self.powers[0]) / train.shape[1] ** 0.5
        ).softmax(1)
        wanted = torch.nn.functional.one_hot(right, share.shape[1])
        yield Result("loss", (share - wanted).square().sum(1).double())


class Errors(Nearest):
    """The share of wrong images, of which less is better, with what guessing has."""

    metrics: ClassVar[dict[str, Metric]] = {
        "top1": replace(TOP1, higher_is_better=False, guess=0.75),
        "validation_top1": Nearest.metrics["validation_top1"],
    }

    def value(self, predicted, right):
        return (predicted != right).double()


class Apart(Evaluation):
    """How far apart the classes of test are: it trains nothing and compares test images."""

    name: ClassVar[str] = "apart"
    splits: ClassVar[tuple[str, ...]] = ("test",)
    metrics: ClassVar[dict[str, Metric]] = {
        "silhouette": Metric(help="silhouette of the classes", low=-1, high=1, main=True)
    }

    def run(self, model):
        features, labels = model.features("test"), model.labels("test")
        found = silhouette_samples(features.numpy(), labels.numpy())
        yield Result("silhouette", torch.from_numpy(found).double())


HEALTHY = [Nearest, Nearest(powers=(1.0,)), Head, Loss, TopTwo, Brier, Errors, Apart]


# ---- the same with a bug


class Undeclared(Nearest):
    """Yields what it does not declare."""

    def run(self, model):
        yield from super().run(model)
        yield Result("top5", 1.0)


class NeverYielded(Nearest):
    """Declares what it never yields."""

    metrics: ClassVar[dict[str, Metric]] = {**Nearest.metrics, "ece": Metric(help="calibration")}


class Percent(Nearest):
    """Gives 0 to 100."""

    def value(self, predicted, right):
        return 100 * super().value(predicted, right)


class PercentDeclared(Nearest):
    """Declares 0 to 100 in %."""

    metrics: ClassVar[dict[str, Metric]] = {
        "top1": replace(TOP1, high=100),
        "validation_top1": Nearest.metrics["validation_top1"],
    }


class TwoMains(Nearest):
    """Has two main metrics."""

    metrics: ClassVar[dict[str, Metric]] = {"top1": TOP1, "validation_top1": TOP1}


class MainHeldOut(Nearest):
    """Takes what it chooses by for its main metric."""

    metrics: ClassVar[dict[str, Metric]] = {
        "top1": replace(TOP1, main=False),
        "validation_top1": replace(VALIDATION, main=True),
    }


class LastRound(Nearest):
    """Gives outcomes of the last fold alone, by a fold that it makes itself."""

    def run(self, model):
        for r in super().run(model):
            last = r.metric == "validation_top1"
            yield Result(r.metric, r.value[:48] if last else r.value, r.where)


class OneForAll(Nearest):
    """Gives the mean where one number per image is declared."""

    def value(self, predicted, right):
        return super().value(predicted, right).mean()


class NotFinite(Nearest):
    """Divides zero by zero."""

    def value(self, predicted, right):
        return super().value(predicted, right) / 0 * 0


class TensorWhere(Nearest):
    """Puts a tensor into where."""

    def run(self, model):
        for r in super().run(model):
            yield Result(r.metric, r.value, {**r.where, "at": torch.ones(1)})


class TwoHeadlines(Nearest):
    """Chooses everything."""

    def run(self, model):
        for r in super().run(model):
            yield Result(r.metric, r.value, {**r.where, "chosen": True})


class NoHeadline(Nearest):
    """Chooses nothing."""

    def choose(self, scores, on_test):
        return None


class Unseen(Nearest):
    """Takes features of a split that it does not declare."""

    splits: ClassVar[tuple[str, ...]] = ("test",)


class Validation(Nearest):
    """Declares a split that no data set has."""

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")


class NoPixels(Nearest):
    """Takes the second pooling, which pixels have not."""

    def features(self, model, split):
        return model.features(split, pool=model.pools()[1])


class Ends(Nearest):
    """Ends the interpreter."""

    def run(self, model):
        if model.kind == "pixels":
            sys.exit("no encoder")
        yield from super().run(model)


class Late(Nearest):
    """Finds out that there is no encoder when half of its results are out."""

    def run(self, model):
        yield from super().run(model)
        model.encoder()


class Nowhere(Nearest):
    """Can do it with nothing."""

    def run(self, model):
        raise NotApplicable("no model is good enough")
        yield


class LabelsUnasked(Nearest):
    """Takes the labels without asking whether there are any."""

    def labels(self, model):
        return model.images("train").info.labels

    def right(self, model):
        return model.images("test").info.labels

    def run(self, model):
        self.labels(model).max()
        yield from super().run(model)


class ThirdOfEachClass(Nearest):
    """Counts on three images of each class."""

    def labels(self, model):
        labels = model.labels("train")
        [(labels == c).nonzero()[2] for c in range(4)]
        return labels


class Unseeded(Nearest):
    """Adds noise that no seed gives."""

    def features(self, model, split):
        found = model.features(split)
        return found + torch.from_numpy(np.random.default_rng().normal(size=found.shape)).float()


class Remembers(Nearest):
    """Keeps a count from run to run."""

    runs: ClassVar[list[int]] = []

    def run(self, model):
        self.runs.append(1)
        for r in super().run(model):
            yield Result(r.metric, r.value, {**r.where, "run": len(self.runs)})


class ChangesModel(Nearest):
    """Trains what is frozen."""

    def run(self, model):
        for parameter in model.loaded.module.parameters() if model.loaded.module else ():
            parameter.data += 1e-3
        yield from super().run(model)


class ChangesLabels(Nearest):
    """Merges two classes in place."""

    def right(self, model):
        right = model.labels("test")
        right[right == 3] = 2
        return right


class LeavesGradientsOff(Nearest):
    """Turns gradients off for all that come after it."""

    def run(self, model):
        torch.set_grad_enabled(False)
        yield from super().run(model)


class ReusesBuffer(Nearest):
    """Yields the same tensor again and again."""

    def run(self, model):
        buffer = torch.zeros(len(model.labels("test")), dtype=torch.float64)
        for r in super().run(model):
            if r.metric == "top1":
                r = Result(r.metric, buffer.copy_(r.value), r.where)
            yield r


class TrainsInSecret(Head):
    """Trains the encoder and says that it does not."""

    changes_encoder: ClassVar[bool] = False


class TrainsNothing(Head):
    """Says that it trains the encoder, and trains the head alone."""

    def trained(self, encoder):
        return ()


class WritesHere(Nearest):
    """Writes into the working folder."""

    def run(self, model):
        Path("report.txt").write_text(model.name)
        yield from super().run(model)


class WritesBeside(Nearest):
    """Writes beside the artifacts."""

    def run(self, model):
        (model.artifacts.parent / "report.txt").write_text(model.name)
        yield from super().run(model)


class Shifted(Nearest):
    """Has the labels of the images before."""

    def labels(self, model):
        return model.labels("train").roll(1)


class ShiftedHead(Head):
    """Has the labels of the images before, and needs an encoder."""

    def right(self, model):
        return model.labels("test").roll(1)


class Wrong(Nearest):
    """Gives the share of errors where more is better."""

    def value(self, predicted, right):
        return (predicted != right).double()


class TrainsOnTest(Nearest):
    """Makes the class means of test images too, with their labels."""

    def run(self, model):
        train = torch.cat([model.features("train"), model.features("test")])
        labels = torch.cat([model.labels("train"), model.labels("test")])
        predicted = self.predicted(train, labels, model.features("test"), self.powers[0])
        yield nothing_chosen(model)
        yield Result("top1", self.value(predicted, model.labels("test")))


class ALittleOfTest(TrainsOnTest):
    """Takes only the mean of one class from test, which chance does not tell."""

    def distances(self, train, labels, test, power):
        keep = torch.cat([torch.ones(len(train) - len(test)), labels[-len(test) :] == 0]).bool()
        return super().distances(train[keep], labels[keep], test, power)


class BestOnTest(Nearest):
    """Chooses the power on test."""

    def choose(self, scores, on_test):
        return max(on_test, key=lambda power: on_test[power].mean())


class BestOnTestUnsaid(Nearest):
    """Chooses the power on test and keeps it to itself."""

    def run(self, model):
        found = [r for r in super().run(model) if r.metric == "top1"]
        yield nothing_chosen(model)
        yield Result("top1", max((r.value for r in found), key=lambda v: float(v.mean())))


class PriorOfTest(Loss):
    """Adds how frequent the classes are among the right answers so far."""

    def logits(self, logits, right):
        share = torch.nn.functional.one_hot(right, logits.shape[1]).double().cumsum(0)
        return logits + share / len(right)


class NoGuess(TopTwo):
    """Does not say that guessing two of four classes is right half of the time."""

    metrics: ClassVar[dict[str, Metric]] = Nearest.metrics


class Standardised(Nearest):
    """Standardises each split by itself."""

    def features(self, model, split):
        found = model.features(split)
        return (found - found.mean(0)) / found.std(0).clamp(min=1e-6)


class Projected(Nearest):
    """Projects on the test classes' directions, in which a swap of two classes changes nothing."""

    def features(self, model, split):
        test, labels = model.features("test"), model.labels("test")
        means = torch.stack([test[labels == c].mean(0) for c in labels.unique()])
        return model.features(split) @ (means - means.mean(0)).T


class PlainOnTest(Nearest):
    """Gives the mean alone, of class means made of test images."""

    metrics: ClassVar[dict[str, Metric]] = {
        "top1": replace(TOP1, per_example=False, guess=0.25),
        "validation_top1": Nearest.metrics["validation_top1"],
    }

    def run(self, model):
        test, labels = model.features("test"), model.labels("test")
        predicted = self.predicted(test, labels, test, self.powers[0])
        yield nothing_chosen(model)
        yield Result("top1", float((predicted == labels).double().mean()))


class Unread(Nearest):
    """Has an option that nothing reads."""

    rate: float = Field(0.5, gt=0, le=1, description="how fast")


class Echoed(Nearest):
    """Has an option that goes nowhere but into where."""

    rate: float = Field(0.5, gt=0, le=1, description="how fast")

    def run(self, model):
        for r in super().run(model):
            yield Result(r.metric, r.value, {**r.where, "rate": self.rate})


AS_DECLARED = "its results are as declared"
HEADLINE = "its main metric has one headline"
METRICS = "its metrics make sense"
REASON = "it gives results or says why not"
SAME = "the same seed gives the same numbers"
LEAVES = "it leaves everything as it was"
TRAINS = "it trains the encoder only where it says so"
FILES = "its files lie among the artifacts"
BEST = "features that show the class score best"
GUESSING = "features of noise score as guessing"
APART = "test labels do not reach the predictions"
ALONE = "an image is judged without the other test images"
OPTIONS = "every option changes a number"
BUGS = {
    "an undeclared metric": (Undeclared, AS_DECLARED, "does not declare 'top5'"),
    "a metric that is never yielded": (NeverYielded, AS_DECLARED, "['ece'] declared and never"),
    "0 to 100": (Percent, AS_DECLARED, "leaves its range 0 to 1"),
    "0 to 100 declared in %": (PercentDeclared, METRICS, "high=100 is too high"),
    "two main metrics": (TwoMains, METRICS, "these have: ['top1', 'validation_top1']"),
    "a main metric of train": (MainHeldOut, METRICS, "the main one is of test"),
    "outcomes of some of the images held out": (
        LastRound,
        AS_DECLARED,
        "one number for each of 240 images held out of train is declared, got shape (48,)",
    ),
    "one value for all images": (OneForAll, AS_DECLARED, "one number for each of 240"),
    "not a number": (NotFinite, AS_DECLARED, "is not finite"),
    "a tensor in where": (TensorWhere, AS_DECLARED, "not made of plain values"),
    "two headlines": (TwoHeadlines, HEADLINE, "exactly once"),
    "no headline": (NoHeadline, HEADLINE, "got 0"),
    "an undeclared split": (
        Unseen,
        "it reaches only the splits it declares",
        "asks for train and declares splits=('test',)",
    ),
    "a split that no data set has": (
        Validation,
        "its splits are those that data sets have",
        "there is train and test",
    ),
    "a crash on pixels": (NoPixels, REASON, "IndexError: tuple index out of range (test_testing"),
    "an end of the interpreter": (Ends, REASON, "SystemExit: no encoder"),
    "half of the results": (Late, REASON, "find out before the first"),
    "applicable to nothing": (Nowhere, REASON, "no model can do it"),
    "labels taken unasked": (
        LabelsUnasked,
        "images without labels give results or a reason",
        "no labels): AttributeError",
    ),
    "three images of each class": (
        ThirdOfEachClass,
        "few training images give results or a reason",
        "8 to train on): IndexError",
    ),
    "randomness without seed": (Unseeded, SAME, "model.draws(purpose)"),
    "a memory": (Remembers, SAME, '"run": 7'),
    "a changed model": (ChangesModel, LEAVES, "the model's own weights"),
    "changed labels": (ChangesLabels, LEAVES, "the labels of test"),
    "gradients left off": (LeavesGradientsOff, LEAVES, "whether torch makes gradients"),
    "a buffer that is yielded twice": (ReusesBuffer, LEAVES, "a value it has yielded"),
    "training in secret": (TrainsInSecret, TRAINS, "1 of 1 copies of the encoder are trained"),
    "no training at all": (TrainsNothing, TRAINS, "every copy is left as it was"),
    "a file in the working folder": (WritesHere, FILES, "report.txt"),
    "a file beside the artifacts": (WritesBeside, FILES, "report.txt"),
    "labels one place off": (Shifted, BEST, "in one order"),
    "labels one place off for an encoder": (ShiftedHead, BEST, "guessing has 0.250"),
    "errors called hits": (Wrong, BEST, "is 0.000, and the best is 1"),
    "training on test": (TrainsOnTest, GUESSING, "test labels reach training"),
    "training on a little of test": (ALittleOfTest, APART, "test labels reach training"),
    "a choice on test": (BestOnTest, APART, "move a choice"),
    "a choice on test that is not said": (BestOnTestUnsaid, APART, "the labels of"),
    "other images' labels in a loss": (PriorOfTest, APART, "the labels of other images change"),
    "each split standardised by itself": (Standardised, ALONE, "fit scalers, projections"),
    "directions of the test classes": (Projected, APART, "the labels of other images change"),
    "training on test shown as one number": (PlainOnTest, GUESSING, "do test labels reach"),
    "a guess that is not declared": (NoGuess, GUESSING, "Metric(guess=...)"),
    "an option that is never read": (
        Unread,
        OPTIONS,
        "'rate' changes no number on 6 models: 0.5 gives",
    ),
    "an option that only goes into where": (Echoed, OPTIONS, "'rate' changes no number"),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_named_by_its_check(bug):
    component, check, piece = BUGS[bug]
    name = f"test_{check.replace(' ', '_')}"
    (found,) = examine(contract(component, checks=classmethod(lambda cls: [name])))
    assert found.status == "fail", found
    assert piece in found.reason


@pytest.mark.parametrize("tested", HEALTHY, ids=repr)
def test_a_healthy_evaluation_has_no_failure(tested):
    found = [*examine(contract(tested))]
    assert [finding for finding in found if finding.status == "fail"] == []


@pytest.mark.parametrize(("tested", "left"), [(Nearest, {TRAINS}), (Head, set())])
def test_a_share_of_right_images_leaves_no_check_unmade(tested, left):
    found = [*examine(contract(tested))]
    assert {finding.check for finding in found if finding.status == "not checked"} == left


class TwoWays(Nearest):
    """Reads one option in the second of two protocols alone, and refuses it in the first."""

    name: ClassVar[str] = "two-ways"
    protocol: Literal["first", "second"] = Field("first", description="which way to go")
    shift: float = Field(0.0, ge=0, le=1, description="share of images called wrong, in the second")
    reads: ClassVar[bool] = True

    def model_post_init(self, _):
        if self.protocol == "first" and self.shift:
            raise ValueError("shift is read by protocol=second alone")

    def value(self, predicted, right):
        value = super().value(predicted, right)
        if self.protocol == "second":
            value[: 1 + int(self.reads * self.shift * len(value))] = 0.0
        return value


class OneWay(TwoWays):
    """Reads it in neither."""

    name: ClassVar[str] = "one-way"
    reads: ClassVar[bool] = False


def test_an_option_of_one_protocol_has_to_change_a_number_there():
    contract(TwoWays)().test_every_option_changes_a_number()
    with pytest.raises(Broken, match="'shift' changes no number"):
        contract(OneWay)().test_every_option_changes_a_number()


# ---- other kinds of inputs


class OfText(Nearest):
    """Takes windows of text, and no images."""

    name: ClassVar[str] = "of-text"
    takes: ClassVar[tuple[str, ...]] = ("text",)

    def features(self, model, split):
        assert model.inputs.kind == "text"
        return super().features(model, split)


class Shuffled(OfText):
    """Labels one place off."""

    def labels(self, model):
        return model.labels("train").roll(1)


class Half(Nearest):
    """Yields one of its metrics of text alone, and of text another one that is not declared."""

    takes: ClassVar[tuple[str, ...]] = ("images", "text")
    metrics: ClassVar[dict[str, Metric]] = {
        **Nearest.metrics,
        "words": Metric(help="number of words", per_example=False),
    }
    called: ClassVar[str] = "words"

    def run(self, model):
        yield from super().run(model)
        if model.inputs.kind == "text":
            yield Result(self.called, float(model.inputs.vocabulary))


class HalfUndeclared(Half):
    """Calls it by another name."""

    called: ClassVar[str] = "letters"


class OfSignals(Nearest):
    """Takes what the kit has not."""

    takes: ClassVar[tuple[str, ...]] = ("signals",)


def test_what_takes_no_images_is_tried_on_windows_of_text():
    found = [*examine(contract(OfText))]
    assert {f.check: f.reason for f in found if f.status == "fail"} == {}
    assert {f.check for f in found if f.status == "not checked"} == {TRAINS}
    with pytest.raises(
        Broken, match=r"raw inputs \(windows that show their class\) top1 is 0\.[12]"
    ):
        contract(Shuffled)().test_features_that_show_the_class_score_best()


def test_what_takes_text_beside_images_is_asked_for_its_metrics_of_both():
    contract(Half)().test_its_results_are_as_declared()
    with pytest.raises(Broken, match="windows that show their class.*letters"):
        contract(HalfUndeclared)().test_its_results_are_as_declared()


def test_what_takes_another_kind_alone_is_not_checked_and_says_so():
    with pytest.raises(NotChecked, match="it takes signals, and is tried on images and text alone"):
        contract(OfSignals)().test_its_results_are_as_declared()


# ---- what ships

CHECKERBOARD = from_file(ROOT / "plugins" / "maebench-checkerboard" / "maebench_checkerboard.py")
SHIPPED = {
    "linear-probe": contract(
        LinearProbe, variants={"l2": [(1e-9, 1.0)], "batch": [64], "epochs": [10], "steps": [200]}
    ),
    "finetune": contract(Finetune(epochs=2)),
    "knn": contract(KNN, variants={"k": [(1,)]}),
    "reconstruction": contract(
        ReconstructionQuality,
    ),
    "effective-rank": contract(CHECKERBOARD.EffectiveRank),
}


@pytest.mark.parametrize("check", EvaluationContract.checks())
@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_keeps_to_its_contract(name, check):
    getattr(SHIPPED[name](), check)()


# ---- the kit itself


def test_classes_are_balanced_and_the_pictures_are_always_the_same():
    for data in (PLAIN, HARD, NOISY, TWO["true"]):
        for split in ("train", "test"):
            request = replace(Request(split), image_size=(16, 16))
            info = data.load(request).info
            assert set(info.labels.bincount().tolist()) == {240 // data.classes}
            assert data.load(request).info.fingerprint == info.fingerprint


def test_the_labels_are_flipped_in_test_alone():
    train, test = (
        {truth: TWO[truth].load(Request(split)).info.labels for truth in TWO}
        for split in ("train", "test")
    )
    assert torch.equal(train["true"], train["flipped"])
    assert torch.equal(test["flipped"], 1 - test["true"])
    assert (test["half"] != test["true"]).nonzero()[:, 0].tolist() == list(range(120))


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = (
        random.getstate(),
        str(np.random.get_state()),
        torch.get_rng_state(),
        dict(os.environ),
    )
    for bug in (LeavesGradientsOff, WritesHere):
        assert any(finding.status == "fail" for finding in examine(contract(bug)))
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert dict(os.environ) == before[3]
    assert torch.is_grad_enabled()
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []
