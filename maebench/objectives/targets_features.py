"""The tokens of a slow copy of the encoder as what is predicted of each patch.

Shape suffixes: B images, L patches, N tokens, D width.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import spread
from maebench.objectives.objective import Inputs, Reconstruction

LAYERS = 6  # data2vec for images (arXiv 2202.03555)


class Features(nn.Module):
    """Tokens that a slow copy of the encoder makes of the whole image, the mean of some layers.

    The copy is never trained and never in training mode; it and its count of updates are part of
    the state. Each layer is normed without weights, and so is their mean: of the numbers of each
    token mean and deviation are 0 and 1. A token of an encoder that ends coarser stands for all
    its patches.

    Args:
        encoder: what is copied, as it is now.
        inputs: what it is fed.
        layers: number of last blocks; default six, or as many as there are.
        decay: of the copy, per update.

    Raises:
        ConfigError: there are fewer such blocks.
    """

    space = "features"
    updates: Tensor

    def __init__(
        self, encoder: Any, inputs: Inputs, layers: int | None = None, decay: float = 0.999
    ) -> None:
        super().__init__()
        self.teacher: Any = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        alike = layers_like_the_last(self.teacher, inputs)
        if layers is not None and layers > len(alike):
            raise ConfigError(
                f"objective.teacher_layers: {layers}, but of this encoder's {encoder.depth} blocks "
                f"{len(alike)} end on its last grid at its last width; allowed: 1 to {len(alike)}"
            )
        self.layers = alike[-(layers or LAYERS) :]
        self.decay = decay
        self.numbers = encoder.width

    def train(self, mode: bool = True) -> Features:
        """Stays in evaluation mode, whatever becomes of what it is a part of."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The targets, float32 (B, L, D)."""
        tokens = self.teacher(images, None, self.layers)
        each = [_normed(tokens.layers[number].patches) for number in self.layers]
        mean_BND = _normed(torch.stack(each).mean(0))
        return spread(mean_BND, tokens.grid, self.teacher.grid)

    @torch.no_grad()
    def follow(self, encoder: nn.Module) -> None:
        """Moves the copy towards the encoder; in the first updates faster, to forget step 0."""
        self.updates += 1
        count = self.updates.item()
        decay = min(self.decay, (1 + count) / (10 + count))  # as maebench.teacher does
        there = encoder.state_dict()
        for name, mine in self.teacher.state_dict().items():
            if mine.is_floating_point():
                mine.lerp_(there[name].to(mine.dtype), 1 - decay)
            else:
                mine.copy_(there[name])

    def reconstruction(self, prediction_BLT: Tensor, images: Tensor, mask: Mask) -> Reconstruction:
        """The prediction beside the truth; there are no pixels."""
        how = "no pixels: an encoder's tokens are predicted, and nothing turns them into an image"
        # what another copy makes of an image is another target
        space = f"{self.space} of the copy after {self.updates.item()} updates"
        return Reconstruction(prediction_BLT, self(images), space, how=how)


def deviation_over_images(target_BLD: Tensor) -> Tensor:
    """How much targets at one place differ between images, a scalar: 0 once they all are alike."""
    return target_BLD.std(0, correction=0).mean()


@torch.no_grad()
def layers_like_the_last(encoder: Any, inputs: Inputs) -> tuple[int, ...]:
    """The blocks whose tokens lie on the last grid and have the last width, found by one image."""
    was = encoder.training
    image = next(encoder.parameters()).new_zeros(1, inputs.channels, *inputs.image_size)
    end = encoder.eval()(image, None, range(1, encoder.depth + 1))
    encoder.train(was)
    shapes = {number: level.patches.shape for number, level in end.layers.items()}
    return tuple(n for n in sorted(shapes) if shapes[n] == end.patches.shape)


def _normed(x_BND: Tensor) -> Tensor:
    return F.layer_norm(x_BND.float(), x_BND.shape[-1:])
