"""The contractive autoencoder's options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveInt

from maebench.objectives.autoencoder import numbers_covered
from maebench.objectives.decoder import Decoding
from maebench.objectives.objective import Inputs

if TYPE_CHECKING:
    from torch import nn


class Contractive(Decoding):
    """Sees the whole image, of which each token has a code that may hardly move with the pixels.

    A transformer decoder predicts all pixels from the codes alone.
    What the penalty leaves moving are the directions in which images differ; it needs a second
    derivative, so a step takes longer, and too large a weight gives all images one code.

    loss = mean over all pixels of (x - decode(h))^2 + weight / M * J, M numbers of an image
    h = sigmoid code of all tokens; J = ||dh/dx||^2 (Frobenius), estimated by the mean over random
    signs v of ||v^T dh/dx||^2 (Hutchinson); M times it is the paper's scale of a summed error
    Source: Rifai et al. 2011, ICML, section 3; there h is one layer with tied weights.
    """

    name: ClassVar[str] = "contractive"
    hides: ClassVar[bool] = False
    bottleneck: PositiveInt | None = Field(
        None,
        description="numbers of the code of a token; default as many as of a patch: the penalty "
        "takes the place of a narrow code",
        examples=[12],
    )
    weight: float = Field(
        0.1,
        gt=0,
        description="weight of the squared norm beside the summed squared error of an image "
        "(0.1 as in the Theano tutorials' cA after Rifai et al. 2011)",
    )
    probes: PositiveInt = Field(
        1, description="random directions per image and step, each one more backward pass"
    )

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, code and decoder freshly initialised."""
        size = self.decoder_size(encoder.width, encoder.depth)
        width = self.bottleneck or numbers_covered(encoder, inputs)
        from maebench.objectives.contractive_module import ContractiveAutoencoder

        return ContractiveAutoencoder(self, encoder, inputs, size, width)
