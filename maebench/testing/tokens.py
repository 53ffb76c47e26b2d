"""What the tokens of an encoder have to look like, by its attributes and the mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maebench.encoders.encoder import Tokens
from maebench.masking.mask import Mask
from maebench.rng import isolated
from maebench.testing.cases import BATCH, Size, projection
from maebench.testing.contract import Broken, expect


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


def check_attributes(module: Any, size: Size) -> None:
    """What masks, decoders and layers are counted from is there and fits the images."""
    for name in ("grid", "out_grid", "patch"):
        pair = getattr(module, name, None)
        whole = isinstance(pair, tuple) and all(isinstance(n, int) and n > 0 for n in pair)
        expect(
            whole and len(pair) == 2,  # type: ignore[arg-type]
            f"its attribute {name} must be a tuple (rows, columns) of whole numbers, got {pair!r}",
        )
    for name, least in (("channels", 1), ("width", 1), ("prefix", 0), ("depth", 1)):
        count = getattr(module, name, None)
        expect(
            isinstance(count, int) and count >= least,
            f"its attribute {name} must be a whole number from {least}, got {count!r}",
        )
    check_grids(module, size)


def check_grids(module: Any, size: Size) -> None:
    """Grid times patch is the image, and the grid it ends on divides the one it is masked on."""
    (h, w), (p, q) = module.grid, module.patch
    built = f"built for {size[0]}x{size[1]} pixels, its"
    expect(
        (h * p, w * q) == tuple(size),
        f"{built} grid {module.grid} of patches {module.patch} covers {h * p}x{w * q}; refuse "
        "sizes that do not fit with ConfigError",
    )
    expect(
        all(g % o == 0 for g, o in zip(module.grid, module.out_grid, strict=True)),
        f"{built} out_grid {module.out_grid} does not divide its grid {module.grid}; refuse sizes "
        "that the total stride does not divide with ConfigError",
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
    prefix, wanted = tuple(tokens.prefix.shape[:2]), (batch, module.prefix)
    expect(prefix == wanted, f"{what}: prefix is (B, P) = {prefix}, must be {wanted}")
    for name, x in (("prefix", tokens.prefix), ("patches", tokens.patches)):
        shape, width = tuple(x.shape), module.width
        expect(len(shape) == 3, f"{what}: {name} is {shape}, must be (B, N, D)")
        expect(x.is_floating_point(), f"{what}: {name} is {x.dtype}, must be a float")
        expect(x.isfinite().all(), f"{what}: {name} holds numbers that are not finite")
        fits = not final or shape[2] == width
        expect(fits, f"{what}: {name} is {shape}, its width must be {width}")
    grid, out_grid = tokens.grid, module.out_grid
    fits = not final or grid == out_grid
    expect(fits, f"{what}: tokens.grid is {grid}, the module's out_grid {out_grid}")
    places = (len(tokens.patches), tokens.patches.shape[1])
    if tokens.seen is None:
        every = (batch, grid[0] * grid[1])
        hint = f"seen is None, so patches must be (B, h * w) = {every}, got {places}"
        expect(places == every, f"{what}: {hint}")
        return
    if mask is None:
        raise Broken(f"{what}: seen must be None, where every patch has its token")
    seen, shape = tokens.seen, tuple(tokens.seen.shape)
    expect(shape == places, f"{what}: seen is {shape}, patches are (B, N) = {places}")
    expect(seen.dtype == torch.int64, f"{what}: seen is {seen.dtype}, must be int64")
    ascending = bool((seen.diff(dim=1) > 0).all())
    inside = bool((seen >= 0).all()) and bool((seen < grid[0] * grid[1]).all())
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
