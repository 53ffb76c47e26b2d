"""Images to tokens: every patch goes through the same small network, alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from maebench import ConfigError, Encoder, Inputs, Mask, Tokens, hookimpl, patchify


class PatchMLP(Encoder):
    """A multilayer perceptron on each patch and its position, without attention."""

    name: ClassVar[str] = "patch-mlp"
    width: PositiveInt = Field(default=64, description="width of a token")
    depth: PositiveInt = Field(default=2, description="number of blocks")
    patch: PositiveInt = Field(default=2, description="pixels of a side of a patch")

    def build(self, inputs: Inputs) -> PatchNetwork:
        """A fresh module; what does not fit is refused before anything is trained."""
        if any(side % self.patch for side in inputs.image_size):
            raise ConfigError(
                f"encoder.patch: {self.patch} does not divide images of {inputs.image_size}"
            )
        return PatchNetwork(inputs, self.patch, self.width, self.depth)


class PatchNetwork(nn.Module):
    """The torch module, with the attributes and methods that maebench reads."""

    def __init__(self, inputs: Inputs, patch: int, width: int, depth: int) -> None:
        super().__init__()
        self.inputs, self.patch = inputs, (patch, patch)
        # Masks are drawn on `grid`; tokens end on `out_grid`, here the same.
        rows, columns = inputs.image_size
        self.grid = self.out_grid = (rows // patch, columns // patch)
        self.width, self.depth, self.prefix = width, depth, 0  # prefix counts class tokens
        self.embed = nn.Linear(patch**2 * inputs.channels, width)
        self.places = nn.Parameter(0.02 * torch.randn(self.grid[0] * self.grid[1], width))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                nn.Linear(2 * width, width),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, images: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()
    ) -> Tokens:
        """Tokens of the seen patches, and those after each block in `layers`."""
        self.inputs.check(tuple(images.shape[1:]), "patch-mlp")
        x, places = patchify(images, self.patch), self.places.expand(len(images), -1, -1)
        seen = None if mask is None else mask.seen
        if seen is not None:  # hidden patches are left out before anything is computed
            batch = torch.arange(len(images), device=images.device)[:, None]
            x, places = x[batch, seen], places[batch, seen]
        x, kept = self.embed(x) + places, {}
        for number, block in enumerate(self.blocks, 1):
            x = x + block(x)
            if number in layers:  # as after this block, before the last norm
                kept[number] = Tokens(x[:, :0], x, self.grid, seen)
        return Tokens(x[:, :0], self.norm(x), self.grid, seen, kept)

    def layer_ids(self) -> dict[str, int]:
        """Fine-tuning changes later layers more: 0 embeds, block i is i + 1, then the rest."""
        first = {"embed": 0, "places": 0, "norm": self.depth + 1}
        names = {name: name.split(".") for name, _ in self.named_parameters()}
        return {n: first[p[0]] if p[0] in first else int(p[1]) + 1 for n, p in names.items()}

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone."""
        return {"places"}


@hookimpl
def register_encoders() -> list[type[Encoder]]:
    """What this package brings; maebench asks when it starts."""
    return [PatchMLP]
