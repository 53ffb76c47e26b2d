"""The masked autoencoder: options, encoder, decoder, target and loss.

Shape suffixes: B images, L patches, M patches that are scored, T dimension of a patch's target.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from maebench.encoders.encoder import Tokens
from maebench.encoders.inputs import IMAGES, TEXT, Inputs
from maebench.errors import ConfigError
from maebench.masking.mask import Mask, hide
from maebench.objectives.decoders import (
    CrossAttentionDecoder,
    DecoderSize,
    Decoding,
    TransformerDecoder,
)
from maebench.objectives.objective import Batch, Reconstruction
from maebench.objectives.targets import (
    Features,
    Hog,
    LowPass,
    NormalisedPixels,
    Pixels,
    Target,
    TokenIds,
    deviation_over_images,
    taken,
)

# what each of these options is read with: another option and its value
READ_WITH = {
    "hog_cell": ("target", "hog"),
    "low_pass": ("target", "low-pass"),
    "teacher_layers": ("target", "features"),
    "teacher_decay": ("target", "features"),
    "share": ("decoder", "cross-attention"),
}
# options that came after runs had been made without them
LATER = (*READ_WITH, "decoder", "loss", "on")


class MAE(Decoding):
    """The encoder sees a few patches, and a small decoder guesses the others from its tokens.

    What is guessed of a patch is its pixels, its histograms of gradients, its pixels without high
    frequencies, or the tokens that an EMA teacher makes of the whole image. It is
    cheap, for hidden patches are not encoded; losses of different targets do not compare.

    loss = mean over images, patches and dimensions of d(prediction - target); of text - log p
    d(e) = e^2 (mse), |e| (l1), or e^2 / 2 where |e| < 1 and |e| - 1/2 elsewhere (smooth-l1)
    patches = the hidden ones, a share of them, or all
    target = pixels, or (pixels - their mean) / sqrt(their variance + 1e-6), or one named above
    Source: He et al. 2021, arXiv 2111.06377, section 3; decoder=cross-attention: Fu et al. 2024,
    arXiv 2401.14391, section 3; targets: Wei et al. 2022, arXiv 2112.09133 (hog), Liu et al. 2023,
    arXiv 2303.02416 (low-pass), Baevski et al. 2022, arXiv 2202.03555 (features).
    """

    name: ClassVar[str] = "mae"
    takes: ClassVar[tuple[str, ...]] = (IMAGES, TEXT)
    target: Literal["pixels", "normalised-pixels", "hog", "low-pass", "features"] = Field(
        default="normalised-pixels",
        description="what is predicted of a patch: pixels, pixels normalised in it, histograms of "
        "gradients, pixels without high frequencies, or an EMA teacher's tokens [arXiv 2111.06377, "
        "2112.09133, 2303.02416, 2202.03555]",
    )
    hog_cell: PositiveInt | None = Field(
        default=None,
        description="of hog: side of a histogram's cell in pixels; default half the patch, or the "
        "patch where that would be under 2 [MaskFeat: 8 of 16]",
        examples=[4],
    )
    low_pass: float = Field(
        default=0.36,
        gt=0,
        le=1,
        description="of low-pass: radius that is kept as a share of the highest frequency [PixMIM: "
        "40 of 112]",
    )
    teacher_layers: PositiveInt | None = Field(
        default=None,
        description="of features: number of last blocks whose tokens are averaged; default 6, or "
        "as many as there are [data2vec]",
        examples=[1],
    )
    teacher_decay: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="of features: decay of the EMA teacher per update, less in the first "
        "thousands, (1 + n) / (10 + n) after n [data2vec: 0.9998 in longer runs]",
    )
    decoder: Literal["transformer", "cross-attention"] = Field(
        default="transformer",
        description="how patches are decoded: all together, or each alone from the encoder's "
        "tokens [arXiv 2111.06377, 2401.14391]",
    )
    share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="of cross-attention: share of the hidden patches that is predicted, others "
        "each step; default a third [CrossMAE: 25 % of all at ratio 0.75]",
        examples=[0.5],
    )
    loss: Literal["mse", "l1", "smooth-l1"] = Field(
        default="mse",
        description="error of a number: squared, absolute, or squared below 1 and absolute above",
    )
    on: Literal["hidden", "all"] = Field(
        default="hidden",
        description="patches whose predictions are compared [hidden: arXiv 2111.06377]",
    )

    @property
    def loss_on(self) -> Literal["hidden", "all"]:
        """As the option says."""
        return self.on

    def model_post_init(self, _: object) -> None:
        """Refuses options that nothing reads, and targets that a decoder cannot give."""
        for option, (reader, value) in READ_WITH.items():
            default = type(self).model_fields[option].default
            if getattr(self, option) != default and getattr(self, reader) != value:
                raise ValueError(
                    f"{option} is read by {reader}={value} alone, given {getattr(self, option)} "
                    f"with {reader}={getattr(self, reader)}"
                )
        if self.on == "all" and self.decoder == "cross-attention":
            raise ValueError(
                "on=all does not fit decoder=cross-attention, which predicts hidden patches "
                "alone; allowed: on=hidden, or decoder=transformer"
            )

    def identity(self) -> dict[str, Any]:
        """All that is set; what came later counts where it is not its default."""
        fields = type(self).model_fields
        unset = {key for key in LATER if getattr(self, key) == fields[key].default}
        return {key: value for key, value in super().identity().items() if key not in unset}

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        """The torch module, its decoder freshly initialised as in the paper."""
        size = self.decoder_size(encoder.width, encoder.depth)

        if inputs.kind == TEXT:
            self._refuse_pixels()
            return TokenAutoencoder(self, encoder, size, inputs)
        kind = FeatureAutoencoder if self.target == "features" else MaskedAutoencoder
        return kind(self, encoder, size, inputs)

    def _refuse_pixels(self) -> None:
        """Refuses options of pixels.

        Raises:
            ConfigError: names the first that is not its default.
        """
        for option in ("target", "loss"):
            if getattr(self, option) != type(self).model_fields[option].default:
                raise ConfigError(
                    f"objective.{option}: {getattr(self, option)} is of images; of text tokens are "
                    "predicted, by their cross entropy"
                )


# CrossMAE predicts 25 % of all patches at a ratio of .75 (arXiv 2401.14391)
SHARE = Fraction(1, 3)


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder, target and loss; the transformer's parameters have official names."""

    def __init__(self, options: MAE, encoder: Any, size: DecoderSize, inputs: Inputs) -> None:
        super().__init__()
        self.options = options
        self.patch = encoder.patch
        self.target: Any = make_target(options, encoder, inputs)
        self.decoder: Any = make_decoder(options, encoder, size, inputs, self.target.dimension)
        self.encoder: Any = encoder

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: mean over images and scored patches of the error."""
        if batch.mask is None:
            raise ConfigError("objective 'mae' needs a masking: it scores hidden patches")
        at_BM = self.scored(batch, batch.mask)
        tokens = self.encode(batch.images, batch.mask)
        prediction_BMT = self.decode(tokens, at_BM)
        target_BMT, logged = self.wanted(batch.images, at_BM)
        return {"loss": self.loss(prediction_BMT, target_BMT), **logged}

    def scored(self, batch: Batch, mask: Mask) -> Tensor | None:
        """Which patches are scored, int64 (B, M), ascending; None for all."""
        if self.options.on == "all":
            return None
        if self.options.decoder == "transformer":
            return mask.places
        count = count_predicted(mask.num_hidden, self.options.share)
        order = batch.draws.uniform(mask.num_hidden).argsort(dim=1, stable=True)
        return mask.places.gather(1, order[:, :count].sort(1).values)

    def encode(self, images: Tensor, mask: Mask) -> Tokens:
        """Tokens of the seen patches alone, and of the layers that the decoder reads."""
        return self.encoder(images, mask, self.decoder.layers)

    def decode(self, tokens: Tokens, at_BM: Tensor | None = None) -> Tensor:
        """Predictions of all patches, or of those at `at_BM`, float32 (B, M, T)."""
        return self.decoder(tokens, at_BM).float()

    def loss(self, prediction_BMT: Tensor, target_BMT: Tensor) -> Tensor:
        """The mean error, a scalar."""
        if self.options.loss == "smooth-l1":
            return F.smooth_l1_loss(prediction_BMT, target_BMT)  # beta 1, torch's
        error_BMT = prediction_BMT - target_BMT
        return error_BMT.abs().mean() if self.options.loss == "l1" else error_BMT.square().mean()

    def wanted(self, images: Tensor, at_BM: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The target where it is scored, (B, M, T), and what is logged beside the loss."""
        return self.target.at(images, at_BM), {}

    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """Predicts every patch; only those that are scored are trained to mean something."""
        made = self._reconstruct(images, mask)
        # a seen patch's own statistics would be most of its pixels
        if self.options.on == "hidden" or made.oracle is not None:
            return made
        nothing = hide(images.new_zeros(mask.hidden.shape), 0, mask.grid)
        return dataclasses.replace(made, whole=self._reconstruct(images, nothing).pixels)

    def _reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        return self.target.reconstruction(self.decode(self.encode(images, mask)), images, mask)


