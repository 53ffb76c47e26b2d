"""The denoising autoencoder as a torch module, and how images are corrupted.

Shape suffixes: B images, C channels, H W pixels, S = H * W pixels of an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maebench.objectives.autoencoder_module import Autoencoding
from maebench.objectives.objective import Batch, Inputs

if TYPE_CHECKING:
    from maebench.objectives.decoder import DecoderSize
    from maebench.objectives.denoising import Denoising
    from maebench.rng import Draws


class DenoisingAutoencoder(Autoencoding):
    """An autoencoder that is given corrupted images and compared with the clean ones.

    Only the loss corrupts: what it predicts for an evaluation is of the image as given.
    """

    def __init__(self, options: Denoising, encoder: Any, inputs: Inputs, size: DecoderSize) -> None:
        super().__init__(encoder, inputs, size, options.bottleneck)
        self.corrupt = CORRUPTIONS[options.corruption]
        self.amount = options.noise

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: mean over images and all pixels of the squared error to the clean image."""
        given = self.corrupt(batch.images, self.amount, batch.draws)
        return {"loss": self.error(self.predict(given), batch.images)}


def gaussian(images: Tensor, sigma: float, draws: Draws) -> Tensor:
    """Images (B, C, H, W) plus normal noise of this deviation in every channel."""
    return images + sigma * draws.normal(*images.shape[1:])


def masking(images: Tensor, share: float, draws: Draws) -> Tensor:
    """Images (B, C, H, W), a share of their pixels at 0, the mean of train."""
    return torch.where(chosen(images, share, draws), 0.0, images)


def salt_and_pepper(images: Tensor, share: float, draws: Draws) -> Tensor:
    """Images (B, C, H, W), a share of their pixels black or white by a fair coin.

    Black and white are the smallest and the largest value of the image in each channel.
    """
    where = chosen(images, share, draws)
    white = draws.integers(2, 1, *images.shape[2:]).bool()
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(where, torch.where(white, high, low), images)


def chosen(images: Tensor, share: float, draws: Draws) -> Tensor:
    """Which pixels are replaced, bool (B, 1, H, W): as many in each image, all channels alike.

    Vincent et al. 2010, section 3.3, choose a fixed share of the elements of each example.
    """
    H, W = images.shape[2:]
    order_BS = draws.uniform(H * W).argsort(dim=1, stable=True)
    picked_BS = torch.zeros_like(order_BS, dtype=torch.bool)
    picked_BS.scatter_(1, order_BS[:, : round(share * H * W)], True)
    return picked_BS.view(-1, 1, H, W)


CORRUPTIONS = {"gaussian": gaussian, "masking": masking, "salt-and-pepper": salt_and_pepper}
