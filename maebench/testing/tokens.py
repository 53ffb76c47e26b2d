"""What do the tokens of an encoder have to look like, given its attributes and the mask?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maebench.encoders.encoder import Tokens
from maebench.masking.mask import Mask
from maebench.rng import Draws
from maebench.testing.contract import expect
from maebench.testing.probes import BATCH, Size


def flat(tokens: Tokens, before: str = "") -> dict[str, Tensor]:
    """All that an encoder returns, by name; what is empty is left out."""
    found = {f"{before}prefix": tokens.prefix, f"{before}patches": tokens.patches}
    for number, level in tokens.layers.items():
        found |= flat(level, f"layer {number} ")
    return {name: x for name, x in found.items() if x.numel()}


def projection(outputs: Mapping[str, Tensor]) -> Tensor:
    """A random sum of all outputs; a plain sum would be constant behind a norm."""
    total: Any = torch.zeros(())
    for name, x in outputs.items():
        draws = Draws(0, f"projection of {name}", torch.arange(len(x)))
        total = total + (x.float() * draws.normal(*x.shape[1:])).sum()
    expect(total.requires_grad, "no gradient flows through its tokens: is something detached?")
    return total


def check_pair(module: Any, name: str) -> None:
    """An attribute is two whole numbers."""
    pair = getattr(module, name, None)
    expect(
        isinstance(pair, tuple)
        and len(pair) == 2
        and all(isinstance(n, int) and n > 0 for n in pair),
        f"its attribute {name} must be a tuple (rows, columns) of whole numbers, got {pair!r}",
    )


def check_count(module: Any, name: str, least: int) -> None:
    """An attribute is a whole number."""
    count = getattr(module, name, None)
    expect(
        isinstance(count, int) and count >= least,
        f"its attribute {name} must be a whole number from {least}, got {count!r}",
    )


def check_grids(module: Any, size: Size) -> None:
    """Grid times patch is the image, and the grid it ends on divides the one it is masked on."""
    covered = tuple(g * p for g, p in zip(module.grid, module.patch, strict=True))
    expect(
        covered == tuple(size),
        f"built for {size[0]}x{size[1]} pixels, its grid {module.grid} of patches {module.patch} "
        f"covers {covered[0]}x{covered[1]}; refuse sizes that do not fit with ConfigError",
    )
    expect(
        all(g % o == 0 for g, o in zip(module.grid, module.out_grid, strict=True)),
        f"built for {size[0]}x{size[1]} pixels, its out_grid {module.out_grid} does not divide its "
        f"grid {module.grid}; refuse sizes that the total stride does not divide with ConfigError",
    )


def check_tokens(
    tokens: Tokens, module: Any, mask: Mask | None, what: str, batch: int = BATCH
) -> None:
    """The final tokens are as the module's attributes say."""
    expect(isinstance(tokens, Tokens), f"it returns a {type(tokens).__name__}, not maebench.Tokens")
    check_places(tokens, module, mask, what, batch)
    expect(
        tokens.grid == module.out_grid,
        f"{what}: tokens.grid is {tokens.grid}, the module's out_grid {module.out_grid}",
    )
    for name, x in (("prefix", tokens.prefix), ("patches", tokens.patches)):
        expect(
            x.shape[2] == module.width,
            f"{what}: {name} is {tuple(x.shape)}, its width must be {module.width}",
        )


def check_places(
    tokens: Tokens, module: Any, mask: Mask | None, what: str, batch: int = BATCH
) -> None:
    """Shapes, dtypes, numbers and `seen` are as Tokens documents."""
    prefix = tuple(tokens.prefix.shape[:2])
    wanted = (batch, module.prefix)
    expect(prefix == wanted, f"{what}: prefix is (B, P) = {prefix}, must be {wanted}")
    for name, x in (("prefix", tokens.prefix), ("patches", tokens.patches)):
        expect(x.ndim == 3, f"{what}: {name} is {tuple(x.shape)}, must be (B, N, D)")
        expect(x.is_floating_point(), f"{what}: {name} is {x.dtype}, must be a float")
        expect(x.isfinite().all(), f"{what}: {name} holds numbers that are not finite")
    places = (len(tokens.patches), tokens.patches.shape[1])
    if tokens.seen is None:
        all_of = (batch, tokens.grid[0] * tokens.grid[1])
        expect(
            places == all_of,
            f"{what}: seen is None, so patches must be (B, h * w) = {all_of}, got {places}",
        )
        return
    expect(mask is not None, f"{what}: seen must be None, where every patch has its token")
    assert mask is not None
    shape = tuple(tokens.seen.shape)
    expect(shape == places, f"{what}: seen is {shape}, patches are (B, N) = {places}")
    expect(tokens.seen.dtype == torch.int64, f"{what}: seen is {tokens.seen.dtype}, must be int64")
    expect(
        bool((tokens.seen.diff(dim=1) > 0).all())
        and bool((tokens.seen >= 0).all())
        and bool((tokens.seen < tokens.grid[0] * tokens.grid[1]).all()),
        f"{what}: seen must be ascending places on the {tokens.grid} grid",
    )
    if tokens.grid == mask.grid:
        expect(torch.equal(tokens.seen, mask.seen), f"{what}: seen is not mask.seen")


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
