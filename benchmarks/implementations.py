"""The masked autoencoder of four libraries and written out plainly, with the same weights.

`benchmarks/peers.py` times them. Shape suffixes: B images, L patches, K kept patches, N tokens,
D width, T numbers of a patch.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from maebench.encoders.blocks import sincos_positions
from maebench.masking.patches import patchify

RATIO = 0.75
TOLERANCE = 1e-5  # relative, of losses and of the norms of gradients in fp32
norm_layer = partial(nn.LayerNorm, eps=1e-6)


@dataclass(frozen=True)
class Size:
    """A model and what it is fed; images and patches are square, and an MLP 4 times as wide."""

    image: int
    patch: int
    channels: int
    batch: int
    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int

    @property
    def grid(self) -> int:
        """Patches of a side."""
        return self.image // self.patch

    @property
    def text(self) -> str:
        """In a line."""
        return (
            f"{self.width} x {self.depth}, patch {self.patch}, {self.image} px, {self.channels} "
            f"channels, batch {self.batch}, decoder {self.decoder_width} x {self.decoder_depth}, "
            f"ratio {RATIO}"
        )


class Plain(nn.Module):
    """The algorithm as published, one operation after the other, with the blocks of timm.

    All patches are embedded, and the seen ones gathered by the order of a noise; the decoder, its
    head and the error are of all tokens, and the mask is applied to the errors.
    Source: He et al. 2021, arXiv 2111.06377, section 3 and appendix A.1.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        D, E, grid = size.width, size.decoder_width, (size.grid, size.grid)
        self.patch = (size.patch, size.patch)
        self.patch_embed = PatchEmbed(size.image, size.patch, size.channels, D)
        self.cls_token = nn.Parameter(torch.empty(1, 1, D))
        self.pos_embed = positions(grid, D)
        self.blocks = nn.ModuleList(block(D, size.heads) for _ in range(size.depth))
        self.norm = norm_layer(D)
        self.decoder_embed = nn.Linear(D, E)
        self.mask_token = nn.Parameter(torch.empty(1, 1, E))
        self.decoder_pos_embed = positions(grid, E)
        self.decoder_blocks = nn.ModuleList(
            block(E, size.decoder_heads) for _ in range(size.decoder_depth)
        )
        self.decoder_norm = norm_layer(E)
        self.decoder_pred = nn.Linear(E, size.patch**2 * size.channels)
        # no weight is 0 or 1, where a mistake would not show
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                shift = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                nn.init.normal_(parameter, shift, 0.05)

    def forward(self, images: Tensor, noise_BL: Tensor | None, class_token: bool = True) -> Tensor:
        """The loss of images (B, C, H, W); the patches of the least noise are seen.

        Args:
            images: the batch.
            noise_BL: drawn where it is None.
            class_token: whether the decoder sees the class token.
        """
        x_BLD = self.patch_embed(images) + self.pos_embed[:, 1:]
        B, L, D = x_BLD.shape
        K = int(L * (1 - RATIO))
        noise_BL = torch.rand(B, L) if noise_BL is None else noise_BL
        order_BL = noise_BL.argsort(dim=1)
        places_BL = order_BL.argsort(dim=1)
        hidden_BL = torch.ones(B, L)
        hidden_BL[:, :K] = 0
        hidden_BL = hidden_BL.gather(1, places_BL)

        x_BKD = x_BLD.gather(1, order_BL[:, :K, None].expand(-1, -1, D))
        cls_B1D = (self.cls_token + self.pos_embed[:, :1]).expand(B, -1, -1)
        x_BND = torch.cat([cls_B1D, x_BKD], 1)
        for one in self.blocks:
            x_BND = one(x_BND)
        x_BND = self.decoder_embed(self.norm(x_BND))

        filled_BLD = torch.cat([x_BND[:, 1:], self.mask_token.expand(B, L - K, -1)], 1)
        filled_BLD = filled_BLD.gather(1, places_BL[:, :, None].expand(-1, -1, x_BND.shape[2]))
        x_BND = torch.cat([x_BND[:, :1], filled_BLD], 1) + self.decoder_pos_embed
        x_BND = x_BND if class_token else x_BND[:, 1:]
        for one in self.decoder_blocks:
            x_BND = one(x_BND)
        predicted_BLT = self.decoder_pred(self.decoder_norm(x_BND))[:, -L:]

        target_BLT = patchify(images, self.patch)
        mean, variance = target_BLT.mean(-1, keepdim=True), target_BLT.var(-1, keepdim=True)
        target_BLT = (target_BLT - mean) / (variance + 1e-6) ** 0.5
        error_BL = ((predicted_BLT - target_BLT) ** 2).mean(-1)
        return (error_BL * hidden_BL).sum() / hidden_BL.sum()

    def set_attention(self, fused: bool) -> None:
        """By the fused kernel, or as two matmuls and a softmax."""
        for one in [*self.blocks, *self.decoder_blocks]:
            one.attn.fused_attn = fused