class FeatureAutoencoder(MaskedAutoencoder):
    """A masked autoencoder whose target is made by an EMA teacher of its encoder."""

    def after_step(self, progress: float) -> None:
        """The teacher follows; called after each update."""
        self.target.follow(self.encoder)

    def wanted(self, images: Tensor, at_BM: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """With how much targets differ between images: near 0, the teacher has collapsed."""
        target_BLT = self.target(images)
        return taken(target_BLT, at_BM), {"target_std": deviation_over_images(target_BLT)}


class TokenAutoencoder(MaskedAutoencoder):
    """A masked autoencoder of text: which token a hidden one is, by its cross entropy."""

    def loss(self, prediction_BMT: Tensor, target_BMT: Tensor) -> Tensor:
        """The mean of - log p, a scalar."""
        return F.cross_entropy(prediction_BMT.flatten(0, 1), target_BMT.flatten())

    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """Predicts every token; only those that are scored are trained to mean something."""
        return self._reconstruct(images, mask)


def make_target(options: MAE, encoder: Any, inputs: Inputs) -> Target:
    """What is predicted, as the options say.

    Raises:
        ConfigError: an option does not fit this encoder.
    """
    patch = encoder.patch
    if inputs.kind == TEXT:
        return TokenIds(inputs)
    if options.target == "hog":
        return Hog(patch, inputs, options.hog_cell)
    if options.target == "low-pass":
        return LowPass(patch, inputs, options.low_pass)
    if options.target == "features":
        return Features(encoder, inputs, options.teacher_layers, options.teacher_decay)
    return Pixels(patch, inputs) if options.target == "pixels" else NormalisedPixels(patch, inputs)


def make_decoder(
    options: MAE, encoder: Any, size: DecoderSize, inputs: Inputs, dimension: int
) -> nn.Module:
    """What predicts, as the options say."""
    if options.decoder == "cross-attention":
        return CrossAttentionDecoder(encoder, size, inputs, dimension)
    return TransformerDecoder(encoder.width, size, encoder, dimension)


def count_predicted(num_hidden: int, share: float | None) -> int:
    """How many of the hidden patches are predicted: a share, rounded half up, and at least one.

    In fractions of the share as it is written, as ratios are: .15 * 10 is no 1.5 in floats.
    """
    exact = SHARE if share is None else Fraction(str(share))
    return max(1, math.floor(num_hidden * exact + Fraction(1, 2)))
