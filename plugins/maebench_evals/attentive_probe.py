"""Attentive probe: what can one learned query read from the frozen patch tokens?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from maebench import ANY_KIND, Evaluation, Metric, Model, Result, choose, half_cosine
from maebench_evals.frozen import Count
from maebench_evals.interrupted import one_by_one

# Shape suffixes: B images, N tokens, D channels, H heads, K = D / H channels of a head, C classes,
# G probes of the grid in each of R rounds.
HEAD = 64  # channels of a head: CAPI
STD = 0.02  # of the truncated normal that all weights start from: CAPI
BETAS = (0.9, 0.95)  # AdamW: CAPI
WARMUP = 0.1  # share of the updates: CAPI, 1,250 of 12,500
NUMBERS = 2**26  # of rounds that are trained at once, 256 MB; Adam and gradients take several times
LR_BATCH = 256  # lr = base * batch / 256


class Grid(NamedTuple):
    """What a protocol tries, and for how long."""

    lr: tuple[float, ...]
    weight_decay: tuple[float, ...]
    steps: int


# Fast against capi, vit-nano by MAE: digits 95.0 [92.5, 97.2] and 94.7; Fashion-MNIST (10,000
# images, 800 steps) 79.7 [78.9, 80.5] and 80.3 (the three largest rates). 1,500 updates gave 78.9
# there. Tokens so narrow want rates above capi's; a longer grid costs little, a longer run much.
PROTOCOLS = {
    "fast": Grid((1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0), (1e-3,), 3000),
    "capi": Grid(
        (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2), (5e-4, 1e-3, 5e-2), 12_500
    ),
}


class AttentiveProbe(Evaluation):
    """Top-1 of a linear classifier on what one learned query attends to in frozen patch tokens.

    Key and value are linear maps of the tokens, with a head per 64 channels; where 64 does not
    divide the width, as many heads as divide it and are nearest. Cross entropy, AdamW, linear
    warm-up over a tenth of the updates and half a cosine to 0. Rate and decay are chosen on folds
    of train, the probes are trained again on all of it, test is read once. `protocol=capi` is the
    paper's: 10 rates x 3 decays, 12,500 updates of 128; its crops and flips are left out, since
    tokens are read once, and so is its choice on a tenth of train, with the winner fitted on the
    rest. `fast` has fewer of all. Source: Darcet et al. 2025, arXiv 2502.08769, and
    facebookresearch/capi, eval_classification.py.
    """

    name: ClassVar[str] = "attentive-probe"
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
    version: ClassVar[int] = 2  # 2: chosen on folds of train instead of a tenth
    metrics: ClassVar[dict[str, Metric]] = {
        "top1": Metric.accuracy(),
        "validation_top1": Metric.accuracy(
            "the same on the images held out of train, by which the probe is chosen", held_out=True
        ),
    }

    # few updates of few probes: what the contract tries it with
    example: ClassVar[dict[str, object]] = {"steps": 15, "batch": 32, "weight_decay": (1e-3,)}

    protocol: Literal["fast", "capi"] = Field(
        default="fast",
        description="capi: the paper's grid and length; fast: fewer rates and updates",
    )
    lr: tuple[PositiveFloat, ...] | None = Field(
        default=None,
        min_length=1,
        description="rates to try, per 256 images; none: by protocol",
        examples=[(1e-3,), (1e-2, 1e-1)],
    )
    weight_decay: tuple[NonNegativeFloat, ...] | None = Field(
        default=None,
        min_length=1,
        description="AdamW's decays to try; none: by protocol",
        examples=[(0.5,), (0.0, 5.0)],
    )
    steps: Count | None = Field(
        default=None, description="number of updates; none: by protocol", examples=[1, 40]
    )
    batch: Count = Field(default=128, description="images per update")
    layer: PositiveInt | None = Field(
        default=None, description="block to take tokens after; none: the end"
    )

    def grid(self) -> Grid:
        """Rates and decays in ascending order, each once, and the number of updates."""
        own = PROTOCOLS[self.protocol]
        rates = own.lr if self.lr is None else self.lr
        decays = own.weight_decay if self.weight_decay is None else self.weight_decay
        return Grid(tuple(sorted(set(rates))), tuple(sorted(set(decays))), self.steps or own.steps)

    def run(self, model: Model) -> Iterator[Result]:
        """Yields the whole grid, the probe chosen on train marked."""
        labels, right = model.labels("train"), model.labels("test")
        folds = model.folds()
        grid = self.grid()
        pairs = [(lr, decay) for lr in grid.lr for decay in grid.weight_decay]

        held = folds.index
        probes = self._train(model, labels, "choose", ~folds.held)
        guessed_RGM = self._predict(model, probes, "train", held)
        validation = folds.pooled(guessed_RGM == labels[held])
        choice = choose(validation, [on_edge(grid, *pair) for pair in pairs])
        probes = self._train(model, labels, "refit")
        predicted_GN = self._predict(model, probes, "test", torch.arange(len(right)))[0]
        for i, (lr, decay) in enumerate(pairs):
            where = {"lr": lr, "wd": decay, **choice.where(i)}
            yield Result("validation_top1", validation[i], where)
            yield Result("top1", (predicted_GN[i] == right).double(), where)

    def _train(
        self, model: Model, labels: Tensor, purpose: str, used_RN: Tensor | None = None
    ) -> Probes:
        """One probe per round, rate and decay, each on the images of train that its round uses."""
        grid = self.grid()
        used_RN = torch.ones(1, len(labels), dtype=torch.bool) if used_RN is None else used_RN
        lr_G = torch.tensor([lr for lr in grid.lr for _ in grid.weight_decay])
        rates_G = lr_G * self.batch / LR_BATCH
        decays_G = torch.tensor(grid.weight_decay * len(grid.lr))
        _, tokens, width = model.tokens("train", torch.arange(1), self.layer).shape
        start = initial(len(rates_G), width, len(model.class_names()))

        def trained(part_RN: Tensor) -> dict[str, Tensor]:
            R = len(part_RN)
            probes = start.repeated(R).to(model.device)
            batches = self._batches(model, labels, purpose, part_RN)
            train(probes, batches, rates_G.repeat(R), decays_G.repeat(R), grid.steps)
            return probes._asdict()

        rounds = used_RN.split(rounds_together(start, self.batch * tokens))
        found = [
            Probes(**kept).to(model.device) for kept in one_by_one(model, purpose, rounds, trained)
        ]
        return Probes(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _batches(
        self, model: Model, labels: Tensor, purpose: str, used_RN: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Tokens, labels and which of the images each round uses, in the order of the purpose."""
        steps, draws = self.grid().steps, model.draws(f"order {purpose}")
        num_images = len(labels)
        batch, order = min(self.batch, num_images), torch.arange(num_images)
        labels, used_RN = labels.to(model.device), used_RN.to(model.device)
        for step in model.progress(range(steps), steps, f"attentive-probe of {model.kind}"):
            if (step * batch) % num_images < batch:  # a new epoch, a new order
                order = draws.uniform(num_images)[0].argsort().cpu()
            at = order[torch.arange(step * batch, (step + 1) * batch) % num_images]
            x_BND, there = model.tokens("train", at, self.layer), at.to(model.device)
            yield x_BND.to(model.device), labels[there], used_RN[:, there]

    def _predict(self, model: Model, probes: Probes, split: str, index: Tensor) -> Tensor:
        """The class that each probe predicts for the images of index, int64 (R, G, images)."""
        grid = self.grid()
        with torch.no_grad():
            parts = [
                probes.logits(model.tokens(split, at, self.layer).to(model.device)).argmax(2).cpu()
                for at in index.split(self.batch)
            ]
        return torch.cat(parts, 1).view(-1, len(grid.lr) * len(grid.weight_decay), len(index))


