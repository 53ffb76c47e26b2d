"""What pretraining minimises: encoder, decoder, target and loss behind one contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from maebench.component import Component
from maebench.encoders.encoder import EncoderModule
from maebench.encoders.inputs import IMAGES, Inputs
from maebench.masking.mask import Mask
from maebench.rng import Draws

TOKENS = "tokens"  # the space of predictions of tokens


@dataclass(frozen=True)
class Batch:
    """What an objective gets in one step; fields are only ever added.

    Args:
        images: what the encoder gets: float32 (B, C, H, W), normalised; of text the token ids,
            int64 (B, L), and of other kinds their own.
        ids: sample ids, int64 (B,).
        draws: random numbers per sample, for the objective alone.
        mask: which patches are hidden; None for an objective that hides none.
        labels: int64 (B,), or None where the data set has none.
        progress: how far pretraining is, 0 to 1.
    """

    images: Tensor
    ids: Tensor
    draws: Draws
    mask: Mask | None = None
    labels: Tensor | None = None
    progress: float = 0.0

    def split(self, size: int) -> list[Batch]:
        """The batch in parts of at most `size` images; each image keeps its random numbers."""
        if size >= len(self.ids):
            return [self]
        ids = self.ids.split(size)
        masks = [None] * len(ids) if self.mask is None else self.mask.split(size)
        labels = [None] * len(ids) if self.labels is None else self.labels.split(size)
        draws = [self.draws.at(slice(i * size, i * size + len(part))) for i, part in enumerate(ids)]
        parts = zip(self.images.split(size), ids, draws, masks, labels, strict=True)
        return [Batch(*part, self.progress) for part in parts]


@dataclass(frozen=True)
class Reconstruction:
    """What a decoder makes of the hidden patches.

    Args:
        prediction: float32 (B, L, T), in `space`; of tokens the logits of the vocabulary.
        target: the truth in the same space, float32 (B, L, T); of tokens their ids, int64 (B, L).
        space: "pixels", "normalised-pixels", "low-pass pixels", "hog", "features", "tokens", or a
            plugin's own.
        pixels: the prediction as patches of pixels in the encoder's input range, float32
            (B, L, p*q*C), made without any true statistic of a hidden patch; None where there is
            no such way.
        how: how the pixels were made, for the table; where there are none, why.
        oracle: the prediction as pixels with the true mean and deviation of each hidden patch:
            it leaks two numbers a patch and is never in a headline metric; None where the
            prediction needs no statistics.
        whole: every patch as pixels when the model is given the whole image, float32
            (B, L, p*q*C): how much of an image it keeps, no guess at what is hidden; None where
            the objective learns hidden patches alone.
    """

    prediction: Tensor
    target: Tensor
    space: str
    pixels: Tensor | None = None
    how: str = ""
    oracle: Tensor | None = None
    whole: Tensor | None = None

    def errors(self) -> Tensor:
        """The error of each patch, float32 (B, L): mean square, or of tokens - log p in nats."""
        if self.space == TOKENS:
            return F.cross_entropy(self.prediction.transpose(1, 2), self.target, reduction="none")
        return (self.prediction - self.target).square().mean(-1)


@dataclass(frozen=True)
class ImageGrid:
    """A picture of an objective's own: rows and columns of images.

    Args:
        images: float32 (rows, columns, C, H, W), in the encoder's input range.
        rows: a text for each row, or none.
        columns: a text for each column, or none.
    """

    images: Tensor
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


class Objective(Component):
    """What pretraining minimises.

    `hides` is False where no patch is hidden, `needs_labels` is True where labels are.

    The module that `build` returns has `forward(batch) -> dict` with a scalar `loss` and any
    other numbers to log, and where it makes sense `after_step(progress)`, called after each
    update, `reconstruct(images, mask) -> Reconstruction`, and `pictures(images, draws)`: pictures
    of its own by name, each an ImageGrid, made from a few images. It holds the encoder as
    `.encoder`.

    `no_decoder` says why a module has no `reconstruct`, `takes` names the kinds of inputs that it
    learns from.
    """

    kind: ClassVar[str] = "objective"
    hides: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    no_decoder: ClassVar[str] = ""
    takes: ClassVar[tuple[str, ...]] = (IMAGES,)

    @property
    def loss_on(self) -> Literal["hidden", "all"]:
        """Which patches' targets the loss compares; overridden where an option decides."""
        return "hidden" if self.hides else "all"

    def build(self, encoder: EncoderModule, inputs: Inputs) -> nn.Module:
        """A fresh module around `encoder`; called inside `rng.isolated`.

        Raises:
            ConfigError: an option does not fit this encoder.
        """
        raise NotImplementedError(f"{type(self).__name__} has no build(encoder, inputs)")

    def notes(self, encoder: EncoderModule, inputs: Inputs) -> tuple[str, ...]:
        """What a user should know before a run with this encoder begins; each is a warning."""
        return ()
