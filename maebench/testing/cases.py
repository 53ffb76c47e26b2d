"""What contracts of models are tried on: images, masks, modes, and small encoders."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maebench.data.dataset import Request
from maebench.encoders.encoder import Tokens
from maebench.encoders.inputs import TEXT, Inputs
from maebench.masking.mask import Mask, hide
from maebench.masking.patches import hidden_pixels, patchify, take
from maebench.plugins import installed
from maebench.rng import Draws
from maebench.testing.contract import NotChecked, expect

BATCH = 4  # images: as many as a batch needs to be turned and split in a way that shows
IMAGES = 8  # images that an objective learns by heart
PATCH = (4, 4)  # pixels: sixteen patches on images of 16x16, which take milliseconds
WIDTH = 16  # of tokens: enough for as many patches to be told apart
RATIOS = (0.25, 0.75, 0.9)  # the usual 0.75 (arXiv 2111.06377), few and many
Size = tuple[int, int]


# ---- images and masks


def images_of(inputs: Inputs, count: int = BATCH, seed: int = 0) -> Tensor:
    """Images of noise, float32 (B, C, H, W), or others at random as an encoder gets them."""
    if inputs.vocabulary:
        return inputs.made_up(Draws(seed, "images", torch.arange(count)))
    return _noise(seed, "images", count, inputs.shape).clone()


def hidden_in(images: Tensor, mask: Mask, patch: Size) -> Tensor:
    """Which numbers of images, or of others on a line, are hidden; it fits (B, ...) of them."""
    hidden = hidden_pixels(mask, patch)  # (B, 1, H, W)
    return {2: hidden[:, 0, 0], 3: hidden[:, :, 0]}.get(images.ndim, hidden)


@functools.cache
def other_inputs(kind: str) -> Inputs:
    """What is tried of a kind that is no images: short windows of text, or what a data set yields.

    Raises:
        NotChecked: no data set of that kind is installed.
    """
    if kind == TEXT:
        return Inputs(TEXT, (12,), torch.int64, vocabulary=40, mask_id=4)
    for dataset in installed().table["dataset"].values():
        if getattr(dataset, "gives", None) == kind and dataset.spec is None:
            info = dataset().load(Request("train")).info  # type: ignore[attr-defined]
            return dataclasses.replace(info.inputs, num_classes=0)
    raise NotChecked(f"no data set that gives {kind} is installed")


@functools.lru_cache(maxsize=256)  # drawn anew, the same few would take longer than the modules
def _noise(seed: int, purpose: str, count: int, shape: tuple[int, ...]) -> Tensor:
    return Draws(seed, purpose, torch.arange(count)).normal(*shape)


def projection(outputs: Mapping[str, Tensor]) -> Tensor:
    """A random sum of all outputs; a plain sum would be constant behind a norm."""
    total: Any = torch.zeros(())
    for name, x in outputs.items():
        weights = _noise(0, f"projection of {name}", len(x), tuple(x.shape[1:]))
        total = total + (x.float() * weights).sum()
    expect(total.requires_grad, "no gradient flows through its tokens: is something detached?")
    found: Tensor = total
    return found


def mask_of(grid: Size, ratio: float = 0.5, count: int = BATCH, seed: int = 0) -> Mask:
    """A mask that is another one for every image; hides at least one patch, sees at least one."""
    length = grid[0] * grid[1]
    scores = Draws(seed, "masking", torch.arange(count)).uniform(length)
    return hide(scores, min(max(1, round(ratio * length)), length - 1), grid)


def pictures(size: Size, channels: int, count: int = IMAGES) -> Tensor:
    """Smooth waves, float32 (B, C, H, W): unlike noise, a hidden patch follows from the others."""
    draws = Draws(0, "waves", torch.arange(count))
    phase_BC11 = 2 * math.pi * draws.uniform(channels, 1, 1)
    slope_BC2 = 0.6 * draws.uniform(channels, 2) - 0.3  # radians a pixel: waves of 20 px and more
    rows, columns = (torch.arange(side) for side in size)
    angle = slope_BC2[..., :1, None] * rows[:, None] + slope_BC2[..., 1:, None] * columns
    return (angle + phase_BC11).sin() * math.sqrt(2)  # deviation 1, as normalised images have


def lent(images: Tensor, mask: Mask | None) -> dict[str, Tensor | None]:
    """What a module is given and has to leave as it is, by name."""
    hidden, seen = (mask.hidden, mask.seen) if mask else (None, None)
    return {"images": images, "mask.hidden": hidden, "mask.seen": seen}


class Case(NamedTuple):
    """One way to ask a module: some images and a mask, in the mode that the module is now in."""

    module: Any
    images: Tensor
    mask: Mask | None
    what: str  # in words


def cases(
    module: Any,
    modes: Sequence[bool] = (False,),
    ratios: Sequence[float | None] = (None, *RATIOS),
) -> Iterator[Case]:
    """A module in each mode with each mask, None for no mask; True is training."""
    for training, (number, ratio) in itertools.product(modes, enumerate(ratios)):
        mask = None if ratio is None else mask_of(module.grid, ratio, seed=number)
        hidden = f"with {mask.num_hidden} of {mask.hidden.shape[1]} patches hidden" if mask else ""
        mode = ", in training mode" if training else ""
        module.train(training)
        yield Case(module, images_of(module.inputs), mask, (hidden or "without a mask") + mode)


# ---- encoders


class Small(nn.Module):
    """What the kit's own encoders share: attributes, and an embedding of each patch alone."""

    prefix, depth, width, patch = 0, 1, WIDTH, PATCH

    def __init__(self, size: Size, channels: int) -> None:
        super().__init__()
        self.inputs = Inputs.of_images(channels, size)
        self.grid = self.out_grid = (size[0] // PATCH[0], size[1] // PATCH[1])
        self.embed = nn.Linear(PATCH[0] * PATCH[1] * channels, WIDTH)
        self.hidden_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))

    def layer_ids(self) -> dict[str, int]:
        """All in the embedding."""
        return {name: 0 for name, _ in self.named_parameters()}

    def no_weight_decay(self) -> set[str]:
        """None."""
        return set()

    def give(self, patches_BLD: Tensor, layers: Any, seen: Tensor | None = None) -> Tokens:
        """The tokens, and the same as the only layer."""
        prefix = patches_BLD.new_zeros(len(patches_BLD), self.prefix, WIDTH)
        end = Tokens(prefix, patches_BLD, self.out_grid, seen)
        return dataclasses.replace(end, layers={1: end} if 1 in layers else {})


