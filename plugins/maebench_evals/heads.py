"""Logistic regressions at their optimum: every round of folds at once, penalty after penalty.

Minimised is the mean cross entropy + l2 / 2 * |W|^2. The problem is convex, so there is one answer,
which depends on features, labels and penalty alone: no rate, no order of images, no seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maebench import Draws, Folds

# Shape suffixes: N images, D features, K directions (the last one is the bias), C classes, G
# penalties, R rounds of folds, M images that are held out, B a block of images.

# Optimum: what one step more is expected to win is this share of the loss, and no derivative is
# larger than scikit-learn's own tolerance. On Fashion-MNIST (10,000 images, 192 features of an
# untrained encoder, l2 1e-9) the loss then is 4e-4 above the true minimum of 0.354 after 130 steps;
# scikit-learn stops 3e-2 above it, after a thousand.
SHARE_LEFT, DERIVATIVE = 1e-5, 1e-4
# Loss below which no share counts: float32 knows a loss of one to 1e-7
LEAST_LOSS = 1e-4
ROUNDING = 1e-7
ITERATIONS = 200  # of one penalty; the most that were needed on digits and Fashion-MNIST, at 1e-9
# Variance, of the largest, below which a direction is float32's rounding alone. Not more: of an
# encoder after 60 updates half of the directions lie below 1e-6, and are worth 4 points of 79
NOTHING = 1e-12
PAIRS = 10  # that L-BFGS keeps; twenty save 4 % of the steps
WOLFE = 1e-4  # of the expected decrease that a step has to keep (Nocedal and Wright, section 3.1)
SHORTER = 0.3  # where it does not
# Images that tell the curvature: half of them take a tenth more steps, twice as many save as much
# as they cost
SAMPLE = 4096
RIDGE = 1e-4  # of the mean curvature: from 1e-2 to 1e-6 there is no difference
LEAST_CURVATURE = 1e-9  # where every image is certain
CURVATURES = 2**26  # numbers of all classes' curvatures together: 256 MB
# Logits of one block: in the caches of a CPU, and enough for a GPU to do at once
BLOCK = {"cpu": 2**16, "cuda": 2**24}


@dataclass(frozen=True)
class Probe:
    """What the heads of a grid of penalties do.

    Args:
        held_out: share of the rounds that gave an image its class, of those that held it out, in
            the order of `Folds.index`: float64 (G, M). None without rounds.
        predicted: the class that the head of each penalty, fitted on all images, gives each test
            image: int64 (G, test) on the CPU.
        converged: share of all fits that reached their optimum.
    """

    held_out: Tensor | None
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
    iterations: int = ITERATIONS,
    show: Callable[[Sequence[float]], Iterable[float]] = iter,
    per_round: bool = True,
) -> Probe:
    """Fits every penalty in every round and on all images, and says what the heads predict.

    Args:
        x_ND: float32 (N, D), on the device that does the work.
        y_N: int64 (N,), on the same.
        test: float32 (test, D), on the same.
        l2: penalties, ascending.
        num_classes: one more than the largest label there may be.
        folds: what to hold out, or None.
        iterations: most steps of one penalty.
        show: passes penalties on, from large to small, as they are worked on.
        per_round: whether a round's penalty is l2 of the mean over its own images; else what l2 of
            the mean over all images is to the sum over them, as of scikit-learn's C.
    """
    space = Space.of(x_ND)
    z_NK, test_K = space(x_ND), space(test)
    R = 0 if folds is None else len(folds.held)
    used_RN = torch.ones(R + 1, len(x_ND), device=x_ND.device)
    if folds is not None:
        used_RN[:R] = (~folds.held).to(used_RN)
    held = torch.empty(0) if folds is None else folds.index.to(x_ND.device)
    z_MK = z_NK if len(held) == len(z_NK) else z_NK[held.long()]
    problem = Problem(z_NK, y_N, num_classes, used_RN)
    weigh_R = torch.ones(R + 1) if per_round else len(x_ND) / used_RN.sum(1)
    heads = regressions(problem, space, show(sorted(l2, reverse=True)), weigh_R, iterations)
    held_out, predicted, converged = [], [], []
    for weight_RCK, done_R in heads:
        if folds is not None:
            right_RM = classes_of(weight_RCK[:R], z_MK) == y_N[held].cpu()
            held_out.append(folds.pooled(right_RM[:, None]))
        predicted.append(classes_of(weight_RCK[R:], test_K))
        converged.append(done_R)
    return Probe(
        torch.cat(held_out[::-1]) if held_out else None,
        torch.cat(predicted[::-1]),
        torch.stack(converged).double().mean().item(),
    )


@dataclass(frozen=True)
class Space:
    """Directions of one deviation in which features do not go together, and the bias.

    Fitting W on x is fitting V on x P, with W = P V and |W|^2 = sum of V^2 / variance. P comes from
    all images, also where a round uses a part of them: it changes the way to the optimum and not
    the optimum. Untrained encoders give features so correlated that a thousand steps on them as
    they are end far from it. Rotated in float64, the weakest directions keep what float32 has.
    """

    to_features_DK: Tensor  # noqa: N815 - shapes are named, in classes too
    stretch_K: Tensor  # noqa: N815 - 1 / variance: a factor of the penalty; 0 of the bias

    @classmethod
    def of(cls, x_ND: Tensor) -> Space:
        """The directions of these features."""
        product_DD = torch.zeros(x_ND.shape[1], x_ND.shape[1], dtype=torch.float64).to(x_ND.device)
        for part in x_ND.split(SAMPLE):  # in parts: a float64 copy of all would be twice as large
            product_DD.addmm_(part.double().T, part.double())
        variance_D, axes_DD = torch.linalg.eigh(product_DD / len(x_ND))
        there = variance_D > variance_D[-1] * NOTHING
        variance_K = variance_D[there]
        stretch_K = torch.cat([1 / variance_K, variance_K.new_zeros(1)]).float()
        return cls(axes_DD[:, there] / variance_K.sqrt(), stretch_K)

    def __call__(self, x_ND: Tensor) -> Tensor:
        """Features in these directions and a one, float32 (N, K)."""
        z_NK = x_ND.new_ones(len(x_ND), len(self.stretch_K))
        for part, to in zip(x_ND.split(SAMPLE), z_NK.split(SAMPLE), strict=True):
            to[:, :-1] = part.double() @ self.to_features_DK
        return z_NK

    def weights(self, weight_RCK: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (R, D, C) and biases (R, C) for features as they are, float64."""
        weight = weight_RCK.double()
        return self.to_features_DK @ weight[..., :-1].transpose(1, 2), weight[..., -1]


