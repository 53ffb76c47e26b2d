"""Learning from labels: an encoder with a linear head.

Shape suffixes: B images, D encoder width, Y classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from maebench.encoders.blocks import initialise
from maebench.encoders.inputs import ANY_KIND, Inputs
from maebench.errors import ConfigError
from maebench.objectives.objective import Batch, Objective


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
    takes: ClassVar[tuple[str, ...]] = ANY_KIND
    no_decoder: ClassVar[str] = "it learns classes, not pixels"
    smoothing: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of the target that goes to all classes alike "
        "[arXiv 2111.06377, table 11; DeiT, arXiv 2012.12877]",
    )

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, its head freshly initialised."""
        return Classifier(self, encoder, inputs)


class Classifier(nn.Module):
    """Encoder and head; the loss is the cross entropy of labels."""

    def __init__(self, options: Supervised, encoder: Any, inputs: Inputs) -> None:
        super().__init__()
        self.smoothing = options.smoothing
        self.encoder: Any = encoder
        self.head = nn.Linear(encoder.width, inputs.num_classes)
        initialise(self.head)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, and the accuracy of the batch for the log."""
        if batch.labels is None:
            raise ConfigError("objective 'supervised' needs labels: the batch has none")
        logits_BY = self.head(self.encoder(batch.images).patches.mean(1)).float()
        loss = nn.functional.cross_entropy(logits_BY, batch.labels, label_smoothing=self.smoothing)
        return {"loss": loss, "accuracy": (logits_BY.argmax(1) == batch.labels).float().mean()}
