"""An encoder with a linear head as a torch module.

Shape suffixes: B images, D encoder width, Y classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from maebench.encoders.vit_module import initialise
from maebench.errors import ConfigError
from maebench.objectives.objective import Batch, Inputs

if TYPE_CHECKING:
    from maebench.objectives.supervised import Supervised


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
