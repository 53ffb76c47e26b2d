"""Linear probe: can a straight line separate the classes in the frozen features?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar, Literal

from pydantic import Field

from maebench import ANY_KIND, ClampedAugment, Evaluation, Metric, Model, Result, choose
from maebench_evals import official_probe as official
from maebench_evals.frozen import Count, Layer, Penalties, pool_for, standardised
from maebench_evals.heads import ITERATIONS, probe

L2 = tuple(10.0**e for e in (-8, -7, -6, -5, -4.5, -4, -3.5, -3, -2.5, -2, -1.5, -1, 0, 1))
OF_MAE = ("epochs", "steps", "batch", "crops")  # options of training; fast has an optimum


class LinearProbe(Evaluation):
    """Top-1 of multinomial logistic regression on frozen features, its penalty chosen on train.

    Features are standardised by train. One head per penalty, fitted to the optimum of cross entropy
    + l2 / 2 * the sum over uncorrelated directions of |w|^2 * deviation by L-BFGS: of |W|^2 alone
    weak directions would hardly count. The penalty is chosen on folds of train, the heads are
    fitted again on all of it, test is read once.

    `protocol=mae` is the masked autoencoder's own instead: batch norm and one linear layer on the
    class token, LARS at one rate for ninety epochs in batches of 16,384, new crops and flips in
    each epoch (of whatever data: a digit too). Where train is smaller the batch is all of it; few
    images leave it far from trained after ninety epochs, for which there is `epochs`. The last
    epoch is reported, not the best on test as by the official code. Source: arXiv 2111.06377,
    table 10.
    """

    name: ClassVar[str] = "linear-probe"
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
    # 2: rows name the pooling that was used; fast reaches the optimum on correlated features
    # 3: the penalty is chosen on folds of train instead of a tenth
    # 4: fast is at its optimum, of all directions that features have; it had stopped before it, and
    # left those out that hold less than a millionth of the largest variance
    # 5: fast weighs the penalty of a direction by its deviation, so that 1e-9 is not tried any more
    version: ClassVar[int] = 5
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric.accuracy(),
        "validation_top1": Metric.accuracy(
            "the same on the images held out of train, by which l2 is chosen", held_out=True
        ),
        "converged": Metric(
            help="share of the fits that reached their optimum",
            unit="%",
            low=0,
            high=1,
            per_example=False,
        ),
    }

    protocol: Literal["fast", "mae"] = Field(
        default="fast",
        description="how heads are trained: fast, or mae for the official code's way",
    )
    l2: Penalties = Field(
        default=L2, description="penalties to try, with fast", examples=[(1e-6, 1e-3), (1.0,)]
    )
    pool: Literal["mean", "cls"] | None = Field(
        default=None,
        description="which token is the feature; none: mean of the patches, cls with mae",
    )
    layer: Layer = None
    iterations: Count = Field(
        default=ITERATIONS,
        description="most steps to the optimum of a penalty, with fast",
        examples=[1],
    )
    epochs: Count | None = Field(
        default=None, description=f"passes over train, with mae; none: {official.EPOCHS}"
    )
    steps: Count | None = Field(
        default=None, description="least number of updates, with mae; none: 1"
    )
    batch: Count | None = Field(
        default=None,
        description=f"images per update, at most all, with mae; none: {official.BATCH}",
    )
    crops: bool | None = Field(
        default=None,
        description="whether to train on new crops and flips in each epoch, with mae; none: yes",
    )

    def model_post_init(self, _: object) -> None:
        """Refuses options that the protocol does not read."""
        if self.protocol == "mae":
            if self.l2 != L2:
                raise ValueError("l2 is read by protocol=fast alone: mae has no penalty")
            if self.iterations != ITERATIONS:
                raise ValueError("iterations is read by protocol=fast alone: mae has epochs")
            return
        for option in OF_MAE:
            if getattr(self, option):
                raise ValueError(
                    f"{option} is read by protocol=mae alone: fast goes to the optimum of whole "
                    "images in at most iterations=N steps"
                )

    def run(self, model: Model) -> Iterator[Result]:
        """Yields the whole grid, the penalty chosen on train marked; one row with mae."""
        yield from self._mae(model) if self.protocol == "mae" else self._fast(model)

    def _fast(self, model: Model) -> Iterator[Result]:
        labels, right = model.labels("train"), model.labels("test")
        pool = pool_for(model, self.pool, "mean")
        train = model.features("train", self.layer, pool)
        train, test = standardised(train, model.features("test", self.layer, pool))
        l2 = sorted(set(self.l2))
        found = probe(
            train.to(model.device),
            labels.to(model.device),
            test.to(model.device),
            l2,
            len(model.class_names()),
            model.folds(),
            iterations=self.iterations,
            show=lambda grid: model.progress(grid, len(grid), f"linear-probe of {model.kind}"),
            partial=model.partial(),
        )
        choice = choose(found.held_out)
        for i, penalty in enumerate(l2):
            where: dict[str, object] = {"l2": penalty, "pool": pool, **choice.where(i)}
            yield Result("validation_top1", found.held_out[i], where)
            yield Result("top1", (found.predicted[i] == right).double(), where)
        yield Result("converged", found.converged, {"pool": pool})

    def _mae(self, model: Model) -> Iterator[Result]:
        labels, right = model.labels("train"), model.labels("test")
        pool = pool_for(model, self.pool, "cls")
        crops = self.crops is not False
        parts, part = official.split_batch(min(self.batch or official.BATCH, len(labels)))
        batch = parts * part if crops else min(self.batch or official.BATCH, len(labels))
        steps = max(self.steps or 1, official.length(len(labels), self.epochs, batch))
        test = model.features("test", self.layer, pool)
        head = official.Head(test.shape[1], len(model.class_names())).to(model.device)
        partial = model.partial("mae")
        done = len(partial.state.get("losses", ()))
        if crops:
            augment = ClampedAugment(scale=official.CROP_SCALE)
            drawn = model.crops("train", part, steps * parts, augment, done=done * parts)
            batches = official.encoded_batches(
                drawn,
                lambda images: model.encode(images, self.layer, pool),
                labels,
                parts,
                model.device,
            )
        else:
            train = model.features("train", self.layer, pool).to(model.device)
            draws = model.draws("order mae")
            whole = official.cached_batches(train, labels.to(model.device), batch, steps, draws)
            batches = islice(whole, done, None)
        shown = model.progress(batches, steps - done, f"linear-probe of {model.kind}")
        loss = official.train(head, shown, steps, batch, partial)
        where: dict[str, object] = {
            **{"batch": batch, "steps": steps},
            "lr": official.BASE_LR * batch / official.LR_BATCH,
            # near log(classes) the head is hardly trained: a matter of epochs, not of features
            "train_loss": round(loss, 4),
            **{"pool": pool, "crops": crops, "chosen": True},
        }
        yield Result("validation_top1", None, where, "one rate: nothing is chosen on train")
        yield Result("top1", (official.predict(head, test) == right).double(), where)
        why = "ninety epochs of one rate lead near an optimum, and not to it"
        yield Result("converged", None, where, why)
