"""The masked autoencoder's options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from maebench.objectives.decoder import Decoding
from maebench.objectives.objective import Inputs

if TYPE_CHECKING:
    from torch import nn


class MAE(Decoding):
    """The masked autoencoder: encode the seen patches, decode all, score the hidden ones.

    It predicts the pixels of each hidden patch, or those minus their mean over their standard
    deviation. Its encoder never gets what is hidden, so that at a high ratio a step is cheap and
    the task is not solved by copying what is near.

    loss = mean over hidden patches of |y - x|^2 / T
    with x the T target numbers of a patch and y the prediction.
    Source: He et al. 2021, arXiv 2111.06377, section 3.
    """

    name: ClassVar[str] = "mae"
    target: Literal["pixels", "normalised-pixels"] = Field(
        "normalised-pixels", description="what is predicted: pixels, or normalised in each patch"
    )

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, its decoder freshly initialised as in the paper."""
        size = self.decoder_size(encoder.width, encoder.depth)
        from maebench.objectives.mae_module import MaskedAutoencoder

        return MaskedAutoencoder(self, encoder, size, inputs)
