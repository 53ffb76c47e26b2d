"""Transformers on token ids: the vision transformer's blocks, or BERT's.

Shape suffixes: B windows, L tokens of a window, K seen tokens, N tokens with the class token,
D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from maebench.encoders.attention import attention_of_class, choose_attention
from maebench.encoders.blocks import Block, drop_paths, initialise, norm_layer, sincos_line
from maebench.encoders.encoder import EncoderModule, Tokens
from maebench.encoders.inputs import TEXT, Inputs
from maebench.encoders.sizes import Micro, Nano, Small, Tiny, Transformer
from maebench.masking.mask import Mask
from maebench.masking.patches import take

BERT_EPS, BERT_STD = 1e-12, 0.02  # arXiv 1810.04805, official code: modeling.py


class TextTransformer(Transformer):
    """A transformer on token ids, after that of [CLS]; a window is a line of patches of one token.

    Hidden tokens are dropped as the masked autoencoder drops patches, or for objectives that ask
    for it (`bert`) replaced by the token [MASK]. norm=pre is the vision transformer's blocks and
    fixed positions, on embeddings times the root of their width (Vaswani et al. 2017, arXiv
    1706.03762, section 3.4); norm=post is BERT, with learned positions, and a norm after each sum
    (Devlin et al. 2018, arXiv 1810.04805).
    """

    takes: ClassVar[tuple[str, ...]] = (TEXT,)

    norm: Literal["pre", "post"] = Field(
        default="pre",
        description="pre: norms before each branch, as the vision transformer; post: after, and "
        "learned positions, as BERT",
    )

    def build(self, inputs: Inputs) -> EncoderModule:
        """The torch module, freshly initialised."""
        self.check_width()
        return TextModule(self, inputs)


class TextNano(Nano, TextTransformer):
    """A transformer of width 64 with 3 blocks, as vit-nano: minutes on a laptop."""

    name: ClassVar[str] = "text-nano"


class TextMicro(Micro, TextTransformer):
    """A transformer of width 128 with 4 blocks, as vit-micro."""

    name: ClassVar[str] = "text-micro"


class TextTiny(Tiny, TextTransformer):
    """A transformer of width 192 with 12 blocks, as vit-tiny."""

    name: ClassVar[str] = "text-tiny"


class TextSmall(Small, TextTransformer):
    """A transformer of width 384 with 12 blocks, as vit-small."""

    name: ClassVar[str] = "text-small"


class TextBase(TextTransformer):
    """A transformer of width 768 with 12 blocks, as vit-base; with norm=post it is BERT base."""

    name: ClassVar[str] = "text-base"


class PostNormBlock(Block):
    """A transformer block with a norm after each sum, as Vaswani et al. 2017, arXiv 1706.03762."""

    def forward(self, x_BND: Tensor, at_BM: Tensor | None = None) -> Tensor:
        """All tokens (B, N, D), or those at `at_BM` (B, M, D), having looked at all tokens."""
        asked = x_BND if at_BM is None else take(x_BND, at_BM)
        x_BND = self.norm1(asked + self.drop_path1(self.attn(x_BND, at_BM)))
        return self.norm2(x_BND + self.drop_path2(self.mlp(x_BND)))


class TextModule(nn.Module):
    """A transformer on token ids; see `maebench.encoders.encoder.EncoderModule`."""

    def __init__(self, options: TextTransformer, inputs: Inputs) -> None:
        super().__init__()
        (length,) = inputs.shape
        self.inputs = inputs
        self.patch = (1, 1)
        self.grid = self.out_grid = (1, length)
        self.width = D = options.width
        self.depth, self.prefix = options.depth, 1
        self.replaces = False  # until keep_positions()
        post = options.norm == "post"

        self.token_embed = nn.Embedding(inputs.vocabulary, D)
        positions_LD = sincos_line(length, D)
        self.pos_embed = nn.Parameter(
            torch.cat([torch.zeros(1, D), positions_LD])[None], requires_grad=post
        )
        self.scale = 1.0 if post else math.sqrt(D)
        self.embed_norm = nn.LayerNorm(D, eps=BERT_EPS) if post else nn.Identity()
        kind = PostNormBlock if post else Block
        self.blocks = nn.ModuleList(
            kind(D, options.heads, options.mlp_ratio) for _ in range(self.depth)
        )
        self.norm = nn.Identity() if post else norm_layer(D)
        initialise(self)
        nn.init.normal_(self.token_embed.weight, std=BERT_STD if post else D**-0.5)
        if post:
            nn.init.normal_(self.pos_embed, std=BERT_STD)
            self._as_bert()

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Encodes token ids, int64 (B, L), and sees `mask.seen` of them, or all without a mask."""
        self.inputs.check(tuple(images.shape[1:]), "the encoder")
        x_BND = self._embed(images, mask)
        seen = None if mask is None or self.replaces else mask.seen
        kept: dict[int, Tokens] = {}
        for number, block in enumerate(self.blocks, 1):
            x_BND = block(x_BND)
            if number in layers:
                kept[number] = self._tokens(x_BND, seen)
        return self._tokens(self.norm(x_BND), seen, kept)

    def attention(self, images: Tensor) -> Tensor:
        """Attention of the class token to each token in the last block, mean over heads, (B, L)."""
        x_BND = self._embed(images, None)
        for block in self.blocks[:-1]:
            x_BND = block(x_BND)
        last: Any = self.blocks[-1]
        normed = x_BND if isinstance(last, PostNormBlock) else last.norm1(x_BND)
        return attention_of_class(last.attn, normed)[:, self.prefix :]

    def keep_positions(self) -> None:
        """From now on hidden tokens are replaced by [MASK] instead of dropped."""
        self.replaces = True

    def layer_ids(self) -> dict[str, int]:
        """The layer of each parameter, as the vision transformer's."""
        return {name: self._layer(name) for name, _ in self.named_parameters()}

    def no_weight_decay(self) -> set[str]:
        """The positions."""
        return {"pos_embed"}

    def set_drop_path(self, rate: float) -> None:
        """Drops residual branches with a rate that grows linearly to `rate` in the last block."""
        drop_paths(self.blocks, rate, self.training)

    def _embed(self, ids_BL: Tensor, mask: Mask | None) -> Tensor:
        positions_BND = self.pos_embed[:, 1:]
        if mask is not None and self.replaces:
            ids_BL = torch.where(mask.hidden, self.inputs.mask_id, ids_BL)
        elif mask is not None:
            ids_BL = ids_BL.gather(1, mask.seen)
            positions_BND = positions_BND[0][mask.seen]
        x_BND = self.token_embed(ids_BL) * self.scale + positions_BND
        first_D = self.token_embed.weight[self.inputs.class_id] * self.scale + self.pos_embed[0, 0]
        x_BND = self.embed_norm(torch.cat([first_D.expand(len(ids_BL), 1, -1), x_BND], 1))
        choose_attention(self.blocks, x_BND)
        return x_BND

    def _tokens(
        self, x_BND: Tensor, seen: Tensor | None, layers: dict[int, Tokens] | None = None
    ) -> Tokens:
        return Tokens(x_BND[:, :1], x_BND[:, 1:], self.grid, seen, layers or {})

    def _layer(self, name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.depth + 1 if name.startswith("norm.") else 0

    def _as_bert(self) -> None:
        """Weights and epsilons as in BERT's official code: normal, of deviation .02, no biases."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=BERT_STD)
            elif isinstance(part, nn.LayerNorm):
                part.eps = BERT_EPS
