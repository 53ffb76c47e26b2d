"""Components that are unlike the built-in ones: they hold the contracts open."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pluggy
import torch
from pydantic import Field
from torch import Tensor, nn

import maebench
from maebench import Batch, ConfigError, Encoder, Inputs, Mask, Masking, Objective, Tokens, View
from maebench.plugins import Names, installed, plugin_manager


class Worst(Masking):
    """Hides the patches that the teacher reconstructs worst."""

    name: ClassVar[str] = "worst"
    needs: ClassVar[frozenset[str]] = frozenset({"patch_loss"})
    share: float = Field(0.5, ge=0, le=1, description="share of the score that is the loss")

    def scores(self, view: View) -> Tensor:
        rank = view.patch_loss().argsort(1).argsort(1) / view.length
        return self.share * rank + (1 - self.share) * view.draws.uniform(view.length)


class Attended(Masking):
    """Hides what the teacher's class token looks at."""

    name: ClassVar[str] = "attended"
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})

    def scores(self, view: View) -> Tensor:
        return view.attention()


class Dense(Encoder):
    """A convolutional encoder that keeps all positions and ends on a grid half as fine."""

    name: ClassVar[str] = "dense"
    width: int = Field(16, ge=4, multiple_of=4, description="channels of the last map")

    def build(self, inputs: Inputs) -> nn.Module:
        if any(side % 4 for side in inputs.image_size):
            raise ConfigError(f"the stride of 4 does not divide images of {inputs.image_size}")
        return DenseModule(self.width, inputs)


class DenseModule(nn.Module):
    prefix, depth = 0, 1

    def __init__(self, width: int, inputs: Inputs) -> None:
        super().__init__()
        self.patch, self.width, self.inputs = (2, 2), width, inputs
        self.grid = (inputs.image_size[0] // 2, inputs.image_size[1] // 2)
        self.out_grid = (self.grid[0] // 2, self.grid[1] // 2)
        self.embed = nn.Conv2d(inputs.channels, width, 2, 2)
        self.hidden_token = nn.Parameter(0.02 * torch.randn(1, width, 1, 1))
        self.down = nn.Conv2d(width, width, 2, 2)

    def forward(self, images: Tensor, mask: Mask | None = None, layers: Any = ()) -> Tokens:
        x = self.embed(images)
        if mask is not None:
            hidden = mask.hidden.view(-1, 1, *self.grid)
            x = torch.where(hidden, self.hidden_token, x)
        x = self.down(x.relu())
        patches = x.flatten(2).transpose(1, 2)
        end = Tokens(x.new_zeros(len(x), 0, self.width), patches, self.out_grid)
        return dataclasses.replace(end, layers={1: end} if 1 in layers else {})

    def layer_ids(self) -> dict[str, int]:
        return {n: int(n.startswith("down")) for n, _ in self.named_parameters()}

    def no_weight_decay(self) -> set[str]:
        return set()


class Labelled(Objective):
    """Trains the encoder with labels and hides nothing."""

    name: ClassVar[str] = "labelled"
    hides: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True

    def build(self, encoder: Any, inputs: Inputs) -> nn.Module:
        return LabelledModule(encoder, inputs.num_classes)


class LabelledModule(nn.Module):
    def __init__(self, encoder: Any, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, num_classes)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.head(self.encoder(batch.images).patches.mean(1))
        return {"loss": nn.functional.cross_entropy(logits.float(), batch.labels)}


class Fakes:
    """A plugin that registers all of them."""

    @maebench.hookimpl
    def register_maskings(self) -> list[type[Masking]]:
        return [Worst, Attended]

    @maebench.hookimpl
    def register_encoders(self) -> list[type[Encoder]]:
        return [Dense]

    @maebench.hookimpl
    def register_objectives(self) -> list[type[Objective]]:
        return [Labelled]


def names(*plugins: object) -> Names:
    """The installed components and those of some plugins."""
    manager: pluggy.PluginManager = plugin_manager()
    for plugin in plugins or (Fakes(),):
        manager.register(plugin, type(plugin).__name__.lower())
    return installed(manager)
