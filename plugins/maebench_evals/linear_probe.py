"""Linear probe: can a straight line separate the classes in the frozen features?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from maebench import Evaluation, Metric, Model, Result
from maebench_evals.frozen import pool_for, standardised

if TYPE_CHECKING:
    from torch import Tensor

    from maebench import Draws

# Shape suffixes: N images, D features, C classes, G heads of the grid.
LR = 0.05  # Adam's first rate; the end is convex and independent of it (see the test's oracle)


class LinearProbe(Evaluation):
    """Top-1 of multinomial logistic regression on frozen features, its penalty chosen on train.

    Features are standardised by train. One head per penalty, all trained as one batched matmul:
    cross entropy + l2 / 2 * |W|^2, Adam with a half cosine. The penalty is chosen on a tenth of
    train, the heads are trained again on all of it, test is read once.
    """

    name: ClassVar[str] = "linear-probe"
    version: ClassVar[int] = 2  # rows name the pooling that was used
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric("share of test images given their class", "%", True, 0, 1, True, True),
        "validation_top1": Metric(
            "the same on the part of train that l2 is chosen on", "%", True, 0, 1, False
        ),
    }

    # few images and steps: what the contract tries it with
    example: ClassVar[dict[str, Any]] = {"steps": 20, "epochs": 10, "batch": 64}

    l2: tuple[PositiveFloat, ...] = Field(
        tuple(10.0**e for e in (-9, -8, -7, -6, -5, -4.5, -4, -3.5, -3, -2.5, -2, -1.5, -1, 0, 1)),
        description="penalties to try",
        examples=[(1e-6, 1e-3), (1.0,)],
    )
    pool: Literal["mean", "cls"] | None = Field(
        None, description="which token is the feature; none: the mean of the patches"
    )
    layer: PositiveInt | None = Field(
        None, description="block to take features after; none: the end"
    )
    epochs: PositiveInt = Field(20, description="passes over train")
    steps: PositiveInt = Field(1000, description="least number of updates")
    batch: PositiveInt = Field(2048, description="images per update")

    def run(self, model: Model) -> Iterator[Result]:
        """Yields the whole grid, the penalty chosen on train marked."""
        labels, right = model.labels("train"), model.labels("test")
        pool = pool_for(model, self.pool, "mean")
        train = model.features("train", self.layer, pool)
        train, test = standardised(train, model.features("test", self.layer, pool))
        num_classes = len(model.class_names())
        fit, held = model.holdout()
        l2 = sorted(set(self.l2))

        given = self._predict(model, train[fit], labels[fit], train[held], num_classes, "choose")
        validation = (given == labels[held]).double().mean(1).tolist()
        # of equally good penalties the middle one: an edge wins only where it is better
        best = [i for i, v in enumerate(validation) if v == max(validation)]
        chosen = best[len(best) // 2]
        given = self._predict(model, train, labels, test, num_classes, "refit")
        for i, penalty in enumerate(l2):
            where = {"l2": penalty, "pool": pool}
            if i == chosen:
                where |= {"chosen": True} | ({"edge": True} if i in (0, len(l2) - 1) else {})
            yield Result("validation_top1", validation[i], where)
            yield Result("top1", (given[i] == right).double(), where)

    def _predict(
        self, model: Model, x_ND: Tensor, y_N: Tensor, test: Tensor, num_classes: int, purpose: str
    ) -> Tensor:
        """The class that each head gives each test image, int64 (G, N)."""
        l2 = sorted(set(self.l2))
        steps = max(self.steps, math.ceil(self.epochs * len(x_ND) / self.batch))
        draws = model.draws(f"order {purpose}")
        shown = model.progress(range(steps), steps, f"linear-probe of {model.kind}")
        rate = [LR * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
        x_ND, y_N, test = (t.to(model.device) for t in (x_ND, y_N, test))
        weight_GDC, bias_GC = train_heads(
            x_ND, y_N, l2, num_classes, self.batch, ((step, rate[step]) for step in shown), draws
        )
        parts = [
            (part @ weight_GDC + bias_GC[:, None]).argmax(2).cpu()
            for part in test.split(self.batch)
        ]
        import torch

        return torch.cat(parts, 1)


def train_heads(
    x_ND: Tensor,
    y_N: Tensor,
    l2: list[float],
    num_classes: int,
    batch: int,
    steps: Iterable[tuple[int, float]],
    draws: Draws,
) -> tuple[Tensor, Tensor]:
    """Weights (G, D, C) and biases (G, C) of one logistic regression per penalty.

    `steps` gives the number and the rate of each update. The gradient is written down, softmax
    minus one-hot, which is cheaper than autograd here.
    """
    import torch

    N, D = x_ND.shape
    G, C = len(l2), num_classes
    penalty_G11 = torch.tensor(l2, device=x_ND.device)[:, None, None]
    parameters = [x_ND.new_zeros(G, D, C), x_ND.new_zeros(G, 1, C)]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    adam = torch.optim.Adam(parameters, lr=LR)
    order = torch.arange(N)
    for step, rate in steps:
        x, y = x_ND, y_N
        if batch < N:
            if (step * batch) % N < batch:  # a new epoch, a new order
                order = draws.uniform(N)[0].argsort().to(x_ND.device)
            index = order[torch.arange(step * batch, (step + 1) * batch, device=x_ND.device) % N]
            x, y = x_ND[index], y_N[index]
        weight, bias = parameters
        error_GNC = (x @ weight + bias).softmax(2)
        error_GNC[:, torch.arange(len(x)), y] -= 1
        error_GNC /= len(x)
        weight.grad = x.T @ error_GNC + penalty_G11 * weight
        bias.grad = error_GNC.sum(1, keepdim=True)
        adam.param_groups[0]["lr"] = rate
        adam.step()
    return parameters[0], parameters[1][:, 0]
