"""The masked autoencoder's options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from maebench.objectives.decoder import Decoding
from maebench.objectives.objective import Inputs

if TYPE_CHECKING:
    from torch import nn

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
    frequencies, or the tokens that a slow copy of the encoder makes of the whole image. It is
    cheap, for hidden patches are not encoded; losses of different targets do not compare.

    loss = mean over images, patches and numbers of d(prediction - target)
    d(e) = e^2 (mse), |e| (l1), or e^2 / 2 where |e| < 1 and |e| - 1/2 elsewhere (smooth-l1)
    patches = the hidden ones, a share of them, or all
    target = pixels, or (pixels - their mean) / sqrt(their variance + 1e-6), or one named above
    Source: He et al. 2021, arXiv 2111.06377, section 3; decoder=cross-attention: Fu et al. 2024,
    arXiv 2401.14391, section 3; targets: Wei et al. 2022, arXiv 2112.09133 (hog), Liu et al. 2023,
    arXiv 2303.02416 (low-pass), Baevski et al. 2022, arXiv 2202.03555 (features).
    """

    name: ClassVar[str] = "mae"
    target: Literal["pixels", "normalised-pixels", "hog", "low-pass", "features"] = Field(
        "normalised-pixels",
        description="what is predicted of a patch: pixels, pixels normalised in it, histograms of "
        "gradients, pixels without high frequencies, or a slow copy's tokens [arXiv 2111.06377, "
        "2112.09133, 2303.02416, 2202.03555]",
    )
    hog_cell: PositiveInt | None = Field(
        None,
        description="of hog: side of a histogram's cell in pixels; default half the patch, or the "
        "patch where that would be under 2 [MaskFeat: 8 of 16]",
        examples=[4],
    )
    low_pass: float = Field(
        0.36,
        gt=0,
        le=1,
        description="of low-pass: radius that is kept as a share of the highest frequency [PixMIM: "
        "40 of 112]",
    )
    teacher_layers: PositiveInt | None = Field(
        None,
        description="of features: number of last blocks whose tokens are averaged; default 6, or "
        "as many as there are [data2vec]",
        examples=[1],
    )
    teacher_decay: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="of features: decay of the slow copy per update, less in the first thousands, "
        "(1 + n) / (10 + n) after n [data2vec: 0.9998 in longer runs]",
    )
    decoder: Literal["transformer", "cross-attention"] = Field(
        "transformer",
        description="how patches are decoded: all together, or each alone from the encoder's "
        "tokens [arXiv 2111.06377, 2401.14391]",
    )
    share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="of cross-attention: share of the hidden patches that is predicted, others "
        "each step; default a third [CrossMAE: 25 % of all at ratio 0.75]",
        examples=[0.5],
    )
    loss: Literal["mse", "l1", "smooth-l1"] = Field(
        "mse",
        description="error of a number: squared, absolute, or squared below 1 and absolute above",
    )
    on: Literal["hidden", "all"] = Field(
        "hidden", description="patches whose predictions are compared [hidden: arXiv 2111.06377]"
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
        from maebench.objectives.mae_module import MaskedAutoencoder, TaughtAutoencoder

        kind = TaughtAutoencoder if self.target == "features" else MaskedAutoencoder
        return kind(self, encoder, size, inputs)
