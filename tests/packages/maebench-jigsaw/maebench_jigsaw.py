"""Jigsaw puzzles: the encoder gets an image whose patches have changed places."""

from typing import ClassVar

from maebench import ConfigError, Objective, hookimpl, patchify, unpatchify


class Jigsaw(Objective):
    """Sees all patches of an image, but shuffled.

    It predicts for each where it comes from. An encoder that only knows textures cannot say.

    loss = cross entropy of each patch's own place among all, mean over patches and images
    Source: Noroozi and Favaro 2016, arXiv 1603.09246, there with permutations of nine tiles.
    """

    name: ClassVar[str] = "jigsaw"
    hides: ClassVar[bool] = False
    no_decoder: ClassVar[str] = "it learns where patches belong, not pixels"

    def build(self, encoder, inputs):
        """A linear layer on each token, one number for every place."""
        from torch import nn

        length, grid = encoder.grid[0] * encoder.grid[1], tuple(encoder.grid)
        if tuple(encoder.out_grid) != grid:
            raise ConfigError("objective 'jigsaw' needs an encoder that gives a token per patch")

        class Module(nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder, self.head = encoder, nn.Linear(encoder.width, length)

            def forward(self, batch):
                order = batch.draws.uniform(length).argsort(1)  # where each patch comes from
                patches = patchify(batch.images, encoder.patch)
                shuffled = patches.gather(1, order[:, :, None].expand_as(patches))
                tokens = self.encoder(unpatchify(shuffled, grid, encoder.patch)).patches
                places, own = self.head(tokens).float().flatten(0, 1), order.flatten()
                right = (places.argmax(1) == own).float().mean()
                return {"loss": nn.functional.cross_entropy(places, own), "accuracy": right}

        return Module()


@hookimpl
def register_objectives():
    """What this package brings."""
    return [Jigsaw]
