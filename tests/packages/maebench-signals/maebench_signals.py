"""One-dimensional signals, such as of a sensor: a data set, an encoder and an objective of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

import maebench
from maebench import Batch, Inputs, Mask, Tokens

SHAPES = ("sine", "square", "sawtooth", "chirp")


class Waves(maebench.Dataset):
    """Noisy waves of four shapes, with two channels of 128 samples, the second a quarter late."""

    name: ClassVar[str] = "waves"
    gives: ClassVar[str] = "signals"
    noise: float = Field(default=0.5, ge=0, description="deviation of the noise; waves go to 1")

    def load(self, request: maebench.Request) -> maebench.Images:
        """800 signals of train, or 200 of test."""
        ids = torch.arange(800) if request.split == "train" else torch.arange(800, 1000)
        draws, labels = maebench.Draws(0, "waves", ids), ids % len(SHAPES)
        start, rate = draws.uniform(1, 1), 3 + 3 * draws.uniform(1, 1)
        late = torch.tensor([0.0, 0.25])[:, None]
        turn = start + rate * torch.linspace(0, 1, 128) + late
        sine, chirp = (2 * math.pi * turn).sin(), (2 * math.pi * turn * turn / rate).sin()
        waves = torch.stack([sine, sine.sign(), 2 * (turn % 1) - 1, chirp])
        chosen = waves[labels, torch.arange(len(ids))] + self.noise * draws.normal(2, 128)
        return maebench.from_rows(chosen.numpy(), labels.numpy(), SHAPES, self.gives)

    def preset(self) -> dict[str, object]:
        """Settings that suit it."""
        how = {"encoder": "signal-nano", "objective": "signal-mae"}
        return {**how, "budget": "steps=1500", "batch": 64, "lr": 8e-3}


class SignalNano(maebench.Encoder):
    """A small transformer on patches of a signal, over all of its channels."""

    name: ClassVar[str] = "signal-nano"
    takes: ClassVar[tuple[str, ...]] = ("signals",)
    patch: PositiveInt = Field(default=8, description="samples of a patch")
    width: PositiveInt = Field(default=64, multiple_of=4, description="width of a token")
    depth: PositiveInt = Field(default=2, description="number of blocks")

    def build(self, inputs: Inputs) -> SignalEncoder:
        """A fresh module; what does not fit is refused before anything is trained."""
        if inputs.shape[-1] % self.patch:
            raise maebench.ConfigError(f"encoder.patch: does not divide {inputs.shape[-1]}")
        return SignalEncoder(self, inputs)


class SignalEncoder(nn.Module):
    """The torch module: masks are drawn on a grid of one row, a patch being so many samples."""

    def __init__(self, options: SignalNano, inputs: Inputs) -> None:
        super().__init__()
        self.inputs, self.patch, self.prefix = inputs, (1, options.patch), 0
        self.grid = self.out_grid = (1, inputs.shape[-1] // options.patch)
        self.width, self.depth = options.width, options.depth
        self.embed = nn.Linear(inputs.shape[0] * options.patch, self.width)
        self.places = nn.Parameter(0.02 * torch.randn(self.grid[1], self.width))
        self.blocks = nn.ModuleList(block(self.width) for _ in range(self.depth))
        self.norm = nn.LayerNorm(self.width)

    def forward(self, x: Tensor, mask: Mask | None = None, layers: Sequence[int] = ()) -> Tokens:
        """Tokens of the seen patches, and those after each block in `layers`."""
        self.inputs.check(tuple(x.shape[1:]), "signal-nano")
        x = self.embed(patches(x, self.patch[1])) + self.places
        seen = None if mask is None else mask.seen
        if seen is not None:  # hidden patches are left out before any of them is mixed
            x = x.gather(1, seen[:, :, None].expand(-1, -1, self.width))
        kept = {}
        for number, part in enumerate(self.blocks, 1):
            x = part(x)
            if number in layers:
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


def block(width: int) -> nn.Module:
    """A transformer block with norms before its branches."""
    return nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True, norm_first=True)


def patches(x: Tensor, size: int) -> Tensor:
    """A signal (B, C, S) as patches (B, L, C * size)."""
    return x.unflatten(2, (-1, size)).transpose(1, 2).flatten(2)


class SignalMAE(maebench.Objective):
    """Predicts the samples of hidden patches: a block over the seen ones' tokens and all places.

    loss = mean over signals, hidden patches and samples of (prediction - x)^2
    """

    name: ClassVar[str] = "signal-mae"
    takes: ClassVar[tuple[str, ...]] = ("signals",)
    no_decoder: ClassVar[str] = "signals have no pixels"

    def build(self, encoder: maebench.EncoderModule, inputs: Inputs) -> nn.Module:
        """A fresh module around the encoder."""
        return SignalAutoencoder(encoder, inputs.shape[0] * encoder.patch[1])


class SignalAutoencoder(nn.Module):
    """The encoder, and what guesses samples from its tokens."""

    def __init__(self, encoder: maebench.EncoderModule, samples: int) -> None:
        super().__init__()
        self.encoder, self.block = encoder, block(encoder.width)
        self.hidden = nn.Parameter(0.02 * torch.randn(1, 1, encoder.width))
        self.places = nn.Parameter(0.02 * torch.randn(encoder.grid[1], encoder.width))
        self.head = nn.Linear(encoder.width, samples)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss on hidden patches."""
        assert batch.mask is not None
        tokens = self.encoder(batch.images, batch.mask).on_grid(self.hidden) + self.places
        wrong = self.head(self.block(tokens)) - patches(batch.images, self.encoder.patch[1])
        return {"loss": wrong.float().square().mean(2)[batch.mask.hidden].mean()}


@maebench.hookimpl
def register_datasets() -> list[type[maebench.Dataset]]:
    """What this package brings: data."""
    return [Waves]


@maebench.hookimpl
def register_encoders() -> list[type[maebench.Encoder]]:
    """An encoder of it."""
    return [SignalNano]


@maebench.hookimpl
def register_objectives() -> list[type[maebench.Objective]]:
    """And an objective."""
    return [SignalMAE]