def block(width: int, heads: int) -> nn.Module:
    """A transformer block of timm as the masked autoencoder has it."""
    return Block(width, heads, 4.0, qkv_bias=True, norm_layer=norm_layer)


def positions(grid: tuple[int, int], width: int) -> nn.Parameter:
    """Fixed positions (1, 1 + L, D), zeros for the class token."""
    all_LD = torch.cat([torch.zeros(1, width), sincos_positions(grid, width)])
    return nn.Parameter(all_LD[None], requires_grad=False)


class Lightly(nn.Module):
    """lightly's parts put together as in its own example, which predicts hidden patches alone.

    Source: github.com/lightly-ai/lightly, examples/pytorch/mae.py (1.6), with the target of the
    paper's best row, `normalize_mean_var` of lightly, in place of raw pixels.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        from lightly.models import modules, utils

        self.utils, self.patch = utils, size.patch
        self.backbone = modules.MaskedVisionTransformerTIMM(vit=vit(size))
        self.decoder_embed = nn.Linear(size.width, size.decoder_width)
        self.decoder = modules.MaskedVisionTransformerDecoderTIMM(
            num_patches=size.grid**2,
            embed_dim=size.decoder_width,
            depth=size.decoder_depth,
            num_heads=size.decoder_heads,
        )
        self.prediction_head = nn.Linear(size.decoder_width, size.patch**2 * size.channels)

    def forward(self, images: Tensor, noise_BL: Tensor | None) -> Tensor:
        """The loss of images (B, C, H, W)."""
        B, N = len(images), self.backbone.sequence_length
        if noise_BL is None:
            keep, hide = self.utils.random_token_mask((B, N), RATIO)
        else:
            order = 1 + noise_BL.argsort(dim=1)
            seen = int(order.shape[1] * (1 - RATIO))
            keep = torch.cat([order.new_zeros(B, 1), order[:, :seen]], 1)
            hide = order[:, seen:]
        encoded = self.decoder_embed(self.backbone.encode(images, idx_keep=keep))
        filled = encoded.new_zeros(B, N, encoded.shape[-1])
        filled = self.utils.set_at_index(filled, keep, encoded)
        decoded = self.decoder(filled, idx_mask=hide)
        predicted = self.prediction_head(self.utils.get_at_index(decoded, hide))
        patches = self.utils.patchify(images, self.patch)
        target = self.utils.normalize_mean_var(self.utils.get_at_index(patches, hide - 1))
        return nn.functional.mse_loss(predicted, target)


def vit(size: Size) -> nn.Module:
    """The vision transformer of timm."""
    return VisionTransformer(
        img_size=size.image,
        patch_size=size.patch,
        in_chans=size.channels,
        num_classes=0,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        norm_layer=norm_layer,
    )


def lightly(size: Size, weights: dict[str, Tensor]) -> nn.Module:
    """The parts of lightly with these weights of the plain one."""
    model = Lightly(size)
    ours = {f"backbone.vit.{n}": t for n, t in weights.items() if not of_decoder(n)}
    for name, tensor in weights.items():
        if name.startswith("decoder_embed"):
            ours[name] = tensor
        elif name.startswith("decoder_pred"):
            ours[name.replace("decoder_pred", "prediction_head")] = tensor
        elif of_decoder(name):
            ours["decoder." + name.removeprefix("decoder_")] = tensor
    unused = {"backbone.mask_token": model.backbone.mask_token}  # it drops what is hidden
    model.load_state_dict(ours | unused)
    return model


def hugging_face(size: Size, weights: dict[str, Tensor]) -> nn.Module:
    """Hugging Face's ViTMAEForPreTraining with these weights of the plain one."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    model = ViTMAEForPreTraining(
        ViTMAEConfig(
            hidden_size=size.width,
            num_hidden_layers=size.depth,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.width,
            layer_norm_eps=1e-6,
            image_size=size.image,
            patch_size=size.patch,
            num_channels=size.channels,
            decoder_num_attention_heads=size.decoder_heads,
            decoder_hidden_size=size.decoder_width,
            decoder_num_hidden_layers=size.decoder_depth,
            decoder_intermediate_size=4 * size.decoder_width,
            mask_ratio=RATIO,
            norm_pix_loss=True,
        )
    )
    found = {}
    for name, tensor in weights.items():
        new = name
        for ours, theirs in (
            ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
            ("cls_token", "embeddings.cls_token"),
            (".norm1.", ".layernorm_before."),
            (".norm2.", ".layernorm_after."),
            (".attn.proj.", ".attention.o_proj."),
            ("blocks.", "layers."),
        ):
            new = new.replace(ours, theirs)
        if new == "pos_embed":
            new = "embeddings.position_embeddings"
        if new.startswith("norm."):
            new = f"layer{new}"
        new = f"decoder.{new}" if of_decoder(name) else f"vit.{new}"
        if ".attn.qkv." in new:
            for which, part in zip("qkv", tensor.chunk(3), strict=True):
                found[new.replace(".attn.qkv.", f".attention.{which}_proj.")] = part
        else:
            found[new] = tensor
    model.load_state_dict(found)
    return model


