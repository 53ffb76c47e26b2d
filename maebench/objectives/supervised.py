"""The options of learning from labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from maebench.objectives.objective import Inputs, Objective

if TYPE_CHECKING:
    from torch import nn


class Supervised(Objective):
    """Sees the whole image and its label, which all other objectives do without.

    It predicts the class by a linear layer on the mean of the patch tokens. It is the reference
    from above: what the same encoder, steps and crops reach with labels; mixup, cutmix and drop
    path of the paper's recipe are left out, so that only what is learnt differs.

    loss = cross entropy to (1 - e) onehot(label) + e / classes
    with e the smoothing, averaged over images.
    Source: He et al. 2021, arXiv 2111.06377, appendix A.2, table 11.
    """

    name: ClassVar[str] = "supervised"
    hides: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    no_decoder: ClassVar[str] = "it learns classes, not pixels"
    smoothing: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the target spread over all classes "
        "[arXiv 2111.06377, table 11; DeiT, arXiv 2012.12877]",
    )

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, its head freshly initialised."""
        from maebench.objectives.supervised_module import Classifier

        return Classifier(self, encoder, inputs)
