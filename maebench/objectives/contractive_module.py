"""The contractive autoencoder as a torch module, and the norm of a Jacobian by random probes.

Shape suffixes: B images, N tokens with the prefix first, K numbers of a token's code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from maebench.objectives.autoencoder_module import Autoencoding
from maebench.objectives.objective import Batch, Inputs

if TYPE_CHECKING:
    from maebench.objectives.contractive import Contractive
    from maebench.objectives.decoder import DecoderSize
    from maebench.rng import Draws


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
