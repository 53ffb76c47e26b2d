"""Reconstruction: how well are hidden patches guessed, under the same masks for every model?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from maebench import (
    Evaluation,
    MaebenchError,
    Mask,
    Masking,
    Metric,
    Model,
    Random,
    Reconstruction,
    Result,
    Summary,
    unpatchify,
)
from maebench_evals import across_models
from maebench_evals.across import AcrossMasks
from maebench_evals.hidden import (
    HIDDEN_ALONE,
    NO_PIXELS,
    Similarity,
    TargetVariance,
    distance_to_seen,
    first,
    hidden_of,
    pasted,
    patch_of,
    sum_at,
    whole_psnr,
    zero,
)
from maebench_evals.hidden_tokens import token_results
from maebench_evals.inpainting import BASELINES, patch_means
from maebench_evals.reconstruction_pictures import distance_curves, examples, own_pictures

if TYPE_CHECKING:
    import pandas as pd

BATCH = 256
RATIOS = {"images": 0.75, "text": 0.15}  # arXiv 2111.06377 and 1810.04805
SHOWN = 8  # images in the picture
LENT = 64  # images that a model may make pictures of its own from: enough for a mean over them
Ratio = Annotated[float, Field(gt=0, lt=1)]
FLAT = "true patch means"  # what true statistics alone give: flat patches of the right mean


class ReconstructionQuality(Evaluation):
    """Error on hidden patches under held-out masks that are the same for every model.

    r2 is in the model's own target space: one minus an image's squared error over the mean squared
    deviation of hidden targets from their mean in test, so that its mean is the usual R2. error is
    the same by the distance to the nearest seen patch, in steps of a chess king: squared
    error over variance, 1 = guessing the mean. psnr and ssim are in hidden pixels and use no true
    statistic of a hidden patch; `how` says how the pixels were made. psnr_oracle uses the true
    mean and deviation of each hidden patch: two leaked numbers a patch, so it is no score. Its row
    `true patch means` is what these numbers give without any prediction. psnr_whole is no guess at
    what is hidden: the model sees the whole image, and all pixels count.

    Of text, r2 is the share of the bits that the tokens' frequencies in train leave open, and the
    model does not: one minus the cross entropy over that of the unigram (McFadden's pseudo R2,
    1974). bits and token_accuracy are those of hidden tokens. Baselines are the unigram, and the
    seen neighbours of a token by the pairs of train, of which train chooses left, right or both.

    Baselines need no model: the mean colour of the seen pixels, a copy of the nearest seen patch,
    and harmonic inpainting (Laplace's equation between the seen pixels).

    across scores the model under fixed masks of five strategies at three ratios each, whatever it
    was trained with; `masks` is a hash of what was hidden.
    """

    name: ClassVar[str] = "reconstruction"
    takes: ClassVar[tuple[str, ...]] = tuple(RATIOS)
    version: ClassVar[int] = 2
    splits: ClassVar[tuple[str, ...]] = ("test",)
    example: ClassVar[dict[str, object]] = {"across": True}  # so that every metric is there
    metrics: ClassVar[dict[str, Metric]] = {
        "r2": Metric(help="share of the hidden targets' variance explained", high=1, main=True),
        "psnr": Metric(help="peak signal to noise ratio of hidden pixels", unit="dB", high=100),
        "ssim": Metric(help="structural similarity around hidden pixels", low=-1, high=1),
        "psnr_oracle": Metric(
            help="psnr with the true mean and deviation of each hidden patch", unit="dB", high=100
        ),
        "psnr_whole": Metric(
            help="peak signal to noise ratio of all pixels where the model sees the whole image",
            unit="dB",
            high=100,
        ),
        "error": Metric(
            help="squared error over variance at a distance to what is seen",
            higher_is_better=False,
            low=0,
            per_example=False,
        ),
        "bits": Metric(
            help="bits per hidden token, of text", unit="bits", higher_is_better=False, low=0
        ),
        "token_accuracy": Metric(
            help="share of hidden tokens that are given right, of text", unit="%", low=0, high=1
        ),
        "across_r2": Metric(help="r2 under one of the common masks", high=1),
        "across_psnr": Metric(help="psnr under one of the common masks", unit="dB", high=100),
    }

    ratio: Ratio | Literal["own"] | None = Field(
        default=None,
        description="share of patches hidden for the test, or own: as the model was pretrained; "
        "none: 0.75, of text 0.15",
        examples=[0.5],
    )
    masking: Masking = Field(default=Random(), description="strategy that hides them")
    across: bool = Field(
        default=False,
        description="score under each of fifteen fixed mask sets too, and draw a heat map",
    )

    def run(self, model: Model) -> Iterator[Result]:
        """Yields all metrics of the model and of the baselines, and writes the pictures."""
        images = model.images("test")
        ids = images.info.ids
        given = self.suited(model.inputs.kind).ratio
        assert given is not None  # other kinds are not taken
        ratio = model.ratio if given == "own" else given
        model.masks(ids[:1], self.masking, ratio)  # "not applicable" before anything is done
        if model.inputs.kind == "text":
            yield from token_results(model, lambda which: model.masks(which, self.masking, ratio))
            if self.across:
                yield Result("across_r2", None, {}, "the common masks are of planes, text has none")
            return
        across = AcrossMasks(model, ids) if self.across else None
        found, done = Pass(), 0
        steps = -(-len(images) // BATCH)
        with torch.no_grad():
            for part in model.progress(
                images.whole(BATCH), steps, f"reconstruction of {model.kind}"
            ):
                here = ids[done : done + len(part)]
                mask, normal = model.masks(here, self.masking, ratio), model.normalise(part)
                made = model.reconstruct(normal, mask)
                found.add(model, normal, mask, made)
                if across is not None:
                    across.add(here, normal)
                if done == 0:
                    examples(model, normal[:SHOWN], first(mask, SHOWN), made)
                    own_pictures(model, normal[:LENT], here[:LENT])
                done += len(part)
        errors = list(found.errors())
        if errors[0].value is not None:
            distance_curves(model, errors, f"{self.masking.changed()}, ratio {ratio:g}")
        yield from found.r2()
        yield from found.in_pixels()
        yield from found.with_true_statistics()
        yield found.of_whole_images()
        yield from errors
        if across is not None:
            yield from across.results()

    def splits_of(self, kind: str) -> Sequence[str]:
        """Of text the baselines count train's tokens."""
        return ("train", "test") if kind == "text" else self.splits

    def suited(self, kind: str) -> Self:
        """Of a ratio that is left open, the usual one of images or of text."""
        return self.model_copy(update={"ratio": self.ratio or RATIOS.get(kind)})

    def summary(self, rows: pd.DataFrame) -> Iterator[Summary]:
        """Yields the matrix of models and common masks, where they were scored under them."""
        yield from across_models.summary(rows)


@dataclass
class Guess:
    """What is left of the model's guesses, or of one baseline's.

    Args:
        errors: squared error of each image's hidden targets.
        by_distance: summed squared error of the patches at each distance, float64 (D,).
        pixels: how near the pasted-over images are.
    """

    errors: list[Tensor] = field(default_factory=list)
    by_distance: Tensor = field(default_factory=zero)
    pixels: Similarity = field(default_factory=Similarity)


@dataclass
class Pass:
    """What one pass over test leaves; batches are added, results read off at the end."""

    guesses: dict[str, Guess] = field(
        default_factory=lambda: {name: Guess() for name in ("", *BASELINES)}
    )
    oracle: Similarity = field(default_factory=Similarity)
    flat: Similarity = field(default_factory=Similarity)
    whole: list[Tensor] = field(default_factory=list)
    variance: TargetVariance = field(default_factory=TargetVariance)
    patches: Tensor = field(default_factory=zero)  # hidden ones at each distance, float64 (D,)
    space: str = ""  # what is predicted
    how: str = ""  # the pixels were made, or why there are none

    def add(self, model: Model, normal: Tensor, mask: Mask, made: Reconstruction) -> None:
        """Adds a batch of normalised images and what the model made of it."""
        self.how, self.space = made.how, made.space
        truth_BMT = hidden_of(made.target, mask).double()
        self.variance.add(truth_BMT)
        distance_BM = hidden_of(distance_to_seen(mask)[..., None], mask)[..., 0]
        self.patches = self.patches + sum_at(distance_BM, mask)
        for name, guess_BLT, filled in guesses_of(model, normal, mask, made):
            found = self.guesses[name]
            error_BM = (hidden_of(guess_BLT, mask).double() - truth_BMT).square().sum(2)
            found.errors.append(error_BM.sum(1).cpu())
            found.by_distance = found.by_distance + sum_at(distance_BM, mask, error_BM)
            if filled is not None:
                found.pixels.add(model, normal, filled, mask)
        if made.oracle is not None:
            self.oracle.add(model, normal, pasted(made.oracle, normal, mask), mask, False)
        if made.whole is not None:
            image = unpatchify(made.whole, mask.grid, patch_of(mask, normal))
            self.whole.append(whole_psnr(model, normal, image))
        self.flat.add(model, normal, patch_means(normal, mask), mask, False)

    def r2(self) -> Iterator[Result]:
        """One minus the error of each image over the mean deviation of hidden targets."""
        variance, reason = self._variance()
        for name, found in self.guesses.items():
            where = where_of(name) or {"space": self.space, "chosen": True}
            r2 = None if variance is None else 1 - torch.cat(found.errors) / variance
            yield Result("r2", r2, where, reason)

    def _variance(self) -> tuple[float | None, str]:
        """The deviation of an image's hidden targets; or none, where all are equal, and why."""
        try:
            return self.variance.per_image(), ""
        except MaebenchError as error:
            return None, str(error)

    def in_pixels(self) -> Iterator[Result]:
        """Peak signal to noise ratio and structural similarity, without true statistics."""
        for name, found in self.guesses.items():
            there = self.how if found.pixels.psnr else ""
            where = where_of(name) or ({"how": there} if there else {})
            yield from found.pixels.results(where, ("psnr", "ssim"), self.how or NO_PIXELS)

    def with_true_statistics(self) -> Iterator[Result]:
        """The ratio with true statistics, and what they give alone."""
        has_pixels = bool(self.guesses[""].pixels.psnr)
        missing = "the prediction needs no statistics" if has_pixels else self.how or NO_PIXELS
        yield from self.oracle.results({}, ("psnr_oracle",), missing)
        yield from self.flat.results(where_of(FLAT), ("psnr_oracle",))

    def of_whole_images(self) -> Result:
        """Peak signal to noise ratio of all pixels, where nothing was hidden."""
        if not self.whole:
            return Result("psnr_whole", None, {}, HIDDEN_ALONE)
        return Result("psnr_whole", torch.cat(self.whole))

    def errors(self) -> Iterator[Result]:
        """Error over variance at each distance that is there, so that 1 is guessing the mean."""
        variance, reason = self._variance()
        whole = self.variance
        per_patch = None if variance is None else variance * whole.images / whole.patches
        for name, found in self.guesses.items():
            for distance, number in enumerate(self.patches.tolist()):
                if number:
                    where = {"distance": distance, "patches": int(number), **where_of(name)}
                    error = float(found.by_distance[distance]) / number
                    share = None if per_patch is None else error / per_patch
                    yield Result("error", share, where, reason)


def where_of(baseline: str) -> dict[str, object]:
    """What tells a baseline's rows from the model's."""
    return {"baseline": baseline} if baseline else {}


def guesses_of(
    model: Model, normal: Tensor, mask: Mask, made: Reconstruction
) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Name, guess in the target space, and pixels pasted over the hidden ones."""
    yield "", made.prediction, None if made.pixels is None else pasted(made.pixels, normal, mask)
    for name, fill in BASELINES.items():
        filled = fill(normal, mask)
        # the target of a filled image is the baseline's guess in the same space
        yield name, model.reconstruct(filled, mask).target, filled