class Probes(NamedTuple):
    """The weights of all probes of a grid.

    A key's bias would add the same to the score of every token and cancel in the softmax: it has
    no gradient, starts at 0 and is left out.
    """

    query: Tensor  # (G, H, K)
    key: Tensor  # (G, H, K, D)
    value: Tensor  # (G, H, K, D)
    value_bias: Tensor  # (G, H, K)
    weight: Tensor  # (G, C, D)
    bias: Tensor  # (G, C)

    def to(self, device: str) -> Probes:
        """The same on a device."""
        return Probes(*(part.to(device) for part in self))

    def repeated(self, times: int) -> Probes:
        """The same grid of probes several times over, one after the other."""
        return Probes(*(part.repeat(times, *[1] * (part.ndim - 1)) for part in self))

    def logits(self, x_BND: Tensor) -> Tensor:
        """Scores of the classes, float32 (G, B, C).

        With the key map W and the query q of a head, q . (W x) = (W^T q) . x; and as attention
        sums to 1, the mean of the values is the value map of the mean token. So neither keys nor
        values are made: all probes read the same tokens, twice.
        """
        B, _, D = x_BND.shape
        G, H, K = self.query.shape
        folded_GHD = (self.query[:, :, None] @ self.key)[:, :, 0] / math.sqrt(K)
        scores_BNg = x_BND @ folded_GHD.reshape(G * H, D).T  # g = G * H
        pooled_BgD = scores_BNg.softmax(1).transpose(1, 2) @ x_BND
        pooled_gBD = pooled_BgD.transpose(0, 1)
        read_gBK = pooled_gBD @ self.value.reshape(G * H, K, D).transpose(1, 2)
        read_gBK = read_gBK + self.value_bias.reshape(G * H, 1, K)
        read_GBD = read_gBK.view(G, H, B, K).transpose(1, 2).reshape(G, B, D)
        return read_GBD @ self.weight.transpose(1, 2) + self.bias[:, None]


