"""SimMIM's options: there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from maebench.objectives.objective import Inputs, Objective

if TYPE_CHECKING:
    from torch import nn


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
        from maebench.encoders.positions import keep_positions
        from maebench.objectives.simmim_module import SimMIMModule

        keep_positions(encoder, self.name)
        return SimMIMModule(encoder, inputs)
