"""The masked autoencoder as a torch module.

Shape suffixes: B images, L patches, M hidden patches, P prefix tokens, N tokens, D decoder width,
T = p * q * C numbers of a patch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from maebench.encoders.vit_module import (
    choose_attention,
    initialise,
    make_block,
    norm_layer,
    sincos_positions,
)
from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import patchify, take, unpatchify
from maebench.objectives.objective import Batch, Inputs, Reconstruction

if TYPE_CHECKING:
    from maebench.objectives.mae import MAE, DecoderSize

VARIANCE_EPS = 1e-6  # official MAE code, models_mae.py, forward_loss


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and loss; parameters have the names of the official MAE code."""

    def __init__(self, options: MAE, encoder: Any, size: DecoderSize, inputs: Inputs) -> None:
        super().__init__()
        self.normalised = options.target == "normalised-pixels"
        self.patch = encoder.patch
        # A hierarchical encoder ends on a coarser grid: each token then predicts a larger cell.
        self.grid = encoder.out_grid
        H, W = inputs.image_size
        self.cell = (H // self.grid[0], W // self.grid[1])
        D = size.width
        decoder: Any = nn.Module()
        decoder.decoder_embed = nn.Linear(encoder.width, D)
        decoder.mask_token = nn.Parameter(torch.empty(1, 1, D))
        decoder.decoder_blocks = nn.ModuleList(make_block(D, size.heads) for _ in range(size.depth))
        decoder.decoder_norm = norm_layer(D)
        decoder.decoder_pred = nn.Linear(D, self.cell[0] * self.cell[1] * inputs.channels)
        decoder.decoder_pos_embed = nn.Parameter(
            sincos_positions(self.grid, D)[None], requires_grad=False
        )
        initialise(decoder)
        self.decoder: Any = decoder
        self.encoder: Any = encoder

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss: mean over images and hidden patches of the squared error."""
        if batch.mask is None:
            raise ConfigError("objective 'mae' needs a masking: it scores hidden patches")
        hidden_BM = hidden_places(batch.mask)
        prediction_BMT = self._decode(batch.images, batch.mask, hidden_BM)
        target_BMT = take(self.target(batch.images), hidden_BM)
        return {"loss": (prediction_BMT.float() - target_BMT).square().mean()}

    def reconstruct(self, images: Tensor, mask: Mask) -> Reconstruction:
        """Predicts every patch; only hidden ones are trained, so only they mean something."""
        prediction_BLT = self._decode(images, mask).float()
        target_BLT = self.target(images)
        if not self.normalised:
            return Reconstruction(
                prediction_BLT, target_BLT, "pixels", prediction_BLT, "as predicted"
            )
        patches_BLT = patchify(images.float(), self.patch)
        mean_BL1, std_BL1 = statistics_from_seen(patches_BLT, mask)
        true_variance, true_mean = torch.var_mean(patches_BLT, dim=-1, keepdim=True)
        return Reconstruction(
            prediction_BLT,
            target_BLT,
            "normalised-pixels",
            prediction_BLT * std_BL1 + mean_BL1,
            "mean and deviation of each patch interpolated from the seen patches",
            prediction_BLT * (true_variance + VARIANCE_EPS).sqrt() + true_mean,
        )

    def target(self, images: Tensor) -> Tensor:
        """What is to be predicted, float32 (B, L, T)."""
        patches_BLT = patchify(images.float(), self.patch)
        if not self.normalised:
            return patches_BLT
        # var is unbiased, as in the official code
        variance, mean = torch.var_mean(patches_BLT, dim=-1, keepdim=True)
        return (patches_BLT - mean) / (variance + VARIANCE_EPS).sqrt()

    def _decode(self, images: Tensor, mask: Mask, at_BM: Tensor | None = None) -> Tensor:
        """Predictions of all patches, or of those at `at_BM`."""
        decoder = self.decoder
        tokens = self.encoder(images, mask)
        prefix_BPD = decoder.decoder_embed(tokens.prefix)
        embedded = type(tokens)(
            prefix_BPD, decoder.decoder_embed(tokens.patches), tokens.grid, tokens.seen
        )
        x_BLD = embedded.on_grid(decoder.mask_token) + decoder.decoder_pos_embed
        x_BND = torch.cat([prefix_BPD, x_BLD.to(prefix_BPD.dtype)], 1)
        choose_attention(decoder.decoder_blocks, x_BND)
        for block in decoder.decoder_blocks:
            x_BND = block(x_BND)
        x_BLD = x_BND[:, prefix_BPD.shape[1] :]
        if at_BM is not None and self.cell == self.patch:  # the head only where the loss is
            return decoder.decoder_pred(decoder.decoder_norm(take(x_BLD, at_BM)))
        x_BLT = decoder.decoder_pred(decoder.decoder_norm(x_BLD))
        if self.cell != self.patch:
            x_BLT = patchify(unpatchify(x_BLT, self.grid, self.cell), self.patch)
        return x_BLT if at_BM is None else take(x_BLT, at_BM)


def hidden_places(mask: Mask) -> Tensor:
    """Where the hidden patches of each image are, int64 (B, M), ascending."""
    return mask.hidden.nonzero()[:, 1].view(len(mask.hidden), mask.num_hidden)


def statistics_from_seen(patches_BLT: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch, a hidden one's from the seen ones by inverse distance.

    Returns:
        Two tensors float32 (B, L, 1); a seen patch has its own statistics. Weights are one over
        the squared distance between patch centres (Shepard 1968).
    """
    variance, mean = torch.var_mean(patches_BLT, dim=-1)
    own_BL2 = torch.stack([mean, (variance + VARIANCE_EPS).sqrt()], -1)
    h, w = mask.grid
    places = (
        torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1)
        .view(-1, 2)
        .to(patches_BLT)
    )
    weight_BLK = torch.cdist(places, places)[:, mask.seen].permute(1, 0, 2).pow(-2)
    own = weight_BLK.isinf()
    weight_BLK = torch.where(own.any(-1, keepdim=True), own.to(weight_BLK), weight_BLK)
    blended_BL2 = weight_BLK @ take(own_BL2, mask.seen) / weight_BLK.sum(-1, keepdim=True)
    return blended_BL2[..., :1], blended_BL2[..., 1:]
