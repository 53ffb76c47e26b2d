"""Jigsaw puzzles: the encoder gets an image whose patches have changed places."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from maebench import (
    Batch,
    ConfigError,
    EncoderModule,
    Inputs,
    Objective,
    hookimpl,
    patchify,
    unpatchify,
)


class Jigsaw(Objective):
    """Sees all patches of an image, but shuffled.

    It predicts for each where it comes from. An encoder that only knows textures cannot say.

    loss = cross entropy of each patch's own place among all, mean over patches and images
    Source: Noroozi and Favaro 2016, arXiv 1603.09246, there with permutations of nine tiles.
    """

    name: ClassVar[str] = "jigsaw"
    hides: ClassVar[bool] = False
    no_decoder: ClassVar[str] = "it learns where patches belong, not pixels"

    def build(self, encoder: EncoderModule, inputs: Inputs) -> Puzzle:
        """A linear layer on each token, one output for every place."""
        if encoder.out_grid != encoder.grid:
            raise ConfigError("objective 'jigsaw' needs an encoder that gives a token per patch")
        return Puzzle(encoder)


class Puzzle(nn.Module):
    """The torch module: shuffles patches, encodes the image, asks each token for its place."""

    def __init__(self, encoder: EncoderModule) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, encoder.grid[0] * encoder.grid[1])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, and the share of patches whose place was found."""
        grid, patch = self.encoder.grid, self.encoder.patch
        order = batch.draws.uniform(grid[0] * grid[1]).argsort(1)  # where each patch comes from
        patches = patchify(batch.images, patch)
        shuffled = patches.gather(1, order[:, :, None].expand_as(patches))
        tokens = self.encoder(unpatchify(shuffled, grid, patch)).patches
        places, own = self.head(tokens).float().flatten(0, 1), order.flatten()
        right = (places.argmax(1) == own).float().mean()
        return {"loss": nn.functional.cross_entropy(places, own), "accuracy": right}


@hookimpl
def register_objectives() -> list[type[Objective]]:
    """What this package brings."""
    return [Jigsaw]
