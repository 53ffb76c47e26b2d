"""Does an evaluation measure what it says: on features that tell the class, and on noise?

Everything is made here, in memory and in temporary folders: images with a pattern per class, an
untrained encoder and raw pixels. The evaluation gets them as it gets any model, and what it asks
for, hands out, writes and leaves behind is noted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from maebench.errors import MaebenchError, PluginError
from maebench.evaluating.suite import _check_complete, _is_headline
from maebench.evaluation import Evaluation, Metric, NotApplicable, Result
from maebench.files import SAFE_NAME
from maebench.rng import isolated
from maebench.testing.contract import Broken, Contract, NotChecked, described, expect
from maebench.testing.evaluated import (
    FEW,
    FEWEST,
    HARD,
    NOISY,
    OTHERS,
    PLAIN,
    SPLITS,
    TEST,
    TWO,
    UNLABELLED,
    Case,
    Outcome,
    Synthetic,
    place,
    run,
)

SURE = 3.29  # 99.9 % of a normal distribution lie within so many deviations
NEAR = 0.02  # of a metric's range: as near as perfect features must come to its end


# ---- the contract


class EvaluationContract(Contract):
    """Checks that an evaluation keeps to its contract; inherit it in a test class.

    It is run on raw pixels and on an untrained encoder, of images that show their class plainly,
    hardly, or not at all. `changes_encoder: ClassVar[bool]` of the evaluation says whether it
    trains the copies that `model.encoder()` gives.
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
        for case, outcome in self._cases():
            expect(
                not outcome.undeclared,
                f"on {case} it asks for {' and '.join(outcome.undeclared)} and declares "
                f"splits={tuple(self.made().splits)}: add what it needs to splits",
            )

    # ---- what it yields

    def test_it_gives_results_or_says_why_not(self) -> None:
        """What a model cannot do is a row with a reason, not a crash and not half of a result."""
        cases = [*self._cases(), (Case(PLAIN, "no decoder"), self._on(PLAIN, "no decoder"))]
        for case, outcome in cases:
            self._expect_reason(case, outcome)
        done = any(outcome.error is None for _, outcome in cases)
        expect(done, f"no model can do it: {why(*cases[0])}; {why(*cases[1])}")

    def test_images_without_labels_give_results_or_a_reason(self) -> None:
        """A data set need not have labels; model.labels() then raises NotApplicable for you."""
        for kind in ("pixels", "encoder"):
            self._expect_reason(Case(UNLABELLED, kind), self._on(UNLABELLED, kind))

    def test_few_training_images_give_results_or_a_reason(self) -> None:
        """A class may have two images, or one: too few to choose on, or for an option."""
        for data in (FEW, FEWEST):
            for kind in ("pixels", "encoder"):
                outcome = self._on(data, kind)
                # an option that does not fit so few, such as k=50, is answered like any user's mistake
                told = isinstance(outcome.error, MaebenchError) and outcome.early
                if not told or isinstance(outcome.error, PluginError):
                    self._expect_reason(Case(data, kind), outcome)

    def _expect_reason(self, case: Case, outcome: Outcome) -> None:
        """Nothing ended it but NotApplicable, and that before the first result."""
        applicable = not isinstance(outcome.error, NotApplicable)
        hint = "what a model cannot do raises NotApplicable(why)"
        expect(not (applicable and outcome.error), f"{why(case, outcome)}; {hint}")
        hint = "it has already yielded results: find out before the first"
        expect(applicable or outcome.early, f"{why(case, outcome)}; {hint}")

    def test_its_results_are_as_declared(self) -> None:
        """Declared metrics in their range, one number per test image, `where` of plain values."""
        for case, outcome in self._cases():
            expect(not outcome.broken, f"on {case}: {outcome.broken}")
        given = {r.metric for _, outcome in self._done() for r in outcome.results}
        left = sorted(self.made().metrics.keys() - given)
        expect(not left, f"{left} declared and never yielded; what cannot be had is None")

    def test_its_main_metric_has_one_headline(self) -> None:
        """Tables show one row per model: the one with chosen=True, or with an empty `where`."""
        for case, outcome in self._done():
            try:
                _check_complete(self.made(), outcome.results)
            except PluginError as error:
                raise Broken(f"on {case}: {error}") from error

    # ---- what it leaves alone

    def test_the_same_seed_gives_the_same_numbers(self) -> None:
        """Random numbers come from model.draws(), or from the global state that the suite sets."""
        for case, outcome in self._done():
            if case.data == HARD:
                with isolated(1, "another state outside"):
                    again = run(self.made(), case)
                apart = difference(outcome, again)
                expect(
                    not apart,
                    f"on {case} two runs of one seed differ: {apart}; take random numbers from "
                    "model.draws(purpose), keep nothing from run to run",
                )

    def test_it_leaves_everything_as_it_was(self) -> None:
        """Weights, images, labels and torch's settings are those of the next evaluation too."""
        for case, outcome in self._cases():
            expect(
                not outcome.changed,
                f"on {case} it changes {' and '.join(outcome.changed)}: work on a copy "
                "(model.encoder() is one, tensor.clone() makes one) and put settings back",
            )

    def test_it_trains_the_encoder_only_where_it_says_so(self) -> None:
        """`changes_encoder` tells a reader whether a score is that of frozen features."""
        says = getattr(self.made(), "changes_encoder", None)
        handed = [(case, outcome) for case, outcome in self._done() if outcome.handed]
        if not handed or says is None:
            reason = "never asks for model.encoder()" if not handed else "declares no"
            raise NotChecked(f"it {reason}" + (" changes_encoder: ClassVar[bool]" * bool(handed)))
        for case, outcome in handed:
            expect(
                says or not outcome.trained,
                f"on {case} {outcome.trained} of {outcome.handed} copies of the encoder are "
                "trained, and changes_encoder is False",
            )
        trained = any(outcome.trained for _, outcome in handed)
        expect(trained or not says, "changes_encoder is True, and every copy is left as it was")

    def test_its_files_lie_among_the_artifacts(self) -> None:
        """What is written elsewhere is found by nobody and overwritten by the next model."""
        for case, outcome in self._cases():
            expect(
                not outcome.strays,
                f"on {case} it writes {', '.join(outcome.strays)} outside model.artifacts: use "
                "model.picture(name, figure) or a path below model.artifacts",
            )

    # ---- whether it measures what it says

    def test_features_that_show_the_class_score_best(self) -> None:
        """Labels one place off, or a sign the wrong way round, show where all should be right."""
        name, metric = self._main()
        case, (outcome,) = self._scored(PLAIN)
        score = self._score(outcome)
        hint = "are labels and features in one order, and low, high and the direction right?"
        if case.kind == "encoder":  # how far training comes depends on its length
            guess = self._guess(PLAIN)
            wanted = f"guessing has {guess:.3f}, give or take {margin(guess):.3f}"
            ahead = score - guess if metric.higher_is_better else guess - score
            expect(ahead > margin(guess), f"on {case} {name} is {score:.3f}, and {wanted}: {hint}")
            return
        best = metric.high if metric.higher_is_better else metric.low
        values = torch.as_tensor(self._headline(outcome).value)  # type: ignore[union-attr]
        if best is not None and set(values.flatten().tolist()) <= {0, 1}:  # right or wrong
            near = abs(score - best) <= NEAR
            expect(near, f"on {case} {name} is {score:.3f}, and the best is {best:g}: {hint}")
            return
        # a graded number need not reach its end, but has to be nearer to it than on noise
        noise = self._score(self._on(NOISY, case.kind))
        ahead = score - noise if metric.higher_is_better else noise - score
        expect(ahead > 0, f"on {case} {name} is {score:.3f}, on noise {noise:.3f}: {hint}")

    def test_features_of_noise_score_as_guessing(self) -> None:
        """Test labels that reach training, or a metric that flatters, show where none can know."""
        guess = self._guess(NOISY)
        case, (outcome,) = self._scored(NOISY)
        score = self._score(outcome)
        expect(
            abs(score - guess) <= margin(guess),
            f"on {case} {self._main()[0]} is {score:.3f}, and guessing has {guess:.3f}, give or "
            f"take {margin(guess):.3f} (99.9 % of guesses at {TEST} images): do test labels reach "
            "training, or is Metric(guess=...) missing?",
        )

    def test_test_labels_do_not_reach_the_predictions(self) -> None:
        """With other test labels right becomes wrong, and nothing else may change."""
        name, metric = self._main()
        if not metric.per_example:
            raise NotChecked(f"{name!r} is not one number per test image")
        case, (true, flipped) = self._scored(TWO["true"], TWO["flipped"])
        if "train" not in true.labels_of:
            raise NotChecked(
                "it never asks for model.labels() of train: what compares test images with each "
                "other moves with their labels"
            )
        values, others = self._values(true), self._values(flipped)
        expect(
            values.keys() == others.keys(),
            f"on {case} the test labels move a choice: {' '.join(values.keys() - others.keys())} "
            f"becomes {' '.join(others.keys() - values.keys())}; choose on train: model.holdout()",
        )
        every = (*values.values(), *others.values())
        # where another guess is declared more than one class may be right, as in top-5
        right = metric.guess is None and all(set(value.tolist()) <= {0, 1} for value in every)
        # numbers must not move with the labels of other images
        halves = self._values(self._on(TWO["half"], case.kind))
        tried = [("other images change", halves, slice(TEST // 2, None))]
        if right:
            turned = {where: 1 - value for where, value in others.items()}
            tried += [("test are flipped, beyond right becoming wrong", turned, slice(None))]
        for what, found, kept in tried:
            for where, value in values.items():
                wrong = int((found[where] != value)[kept].sum()) if where in found else TEST
                expect(
                    not wrong,
                    f"on {case} {name} {where} moves for {wrong} images when the labels of {what}: "
                    "test labels reach training",
                )

    def test_an_image_is_judged_without_the_other_test_images(self) -> None:
        """Statistics of the whole test split are not there when one image has to be judged."""
        name, metric = self._main()
        if not metric.per_example:
            raise NotChecked(f"{name!r} is not one number per test image")
        if "train" not in self.made().splits:
            raise NotChecked("it declares test alone: what it measures may lie between its images")
        for kind in ("pixels", "encoder"):
            outcomes = [self._on(data, kind) for data in (HARD, OTHERS)]
            if any(outcome.error or outcome.broken for outcome in outcomes):
                continue
            values, found = (self._values(outcome) for outcome in outcomes)
            for where in values.keys() & found.keys():
                one, other = (v[where][: TEST // 2] for v in (values, found))
                wrong = int((~torch.isclose(one, other, rtol=1e-4, atol=1e-6)).sum())
                expect(
                    not wrong,
                    f"on {Case(HARD, kind)} {name} {where} moves for {wrong} of {TEST // 2} images "
                    "when the other test images change: fit scalers, projections and thresholds "
                    "on train",
                )
            return
        raise NotChecked("there are no results to look at")

    def test_every_option_changes_a_number(self) -> None:
        """An option that is never read makes one experiment of two rows of a table."""
        # first where nothing is at its best or worst
        done = sorted(self._done(), key=lambda found: found[0].data != HARD)
        options = type(self.made()).model_fields

        def outcomes(evaluation: Evaluation) -> Iterator[tuple[str, list[Any]]]:
            for case, _ in done:
                found = self._on(case.data, case.kind, evaluation)
                if not found.error and not found.broken:
                    # an option that goes into `where` alone is only said, and changes nothing
                    where = [
                        {k: v for k, v in r.where.items() if k not in options}
                        for r in found.results
                    ]
                    yield str(case), [where, [(metric, value) for metric, _, value in found.rows]]

        self.check_options(outcomes, f"no number on {len(done)} models")

    # ---- what the checks look at

    def _on(self, data: Synthetic, kind: str, evaluation: Evaluation | None = None) -> Outcome:
        """What came of the evaluation, run once for all checks."""
        case, made = Case(data, kind), evaluation or self.made()
        return self.kept((made, case), lambda: run(made, case))

    def _cases(self) -> Iterator[tuple[Case, Outcome]]:
        """The cases of every check that needs no particular one."""
        for data in (PLAIN, HARD, NOISY):
            for kind in ("pixels", "encoder"):
                yield Case(data, kind), self._on(data, kind)

    def _done(self) -> list[tuple[Case, Outcome]]:
        """Those that came to their end with results as declared.

        Raises:
            NotChecked: there is none.
        """
        found = [(c, o) for c, o in self._cases() if not o.error and not o.broken]
        if not found:
            raise NotChecked(f"there are no results to look at: {why(*next(self._cases()))}")
        return found

    def _main(self) -> tuple[str, Metric]:
        """The main metric and its name.

        Raises:
            NotChecked: there is not one.
        """
        mains = [(name, metric) for name, metric in self.made().metrics.items() if metric.main]
        if len(mains) != 1:
            raise NotChecked(f"{len(mains)} metrics have main=True")
        return mains[0]

    def _grid(self, outcome: Outcome) -> list[Result]:
        """All results of the main metric."""
        return [r for r in outcome.results if r.metric == self._main()[0]]

    def _values(self, outcome: Outcome) -> dict[str, Tensor]:
        """The same per test image, by what tells them apart."""
        return {place(r): r.value for r in self._grid(outcome) if isinstance(r.value, Tensor)}

    def _headline(self, outcome: Outcome) -> Result | None:
        """The main score, where there is one."""
        found = [r for r in self._grid(outcome) if _is_headline(r.where)]
        return found[0] if len(found) == 1 and found[0].value is not None else None

    def _scored(self, *data: Synthetic) -> tuple[Case, list[Outcome]]:
        """Outcomes that have a main score: of pixels, or of an encoder where these cannot do it.

        Raises:
            NotChecked: neither has one, or the labels of test are not asked for.
        """
        for kind in ("pixels", "encoder"):
            case, outcomes = Case(data[0], kind), [self._on(one, kind) for one in data]
            if all(o.error is None and self._headline(o) for o in outcomes):
                if self.made().test not in outcomes[0].labels_of:
                    raise NotChecked("it never asks for model.labels() of test")
                return case, outcomes
        raise NotChecked(f"there is no main score to look at: {why(case, outcomes[0])}")

    def _score(self, outcome: Outcome) -> float:
        headline = self._headline(outcome)
        assert headline is not None  # _scored gives no other outcome
        return float(torch.as_tensor(headline.value).mean())

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
    if metric.guess is not None and not low <= metric.guess <= high:
        return f"guess={metric.guess} lies outside {metric.low} to {metric.high}"
    if metric.unit == "%" and metric.high is not None and metric.high > 1:
        return f"a share in % is shown times 100: yield 0 to 1, high={metric.high} is too high"
    return ""


def margin(guess: float) -> float:
    """How far from its mean the share of right guesses over all test images may lie."""
    return SURE * math.sqrt(guess * (1 - guess) / TEST)


def why(case: Case, outcome: Outcome) -> str:
    """Why a case has no results."""
    if outcome.error is None:
        return f"on {case}: {outcome.broken or 'there is no headline'}"
    return f"on {case}: {described(outcome.error, outcome.evaluation)}"


def difference(one: Outcome, other: Outcome) -> str:
    """The first difference of two outcomes in words, nothing where there is none."""
    if len(one.rows) != len(other.rows):
        return f"{len(one.rows)} results and {other.error or other.broken or len(other.rows)}"
    for first, second in zip(one.rows, other.rows, strict=True):
        if first != second:
            return f"{_brief(*first)} and {_brief(*second)}"
    return ""


def _brief(metric: str, where: str, value: Any) -> str:
    mean = f"{sum(value) / len(value):.6g} on average" if isinstance(value, list) else value
    return f"{metric} {where} is {mean}"
