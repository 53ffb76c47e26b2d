"""Guided: the patches that a model attends to, or finds hard, are hidden."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from maebench.errors import PluginError
from maebench.masking.mask import Masking, View, refuse_where


class Guided(Masking):
    """What the learned strategies share: a share of the hidden patches follows a guide."""

    of: Literal["teacher", "encoder"] = Field(
        default="teacher",
        description="who is asked: an EMA teacher of the model, or the model as it is",
    )
    start: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of the hidden patches that is guided at the start",
    )
    end: float = Field(
        default=1.0, ge=0, le=1, description="share of the hidden patches that is guided at the end"
    )

    @property
    def answered_by(self) -> Literal["teacher", "encoder"]:
        """Who is asked."""
        return self.of

    def guide(self, view: View) -> Tensor:
        """How much each patch is wanted hidden, float (B, L)."""
        raise NotImplementedError(f"{type(self).__name__} has no guide(view)")

    def scores(self, view: View) -> Tensor:
        """The first of the guide, then the others at random, float32 (B, L)."""
        share = self.start + (self.end - self.start) * view.progress
        rank_BL = ranks(self.guide(view), view).float()
        guided = rank_BL < round(share * view.num_hidden)
        return torch.where(guided, view.length - rank_BL, view.draws.uniform(view.length))


class Attention(Guided):
    """Hides the patches that the class token attends to most, as AttMask does.

    `hint` shows some of the most attended ones again; `low` hides the least attended. The
    original hides in half of the images only, and other shares in each batch.
    Source: Kakogeorgiou et al. 2022, arXiv 2203.12719.
    """

    name: ClassVar[str] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    hide: Literal["high", "hint", "low"] = Field(
        default="high", description="most attended, most attended but some, or least attended"
    )
    reveal: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="of hint: share of the hidden count that is shown again, drawn by attention "
        "from the same share of all patches",
    )

    def guide(self, view: View) -> Tensor:
        """Attention, or its opposite; hints come last, float (B, L)."""
        attention_BL = view.attention().float()
        if self.hide == "low":
            return -attention_BL
        if self.hide == "high":
            return attention_BL
        top = ranks(attention_BL, view) < max(1, round(self.reveal * view.length))
        # drawn without replacement in proportion to attention: Gumbel's maxima, arXiv 1903.06059
        # at least 2^-25, below which nothing but 0 is drawn; 1 is never drawn, and must not be made
        gumbel_BL = -(-view.draws.uniform(view.length).clamp(min=2.0**-25).log()).log()
        drawn_BL = attention_BL.clamp(min=1e-12).log() + gumbel_BL
        lowest = drawn_BL.amin(1, keepdim=True) - 1
        hint = ranks(drawn_BL.where(top, lowest), view) < max(
            1, round(self.reveal * view.num_hidden)
        )
        return (-attention_BL - 1).where(hint & top, attention_BL)


class Hard(Guided):
    """Hides the patches that are predicted worst, more of them as training goes on.

    The loss of a patch is that of this very crop when its half of the image is hidden from the
    teacher; HPM, which this follows, learns to predict that loss by a decoder of its own.
    Source: Wang et al. 2023, arXiv 2304.05919.
    """

    name: ClassVar[str] = "hard"
    needs: ClassVar[frozenset[str]] = frozenset({"patch_loss"})
    start: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the hidden patches that is guided at the start",
    )
    end: float = Field(
        default=0.5, ge=0, le=1, description="share of the hidden patches that is guided at the end"
    )

    def guide(self, view: View) -> Tensor:
        """The loss of each patch, float (B, L)."""
        return view.patch_loss()


def ranks(guide_BL: Tensor, view: View) -> Tensor:
    """The place of each patch, 0 for the highest, equal ones in random order, int64 (B, L).

    Raises:
        PluginError: the guide has another shape or is not finite.
    """
    wanted = (view.batch, view.length)
    if tuple(guide_BL.shape) != wanted:
        raise PluginError(f"a guide must be (B, L) = {wanted}, got {tuple(guide_BL.shape)}")
    refuse_where(
        guide_BL.isfinite().all().logical_not(),
        PluginError("the guide of a masking is not finite: no order can be made of it"),
    )
    shuffled_BL = view.draws.uniform(view.length).argsort(1)
    order_BL = guide_BL.gather(1, shuffled_BL).argsort(dim=1, descending=True, stable=True)
    return shuffled_BL.gather(1, order_BL).argsort(1)
