"""Logistic regressions at their optimum: every round of folds at once, penalty after penalty.

Minimised is the mean cross entropy + l2 / 2 * the sum over uncorrelated directions of the features
of |w|^2 * variance^power. With power 0 that is l2 / 2 * |W|^2, as in scikit-learn. The problem is
convex, so there is one answer, which depends on features, labels and penalty alone: no rate, no
order of images, no seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maebench import Draws, Folds, Partial
from maebench_evals.penalties import Chain, Done, Pairs

# Shape suffixes: N images, D features, K directions (the last one is the bias), C classes, G
# penalties, R rounds of folds, M images that are held out, B a block of images.

# Optimum: the next step is expected to win no more than this share of the loss, and no derivative
# is larger. Losses then end 1e-6 to 3e-4 above the true minimum (digits, Fashion-MNIST; 1e-3 where
# l2 is 1e-9) and accuracies within .13 points of it, a third of their standard error.
# Scikit-learn's own tolerance ends up to 3e-2 above, after a thousand steps. A third of it takes
# 1.4 times as long.
SHARE_LEFT, DERIVATIVE = 3e-5, 3e-4
# Loss below which no share counts: float32 knows a loss of one to 1e-7
LEAST_LOSS = 1e-4
ROUNDING = 1e-7
ITERATIONS = 200  # of one penalty; the most that were needed on digits and Fashion-MNIST, at 1e-9
# Variance, of the largest, below which a direction is float32's rounding alone. Not more: of an
# encoder after 60 updates half of the directions lie below 1e-6, and are worth 4 points of 79
NOTHING = 1e-12
# Of the variance, in what a direction's weight costs. By |W|^2 itself, power 0, a direction of
# little variance needs a large weight to count and so hardly counts: for untrained encoders,
# whose features are strongly correlated, that is a floor of less than what a line can read off
# them. On 100 to 10,000 digits and images of Fashion-MNIST, of untrained and of pretrained
# encoders, a half was better on test than 0 each time, by .3 to 7 points; three quarters mostly
# better still, but with about as many directions as images once 4 points worse than 0, and 1,
# which is whitening, 37 (results/reference/power.md).
POWER = 0.5
PAIRS = 10  # that L-BFGS keeps; twenty save a tenth of the steps and cost it elsewhere
WOLFE = 1e-4  # of the expected decrease that a step has to keep (Nocedal and Wright, section 3.1)
SHORTER = 0.3  # where it does not
# Images that tell the curvature: half of them take a tenth more steps, twice as many save as much
# as they cost
SAMPLE = 4096
RIDGE = 1e-4  # of the mean curvature: from 1e-2 to 1e-6 there is no difference
LEAST_CURVATURE = 1e-9  # where every image is certain
AT_ONCE = 16  # classes whose curvature is one product: one by one takes half as long again
CURVATURES = 2**26  # numbers of all classes' curvatures together: 256 MB
# Logits of one block: in the caches of a CPU, and enough for a GPU to do at once
BLOCK = {"cpu": 2**16, "cuda": 2**24}


@dataclass(frozen=True)
class Probe:
    """What the heads of a grid of penalties do.

    Args:
        held_out: share of the rounds that gave an image its class, of those that held it out, in
            the order of `Folds.index`: float64 (G, M), with no M where there are no rounds.
        predicted: the class that the head of each penalty, fitted on all images, gives each test
            image: int64 (G, test) on the CPU.
        converged: share of all fits that reached their optimum.
    """

    held_out: Tensor
    predicted: Tensor
    converged: float


def probe(
    x_ND: Tensor,
    y_N: Tensor,
    test: Tensor,
    l2: Sequence[float],
    num_classes: int,
    folds: Folds | None,
    *,
    power: float = POWER,
    iterations: int = ITERATIONS,
    show: Callable[[Sequence[float]], Iterable[float]] = iter,
    per_round: bool = True,
    partial: Partial | None = None,
) -> Probe:
    """Fits every penalty in every round and on all images, and says what the heads predict.

    Args:
        x_ND: float32 (N, D), on the device that does the work.
        y_N: int64 (N,), on the same.
        test: float32 (test, D), on the same.
        l2: penalties, ascending.
        num_classes: one more than the largest label there may be.
        folds: what to hold out, or None.
        power: of a direction's variance, in what its weight costs.
        iterations: most steps of one penalty.
        show: passes penalties on, from large to small, as they are worked on.
        per_round: whether a round's penalty is l2 of the mean over its own images; else what l2 of
            the mean over all images is to the sum over them, as of scikit-learn's C.
        partial: keeps the penalties that are done.
    """
    space = Space.of(x_ND, power)
    z_KN, test_K = space(x_ND), space(test)
    held_RN = folds.held if folds else torch.zeros(0, len(x_ND), dtype=torch.bool)
    R, index_M = len(held_RN), held_RN.any(0).nonzero()[:, 0].to(x_ND.device)
    z_KM = z_KN if len(index_M) == len(x_ND) else z_KN[:, index_M]
    used_RN = torch.cat([~held_RN, torch.ones(1, len(x_ND), dtype=torch.bool)]).to(z_KN)
    problem = Problem(z_KN, y_N, num_classes, used_RN)
    weigh_R = torch.ones(R + 1) if per_round else len(x_ND) / used_RN.sum(1)
    done = Done.of(partial.state if partial else {}, x_ND.device)
    shown = show(sorted(l2, reverse=True)[len(done.converged) :])
    chain = done.chain
    for weight_RCK, reached_R in regressions(problem, space, shown, weigh_R, iterations, chain):
        if folds:
            right_RM = classes_of(weight_RCK[:R], z_KM) == y_N[index_M].cpu()
            done.held_out.append(folds.pooled(right_RM[:, None]))
        done.predicted.append(classes_of(weight_RCK[R:], test_K))
        done.converged.append(reached_R.cpu())
        if partial:
            partial.keep(done.tensors)
    return Probe(
        torch.cat(done.held_out[::-1]) if folds else torch.empty(len(l2), 0),
        torch.cat(done.predicted[::-1]),
        torch.stack(done.converged).double().mean().item(),
    )


def head(
    x_ND: Tensor, y_N: Tensor, l2: float, num_classes: int, iterations: int = ITERATIONS
) -> Callable[[Tensor], Tensor]:
    """The head of one penalty, fitted on all images: features (N, D) to classes, int64 (N,).

    It is that of `probe`, which goes through a grid and keeps no weights.
    """
    space = Space.of(x_ND, POWER)
    problem = Problem(space(x_ND), y_N, num_classes, torch.ones(1, len(x_ND)).to(x_ND))
    ((weight_1CK, _),) = regressions(problem, space, [l2], torch.ones(1), iterations)
    return lambda features: classes_of(weight_1CK, space(features))[0]


@dataclass(frozen=True)
class Space:
    """Directions of one deviation in which features do not go together, and the bias.

    Fitting W on x is fitting V on x P, with W = P V and |W|^2 = sum of V^2 / variance. P comes from
    all images, also where a round uses a part of them, as the features' scales do. Untrained
    encoders give features so correlated that a thousand steps on them as they are end far from it.
    Rotated in float64, the weakest directions keep what float32 has.
    """

    to_features_DK: Tensor  # noqa: N815 - shapes are named, in classes too
    stretch_K: Tensor  # noqa: N815 - a factor of the penalty: variance^(power - 1); 0 of the bias

    @classmethod
    def of(cls, x_ND: Tensor, power: float) -> Space:
        """The directions of these features."""
        product_DD = torch.zeros(x_ND.shape[1], x_ND.shape[1], dtype=torch.float64).to(x_ND.device)
        for part in x_ND.split(SAMPLE):  # in parts: a float64 copy of all would be twice as large
            product_DD.addmm_(part.double().T, part.double())
        variance_D, axes_DD = torch.linalg.eigh(product_DD / len(x_ND))
        there = variance_D > variance_D[-1] * NOTHING
        variance_K = variance_D[there]
        stretch_K = torch.cat([variance_K ** (power - 1), variance_K.new_zeros(1)]).float()
        return cls(axes_DD[:, there] / variance_K.sqrt(), stretch_K)

    def __call__(self, x_ND: Tensor) -> Tensor:
        """Features in these directions and a one, float32 (K, N)."""
        z_KN = x_ND.new_ones(len(self.stretch_K), len(x_ND))
        for part, to in zip(x_ND.split(SAMPLE), z_KN.split(SAMPLE, 1), strict=True):
            to[:-1] = (part.double() @ self.to_features_DK).T
        return z_KN

    def weights(self, weight_RCK: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (R, D, C) and biases (R, C) for features as they are, float64."""
        weight = weight_RCK.double()
        return self.to_features_DK @ weight[..., :-1].transpose(1, 2), weight[..., -1]


