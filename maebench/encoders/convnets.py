"""ConvNeXt and ResNet under masks: timm's blocks, whose hidden cells stay exactly 0.

Shape suffixes: B images, D width of a stage, h w the cells of its map, N seen cells. Parameters of
a block have the names of timm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from maebench.encoders.encoder import Encoder, EncoderModule, Tokens
from maebench.encoders.inputs import Inputs
from maebench.encoders.masked_conv import Seen, mask_layers
from maebench.encoders.sizes import Depths, Side, Widths
from maebench.encoders.stages import first_patch, merged_patch
from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import take

WIDTHS = "width of a cell in each stage; a stage has half as many rows and columns as the last"
DEPTHS = "number of blocks in each stage"
Stage = tuple[nn.Module, Sequence[nn.Module]]  # what leads to it, and its blocks


class ConvNet(Encoder):
    """A convolutional network in stages, masked on the grid of its last one."""

    example: ClassVar[dict[str, Any]] = {"widths": (8, 16), "depths": (1, 1)}

    widths: Widths = Field(
        default=(96, 192, 384, 768), min_length=1, description=WIDTHS, examples=[(16, 16)]
    )
    depths: Depths = Field(
        default=(3, 3, 9, 3), min_length=1, description=DEPTHS, examples=[(1, 2)]
    )
    patch: Side | None = Field(
        default=None,
        description="pixels of a side of a cell of the first stage; default 2 for images up to "
        "32 px, 4 above",
    )

    def patch_size(self, image_size: tuple[int, int]) -> int:
        """The side of a cell of the first stage in pixels.

        Raises:
            ConfigError: the total stride does not divide the image, or widths and depths do not
                belong together.
        """
        patch = self.patch or first_patch(image_size)
        if len(self.widths) != len(self.depths):
            raise ConfigError(
                f"encoder.widths: {self.widths} must name one number for each stage of "
                f"encoder.depths={self.depths}"
            )
        merged_patch(image_size, (patch, patch), self.depths, masked=True)
        return patch

    def parts(self, channels: int, patch: int) -> tuple[nn.Module, list[Stage], nn.Module]:
        """The stem, the stages and what comes after the last block, freshly initialised."""
        raise NotImplementedError(f"{type(self).__name__} has no parts(channels, patch)")

    def build(self, inputs: Inputs) -> EncoderModule:
        """The torch module, freshly initialised as timm's."""
        module = GreyedModule if self.leaky else ConvModule
        return module(self, inputs, self.patch_size(inputs.image_size))


class ConvNeXt(ConvNet):
    """ConvNeXt-V2: depthwise convolutions, and channels that compete (GRN).

    Hidden patches are 0 in the image and after every layer; tokens are the seen cells of the last
    stage. Source: Woo et al. 2023, arXiv 2301.00808; the masks: section 3.1 there, as dense
    convolutions whose hidden cells are 0.
    """

    kernel: Side = Field(
        default=7, description="side of the depthwise convolutions, odd", examples=[3]
    )

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"an odd side is wanted, so that maps keep their size, given {value}")
        return value

    def parts(self, channels: int, patch: int) -> tuple[nn.Module, list[Stage], nn.Module]:
        """Timm's stem, stages and last norm."""
        from timm.layers import LayerNorm2d
        from timm.models.convnext import ConvNeXtStage

        first = self.widths[0]
        stem = nn.Sequential(nn.Conv2d(channels, first, patch, patch), LayerNorm2d(first))
        stages: list[Stage] = []
        before = first
        for number, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            made = ConvNeXtStage(
                *(before, width, self.kernel, 2 if number else 1, depth),
                ls_init_value=None,
                conv_mlp=True,
                use_grn=True,
                norm_layer=LayerNorm2d,
            )
            stages.append((made.downsample, list(made.blocks)))
            before = width
        for part in (stem, *(m for lead, blocks in stages for m in (lead, *blocks))):
            for layer in part.modules():  # timm's own, convnext.py, _init_weights
                if isinstance(layer, nn.Conv2d):
                    nn.init.trunc_normal_(layer.weight, std=0.02)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
        return stem, stages, LayerNorm2d(self.widths[-1])


class ConvNeXtNano(ConvNeXt):
    """A ConvNeXt-V2 of widths 32 and 64 with two stages of 2 blocks: minutes on a laptop."""

    name: ClassVar[str] = "convnext-nano"
    widths: Widths = Field(default=(32, 64), min_length=1, description=WIDTHS, examples=[(16, 16)])
    depths: Depths = Field(default=(2, 2), min_length=1, description=DEPTHS, examples=[(1, 2)])


