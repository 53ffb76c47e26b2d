"""What the tokens of an encoder have to look like, by its attributes and the mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maebench.encoders.encoder import Tokens
from maebench.encoders.inputs import IMAGES, Inputs
from maebench.masking.mask import Mask
from maebench.rng import isolated
from maebench.testing.cases import BATCH, Size, projection
from maebench.testing.contract import Broken, expect, expect_tensor


def ask(
    module: Any, images: Tensor, mask: Mask | None = None, layers: Any = (), seed: int = 0
) -> Tokens:
    """What a module returns under a global seed."""
    with isolated(seed, "forward"):
        found: Tokens = module(images, mask, layers)
    return found


@torch.no_grad()
def outputs(module: Any, images: Tensor, mask: Mask | None = None) -> dict[str, Tensor]:
    """All that a module returns by name, layers included, without gradients."""
    return flat(ask(module, images, mask, range(1, module.depth + 1)))


def flat(tokens: Tokens, before: str = "") -> dict[str, Tensor]:
    """All that an encoder returns, by name; what is empty is left out."""
    found = {f"{before}prefix": tokens.prefix, f"{before}patches": tokens.patches}
    for number, level in tokens.layers.items():
        found |= flat(level, f"layer {number} ")
    return {name: x for name, x in found.items() if x.numel()}


def check_attributes(module: Any, built: Inputs) -> None:
    """What masks, decoders and layers are counted from is there and fits the images."""
    for name in ("grid", "out_grid", "patch"):
        pair = getattr(module, name, None)
        whole = isinstance(pair, tuple) and [isinstance(n, int) and n > 0 for n in pair]
        wanted = "must be a tuple (rows, columns) of whole numbers"
        expect(whole == [True, True], f"its attribute {name} {wanted}, got {pair!r}")
    inputs = getattr(module, "inputs", None)
    expect(inputs == built, f"its attribute inputs must be {built}, got {inputs!r}")
    for name, least in (("width", 1), ("prefix", 0), ("depth", 1)):
        count, wanted = getattr(module, name, None), f"must be a whole number from {least}"
        fits = isinstance(count, int) and count >= least
        expect(fits, f"its attribute {name} {wanted}, got {count!r}")
    if built.kind == IMAGES:
        check_grids(module, built.image_size)


def check_grids(module: Any, size: Size) -> None:
    """Grid times patch is the image, and the grid it ends on divides the one it is masked on."""
    (h, w), (p, q), ends = module.grid, module.patch, module.out_grid
    what = f"built for {size[0]}x{size[1]} pixels, its grid {module.grid}"
    expect(
        (h * p, w * q) == tuple(size),
        f"{what} of patches {module.patch} covers {h * p}x{w * q}; refuse it with ConfigError",
    )
    expect(
        h % ends[0] == w % ends[1] == 0,
        f"{what} is not divided by its out_grid {ends}; refuse it with ConfigError",
    )


def check_tokens(
    tokens: Tokens,
    module: Any,
    mask: Mask | None,
    what: str,
    batch: int = BATCH,
    final: bool = True,
) -> None:
    """Tokens are as Tokens documents them, and final ones as the module's attributes say."""
    kind = type(tokens).__name__
    expect(isinstance(tokens, Tokens), f"it returns a {kind}, not maebench.Tokens")
    width, grid = module.width if final else None, tokens.grid
    expect_tensor(tokens.prefix, f"{what}: prefix", (batch, module.prefix, width), None)
    expect_tensor(tokens.patches, f"{what}: patches", (batch, None, width), None)
    ends = module.out_grid
    expect(
        not final or grid == ends, f"{what}: tokens.grid is {grid}, the module's out_grid {ends}"
    )
    length, count = grid[0] * grid[1], tokens.patches.shape[1]
    seen = tokens.seen
    if seen is None:
        all_there = f"seen is None, so patches must be (B, h * w) = {(batch, length)}"
        expect(count == length, f"{what}: {all_there}, got {(batch, count)}")
        return
    if mask is None:
        raise Broken(f"{what}: seen must be None, where every patch has its token")
    expect_tensor(seen, f"{what}: seen", (batch, count), torch.int64)
    ascending = bool((seen.diff(dim=1) > 0).all())
    inside = bool((seen >= 0).all()) and bool((seen < length).all())
    expect(ascending and inside, f"{what}: seen must be ascending places on the {grid} grid")
    if grid == mask.grid:
        expect(torch.equal(seen, mask.seen), f"{what}: seen is not mask.seen")


def strongest(tokens: Tokens, images: Tensor) -> Tensor:
    """The cell of the tokens' grid whose pixels each token of the first image depends on most."""
    (h, w), (H, W) = tokens.grid, images.shape[2:]
    found = []
    for number in range(tokens.patches.shape[1]):
        total = projection({"patches": tokens.patches[:, number : number + 1]})
        (slope,) = torch.autograd.grad(total, images, retain_graph=True)
        cells = slope[0].abs().sum(0).view(h, H // h, w, W // w).sum((1, 3)).flatten()
        found.append(int(cells.argmax()) if bool(cells.any()) else -1)
    return torch.tensor(found)


def seen_cells(mask: Mask, grid: Size) -> Tensor:
    """Which cells of a coarser grid hold a seen patch, in the first image, bool (L,)."""
    (h, w), (H, W) = grid, mask.grid
    return (~mask.hidden[0]).view(h, H // h, w, W // w).any(3).any(1).flatten()