class Problem:
    """Mean cross entropy of heads, each over the images of its round, and its gradient.

    Classes before images: a softmax over the last of three axes takes twice the time of both
    matmuls together, over the middle one a fifth (AVX-512, 10 classes).
    """

    def __init__(self, z_NK: Tensor, y_N: Tensor, num_classes: int, used_RN: Tensor) -> None:
        self.z_NK, self.num_classes = z_NK, num_classes
        self.share_RN = used_RN / used_RN.sum(1, keepdim=True)
        self.label_N = y_N
        self.one_hot_CN = torch.nn.functional.one_hot(y_N, num_classes).T.to(z_NK)
        N = len(z_NK)
        # any images will do, the same ones whatever the seed
        order_N = Draws(0, "curvature", torch.arange(N)).uniform().argsort()
        self.sample_BK = z_NK[order_N[:SAMPLE].to(z_NK.device)]

    def __call__(self, weight_RCK: Tensor, rounds: Tensor) -> tuple[Tensor, Tensor]:
        """Losses, float64 (R,), and gradients (R, C, K) of heads of these rounds."""
        R, C, K = weight_RCK.shape
        flat_HK = weight_RCK.reshape(R * C, K)
        gradient_HK = torch.zeros_like(flat_HK)
        loss_R = flat_HK.new_zeros(R, dtype=torch.float64)
        size = max(256, BLOCK[self.z_NK.device.type] // (R * C))
        for start in range(0, len(self.z_NK), size):
            part = slice(start, start + size)
            z_BK, share_RB = self.z_NK[part], self.share_RN[rounds, part]
            one_hot_CB = self.one_hot_CN[:, part]
            logits_RCB = (flat_HK @ z_BK.T).view(R, C, -1)
            most_RB = logits_RCB.amax(1)
            true_RB = (logits_RCB * one_hot_CB).sum(1)
            error_RCB = logits_RCB.sub_(most_RB[:, None]).exp_()
            sum_RB = error_RCB.sum(1)
            loss_R += ((sum_RB.log() + most_RB - true_RB) * share_RB).sum(1)
            # softmax minus one-hot, weighed
            error_RCB *= (share_RB / sum_RB)[:, None]
            error_RCB -= one_hot_CB * share_RB[:, None]
            gradient_HK.addmm_(error_RCB.view(R * C, -1), z_BK)
        return loss_R, gradient_HK.view(R, C, K)

    def inverse_curvature(self, weight_CK: Tensor, penalty_K: Tensor) -> Tensor:
        """Inverse of the second derivatives within each class, (C, K, K), or (1, K, K) for all.

        What two classes have in common is left out. No direction of the whole matrix is more than
        twice as curved as what is kept: it is a graph's Laplacian with weights p_i p_j.
        """
        z_BK = self.sample_BK
        p_CB = (weight_CK @ z_BK.T).softmax(0)
        spread_CB = p_CB * (1 - p_CB) / len(z_BK)
        if self.num_classes * penalty_K.numel() ** 2 > CURVATURES:
            spread_CB = spread_CB.mean(0, keepdim=True)
        curvature_CKK = torch.stack([z_BK.T @ (z_BK * p_B[:, None]) for p_B in spread_CB])
        diagonal_CK = curvature_CKK.diagonal(dim1=1, dim2=2)
        diagonal_CK += penalty_K + RIDGE * diagonal_CK.mean(1, keepdim=True) + LEAST_CURVATURE
        return torch.cholesky_inverse(torch.linalg.cholesky(curvature_CKK))


def regressions(
    problem: Problem, space: Space, l2: Iterable[float], weigh_R: Tensor, iterations: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Heads of each penalty: weights (R, C, K), and which reached their optimum, bool (R,).

    A penalty begins where the line through the last two leads, over their logarithms: two fifths
    fewer steps than from the last one. The last round, which has all images, begins at the mean of
    the others, a fifth of the steps. They never begin at what it found: it has seen what they hold
    out.

    Args:
        problem: what is minimised.
        space: the directions that its features have.
        l2: penalties, from large to small.
        weigh_R: factor of the penalty in each round.
        iterations: most steps of one penalty.
    """
    R, K = len(weigh_R), len(space.stretch_K)
    rounds = torch.arange(R, device=problem.z_NK.device)
    first = rounds[: max(1, R - 1)]
    found = problem.z_NK.new_zeros(R, problem.num_classes, K)
    reached = torch.zeros(R, dtype=torch.bool)
    before: list[tuple[float, Tensor]] = []
    for penalty in l2:
        start = found
        if len(before) == 2:
            (larger, old), (last, new) = before
            start = new + (new - old) * math.log(penalty / last) / math.log(last / larger)
        penalty_R1K = penalty * weigh_R.to(found)[:, None, None] * space.stretch_K
        inverse = problem.inverse_curvature(start[first].mean(0), penalty_R1K.mean(0)[0])
        goal = Goal(problem, penalty_R1K, inverse)
        found = torch.empty_like(found)
        found[first], reached[: len(first)] = goal.reach(start[first], first, iterations)
        if R > 1:
            apart = 0 if not before else before[-1][1][-1:] - before[-1][1][first].mean(0)
            mean = found[first].mean(0, keepdim=True)
            found[-1:], reached[-1:] = goal.reach(mean + apart, rounds[-1:], iterations)
        before = [*before[-1:], (penalty, found)]
        yield found, reached.clone()


@dataclass(frozen=True)
class Goal:
    """One penalty's heads, and how their optimum is reached."""

    problem: Problem
    penalty_R1K: Tensor  # noqa: N815
    inverse: Tensor  # of the curvature, see Problem

    def value(self, weight: Tensor, rounds: Tensor) -> tuple[Tensor, Tensor]:
        """What is minimised in each of these rounds, and its gradient."""
        loss, gradient = self.problem(weight, rounds)
        penalised = self.penalty_R1K[rounds] * weight
        return loss + dot(penalised, weight).double() / 2, gradient + penalised

    def reach(self, start: Tensor, rounds: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        """L-BFGS on rounds side by side, each with its own steps: weights, and which got there.

        A round that has is left out of what follows.
        """
        found, reached = start.clone(), torch.zeros(len(start), dtype=torch.bool)
        left = torch.arange(len(start), device=start.device)
        now = State.at(start, *self.value(start, rounds))
        for step in range(iterations + 1):
            way = now.direction(self.inverse)
            slope = dot(now.gradient, way)
            least = now.loss.clamp(min=LEAST_LOSS)
            done = (slope / 2 < SHARE_LEFT * least) & (now.gradient.abs().amax((1, 2)) < DERIVATIVE)
            found[left], reached[left.cpu()] = now.weight, done.cpu()
            if bool(done.all()) or step == iterations:
                break
            if bool(done.any()):
                now, left, way, slope = now.only(~done), left[~done], way[~done], slope[~done]
            tried = now.weight - now.length[:, None, None] * way
            now = now.after(tried, *self.value(tried, rounds[left]), slope, self.inverse)
        return found, reached


@dataclass(frozen=True)
class State:
    """Where some rounds are, and the last steps they took: L-BFGS (Nocedal and Wright, 7.4).

    `pairs` holds steps, what they changed of the gradient, and one over the product of both, which
    is 0 where a step was not taken.
    """

    weight: Tensor
    loss: Tensor
    gradient: Tensor
    length: Tensor  # of the next step, in (0, 1]
    scale: Tensor  # of the preconditioner
    pairs: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()

    @classmethod
    def at(cls, weight: Tensor, loss: Tensor, gradient: Tensor) -> State:
        """Before the first step; half, as the curvature may be twice what is kept of it."""
        ones = weight.new_ones(len(weight))
        return cls(weight, loss, gradient, ones, ones / 2)

    def only(self, kept: Tensor) -> State:
        """Some of the rounds."""
        pairs = tuple((s[kept], y[kept], one_over[kept]) for s, y, one_over in self.pairs)
        return State(
            self.weight[kept],
            self.loss[kept],
            self.gradient[kept],
            self.length[kept],
            self.scale[kept],
            pairs,
        )

    def direction(self, inverse: Tensor) -> Tensor:
        """The gradient over the curvature, as far as it is known: the two loops."""
        way, shares = self.gradient, []
        for step, change, one_over in reversed(self.pairs):
            shares.append(one_over * dot(step, way))
            way = way - shares[-1][:, None, None] * change
        way = self.scale[:, None, None] * over(inverse, way)
        for (step, change, one_over), share in zip(self.pairs, reversed(shares), strict=True):
            way = way + (share - one_over * dot(change, way))[:, None, None] * step
        return way

    def after(
        self, tried: Tensor, loss: Tensor, gradient: Tensor, slope: Tensor, inverse: Tensor
    ) -> State:
        """The state after a step, or with a shorter one to try where the loss did not fall."""
        fell = loss <= self.loss - WOLFE * self.length * slope + ROUNDING
        there = fell[:, None, None]
        step = torch.where(there, tried - self.weight, 0)
        change = torch.where(there, gradient - self.gradient, 0)
        product = dot(step, change)
        known = product > 0
        one_over = torch.where(known, 1 / product, 0)
        scale = torch.where(known, product / dot(change, over(inverse, change)), self.scale)
        return State(
            torch.where(there, tried, self.weight),
            torch.where(fell, loss, self.loss),
            torch.where(there, gradient, self.gradient),
            torch.where(fell, 1, self.length * SHORTER),
            scale,
            (*self.pairs[1 - PAIRS :], (step, change, one_over)),
        )


def over(inverse: Tensor, x_RCK: Tensor) -> Tensor:
    """The product with each class's inverse, or with the one for all."""
    if len(inverse) == 1:
        return x_RCK @ inverse[0]
    return torch.bmm(x_RCK.transpose(0, 1), inverse).transpose(0, 1)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """The product of each round's numbers, (R,)."""
    return (x * y).sum((1, 2))


def classes_of(weight_RCK: Tensor, z_NK: Tensor) -> Tensor:
    """The class that each head gives each image, int64 (R, N) on the CPU."""
    R, C, K = weight_RCK.shape
    flat_HK = weight_RCK.reshape(R * C, K)
    size = max(256, BLOCK[z_NK.device.type] // (R * C))
    parts = [(flat_HK @ part.T).view(R, C, -1).argmax(1).cpu() for part in z_NK.split(size)]
    return torch.cat(parts, 1)
