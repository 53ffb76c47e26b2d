"""Logistic regressions on many small subsets at once: one batched matmul per update."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from maebench import Draws, Folds, choose, half_cosine
from maebench_evals.frozen import CONSTANT
from maebench_evals.linear_probe import BATCH, EPOCHS, LR

# Shape suffixes: R subsets, N images of each, D features, H heads of each subset (F folds times G
# penalties, or one), C classes.


@dataclass(frozen=True)
class Subsets:
    """Labelled images of some subsets, standardised each by its own statistics.

    Whoever has ten labelled images need not have others: what the rest of train could say about
    scales would make few labels look better than they are (raw pixels of digits, one image per
    class: by 3 points of 60; encoders: by less than one).
    """

    x_RND: Tensor  # noqa: N815 - shapes are named, in classes too
    y_RN: Tensor  # noqa: N815
    mean_R1D: Tensor  # noqa: N815
    deviation_R1D: Tensor  # noqa: N815

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, index_RN: Tensor) -> Subsets:
        """The images at these positions."""
        x_RND = features[index_RN]
        mean, deviation = x_RND.mean(1, keepdim=True), x_RND.std(1, keepdim=True)
        deviation[deviation < CONSTANT] = 1.0
        return cls((x_RND - mean) / deviation, labels[index_RN], mean, deviation)


@dataclass(frozen=True)
class Fitting:
    """How heads are trained: cross entropy + l2 / 2 * |W|^2, Adam with half a cosine."""

    num_classes: int
    steps: int
    draws: Draws

    def heads(self, data: Subsets, used_RHN: Tensor, l2_RH: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (R, H, D, C) and biases (R, H, 1, C), each head from the images it may use."""
        R, N, D = data.x_RND.shape
        H, C = l2_RH.shape[1], self.num_classes
        parameters = [data.x_RND.new_zeros(R, H, D, C), data.x_RND.new_zeros(R, H, 1, C)]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        adam = torch.optim.Adam(parameters, lr=LR)
        weight, bias = parameters
        target_RNC = torch.nn.functional.one_hot(data.y_RN, C).to(data.x_RND.dtype)
        steps = max(self.steps, math.ceil(EPOCHS * N / BATCH))
        order = torch.arange(N)
        for step in range(steps):
            x, target, used = data.x_RND, target_RNC, used_RHN
            if N > BATCH:
                if (step * BATCH) % N < BATCH:  # a new epoch, a new order
                    order = self.draws.uniform(N)[0].argsort()
                index = order[torch.arange(step * BATCH, (step + 1) * BATCH) % N].to(x.device)
                x, target, used = x[:, index], target[:, index], used[:, :, index]
            error_RHNC = logits_of(x, weight, bias).softmax(3) - target[:, None]
            error_RHNC *= (used / used.sum(2, keepdim=True).clamp(min=1))[..., None]
            weight.grad = product(x, error_RHNC) + l2_RH[..., None, None] * weight
            bias.grad = error_RHNC.sum(2, keepdim=True)
            adam.param_groups[0]["lr"] = LR * half_cosine(step, steps)
            adam.step()
        return weight, bias

    def choose(
        self, data: Subsets, held_RFN: Tensor, l2: list[float], otherwise: float
    ) -> list[float]:
        """For each subset the penalty that is best on its folds, of equals the middle one.

        Args:
            data: the subsets.
            held_RFN: which images each round holds out, for each subset.
            l2: penalties to try.
            otherwise: the penalty of a subset whose rounds hold out nothing.
        """
        if not held_RFN.any():
            return [otherwise] * len(held_RFN)
        R, F, N = held_RFN.shape
        G = len(l2)
        # every round with every penalty: head f * G + g
        used_RHN = (~held_RFN).repeat_interleave(G, 1).to(data.x_RND.dtype)
        penalty_RH = data.x_RND.new_tensor(l2).repeat(R, F)
        weight, bias = self.heads(data, used_RHN, penalty_RH)
        right_RHN = torch.cat(
            [
                logits_of(x, weight, bias).argmax(3) == y[:, None]
                for x, y in zip(data.x_RND.split(BATCH, 1), data.y_RN.split(BATCH, 1), strict=True)
            ],
            2,
        )
        found = []
        for folds, right_FGN in zip(map(Folds, held_RFN), right_RHN.view(R, F, G, N), strict=True):
            held = folds.index
            best = choose(folds.pooled(right_FGN[..., held])).index if len(held) else None
            found.append(otherwise if best is None else l2[best])
        return found

    def predict(self, data: Subsets, l2_R: list[float], test_ND: Tensor) -> Tensor:
        """The class that a head trained on each whole subset predicts, (R, test)."""
        ones_RHN = torch.ones_like(data.y_RN, dtype=data.x_RND.dtype)[:, None]
        weight, bias = self.heads(data, ones_RHN, data.x_RND.new_tensor(l2_R)[:, None])
        weight_RDC = weight[:, 0] / data.deviation_R1D.transpose(1, 2)  # for features as they are
        bias_R1C = bias[:, 0] - data.mean_R1D @ weight_RDC
        parts = [(part @ weight_RDC + bias_R1C).argmax(2) for part in test_ND.split(BATCH)]
        return torch.cat(parts, 1)


def logits_of(x_RND: Tensor, weight_RHDC: Tensor, bias_RH1C: Tensor) -> Tensor:
    """Logits (R, H, N, C) of all heads of a subset, by one matmul per subset."""
    R, H, D, C = weight_RHDC.shape
    flat_RNK = x_RND @ weight_RHDC.transpose(1, 2).reshape(R, D, H * C)
    return flat_RNK.view(R, -1, H, C).transpose(1, 2) + bias_RH1C


def product(x_RND: Tensor, error_RHNC: Tensor) -> Tensor:
    """The gradient of the weights, (R, H, D, C)."""
    R, H, N, C = error_RHNC.shape
    flat_RDK = x_RND.transpose(1, 2) @ error_RHNC.transpose(1, 2).reshape(R, N, H * C)
    return flat_RDK.view(R, -1, H, C).transpose(1, 2)
