"""Images to tokens: every patch goes through the same small network, alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PositiveInt

from maebench import ConfigError, Encoder, Mask, Tokens, hookimpl, patchify

if TYPE_CHECKING:
    from torch import Tensor, nn


class PatchMLP(Encoder):
    """A multilayer perceptron on each patch and its position, without attention."""

    name: ClassVar[str] = "patch-mlp"
    width: PositiveInt = Field(64, description="numbers per token")
    depth: PositiveInt = Field(2, description="number of blocks")
    patch: PositiveInt = Field(2, description="pixels of a side of a patch")

    def build(self, image_size: tuple[int, int], channels: int) -> nn.Module:
        """A fresh module; what does not fit is refused before anything is trained."""
        if image_size[0] % self.patch or image_size[1] % self.patch:
            raise ConfigError(f"encoder.patch: {self.patch} does not divide images of {image_size}")
        return make_module(self, image_size, channels)


def make_module(options: PatchMLP, image_size: tuple[int, int], channels: int) -> nn.Module:
    """The torch module; it is written in a function so that torch is imported only when needed."""
    import torch
    from torch import nn

    class Module(nn.Module):
        # What maebench reads: prefix counts class tokens, here none; out_grid is where tokens end.
        prefix, depth, width = 0, options.depth, options.width
        patch = (options.patch, options.patch)
        grid = out_grid = (image_size[0] // options.patch, image_size[1] // options.patch)

        def __init__(self) -> None:
            super().__init__()
            self.channels = channels
            D, numbers = self.width, options.patch**2 * channels
            self.embed = nn.Linear(numbers, D)
            self.places = nn.Parameter(0.02 * torch.randn(self.grid[0] * self.grid[1], D))
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.LayerNorm(D), nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))
                for _ in range(self.depth)
            )
            self.norm = nn.LayerNorm(D)

        def forward(
            self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
        ) -> Tokens:
            if images.shape[1:] != (channels, *image_size):
                got = tuple(images.shape[1:])
                raise ConfigError(f"images must be {(channels, *image_size)}, got {got}")
            x, places = patchify(images, self.patch), self.places.expand(len(images), -1, -1)
            seen = None if mask is None else mask.seen
            if seen is not None:  # hidden patches are left out before anything is computed
                batch = torch.arange(len(images), device=images.device)[:, None]
                x, places = x[batch, seen], places[batch, seen]
            x, kept = self.embed(x) + places, {}
            for number, block in enumerate(self.blocks, 1):
                x = x + block(x)
                if number in layers:  # as after this block, before the last norm
                    kept[number] = self.tokens(x, seen)
            return self.tokens(self.norm(x), seen, kept)

        def tokens(self, x: Tensor, seen: Tensor | None, kept: Any = None) -> Tokens:
            return Tokens(x[:, :0], x, self.grid, seen, kept or {})

        def layer_ids(self) -> dict[str, int]:
            """Fine-tuning changes later layers more: 0 embeds, block i is i + 1, then the rest."""
            first = {"embed": 0, "places": 0, "norm": self.depth + 1}
            names = {name: name.split(".") for name, _ in self.named_parameters()}
            return {n: first[p[0]] if p[0] in first else int(p[1]) + 1 for n, p in names.items()}

        def no_weight_decay(self) -> set[str]:
            return {"places"}

    return Module()


@hookimpl
def register_encoders() -> list[type[Encoder]]:
    """What this package brings; maebench asks when it starts."""
    return [PatchMLP]
