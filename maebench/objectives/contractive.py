"""The contractive autoencoder, and the norm of a Jacobian by random probes.

Shape suffixes: B images, N tokens with the prefix first, K dimension of a token's code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from maebench.encoders.inputs import Inputs
from maebench.encoders.sizes import Units
from maebench.objectives.autoencoder import Autoencoding, dimension_covered
from maebench.objectives.decoders import DecoderSize, Decoding
from maebench.objectives.objective import Batch
from maebench.rng import Draws


class Contractive(Decoding):
    """Sees the whole image, of which each token has a code that may hardly move with the pixels.

    A transformer decoder predicts all pixels from the codes alone.
    What the penalty leaves moving are the directions in which images differ; it needs a second
    derivative, so a step takes longer, and too large a weight gives all images one code.

    loss = mean over all pixels of (x - decode(h))^2 + weight / M * J, M pixels times channels
    h = sigmoid code of all tokens; J = ||dh/dx||^2 (Frobenius), estimated by the mean over random
    signs v of ||v^T dh/dx||^2 (Hutchinson); M times it is the paper's scale of a summed error
    Source: Rifai et al. 2011, ICML, section 3; there h is one layer with tied weights.
    """

    name: ClassVar[str] = "contractive"
    hides: ClassVar[bool] = False
    bottleneck: Units | None = Field(
        default=None,
        description="dimension of the code of a token; default that of a patch: the penalty "
        "takes the place of a narrow code",
        examples=[12],
    )
    weight: float = Field(
        default=0.1,
        gt=0,
        description="weight of the squared norm beside the summed squared error of an image "
        "(0.1 as in the Theano tutorials' cA after Rifai et al. 2011)",
    )
    probes: PositiveInt = Field(
        default=1,
        le=2**10,  # as many as a code has dimensions give the norm itself
        description="random directions per image and step, each one more backward pass",
    )

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, code and decoder freshly initialised."""
        size = self.decoder_size(encoder.width, encoder.depth)
        width = self.bottleneck or dimension_covered(encoder, inputs)

        return ContractiveAutoencoder(self, encoder, inputs, size, width)


class ContractiveAutoencoder(Autoencoding):
    """An autoencoder whose code is penalised for how much it moves with the pixels.

    The code goes through a sigmoid as in the paper: a unit can then stand still by saturating,
    where a linear one could only fade.
    """

    def __init__(
        self,
        options: Contractive,
        encoder: Any,
        inputs: Inputs,
        size: DecoderSize,
        bottleneck: int,
    ) -> None:
        super().__init__(encoder, inputs, size, bottleneck)
        self.probes = options.probes
        # the paper weighs the summed squared error of an image, and this is its mean
        self.weight = options.weight / (inputs.image_size[0] * inputs.image_size[1])
        self.weight /= inputs.channels

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, and the estimated squared norm of an image's Jacobian."""
        code_BNK, norm_B = squared_jacobian(self.code, batch.images, batch.draws, self.probes)
        jacobian = norm_B.mean()
        loss = self.error(self.decode(code_BNK), batch.images) + self.weight * jacobian
        return {"loss": loss, "jacobian": jacobian.detach()}

    def code(self, images: Tensor) -> Tensor:
        """The code of every token, (B, N, K), in a way that can be differentiated twice."""
        # the fused kernels have no second derivative
        with sdpa_kernel(SDPBackend.MATH):
            return self.activate(self.encode(images))

    def activate(self, x_BNK: Tensor) -> Tensor:
        """The sigmoid."""
        return x_BNK.sigmoid()


def squared_jacobian(
    code: Callable[[Tensor], Tensor], images: Tensor, draws: Draws, probes: int = 1
) -> tuple[Tensor, Tensor]:
    """The code of some images and an estimate of each one's squared Frobenius norm of d code / dx.

    For signs v of mean 0 and variance 1, E ||v^T J||^2 = E v^T (J J^T) v = trace(J J^T), which is
    the squared norm; signs have the least variance of all such v (Hutchinson 1990). It can be
    differentiated once more unless gradients are off, where it is estimated all the same.

    Args:
        code: images (B, C, H, W) to (B, ...), each image's code from that image alone.
        images: where the derivative is taken, float32 (B, C, H, W).
        draws: gives the signs.
        probes: vectors v per image, of which the mean is taken.

    Returns:
        What `code` gives, and float32 (B,).
    """
    train = torch.is_grad_enabled()
    total_B = images.new_zeros(len(images))
    with torch.enable_grad():
        x = images.detach().requires_grad_()
        made = code(x)
        for _ in range(probes):
            signs = 2.0 * draws.integers(2, *made.shape[1:]) - 1.0
            (slope,) = torch.autograd.grad(
                made, x, signs.to(made.dtype), create_graph=train, retain_graph=True
            )
            total_B = total_B + slope.float().square().flatten(1).sum(1)
    return (made, total_B / probes) if train else (made.detach(), total_B.detach() / probes)
