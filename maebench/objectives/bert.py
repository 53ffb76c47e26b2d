"""BERT: hidden tokens are replaced by [MASK], and the encoder itself predicts them.

Shape suffixes: B windows, L tokens of a window, M chosen tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from maebench.encoders.blocks import initialise
from maebench.encoders.encoder import keep_positions
from maebench.encoders.inputs import TEXT
from maebench.encoders.text import BERT_EPS
from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import take
from maebench.objectives.objective import TOKENS, Batch, Inputs, Objective, Reconstruction


class Bert(Objective):
    """The encoder sees a window with [MASK] in the place of chosen tokens, and predicts those.

    Of the chosen tokens a share becomes [MASK], a share any token at random, and the rest stays as
    it is, so that the encoder cannot trust what it sees. A dense layer, GELU and a norm lead from a
    token to the vocabulary, whose weights are those of the embedding (a tied output).

    loss = mean over windows and chosen tokens of - log p(token)
    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1 and appendix A.1. Liu et al. 2019,
    arXiv 1907.11692: other tokens are chosen each time, as here.
    """

    name: ClassVar[str] = "bert"
    takes: ClassVar[tuple[str, ...]] = (TEXT,)
    masked: float = Field(
        default=0.8, ge=0, le=1, description="share of the chosen tokens that become [MASK]"
    )
    random: float = Field(
        default=0.1, ge=0, le=1, description="share of them that become any token at random"
    )

    def model_post_init(self, _: object) -> None:
        """Refuses shares of more than all."""
        if self.masked + self.random > 1 or not self.masked + self.random:
            raise ValueError(
                f"masked + random: above 0 and up to 1, given {self.masked} + {self.random}"
            )

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module; the encoder replaces hidden tokens from now on.

        Raises:
            ConfigError: the encoder drops them and knows no other way, or has no embedding to tie.
        """
        keep_positions(encoder, self.name)
        if not isinstance(getattr(encoder, "token_embed", None), nn.Embedding):
            raise ConfigError(
                f"objective {self.name!r} ties its output to the encoder's token_embed, which "
                f"{type(encoder).__name__} has not"
            )
        return BertModule(self, encoder, inputs)


class BertModule(nn.Module):
    """Encoder, head and loss.

    Args:
        options: shares.
        encoder: replaces hidden tokens.
        inputs: gives the vocabulary and the id of [MASK].
    """

    def __init__(self, options: Bert, encoder: Any, inputs: Inputs) -> None:
        super().__init__()
        self.options = options
        self.inputs = inputs
        self.dense = nn.Linear(encoder.width, encoder.width)
        self.norm = nn.LayerNorm(encoder.width, eps=BERT_EPS)
        self.bias = nn.Parameter(torch.zeros(inputs.vocabulary))
        initialise(self)
        self.encoder: Any = encoder

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, and the share of the chosen tokens that are right, for the log."""
        if batch.mask is None:
            raise ConfigError("objective 'bert' needs a masking: it predicts hidden tokens")
        at_BM = batch.mask.places
        corrupted_BL = self.corrupt(batch.images, at_BM, batch)
        logits_BMV = self.predict(take(self.encoder(corrupted_BL).patches, at_BM))
        right_BM = batch.images.gather(1, at_BM)
        loss = F.cross_entropy(logits_BMV.flatten(0, 1), right_BM.flatten())
        accuracy = (logits_BMV.detach().argmax(2) == right_BM).float().mean()
        return {"loss": loss, "accuracy": accuracy}

    def corrupt(self, ids_BL: Tensor, at_BM: Tensor, batch: Batch) -> Tensor:
        """The window as the encoder sees it, int64 (B, L)."""
        share_BM = batch.draws.uniform(at_BM.shape[1])
        any_BM = batch.draws.integers(self.inputs.vocabulary, at_BM.shape[1])
        masked, random = self.options.masked, self.options.random
        there_BM = ids_BL.gather(1, at_BM)
        made_BM = torch.where(share_BM < masked + random, any_BM, there_BM)
        made_BM = torch.where(share_BM < masked, self.inputs.mask_id, made_BM)
        return ids_BL.scatter(1, at_BM, made_BM)

    def predict(self, tokens_BND: Tensor) -> Tensor:
        """Logits of the vocabulary, float32 (B, N, V)."""
        x_BND = self.norm(F.gelu(self.dense(tokens_BND)))
        return F.linear(x_BND, self.encoder.token_embed.weight, self.bias).float()

    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """Predicts every token; all hidden ones are [MASK], none random and none as it is."""
        logits_BLV = self.predict(self.encoder(images, mask).patches)
        return Reconstruction(logits_BLV, images, TOKENS)
