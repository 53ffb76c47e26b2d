"""The masked autoencoder as it was when it had no parts to choose: an oracle to the last bit."""

from __future__ import annotations

from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import nn


class FrozenMAE(nn.Module):
    """One module, without anything of maebench but the encoder that it is given."""

    def __init__(self, encoder, size, channels, normalised):
        super().__init__()
        depth, width, heads = size
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.patch, self.grid, self.normalised = encoder.patch, encoder.grid, normalised
        decoder = nn.Module()
        decoder.decoder_embed = nn.Linear(encoder.width, width)
        decoder.mask_token = nn.Parameter(torch.empty(1, 1, width))
        decoder.decoder_blocks = nn.ModuleList(
            Block(width, heads, 4.0, qkv_bias=True, norm_layer=norm) for _ in range(depth)
        )
        decoder.decoder_norm = norm(width)
        decoder.decoder_pred = nn.Linear(width, self.patch[0] * self.patch[1] * channels)
        decoder.decoder_pos_embed = nn.Parameter(places(self.grid, width), requires_grad=False)
        for part in decoder.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)
        nn.init.normal_(decoder.mask_token, std=0.02)
        self.decoder, self.encoder = decoder, encoder

    def forward(self, images, mask):
        d, tokens = self.decoder, self.encoder(images, mask)
        prefix, given = d.decoder_embed(tokens.prefix), d.decoder_embed(tokens.patches)
        index = tokens.seen[:, :, None].expand_as(given)
        full = d.mask_token.expand(len(images), mask.hidden.shape[1], given.shape[2])
        x = torch.cat([prefix, full.scatter(1, index, given) + d.decoder_pos_embed], 1)
        for block in d.decoder_blocks:
            block.attn.fused_attn = False
            x = block(x)
        return d.decoder_pred(d.decoder_norm(at_hidden(x[:, prefix.shape[1] :], mask)))

    def loss(self, images, mask):
        (h, w), (p, q) = self.grid, self.patch
        x = images.unflatten(2, (h, p)).unflatten(4, (w, q))  # image, channel, h, p, w, q
        patches = x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        if self.normalised:
            variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
            patches = (patches - mean) / (variance + 1e-6).sqrt()
        return (self(images, mask) - at_hidden(patches, mask)).square().mean()


def at_hidden(x, mask):
    index = torch.stack([row.nonzero()[:, 0] for row in mask.hidden])
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def places(grid, width):
    """Sin-cos positions, columns in the first half."""
    quarter = torch.arange(width // 4, dtype=torch.float64) / (width / 4)
    rows, columns = torch.meshgrid(*(torch.arange(n).double() for n in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * 10000.0**-quarter for axis in (columns, rows)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1).float()[None]
