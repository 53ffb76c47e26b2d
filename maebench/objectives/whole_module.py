"""What objectives share that are given the whole image and predict all of it.

Shape suffixes: B images, L patches, T numbers of a patch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from maebench.masking.mask import Mask
from maebench.masking.patches import hidden_pixels
from maebench.objectives.objective import Inputs, Reconstruction
from maebench.objectives.targets import Pixels


class WholeImage(nn.Module):
    """An encoder that sees every patch; a subclass says what is predicted of an image.

    Args:
        encoder: sees images without a mask.
        inputs: what it is fed.
    """

    def __init__(self, encoder: Any, inputs: Inputs) -> None:
        super().__init__()
        self.target = Pixels(encoder.patch, inputs)
        self.encoder: Any = encoder

    def predict(self, images: Tensor) -> Tensor:
        """The pixels of each patch of images (B, C, H, W), (B, L, T), without anything random."""
        raise NotImplementedError(f"{type(self).__name__} has no predict(images)")

    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """What it makes of images whose hidden pixels are 0, the mean of train.

        It has no other way to be told that something is missing: this is how it compares with
        objectives that hide patches. `whole` is what it makes of the images as they are.
        """
        given = torch.where(hidden_pixels(mask, self.target.patch), 0.0, images)
        made = self.target.reconstruction(self.predict(given).float(), images, mask)
        how = "predicted from the image with hidden pixels at the mean of train"
        return dataclasses.replace(made, how=how, whole=self.predict(images).float())
