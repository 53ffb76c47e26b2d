"""At which image size weights were trained: as stated, read off their positions, or asked for.

Shapes: N positions, those of prefix tokens included, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import Tensor

from maebench.errors import ConfigError
from maebench.models.grid import USUAL_SIDES, Grid, grids, learned_grid, sincos_grid, square
from maebench.models.reading import Facts
from maebench.models.spec import SpecOptions
from maebench.models.weights import stated_size

MOST = 2**16 + 2**10  # positions: 256 x 256 patches, 4096 px in patches of 16, and prefix tokens
LONGEST = 4096  # learned positions beyond which their likeness, N x N, is not computed


def trained_grid(
    positions_ND: Tensor,
    prefixes: Sequence[int],
    patch: tuple[int, int],
    beside: tuple[SpecOptions, Facts, str],
    decoder_ND: Tensor | None = None,
) -> tuple[Grid, str]:
    """The grid of patches that positions belong to, and a note where nobody states it.

    Args:
        positions_ND: the encoder's.
        prefixes: how many of them may be those of prefix tokens, the usual number first.
        patch: rows and columns of a patch in pixels.
        beside: the MODEL string's options, what stands beside the weights, and the MODEL string.
        decoder_ND: the decoder's, which are often sin-cos where the encoder's are learned.

    Raises:
        ConfigError: what is stated does not fit, or nobody states it and it cannot be known.
    """
    options, facts, spec = beside
    count = len(positions_ND)
    if count > MOST:
        raise ConfigError(f"{spec}: {count:,} positions, and {MOST:,} are the most that is read")
    lengths = [count - prefix for prefix in dict.fromkeys(prefixes) if count > prefix]
    exact = _exact(positions_ND, lengths, decoder_ND)
    size = options.size or stated_size(facts)
    if size is not None:
        who = "image-size" if options.size else "image_size beside the weights,"
        where = f"{spec}: {who} {size[0]},{size[1]}"
        stated = _stated(size, patch, count, lengths, where)
        if exact not in (None, stated):
            raise ConfigError(
                f"{where} is not that of its sin-cos positions, which are those of "
                f"{_shown(exact)} patches: {_asked(exact, patch)}"
            )
        return stated, ""
    if exact is not None:
        return exact, ""
    for size in hints(facts):
        grid = size[0] // patch[0], size[1] // patch[1]
        if grid[0] * grid[1] in lengths and (grid[0] * patch[0], grid[1] * patch[1]) == size:
            return grid, ""
    return _guessed(positions_ND, lengths, patch, spec)


def _exact(positions_ND: Tensor, lengths: list[int], decoder_ND: Tensor | None) -> Grid | None:
    """The grid of sin-cos positions, the encoder's or its decoder's."""
    for length in lengths:
        if grid := sincos_grid(positions_ND[len(positions_ND) - length :]):
            return grid
    if decoder_ND is not None:
        for extra in (1, 0):  # the official decoder's class token has a position, ours has none
            if len(decoder_ND) - extra in lengths and (grid := sincos_grid(decoder_ND[extra:])):
                return grid
    return None


def _stated(
    size: tuple[int, int], patch: tuple[int, int], count: int, lengths: list[int], where: str
) -> Grid:
    grid = size[0] // patch[0], size[1] // patch[1]
    if size[0] % patch[0] or size[1] % patch[1] or grid[0] * grid[1] not in lengths:
        raise ConfigError(
            f"{where} does not fit {count} positions of {patch[0]}x{patch[1]} patches"
        )
    return grid


def hints(facts: Facts) -> Iterator[tuple[int, int]]:
    """Image sizes that a training's arguments and timm's configuration name.

    They count where they fit: arguments may speak of another stage of the training.
    """
    cfg = facts.get("config", {}).get("pretrained_cfg")
    values: list[Any] = [facts.get("args", {}).get(key) for key in ("input_size", "img_size")]
    values += [cfg.get("input_size")] if isinstance(cfg, dict) else []
    for value in values:
        sides = list(value) if isinstance(value, list | tuple) else [value, value]
        if len(sides) in (2, 3) and all(type(side) is int and side > 0 for side in sides):
            yield sides[-2], sides[-1]


def _guessed(
    positions_ND: Tensor, lengths: Collection[int], patch: tuple[int, int], spec: str
) -> tuple[Grid, str]:
    """The grid that learned positions show, or a usual square one, with a note.

    Raises:
        ConfigError: it is neither.
    """
    count, usual = len(positions_ND), next(iter(lengths), 0)
    candidates = [positions_ND[count - n :] for n in lengths if n <= LONGEST]
    shown, squares = learned_grid(candidates), square(usual)
    if squares is None or (shown is not None and shown != squares):
        seems = f"; they seem those of {_shown(shown)} patches" if shown else ""
        raise ConfigError(
            f"{spec}: {count} positions lie on no square grid beside a class token{seems}: give "
            f"the size that the weights were trained at, as in {_asked(shown, patch)}"
        )
    if shown is not None or usual == 1:
        return squares, f"{_shown(squares)} patches, read off the learned positions"
    sides = squares[0] * patch[0], squares[1] * patch[1]
    if sides[0] == sides[1] and sides[0] in USUAL_SIDES:
        return squares, (
            f"{_shown(squares)} patches of {sides[0]}x{sides[1]} px are assumed: where it is "
            "another grid, say so by ,image-size=ROWS,COLUMNS"
        )
    possible = ", ".join(_shown(grid) for grid in grids(usual)[:8])
    raise ConfigError(
        f"{spec}: {count} learned positions do not show their grid, which may be {possible}: give "
        f"the size that the weights were trained at, as in {_asked(squares, patch)}"
    )


def _shown(grid: Grid | None) -> str:
    return f"{grid[0]}x{grid[1]}" if grid else "unknown"


def _asked(grid: Grid | None, patch: tuple[int, int]) -> str:
    if grid is None:
        return ",image-size=96,192"
    rows, columns = grid[0] * patch[0], grid[1] * patch[1]
    return f",image-size={rows}" + (f",{columns}" if rows != columns else "")
