"""The variational autoencoder's options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from maebench.objectives.decoder import Decoding
from maebench.objectives.objective import Inputs

if TYPE_CHECKING:
    from torch import nn


class Variational(Decoding):
    """Sees the whole image and squeezes it into one random latent, a few numbers for all of it.

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
    latent: PositiveInt = Field(
        64, description="numbers of an image's latent; 64 to 256 are usual for small images"
    )
    beta: PositiveFloat = Field(
        1.0,
        description="weight of the KL; 1 is the ELBO [arXiv 1312.6114], beta-VAE uses 4 and more "
        "[Higgins et al. 2017]",
    )
    warm_up: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the run over which the KL's weight rises from 0 "
        "[Bowman et al. 2016, arXiv 1511.06349]",
    )
    free_bits: float = Field(
        0.0,
        ge=0,
        description="nats of each latent dimension that cost the same as none, image by image "
        "[arXiv 1606.04934, there in the mean of a batch]",
    )

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, its decoder and posterior freshly initialised."""
        size = self.decoder_size(encoder.width, encoder.depth)
        from maebench.objectives.variational_module import VariationalAutoencoder

        return VariationalAutoencoder(self, encoder, size, inputs)
