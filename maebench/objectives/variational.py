"""The variational autoencoder: options and torch module.

Shape suffixes: B images, L patches, N tokens, D encoder width, Z dimension of a latent, T dimension
of a patch's target, R rows and K columns of a picture, C channels, H W pixels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from maebench.encoders.blocks import initialise
from maebench.encoders.encoder import Tokens
from maebench.encoders.inputs import Inputs
from maebench.encoders.sizes import Units
from maebench.masking.patches import unpatchify
from maebench.objectives.autoencoder import WholeImage
from maebench.objectives.decoders import DecoderSize, Decoding, TransformerDecoder
from maebench.objectives.objective import Batch, ImageGrid
from maebench.rng import Draws


class Variational(Decoding):
    """Sees the whole image and squeezes it into one random latent of a few dimensions.

    It predicts every pixel from that latent alone, drawn around a mean and with a variance that
    the encoder gives, while a penalty keeps them near a standard normal. It can make up images,
    which no other objective here can; watch for collapse, where no latent dimension is active and
    every image is predicted as the mean of all.

    loss = mean squared error per pixel + 2 beta w KL(N(m, s^2) || N(0, 1)) / N
    with m, s^2 of the image's latent, N pixels times channels, w rising from 0 to 1 in the warm-up:
    up to a constant the negative ELBO of a Gaussian with variance 1, divided by N / 2.
    Source: Kingma and Welling 2013, arXiv 1312.6114, equation 10; beta by Higgins et al. 2017.
    """

    name: ClassVar[str] = "variational"
    hides: ClassVar[bool] = False
    latent: Units = Field(
        default=64,
        description="dimension of an image's latent; 64 to 256 are usual for small images",
    )
    beta: PositiveFloat = Field(
        default=1.0,
        description="weight of the KL; 1 is the ELBO [arXiv 1312.6114], beta-VAE uses 4 and more "
        "[Higgins et al. 2017]",
    )
    warm_up: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of the run over which the KL's weight rises from 0 "
        "[Bowman et al. 2016, arXiv 1511.06349]",
    )
    free_bits: float = Field(
        default=0.0,
        ge=0,
        description="nats of each latent dimension that cost the same as none, image by image "
        "[arXiv 1606.04934, there in the mean of a batch]",
    )

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, its decoder and posterior freshly initialised."""
        size = self.decoder_size(encoder.width, encoder.depth)

        return VariationalAutoencoder(self, encoder, size, inputs)


# nats; so little tells nothing of the image. Burda et al. 2016 (arXiv 1509.00519) take 0.01 of the
# variance of the mean.
ACTIVE = 0.01
BOARD = (8, 8)  # rows and columns of samples from the prior
TRAVERSED = 8  # latent dimensions that are shown
REACH = 3  # deviations of the prior to both sides: 99.7 % of it


class VariationalAutoencoder(WholeImage):
    """Encoder, one Gaussian latent for an image, and a decoder that is given it alone."""

    def __init__(
        self, options: Variational, encoder: Any, size: DecoderSize, inputs: Inputs
    ) -> None:
        super().__init__(encoder, inputs)
        self.options = options
        self.num_pixels = inputs.channels * inputs.image_size[0] * inputs.image_size[1]
        self.posterior = nn.Linear(encoder.width, 2 * options.latent)
        initialise(self.posterior)
        self.decoder = TransformerDecoder(
            options.latent, size, encoder, self.target.dimension, fills=False
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss and, for the log, the KL in nats, the squared error, and active dimensions."""
        mean_BZ, log_var_BZ = self.encode(batch.images)
        noise_BZ = batch.draws.normal(self.options.latent)
        made_BLT = self.decode(mean_BZ + (0.5 * log_var_BZ).exp() * noise_BZ)
        error = (made_BLT - self.target(batch.images)).square().mean()
        kl_BZ = kl_to_prior(mean_BZ, log_var_BZ)
        paid = kl_BZ.clamp(min=self.options.free_bits).sum(1).mean()
        weight = self.options.beta * warm_up(batch.progress, self.options.warm_up)
        return {
            "loss": error + 2 * weight * paid / self.num_pixels,
            "kl": kl_BZ.detach().sum(1).mean(),
            "error": error.detach(),
            "active": (kl_BZ.detach() > ACTIVE).float().sum(1).mean(),
        }

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of each image's latent, both float32 (B, Z)."""
        tokens_BD = self.encoder(images).patches.mean(1)
        mean_BZ, log_var_BZ = self.posterior(tokens_BD).float().chunk(2, 1)
        return mean_BZ, log_var_BZ

    def decode(self, latent_BZ: Tensor) -> Tensor:
        """Pixels of every patch, float32 (B, L, T), from the latent and positions alone."""
        h, w = self.encoder.out_grid
        everywhere_BNZ = latent_BZ[:, None].expand(-1, h * w, -1)
        return self.decoder(Tokens(everywhere_BNZ[:, :0], everywhere_BNZ, (h, w))).float()

    def predict(self, images: Tensor) -> Tensor:
        """The pixels that belong to the mean of the latent."""
        return self.decode(self.encode(images)[0])

    def pictures(self, images: Tensor, draws: Draws) -> dict[str, ImageGrid]:
        """Samples from the prior, and what single dimensions of the latent change.

        Args:
            images: float32 (B, C, H, W), normalised; any few.
            draws: random numbers; those of the first image are used.

        Returns:
            "samples", 8 x 8 images, and "traversal", R x 7: a row for each of the up to 8
            dimensions with the highest KL over the images, shown beside it, in it that number from
            -3 to 3, the others as in the mean latent of the first image.
        """
        latent = self.options.latent
        samples_RKZ = draws.at(slice(0, 1)).normal(*BOARD, latent)[0]
        mean_BZ, log_var_BZ = self.encode(images)
        kl_R, shown_R = kl_to_prior(mean_BZ, log_var_BZ).mean(0).topk(min(TRAVERSED, latent))
        values_K = torch.linspace(-REACH, REACH, 2 * REACH + 1, device=images.device)
        along_RKZ = mean_BZ[0].repeat(len(shown_R), len(values_K), 1)
        along_RKZ[torch.arange(len(shown_R), device=images.device), :, shown_R] = values_K
        dimensions = zip(shown_R.tolist(), kl_R.tolist(), strict=True)
        rows = tuple(f"{number}: {kl:.2g}" for number, kl in dimensions)  # which, and its nats
        columns = tuple(f"{value:+.0f}" for value in values_K.tolist())
        return {
            "samples": ImageGrid(self._images(samples_RKZ)),
            "traversal": ImageGrid(self._images(along_RKZ), rows, columns),
        }

    def _images(self, latent_RKZ: Tensor) -> Tensor:
        """The images of rows and columns of latents, (R, K, C, H, W)."""
        made_BLT = self.decode(latent_RKZ.flatten(0, 1))
        images = unpatchify(made_BLT, self.encoder.grid, self.target.patch)
        return images.unflatten(0, latent_RKZ.shape[:2])


def kl_to_prior(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) in nats, one by one; Kingma and Welling, appendix B."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)


def warm_up(progress: float, share: float) -> float:
    """The KL's weight: a line from 0 at the start to 1 after `share` of the run."""
    return 1.0 if progress >= share else progress / share
