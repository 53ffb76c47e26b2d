"""The sparse autoencoder: options and torch module.

Shape suffixes: B images, N tokens with the prefix first, K units of a token's code.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from maebench.encoders.inputs import Inputs
from maebench.encoders.sizes import Units
from maebench.errors import ConfigError
from maebench.objectives.autoencoder import Autoencoding, dimension_covered, narrow
from maebench.objectives.decoders import DecoderSize, Decoding
from maebench.objectives.objective import Batch

# Four times as many units as a patch has dimensions, so that at Ng's mean activation of .05 about
# as many of them are on as the code of `autoencoder` is wide: a fifth and a quarter of the
# dimension of a patch.
WIDE = 4
# Ng's beta; for l1 what left a tenth of the units active on Fashion-MNIST (vit-nano, 150 steps).
WEIGHTS = {"kl": 3.0, "l1": 0.1}
READ_BY = {"rho": ("kl",), "weight": ("kl", "l1"), "k": ("top-k",)}


class Sparse(Decoding):
    """Sees the whole image, of which each token has a wide code with few active units.

    A transformer decoder predicts all pixels from the sparse codes alone.
    Few active units take the place of a narrow code; top-k is sure to have them, where kl holds
    their mean alone, and all may stay near rho if the decoder magnifies what little they move.

    loss = mean over all pixels of (x - decode(h))^2 + 2 weight / T * penalty, T size of a patch
    kl: sum over units of KL(rho || mean of h over an image's tokens), h = sigmoid(a + logit(rho))
    l1: sum over units of the mean of h over tokens, h = relu(a); top-k: none, h = k largest of it
    T/2 times it is Ng's scale, half a patch's squared error; his mean of h is over all of train
    Source: Ng 2011, CS294A notes, section on sparsity; Makhzani and Frey 2013, arXiv 1312.5663.
    """

    name: ClassVar[str] = "sparse"
    hides: ClassVar[bool] = False
    penalty: Literal["kl", "l1", "top-k"] = Field(
        default="top-k",
        description="what keeps units off: a divergence from rho, a sum, or a count; the code goes "
        "through a sigmoid for kl, else a relu",
    )
    code: Literal["bottleneck", "tokens"] = Field(
        default="bottleneck",
        description="what is sparse: a wide linear code of each token, or the encoder's tokens "
        "themselves; evaluations read the tokens before the sigmoid or relu",
    )
    bottleneck: Units | None = Field(
        default=None,
        description="units of the code of a token; default four times the dimension of a patch; "
        "read with code=bottleneck",
        examples=[24],
    )
    rho: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="wanted mean activation of a unit, read by kl (Ng 2011)",
    )
    weight: float | None = Field(
        default=None,
        gt=0,
        description="weight of the penalty beside half the squared error of a patch, read by kl "
        "(default 3, Ng 2011) and l1 (default 0.1)",
        examples=[1.0],
    )
    k: Units | None = Field(
        default=None,
        description="units that stay on in a token, read by top-k; default a quarter of the "
        "dimension of a patch, as wide as the code of autoencoder",
        examples=[2],
    )

    def model_post_init(self, _: Any) -> None:
        """Refuses options that the penalty or the code does not read."""
        for option, readers in READ_BY.items():
            unset = getattr(self, option) == type(self).model_fields[option].default
            if self.penalty not in readers and not unset:
                raise ValueError(
                    f"{option} is read by penalty={' and penalty='.join(readers)} alone, "
                    f"given with penalty={self.penalty}"
                )
        if self.code == "tokens" and self.bottleneck is not None:
            raise ValueError(
                "bottleneck is read by code=bottleneck alone: the encoder's tokens have its width"
            )

    @property
    def strength(self) -> float:
        """The weight of the penalty, by its kind where it was left out; 0 where there is none."""
        return self.weight or WEIGHTS.get(self.penalty, 0.0)

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, code and decoder freshly initialised."""
        size = self.decoder_size(encoder.width, encoder.depth)
        covered = dimension_covered(encoder, inputs)
        width = None if self.code == "tokens" else self.bottleneck or WIDE * covered
        units = width or encoder.width
        k = self.k or min(units, narrow(encoder, inputs))
        if k > units:
            raise ConfigError(f"objective.k: {k} of {units} units of the code; at most {units}")

        return SparseAutoencoder(self, encoder, inputs, size, width, k)

    def notes(self, encoder: Any, inputs: Inputs) -> tuple[str, ...]:
        """Says where top-k keeps so many units that the code can copy, as a wide one can."""
        k, covered = self.k or 0, dimension_covered(encoder, inputs)
        if self.penalty != "top-k" or min(k, encoder.width) < covered:
            return ()
        return (
            f"objective.k={k}: not fewer than the dimension {covered} of a patch, so that the "
            f"identity can be learnt; give less than {covered}",
        )


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
        self.weight = 2 * options.strength / dimension_covered(encoder, inputs)

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