def rounds_together(grid: Probes, tokens: int) -> int:
    """How many rounds of a grid of probes are trained at once, on so many tokens in a batch."""
    num_probes, heads, _ = grid.query.shape
    numbers = sum(part.numel() for part in grid) + num_probes * heads * tokens
    return max(1, NUMBERS // numbers)


def head_count(width: int) -> int:
    """The number of heads that divides the width and is nearest to one per 64 channels."""
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    return min(divisors, key=lambda n: (abs(n - width / HEAD), n))  # of two as near the fewer


def on_edge(grid: Grid, lr: float, decay: float) -> bool:
    """Whether a larger or smaller value than one of a winner's was left untried."""
    return any(
        len(tried) > 1 and value in (tried[0], tried[-1])
        for tried, value in ((grid.lr, lr), (grid.weight_decay, decay))
    )


def initial(num_probes: int, width: int, num_classes: int) -> Probes:
    """Probes that all start the same: truncated normal weights, no biases."""
    heads = head_count(width)
    size = width // heads

    def normal(*shape: int) -> Tensor:
        one = torch.nn.init.trunc_normal_(torch.empty(shape), std=STD)
        return one.expand(num_probes, *shape).clone()

    return Probes(
        normal(heads, size),
        normal(heads, size, width),
        normal(heads, size, width),
        torch.zeros(num_probes, heads, size),
        normal(num_classes, width),
        torch.zeros(num_probes, num_classes),
    )


def train(
    probes: Probes,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    rates_G: Tensor,
    decays_G: Tensor,
    steps: int,
) -> None:
    """AdamW with a rate and a decay per probe.

    A batch is tokens (B, N, D), labels (B,) and which of the images each round uses, bool (R, B);
    probes of a round follow each other.
    """
    # torch's Adam has one rate for a tensor. It steps from 0 with rate 1, so that what it gives is
    # the direction; the rate and AdamW's decay of each probe come in when that is added.
    directions = [torch.zeros_like(part) for part in probes]
    adam = torch.optim.Adam(directions, lr=1.0, betas=BETAS)
    shapes = [(-1, *[1] * (part.ndim - 1)) for part in probes]
    rates_G, decays_G = rates_G.to(probes.bias.device), decays_G.to(probes.bias.device)
    for step, (x_BND, y_B, used_RB) in enumerate(batches):
        for part in probes:
            part.requires_grad_(True)
        logits_GBC = probes.logits(x_BND)
        losses = torch.nn.functional.cross_entropy(
            logits_GBC.flatten(0, 1), y_B.repeat(len(logits_GBC)), reduction="none"
        )
        share_RB = used_RB / used_RB.sum(1, keepdim=True).clamp(min=1)
        share_GB = share_RB.repeat_interleave(len(logits_GBC) // len(share_RB), 0)
        # the sum over probes: none sees another's gradient
        gradients = torch.autograd.grad((losses * share_GB.flatten()).sum(), list(probes))
        rate_G = rates_G * rate(step, steps)
        decay_G = 1 - rate_G * decays_G
        whole_G = torch.ones_like(decay_G)  # capi decays no bias
        with torch.no_grad():
            for direction, gradient in zip(directions, gradients, strict=True):
                direction.zero_().grad = gradient
            adam.step()
            for name, part, direction, shape in zip(
                probes._fields, probes, directions, shapes, strict=True
            ):
                kept_G = whole_G if "bias" in name else decay_G
                part.mul_(kept_G.view(shape)).add_(direction * rate_G.view(shape))
    for part in probes:
        part.requires_grad_(False)


def rate(step: int, steps: int) -> float:
    """The share of the full rate at an update: linear warm-up, then half a cosine to 0."""
    warmup = round(WARMUP * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return half_cosine(step - warmup, max(1, steps - warmup))