class Problem:
    """Mean cross entropy of heads, each over the images of its round, and its gradient.

    Classes before images: a softmax over the last of three axes takes twice the time of both
    matmuls together, over the middle one a fifth (AVX-512, 10 classes). Directions before images
    too: the matmuls of so few rows take four fifths of the time.
    """

    def __init__(self, z_KN: Tensor, y_N: Tensor, num_classes: int, used_RN: Tensor) -> None:
        self.z_KN, self.num_classes = z_KN, num_classes
        self.share_RN = used_RN / used_RN.sum(1, keepdim=True)
        self.one_hot_CN = torch.nn.functional.one_hot(y_N, num_classes).T.to(z_KN)
        N = len(y_N)
        # any images will do, the same ones whatever the seed
        order_N = Draws(0, "curvature", torch.arange(N)).uniform().argsort()
        self.sample_KB = z_KN[:, order_N[:SAMPLE].to(z_KN.device)]

    def __call__(self, weight_RCK: Tensor) -> tuple[Tensor, Tensor]:
        """Losses, float64 (R,), and gradients (R, C, K) of the head of each round."""
        R, C, K = weight_RCK.shape
        flat_HK = weight_RCK.reshape(R * C, K)
        gradient_HK = torch.zeros_like(flat_HK)
        loss_R = flat_HK.new_zeros(R, dtype=torch.float64)
        size = max(256, BLOCK[flat_HK.device.type] // (R * C))
        for z_KB, share_RB, one_hot_CB in zip(
            self.z_KN.split(size, 1),
            self.share_RN.split(size, 1),
            self.one_hot_CN.split(size, 1),
            strict=True,
        ):
            error_RCB = (flat_HK @ z_KB).view(R, C, -1).log_softmax(1)
            loss_R -= ((error_RCB * one_hot_CB).sum(1) * share_RB).sum(1)
            error_RCB.exp_().sub_(one_hot_CB).mul_(share_RB[:, None])
            gradient_HK.addmm_(error_RCB.view(R * C, -1), z_KB.T)
        return loss_R, gradient_HK.view(R, C, K)

    def inverse_curvature(self, weight_CK: Tensor, penalty_K: Tensor) -> Tensor:
        """Inverse of the second derivatives within each class, (C, K, K), or (1, K, K) for all.

        What two classes have in common is left out. No direction of the whole matrix is more than
        twice as curved as what is kept: it is a graph's Laplacian with weights p_i p_j.
        """
        z_KB = self.sample_KB
        K, B = z_KB.shape
        p_CB = (weight_CK @ z_KB).softmax(0)
        spread_CB = p_CB * (1 - p_CB) / B
        if self.num_classes * penalty_K.numel() ** 2 > CURVATURES:
            spread_CB = spread_CB.mean(0, keepdim=True)
        curvature_CKK = torch.cat(
            [
                ((z_KB * part_1B).view(-1, B) @ z_KB.T).view(-1, K, K)
                for part_1B in spread_CB[:, None].split(AT_ONCE)
            ]
        )
        diagonal_CK = curvature_CKK.diagonal(dim1=1, dim2=2)
        diagonal_CK += penalty_K + RIDGE * diagonal_CK.mean(1, keepdim=True) + LEAST_CURVATURE
        return torch.cholesky_inverse(torch.linalg.cholesky(curvature_CKK))


def regressions(
    problem: Problem,
    space: Space,
    l2: Iterable[float],
    weigh_R: Tensor,
    iterations: int,
    chain: Chain | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Heads of each penalty: weights (R, C, K), and which reached their optimum, bool (R,).

    A penalty begins where the line through the last two leads, over their logarithms, which saves a
    fifth of the steps, and with the curvature that the last one's steps met, which saves another.
    Rounds know nothing of each other: what one holds out the others have seen.

    Args:
        problem: what is minimised.
        space: the directions that its features have.
        l2: penalties, from large to small.
        weigh_R: factor of the penalty in each round.
        iterations: most steps of one penalty.
        chain: what the first of them begins with, where others were fitted before.
    """
    R, K = len(weigh_R), len(space.stretch_K)
    chain = chain or Chain()
    weight = problem.z_KN.new_zeros(R, problem.num_classes, K)
    weigh_R1K = weigh_R.to(weight)[:, None, None] * space.stretch_K
    for penalty in l2:
        before, pairs = chain.before, chain.pairs
        if len(before) == 2:
            (larger, old), (last, new) = before
            weight = new + (new - old) * math.log(penalty / last) / math.log(last / larger)
        elif before:
            weight = before[-1][1]
        if before:
            more_R1K = (penalty - before[-1][0]) * weigh_R1K
            pairs = tuple((step, change + more_R1K * step) for step, change in pairs)
        inverse = problem.inverse_curvature(weight.mean(0), penalty * weigh_R1K.mean(0)[0])
        goal = Goal(problem, penalty * weigh_R1K, inverse)
        weight, reached, pairs = goal.reach(weight, pairs, iterations)
        chain.before, chain.pairs = [*before[-1:], (penalty, weight)], pairs
        yield weight, reached


@dataclass(frozen=True)
class Goal:
    """One penalty's heads, and how their optimum is reached."""

    problem: Problem
    penalty_R1K: Tensor  # noqa: N815
    inverse: Tensor  # of the curvature, see Problem

    def value(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """What is minimised in each round, and its gradient."""
        loss, gradient = self.problem(weight)
        penalised = self.penalty_R1K * weight
        return loss + dot(penalised, weight).double() / 2, gradient + penalised

    def reach(self, weight: Tensor, pairs: Pairs, iterations: int) -> tuple[Tensor, Tensor, Pairs]:
        """L-BFGS on all rounds side by side (Nocedal and Wright, algorithm 7.4).

        Each round has its own steps, and stays where it is once it has reached its optimum.
        """
        length = torch.ones(len(weight), device=weight.device)
        loss, gradient = self.value(weight)
        reached = length == 0
        for number in range(iterations + 1):
            way = self.direction(gradient, pairs)
            slope = dot(gradient, way)
            small = gradient.abs().amax((1, 2)) < DERIVATIVE
            reached |= small & (slope / 2 < SHARE_LEFT * loss.clamp(min=LEAST_LOSS))
            if bool(reached.all()) or number == iterations:
                break
            tried = weight - length[:, None, None] * way
            now, steeper = self.value(tried)
            fell = ~reached & (now <= loss - WOLFE * length * slope + ROUNDING)
            there = fell[:, None, None]
            step = torch.where(there, tried - weight, 0)
            pairs = (*pairs[1 - PAIRS :], (step, torch.where(there, steeper - gradient, 0)))
            length = torch.where(fell, 1, length * SHORTER)
            weight, loss = weight + step, torch.where(fell, now, loss)
            gradient = torch.where(there, steeper, gradient)
        return weight, reached, pairs

    def direction(self, gradient: Tensor, pairs: Pairs) -> Tensor:
        """The gradient over the curvature, as far as that is known: the two loops."""
        way, shares = gradient, []
        # half: the curvature may be twice what is kept of it
        scale = torch.full_like(gradient[:, :1, :1], 0.5)
        known = [(step, change, dot(step, change)) for step, change in pairs]
        for step, change, product in reversed(known):
            # where no step was taken all of this is 0
            shares.append(torch.where(product > 0, dot(step, way) / product, 0))
            way = way - shares[-1][:, None, None] * change
        for _, change, product in known[-1:]:
            found = (product / dot(change, over(self.inverse, change)))[:, None, None]
            scale = torch.where((product > 0)[:, None, None], found, scale)
        way = scale * over(self.inverse, way)
        for (step, change, product), share in zip(known, reversed(shares), strict=True):
            back = torch.where(product > 0, share - dot(change, way) / product, 0)
            way = way + back[:, None, None] * step
        return way


def over(inverse: Tensor, x_RCK: Tensor) -> Tensor:
    """The product with each class's inverse, or with the one for all."""
    if len(inverse) == 1:
        return x_RCK @ inverse[0]
    return torch.bmm(x_RCK.transpose(0, 1), inverse).transpose(0, 1)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """The product of each round's numbers, (R,)."""
    return (x * y).sum((1, 2))


def classes_of(weight_RCK: Tensor, z_KN: Tensor) -> Tensor:
    """The class that each head gives each image, int64 (R, N) on the CPU."""
    R, C, K = weight_RCK.shape
    flat_HK = weight_RCK.reshape(R * C, K)
    size = max(256, BLOCK[z_KN.device.type] // (R * C))
    parts = [(flat_HK @ part).view(R, C, -1).argmax(1).cpu() for part in z_KN.split(size, 1)]
    return torch.cat(parts, 1)
