"""SimMIM: hidden patches are replaced by a learned token, and a linear layer predicts them.

Shape suffixes: B images, N tokens, L patches, M hidden patches, D width,
T dimension of a patch's target.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from maebench.encoders.encoder import keep_positions
from maebench.encoders.inputs import Inputs
from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import take
from maebench.objectives.decoders import per_patch
from maebench.objectives.objective import Batch, Objective, Reconstruction
from maebench.objectives.targets import Pixels


class SimMIM(Objective):
    """Hides patches behind one learned token, and the encoder gets seen and hidden ones alike.

    It predicts the pixels of the hidden patches by a single linear layer on the encoder's own
    tokens, as BERT does with words (Devlin 2019, arXiv 1810.04805). It serves encoders that
    cannot drop patches, such as Swin; on those that can, each step costs a whole image, and the
    whole images of evaluations are unlike all it was trained on.

    loss = sum over hidden pixels and channels of |p - x| / their number
    x pixels normalised by the data set's mean and deviation, p what is predicted; the official
    code adds 1e-5 to the number of pixels.
    Source: Xie et al. 2022, arXiv 2111.09886, sections 3.1-3.4.
    """

    name: ClassVar[str] = "simmim"

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module; the encoder keeps all positions from now on.

        Raises:
            ConfigError: the encoder drops hidden patches and knows no other way.
        """
        keep_positions(encoder, self.name)
        return SimMIMModule(encoder, inputs)


class SimMIMModule(nn.Module):
    """An encoder with a token at every patch, a linear head and the loss.

    Args:
        encoder: keeps all positions; where its tokens lie coarser than patches, each predicts all
            that it covers.
        inputs: what it is fed.
    """

    def __init__(self, encoder: Any, inputs: Inputs) -> None:
        super().__init__()
        self.target = Pixels(encoder.patch, inputs)
        (H, W), (h, w) = encoder.grid, encoder.out_grid
        self.per = (H // h, W // w)  # patches of a token
        # the official 1x1 convolution and PixelShuffle; like it, with torch's own initialisation
        self.head = nn.Linear(encoder.width, self.per[0] * self.per[1] * self.target.dimension)
        self.encoder: Any = encoder

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: mean over images and hidden patches of the absolute error."""
        if batch.mask is None:
            raise ConfigError("objective 'simmim' needs a masking: it scores hidden patches")
        hidden_BM = batch.mask.places
        prediction_BMT = self._predict(batch.images, batch.mask, hidden_BM)
        target_BMT = self.target.at(batch.images, hidden_BM)
        return {"loss": (prediction_BMT.float() - target_BMT).abs().mean()}

    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """Predicts every patch; only hidden ones are trained, so only they mean something."""
        return self.target.reconstruction(self._predict(images, mask).float(), images, mask)

    def _predict(self, images: Tensor, mask: Mask, at_BM: Tensor | None = None) -> Tensor:
        """Predictions of all patches, (B, L, T), or of those at `at_BM`, (B, M, T)."""
        tokens = self.encoder(images, mask)
        if at_BM is not None and self.per == (1, 1):  # the head only where the loss is
            return self.head(take(tokens.patches, at_BM))
        x_BLT = per_patch(self.head(tokens.patches), tokens.grid, self.per)
        return x_BLT if at_BM is None else take(x_BLT, at_BM)