class ConvNeXtNanoLeaky(ConvNeXtNano):
    """The control: convnext-nano as it is, fed images in which hidden patches are grey.

    It cannot tell what is hidden from what is grey, and every convolution carries what lies around
    into the hole, so that all cells end as tokens. Its weights start as those of convnext-nano.
    """

    name: ClassVar[str] = "convnext-nano-leaky"
    leaky: ClassVar[bool] = True


class ConvNeXtTiny(ConvNeXt):
    """ConvNeXt V2-T: widths 96 to 768, stages of 3, 3, 9 and 3 blocks (arXiv 2301.00808)."""

    name: ClassVar[str] = "convnext-tiny"


class ResNet(ConvNet):
    """A residual network of basic blocks, whose batch norm is over seen cells alone.

    Hidden patches are 0 in the image and after every layer; tokens are the seen cells of the last
    stage. Source: He et al. 2015, arXiv 1512.03385; the masks: Tian et al. 2023, arXiv 2301.03580.
    """

    widths: Widths = Field(
        default=(64, 128, 256, 512), min_length=1, description=WIDTHS, examples=[(16, 16)]
    )
    depths: Depths = Field(
        default=(2, 2, 2, 2), min_length=1, description=DEPTHS, examples=[(1, 2)]
    )

    def parts(self, channels: int, patch: int) -> tuple[nn.Module, list[Stage], nn.Module]:
        """The stem of the paper for patches of 4, one convolution of 3x3 for others; timm's."""
        from timm.models.resnet import BasicBlock, downsample_conv

        first = self.widths[0]
        if patch == 4:
            layers = [nn.Conv2d(channels, first, 7, 2, 3, bias=False), nn.BatchNorm2d(first)]
            stem = nn.Sequential(*layers, nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        else:
            side = max(3, patch + 1 - patch % 2)
            layers = [nn.Conv2d(channels, first, side, patch, side // 2, bias=False)]
            stem = nn.Sequential(*layers, nn.BatchNorm2d(first), nn.ReLU())
        stages: list[Stage] = []
        before = first
        for number, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if number and not block else 1
                lead = None
                if stride > 1 or before != width:
                    lead = downsample_conv(before, width, 1, stride)
                blocks.append(BasicBlock(before, width, stride, lead))
                before = width
            stages.append((nn.Identity(), blocks))
        for _, built in stages:
            for made in built:  # timm's own, resnet.py, init_weights
                made.zero_init_last()  # type: ignore[operator]
        for part in (stem, *(block for _, blocks in stages for block in blocks)):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        return stem, stages, nn.Identity()


class ResNetNano(ResNet):
    """A residual network of widths 32 and 64 with two stages of 2 blocks: minutes on a laptop."""

    name: ClassVar[str] = "resnet-nano"
    widths: Widths = Field(default=(32, 64), min_length=1, description=WIDTHS, examples=[(16, 16)])
    depths: Depths = Field(default=(2, 2), min_length=1, description=DEPTHS, examples=[(1, 2)])


class ResNet18(ResNet):
    """ResNet-18: widths 64 to 512, four stages of 2 blocks (arXiv 1512.03385, table 1)."""

    name: ClassVar[str] = "resnet-18"


class GreyedModule(nn.Module):
    """A convolutional network as it is, hidden patches 0 in the image and nowhere else.

    See `maebench.encoders.encoder.EncoderModule`. `depth` counts the blocks of all stages. Tokens
    of a layer lie on the grid of its stage and are as wide as its stage; what leads to a stage
    belongs to its first block.
    """

    prefix = 0

    def __init__(self, options: ConvNet, inputs: Inputs, patch: int) -> None:
        super().__init__()
        self.inputs = inputs
        side = patch * 2 ** (len(options.depths) - 1)
        self.patch = (side, side)
        (H, W) = inputs.image_size
        self.grid = self.out_grid = (H // side, W // side)
        self.width, self.depth = options.widths[-1], sum(options.depths)
        self.stem, stages, self.norm = options.parts(inputs.channels, patch)
        self.leads = nn.ModuleList(lead for lead, _ in stages)
        self.stages: Any = nn.ModuleList(nn.ModuleList(blocks) for _, blocks in stages)
        self.seen = Seen()

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Encodes images (B, C, H, W), of which hidden patches are 0; all cells end as tokens."""
        with self.seen.of(mask):
            x_BDhw = self._stem(images)
        return self._blocks(x_BDhw, None, layers)

    def _stem(self, images: Tensor) -> Tensor:
        """The map of the first stage."""
        self.inputs.check(tuple(images.shape[1:]), "the encoder")
        cells = self.seen.at(self.inputs.image_size)
        x_BDhw: Tensor = self.stem(images if cells is None else images * cells)
        return x_BDhw

    def _blocks(self, x_BDhw: Tensor, mask: Mask | None, layers: Sequence[int]) -> Tokens:
        kept: dict[int, Tokens] = {}
        number = 0
        for lead, blocks in zip(self.leads, self.stages, strict=True):
            x_BDhw = lead(x_BDhw)
            for block in blocks:
                number += 1
                x_BDhw = block(x_BDhw)
                if number in layers:
                    kept[number] = seen_tokens(x_BDhw, mask)
        return seen_tokens(self.norm(x_BDhw), mask, kept)

    def layer_ids(self) -> dict[str, int]:
        """The block of each parameter, 0 for the stem and depth + 1 for the last norm."""
        starts = {"norm.": self.depth + 1}
        number = 0
        for s, blocks in enumerate(self.stages):
            starts[f"leads.{s}."] = number + 1
            for b in range(len(blocks)):
                number += 1
                starts[f"stages.{s}.{b}."] = number
        return {
            name: next((layer for start, layer in starts.items() if name.startswith(start)), 0)
            for name, _ in self.named_parameters()
        }

    def no_weight_decay(self) -> set[str]:
        """None."""
        return set()

    def set_drop_path(self, rate: float) -> None:
        """Drops residual branches with a rate that grows linearly to `rate` in the last block."""
        from timm.layers import DropPath

        blocks = [block for stage in self.stages for block in stage]
        for number, block in enumerate(blocks):
            if share := rate * number / max(1, len(blocks) - 1):
                block.drop_path = DropPath(share).train(self.training)


class ConvModule(GreyedModule):
    """A convolutional network in which hidden cells are 0 after every layer."""

    def __init__(self, options: ConvNet, inputs: Inputs, patch: int) -> None:
        super().__init__(options, inputs, patch)
        self.mask_token: nn.Parameter | None
        self.register_parameter("mask_token", None)  # until keep_positions()
        mask_layers(self, self.seen)

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Encodes images (B, C, H, W); the seen cells end as tokens."""
        with self.seen.of(mask):
            x_BDhw = self._stem(images)
            if mask is None or self.mask_token is None:
                return self._blocks(x_BDhw, mask, layers)
            cells = self.seen.at((x_BDhw.shape[2], x_BDhw.shape[3]))
            assert cells is not None
            token = self.mask_token.to(x_BDhw.dtype)[:, None, None]
            x_BDhw = torch.where(cells > 0, x_BDhw, token)
        return self._blocks(x_BDhw, None, layers)

    def keep_positions(self) -> None:
        """From now on a learned token takes the place of hidden cells after the stem."""
        width = self.stem[0].out_channels  # type: ignore[index]
        device = next(self.parameters()).device
        token = nn.init.trunc_normal_(torch.empty(width, device=device), std=0.02)
        self.mask_token = nn.Parameter(token)

    def no_weight_decay(self) -> set[str]:
        """The token of hidden cells."""
        return {"mask_token"} if self.mask_token is not None else set()


def seen_tokens(
    x_BDhw: Tensor, mask: Mask | None, layers: dict[int, Tokens] | None = None
) -> Tokens:
    """The seen cells of a map as tokens in raster order, without any prefix."""
    (h, w), x_BND = x_BDhw.shape[2:], x_BDhw.flatten(2).transpose(1, 2)
    seen_BN = None
    if mask is not None:
        seen_BN = mask.seen if mask.grid == (h, w) else finer(mask, (h, w))
        x_BND = take(x_BND, seen_BN)
    return Tokens(x_BND[:, :0], x_BND, (h, w), seen_BN, layers or {})


def finer(mask: Mask, grid: tuple[int, int]) -> Tensor:
    """Where the cells of a finer grid lie that are seen, ascending, int64 (B, N)."""
    hidden = mask.hidden.float().view(-1, 1, *mask.grid)
    hidden_BL = F.interpolate(hidden, grid, mode="nearest").flatten(1)
    share = grid[0] * grid[1] // mask.hidden.shape[1]
    return hidden_BL.argsort(dim=1, stable=True)[:, : mask.seen.shape[1] * share]
