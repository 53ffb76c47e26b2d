"""The sparse autoencoder as a torch module, and what keeps the units of a code off.

Shape suffixes: B images, N tokens with the prefix first, K units of a token's code.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from maebench.objectives.autoencoder import numbers_covered
from maebench.objectives.autoencoder_module import Autoencoding
from maebench.objectives.objective import Batch, Inputs

if TYPE_CHECKING:
    from maebench.objectives.decoder import DecoderSize
    from maebench.objectives.sparse import Sparse

ON = 2  # a sigmoid is never 0: a unit counts as active where it is that many times its mean rho


class SparseAutoencoder(Autoencoding):
    """An autoencoder whose code is kept sparse by a penalty, or by keeping its k largest units.

    Args:
        options: penalty and code.
        encoder: sees images without a mask.
        inputs: what it is fed.
        size: depth, width and heads of the decoder.
        bottleneck: K; without one the encoder's tokens are the code.
        k: units that stay on, where the penalty is top-k.
    """

    def __init__(
        self,
        options: Sparse,
        encoder: Any,
        inputs: Inputs,
        size: DecoderSize,
        bottleneck: int | None,
        k: int,
    ) -> None:
        super().__init__(encoder, inputs, size, bottleneck)
        self.penalty, self.rho, self.k = options.penalty, options.rho, k
        # units begin at the activation that is wanted of them, not at a sigmoid's half: the bias of
        # the norm behind the encoder's tokens gets there by one learning rate a step at most
        self.start = math.log(options.rho / (1 - options.rho)) if options.penalty == "kl" else 0.0
        # the notes weigh half the squared error of a patch, and this is its mean
        self.weight = 2 * options.strength / numbers_covered(encoder, inputs)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, and the share of units that are active in a token."""
        x_BNK = self.encode(batch.images).float()
        code_BNK = self.activate(x_BNK)
        loss = self.error(self.decode(code_BNK), batch.images)
        if self.penalty == "kl":
            loss = loss + self.weight * kl_to_mean_activation(x_BNK, self.rho).mean()
        elif self.penalty == "l1":
            loss = loss + self.weight * code_BNK.sum(2).mean()
        threshold = ON * self.rho if self.penalty == "kl" else 0.0
        return {"loss": loss, "active": (code_BNK.detach() > threshold).float().mean()}

    def encode(self, images: Tensor) -> Tensor:
        """What enters the code of each token, (B, N, K), at `start` for a token of zeros."""
        return super().encode(images) + self.start

    def activate(self, x_BNK: Tensor) -> Tensor:
        """The sparse code: a sigmoid for the KL, else a relu, of which top-k keeps the largest."""
        if self.penalty == "kl":
            return x_BNK.sigmoid()
        return largest(x_BNK.relu(), self.k) if self.penalty == "top-k" else x_BNK.relu()


def kl_to_mean_activation(x_BNK: Tensor, rho: float) -> Tensor:
    """Sum over units of KL(rho || mean activation of the unit in the image), float32 (B,).

    The activation is sigmoid(x), its mean over the N tokens. In logarithms, so that a unit which
    is off or on in every token has a finite penalty and a gradient.
    """
    count = math.log(x_BNK.shape[1])
    log_on_BK = F.logsigmoid(x_BNK).logsumexp(1) - count
    log_off_BK = F.logsigmoid(-x_BNK).logsumexp(1) - count
    kl_BK = rho * (math.log(rho) - log_on_BK) + (1 - rho) * (math.log1p(-rho) - log_off_BK)
    return kl_BK.sum(1)


def largest(x_BNK: Tensor, k: int) -> Tensor:
    """The k largest units of each token as they are, 0 at all others, (B, N, K)."""
    values, index = x_BNK.topk(k, dim=2)
    return x_BNK.new_zeros(x_BNK.shape).scatter(2, index, values)
