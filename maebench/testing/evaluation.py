"""Whether an evaluation measures what it says: on features that show the class, and on noise.

Everything is made here, in memory and in temporary folders: images with a pattern per class, an
untrained encoder and raw pixels. The evaluation gets them as it gets any model, and what it asks
for, hands out, writes and leaves behind is noted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from maebench.encoders.inputs import takes
from maebench.errors import MaebenchError, PluginError
from maebench.evaluating.rows import check_complete, is_headline
from maebench.evaluation import Evaluation, Metric, Result
from maebench.files import SAFE_NAME
from maebench.rng import isolated
from maebench.testing.contract import Broken, Contract, NotChecked, expect
from maebench.testing.evaluated import (
    DATA,
    FEW,
    FEWEST,
    HARD,
    NOISY,
    OTHERS,
    PLAIN,
    TWO,
    UNLABELLED,
    Case,
    Outcome,
    difference,
    expect_reason,
    margin,
    place,
    run,
)
from maebench.testing.synthetic import SPLITS, TEST, Synthetic

BOTH = ("control", "encoder")  # kinds of models that every evaluation is tried on
NEAR = 0.02  # of a metric's range: as near as perfect features must come to its end


class EvaluationContract(Contract):
    """Checks that an evaluation keeps to its contract; inherit it in a test class.

    It is run on raw pixels and on an untrained encoder, of images that show their class plainly,
    hardly, or not at all; what takes no images is run on windows of text instead.
    `changes_encoder: ClassVar[bool]` of the evaluation says whether it trains the copies that
    `model.encoder()` gives.
    """

    kind: ClassVar[str] = "evaluation"

    # ---- what it declares

    def test_its_metrics_make_sense(self) -> None:
        """Tables, ranges and the sign of a difference are read from what metrics declare."""
        metrics = self.made().metrics
        mains = [name for name, metric in metrics.items() if metric.main]
        expect(len(mains) == 1, f"one of its metrics must have main=True, these have: {mains}")
        for name, metric in metrics.items():
            problem = "" if SAFE_NAME.fullmatch(name) else "a name has letters, digits, '-' and '_'"
            expect(not (problem := problem or wrong_with(metric)), f"metric {name!r}: {problem}")

    def test_its_splits_are_those_that_data_sets_have(self) -> None:
        """What is not declared cannot be reached, and values belong to the images of one split."""
        splits, test = tuple(self.made().splits), self.made().test
        known = splits and set(splits) <= set(SPLITS) and len(set(splits)) == len(splits)
        expect(known, f"splits={splits!r}: there is {' and '.join(SPLITS)}, each once")
        expect(test in splits, f"test={test!r} is not among splits={splits!r}")

    def test_it_reaches_only_the_splits_it_declares(self) -> None:
        """The suite refuses a split that is not in `splits`, and the evaluation fails."""
        splits = tuple(self.made().splits)
        hint = f" and declares splits={splits}: add what it needs to splits"
        self._expect_none("undeclared", "it asks for", hint)

    # ---- what it yields

    def test_it_gives_results_or_says_why_not(self) -> None:
        """What a model cannot do is a row with a reason, not a crash and not half of a result."""
        for outcome in (outcomes := [*self._outcomes(), self._on(PLAIN, "no decoder")]):
            expect_reason(outcome)
        done = any(outcome.error is None for outcome in outcomes)
        expect(done, f"no model can do it: {outcomes[0].why}; {outcomes[1].why}")

    def test_images_without_labels_give_results_or_a_reason(self) -> None:
        """A data set need not have labels; model.labels() then raises NotApplicable for you."""
        for kind in BOTH:
            expect_reason(self._on(UNLABELLED, kind))

    def test_few_training_images_give_results_or_a_reason(self) -> None:
        """A class may have two images, or one: too few to choose on, or for an option."""
        for outcome in (self._on(data, kind) for data in (FEW, FEWEST) for kind in BOTH):
            # an option that does not fit so few, such as k=50, is refused like any user's mistake
            refused = isinstance(outcome.error, MaebenchError) and outcome.early
            if not refused or isinstance(outcome.error, PluginError):
                expect_reason(outcome)

    def test_its_results_are_as_declared(self) -> None:
        """Declared metrics in their range, one number per test image, `where` of plain values."""
        for outcome in (outcomes := self._outcomes(self._inputs())):
            expect(not outcome.broken, f"on {outcome}: {outcome.broken}")
        self._done()
        yielded = {r.metric for outcome in outcomes if outcome.done for r in outcome.results}
        left = sorted(self.made().metrics.keys() - yielded)
        expect(not left, f"{left} declared and never yielded; what cannot be had is None")

    def test_its_main_metric_has_one_headline(self) -> None:
        """Tables show one row per model: the one with chosen=True, or with an empty `where`."""
        for outcome in self._done():
            try:
                check_complete(self.made(), outcome.results)
            except PluginError as error:
                raise Broken(f"on {outcome}: {error}") from error

    # ---- what it leaves alone

    def test_the_same_seed_gives_the_same_numbers(self) -> None:
        """Random numbers come from model.draws(), or from the global state that the suite sets."""
        for outcome in self._done():
            if outcome.case.data.signal == HARD.signal:
                with isolated(1, "another state outside"):
                    apart = difference(outcome, run(self.made(), outcome.case))
                expect(
                    not apart,
                    f"on {outcome} two runs of one seed differ: {apart}; take random numbers from "
                    "model.draws(purpose), keep nothing from run to run",
                )

    def test_it_leaves_everything_as_it_was(self) -> None:
        """Weights, images, labels and torch's settings are those of the next evaluation too."""
        hint = "work on a copy, as model.encoder() and tensor.clone() make, and put settings back"
        self._expect_none("changed", "it changes", f": {hint}")

    def test_it_trains_the_encoder_only_where_it_says_so(self) -> None:
        """`changes_encoder` tells a reader whether a score is that of frozen features."""
        says = getattr(self.made(), "changes_encoder", None)
        handed = [outcome for outcome in self._done() if outcome.copies]
        if not handed:
            raise NotChecked("it never asks for model.encoder()")
        if says is None:
            raise NotChecked("it declares no changes_encoder: ClassVar[bool]")
        for outcome in handed:
            expect(
                says or not any(outcome.copies),
                f"on {outcome} {sum(outcome.copies)} of {len(outcome.copies)} copies of the "
                "encoder are trained, and changes_encoder is False",
            )
        trained = any(any(outcome.copies) for outcome in handed)
        expect(trained or not says, "changes_encoder is True, and every copy is left as it was")

    def test_its_files_lie_among_the_artifacts(self) -> None:
        """What is written elsewhere is found by nobody and overwritten by the next model."""
        hint = "use model.picture(name, figure) or a path below model.artifacts"
        self._expect_none("strays", "it writes", f" outside model.artifacts: {hint}")

    def _expect_none(self, what: str, says: str, hint: str) -> None:
        for outcome in self._outcomes():
            found = " and ".join(getattr(outcome, what))
            expect(not found, f"on {outcome} {says} {found}{hint}")

    # ---- whether it measures what it says

    def test_features_that_show_the_class_score_best(self) -> None:
        """Labels one place off, or a sign the wrong way round, show where all should be right."""
        name, metric = self._main()
        (outcome,) = self._scored(PLAIN)
        score, best = self._score(outcome), metric.high if metric.higher_is_better else metric.low
        value = torch.as_tensor(self._headline(outcome).value)  # type: ignore[union-attr]
        if outcome.case.kind == "encoder":  # how far training comes depends on its length
            other, least, whose = self._guess(PLAIN), margin(self._guess(PLAIN)), "guessing has"
        elif best is not None and set(value.flatten().tolist()) <= {0, 1}:  # right or wrong
            other, least, whose = best, -NEAR, "the best is"
        else:  # a graded number need not reach its end, but has to be nearer to it than on noise
            other, least, whose = self._score(self._on(NOISY, "control")), 0.0, "noise has"
        ahead = score - other if metric.higher_is_better else other - score
        expect(
            ahead > least,
            f"on {outcome} {name} is {score:.3f}, and {whose} {other:.3f}, give or take "
            f"{abs(least):.3f}: are labels and features in one order, and low, high and the "
            "direction right?",
        )

    def test_features_of_noise_score_as_guessing(self) -> None:
        """Test labels that reach training, or a metric that flatters, show where none can know."""
        guess = self._guess(NOISY)
        (outcome,) = self._scored(NOISY)
        score = self._score(outcome)
        expect(
            abs(score - guess) <= margin(guess),
            f"on {outcome} {self._main()[0]} is {score:.3f}, and guessing has {guess:.3f}, give or "
            f"take {margin(guess):.3f} (99.9 % of guesses at {TEST} images): do test labels reach "
            "training, or is Metric(guess=...) missing?",
        )

    def test_test_labels_do_not_reach_the_predictions(self) -> None:
        """With other test labels right becomes wrong, and nothing else may change."""
        name, metric = self._main(per_example=True)
        true, flipped = self._scored(TWO["true"], TWO["flipped"])
        if "train" not in true.labels_of:
            raise NotChecked(
                "it never asks for model.labels() of train: what compares test images with each "
                "other moves with their labels"
            )
        values, others = self._values(true), self._values(flipped)
        expect(
            values.keys() == others.keys(),
            f"on {true} the test labels move a choice: {' '.join(values.keys() - others.keys())} "
            f"becomes {' '.join(others.keys() - values.keys())}; choose on train: model.folds()",
        )
        every = (*values.values(), *others.values())
        # numbers must not move with the labels of other images
        halves = self._values(self._on(TWO["half"], true.case.kind))
        tried = [("other images change", halves, slice(TEST // 2, None))]
        # where another guess is declared more than one class may be right, as in top-5
        if metric.guess is None and all(set(value.tolist()) <= {0, 1} for value in every):
            turned = {where: 1 - value for where, value in others.items()}
            tried += [("test are flipped, beyond right becoming wrong", turned, slice(None))]
        for what, found, kept in tried:
            for where, value in values.items():
                wrong = int((found[where] != value)[kept].sum()) if where in found else TEST
                expect(
                    not wrong,
                    f"on {true} {name} {where} moves for {wrong} images when the labels of {what}: "
                    "test labels reach training",
                )

    def test_an_image_is_judged_without_the_other_test_images(self) -> None:
        """Statistics of the whole test split are not there when one image has to be judged."""
        name, _ = self._main(per_example=True)
        if "train" not in self.made().splits:
            raise NotChecked("it declares test alone: what it measures may lie between its images")
        pairs = [[self._on(data, kind) for data in (HARD, OTHERS)] for kind in BOTH]
        one, other = next((p for p in pairs if p[0].done and p[1].done), (None, None))
        if one is None or other is None:
            raise NotChecked("there are no results to look at")
        values, found = self._values(one), self._values(other)
        for where in values.keys() & found.keys():
            before, after = (each[where][: TEST // 2] for each in (values, found))
            wrong = int((~torch.isclose(before, after, rtol=1e-4, atol=1e-6)).sum())
            expect(
                not wrong,
                f"on {one} {name} {where} moves for {wrong} of {TEST // 2} images when the other "
                "test images change: fit scalers, projections and thresholds on train",
            )

    def test_every_option_changes_a_number(self) -> None:
        """An option that is never read makes one experiment of two rows of a table."""
        # first where nothing is at its best or worst
        cases = sorted(
            (o.case for o in self._done()), key=lambda case: case.data.signal != HARD.signal
        )
        options = type(self.made()).model_fields

        def outcomes(evaluation: Evaluation) -> Iterator[tuple[str, list[Any]]]:
            for found in (self._on(case.data, case.kind, evaluation) for case in cases):
                # an option that goes into `where` alone is only repeated, and changes nothing
                where = [
                    {k: v for k, v in r.where.items() if k not in options} for r in found.results
                ]
                if found.done:
                    yield str(found), [where, [(name, value) for name, _, value in found.rows]]

        self.check_options(outcomes, f"no number on {len(cases)} models")

    # ---- what the checks look at

    def _inputs(self) -> list[str]:
        """The kinds of inputs that it is tried on: images first, where it takes them.

        Raises:
            NotChecked: it takes another kind alone.
        """
        declared = " and ".join(self.made().takes)
        if found := [kind for kind in DATA if takes(self.made(), kind)]:
            return found
        raise NotChecked(f"it takes {declared}, and is tried on {' and '.join(DATA)} alone")

    def _on(
        self,
        data: Synthetic,
        kind: str,
        evaluation: Evaluation | None = None,
        inputs: str | None = None,
    ) -> Outcome:
        """What came of the evaluation, run once for all checks."""
        case, made = Case.of(data, kind, inputs or self._inputs()[0]), evaluation or self.made()
        return self.kept((made, case), lambda: run(made, case))

    def _outcomes(self, inputs: Sequence[str] = ()) -> list[Outcome]:
        """Those of every check that needs no particular one, on each of some kinds of inputs."""
        return [
            self._on(data, kind, inputs=each)
            for each in inputs or self._inputs()[:1]
            for data in (PLAIN, HARD, NOISY)
            for kind in BOTH
        ]

    def _done(self) -> list[Outcome]:
        """Those that came to their end with results as declared.

        Raises:
            NotChecked: there is none.
        """
        outcomes = self._outcomes()
        if not any(outcome.done for outcome in outcomes):
            raise NotChecked(f"there are no results to look at: {outcomes[0].why}")
        return [outcome for outcome in outcomes if outcome.done]

    def _main(self, per_example: bool = False) -> tuple[str, Metric]:
        """The main metric and its name.

        Raises:
            NotChecked: there is not one, or it is another kind of number than is wanted.
        """
        mains = [(name, metric) for name, metric in self.made().metrics.items() if metric.main]
        if len(mains) != 1:
            raise NotChecked(f"{len(mains)} metrics have main=True")
        if per_example and not mains[0][1].per_example:
            raise NotChecked(f"{mains[0][0]!r} is not one number per test image")
        return mains[0]

    def _grid(self, outcome: Outcome) -> list[Result]:
        """All results of the main metric."""
        return [r for r in outcome.results if r.metric == self._main()[0]]

    def _values(self, outcome: Outcome) -> dict[str, Tensor]:
        """The same per test image, by what tells them apart."""
        return {place(r): r.value for r in self._grid(outcome) if isinstance(r.value, Tensor)}

    def _headline(self, outcome: Outcome) -> Result | None:
        """The main score, where there is one."""
        found = [r for r in self._grid(outcome) if is_headline(r.where)]
        return found[0] if len(found) == 1 and found[0].value is not None else None

    def _score(self, outcome: Outcome) -> float:
        headline = self._headline(outcome)
        assert headline is not None  # _scored gives no other outcome
        return float(torch.as_tensor(headline.value).mean())

    def _scored(self, *data: Synthetic) -> list[Outcome]:
        """Outcomes that have a main score: of pixels, or of an encoder where these cannot do it.

        Raises:
            NotChecked: neither has one, or the labels of test are not asked for.
        """
        for kind in BOTH:
            outcomes = [self._on(each, kind) for each in data]
            if all(o.error is None and self._headline(o) for o in outcomes):
                if self.made().test not in outcomes[0].labels_of:
                    raise NotChecked("it never asks for model.labels() of test")
                return outcomes
        raise NotChecked(f"there is no main score to look at: {outcomes[0].why}")

    def _guess(self, data: Synthetic) -> float:
        """What blind guessing has of the main metric.

        Raises:
            NotChecked: it is another kind of number than a share of right images, and declares
                no guess.
        """
        name, metric = self._main()
        share = metric.per_example and metric.higher_is_better
        if (metric.low, metric.high) != (0, 1) or not (share or metric.guess is not None):
            raise NotChecked(
                f"{name!r} is no share from 0 to 1 per image with more being better, and declares "
                "no Metric(guess=...)"
            )
        return 1 / data.classes if metric.guess is None else metric.guess


def wrong_with(metric: Metric) -> str:
    """What of a metric's declaration makes no sense; nothing where all does."""
    low = -math.inf if metric.low is None else metric.low
    high = math.inf if metric.high is None else metric.high
    if not metric.help.strip():
        return "it has no help: say in one sentence what it is"
    if not low < high:
        return f"the range {metric.low} to {metric.high} is empty"
    if math.inf == metric.high or -math.inf == metric.low:
        return f"the range {metric.low} to {metric.high} is endless: None is for no bound"
    if metric.held_out and (metric.main or not metric.per_example):
        return "held_out=True has one number per image held out of train; the main one is of test"
    if metric.guess is not None and not low <= metric.guess <= high:
        return f"guess={metric.guess} lies outside {metric.low} to {metric.high}"
    if metric.unit == "%" and metric.high is not None and metric.high > 1:
        return f"a share in % is shown times 100: yield 0 to 1, high={metric.high} is too high"
    return ""