def stable_pretraining(size: Size, weights: dict[str, Tensor]) -> nn.Module:
    """The MAE of stable-pretraining with these weights of the plain one.

    Its decoder does not see the class token, its norms have torch's eps there, its patches have the
    channel first, and its mask token goes through a linear layer of its own: zero here, with the
    plain mask token as the bias.
    """
    from stable_pretraining.methods.mae import MAE

    model = MAE(
        vit(size),
        decoder_embed_dim=size.decoder_width,
        decoder_depth=size.decoder_depth,
        decoder_num_heads=size.decoder_heads,
        mask_ratio=RATIO,
    )
    start = "decoder.transformer."
    found = {f"encoder.vit.{n}": t for n, t in weights.items() if not of_decoder(n)}
    found |= {n.replace(".vit.", "."): t for n, t in found.items() if ".patch_embed." in n}
    for name, tensor in weights.items():
        for ours, theirs in (
            ("decoder_embed.", "context_proj."),
            ("decoder_pred.", "output_proj."),
            ("decoder_norm.", "final_norm."),
            ("decoder_blocks.", "blocks."),
        ):
            if name.startswith(ours):
                found[start + name.replace(ours, theirs)] = tensor
    for part in ("weight", "bias"):  # channel last to channel first
        name = f"{start}output_proj.{part}"
        apart = found[name].unflatten(0, (size.patch**2, size.channels))
        found[name] = apart.transpose(0, 1).flatten(0, 1)
    found[f"{start}pos_embed"] = weights["decoder_pos_embed"][:, 1:]
    found[f"{start}query_proj.weight"] = torch.zeros(size.decoder_width, size.width)
    found[f"{start}query_proj.bias"] = weights["mask_token"].flatten()
    found["decoder.mask_token"] = torch.zeros(1, 1, size.width)
    model.load_state_dict(found)
    model.encoder.vit.pos_embed.requires_grad_(False)  # fixed, as in all the others
    for part in model.decoder.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = 1e-6
    return model


def of_decoder(name: str) -> bool:
    """Whether a weight of the plain one is its decoder's."""
    return name.startswith("decoder_") or name == "mask_token"


def stable_pretraining_loss(model: nn.Module, images: Tensor, noise_BL: Tensor | None) -> Tensor:
    """The loss of images; it takes no noise, so it is given what it draws."""
    if noise_BL is None:
        return model(images).loss

    def drawn(*shape: int, **_: Any) -> Tensor:
        return noise_BL if shape == tuple(noise_BL.shape) else torch.zeros(shape)

    with mock.patch.object(torch, "rand", drawn):
        return model(images).loss


@dataclass(frozen=True)
class Peer:
    """A library's masked autoencoder.

    Args:
        package: on PyPI.
        module: its name in Python.
        build: from a size and the weights of the plain one.
        loss: of a model, images and noise.
        fused: whether its users get the fused AdamW: transformers' Trainer takes it by default,
            the examples of the other two write torch's `AdamW(parameters)`.
        class_token: whether its decoder sees the class token.
    """

    package: str
    module: str
    build: Callable[[Size, dict[str, Tensor]], nn.Module]
    loss: Callable[[nn.Module, Tensor, Tensor | None], Tensor]
    fused: bool = False
    class_token: bool = True

    @property
    def installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.package} {importlib.metadata.version(self.package)}"


PEERS = (
    Peer(
        "transformers",
        "transformers",
        hugging_face,
        lambda model, images, noise: model(images, noise=noise).loss,
        fused=True,
    ),
    Peer("lightly", "lightly", lightly, lambda model, images, noise: model(images, noise)),
    Peer(
        "stable-pretraining",
        "stable_pretraining",
        stable_pretraining,
        stable_pretraining_loss,
        class_token=False,
    ),
)