class Coarse(Small):
    """Keeps all positions and ends on a grid half as fine."""

    def __init__(self, size: Size, channels: int) -> None:
        super().__init__(size, channels)
        self.out_grid = (self.grid[0] // 2, self.grid[1] // 2)
        self.down = nn.Conv2d(WIDTH, WIDTH, 2, 2)

    def forward(self, images: Tensor, mask: Mask | None = None, layers: Any = ()) -> Tokens:
        """Hidden patches are replaced before patches are mixed."""
        x = self.embed(patchify(images, PATCH))
        if mask is not None:
            x = torch.where(mask.hidden[:, :, None], self.hidden_token.to(x.dtype), x)
        x = nn.functional.gelu(x).transpose(1, 2).unflatten(2, self.grid)
        return self.give(self.down(x).flatten(2).transpose(1, 2), layers)


class Blind(Small):
    """Under a mask its tokens do not depend on pixels, which so reach the loss as target alone.

    Without a mask each token depends on its own patch: a teacher copied from it gives targets.
    """

    prefix = 1  # some objectives read a class token

    def __init__(self, size: Size, channels: int) -> None:
        super().__init__(size, channels)
        self.places = nn.Parameter(0.02 * torch.randn(1, self.grid[0] * self.grid[1], WIDTH))
        self.asked_whole = False  # without a mask, and with gradients
        self.keeps = False

    def keep_positions(self) -> None:
        """From now on a token for every place, and still none that depends on pixels."""
        self.keeps = True

    def forward(self, images: Tensor, mask: Mask | None = None, layers: Any = ()) -> Tokens:
        """Places alone, or places and pixels."""
        places = self.places.expand(len(images), -1, -1)
        if mask is None:
            self.asked_whole |= torch.is_grad_enabled()
            return self.give(self.embed(patchify(images, PATCH)) + places, layers)
        if self.keeps:
            return self.give(places + self.hidden_token, layers)
        return self.give(take(places + self.hidden_token, mask.seen), layers, mask.seen)
