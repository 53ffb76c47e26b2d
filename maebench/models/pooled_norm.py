"""A vision transformer fine-tuned on the mean of its patch tokens: the last norm comes after it."""

from __future__ import annotations

from typing import Any

from torch import nn

from maebench.encoders.vit import VisionTransformer

# said with every number of such a model
NOTE = (
    "its last norm, fc_norm, comes after pooling: applied to the mean of the patch tokens; cls is "
    "the class token without a norm, as are single tokens"
)


class NormAfterPooling(VisionTransformer):
    """A vision transformer with `fc_norm` after the mean of its patch tokens and no `norm` before.

    As the official code's models_vit.py with global_pool, and timm's VisionTransformer with
    global_pool="avg". Its tokens are those after the last block.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.fc_norm = self.norm
        self.norm: Any = nn.Identity()

    @property
    def pooled_norms(self) -> dict[str, nn.Module]:
        """What is applied after pooling, by the kind of pooling."""
        return {"mean": self.fc_norm}

    def layer_ids(self) -> dict[str, int]:
        """As without: the norm belongs to the last layer, wherever it stands."""
        last = {n: self.depth + 1 for n, _ in self.named_parameters() if n.startswith("fc_norm.")}
        return {**super().layer_ids(), **last}
