"""Is an encoder built for the images it is given, and are its tokens where they belong?"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from maebench.encoders.encoder import Tokens
from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.rng import isolated
from maebench.testing.contract import Broken, Contract, NotChecked, expect
from maebench.testing.modules import differs, shake
from maebench.testing.probes import Size, images_of, mask_of
from maebench.testing.tokens import (
    check_count,
    check_grids,
    check_pair,
    check_places,
    check_tokens,
    flat,
    seen_cells,
    strongest,
)

# Small first: a contract is to take seconds. 96 is there for strides of 32, 224 for the stubborn.
SIDES = (16, 32, 64, 96, 128, 224)
FEWEST = 3  # rows and columns of patches: with fewer a wrong order may look right
RATIOS = (0.25, 0.5, 0.75, 0.9)  # the usual 0.75 (arXiv 2111.06377), and from few to many


class BuildChecks(Contract):
    """How an encoder is built and asked, and the checks of what is built."""

    kind: ClassVar[str] = "encoder"

    # ---- how it is built and asked

    def build(
        self, size: Size | None = None, channels: int = 3, seed: int = 0, encoder: Any = None
    ) -> Any:
        """A module as a run builds it, from a seed."""
        size = size or self.size
        with isolated(seed, "encoder"):
            return (encoder or self.made()).build(size, channels)

    def ready(self, size: Size | None = None, channels: int = 3, seed: int = 0) -> Any:
        """A module with shaken weights, in evaluation mode."""
        return shake(self.build(size, channels, seed))

    def ask(
        self, module: Any, images: Tensor, mask: Mask | None = None, layers: Any = (), seed: int = 0
    ) -> Tokens:
        """What the module returns under a global seed."""
        with isolated(seed, "forward"):
            return module(images, mask, layers)

    def outputs(self, module: Any, images: Tensor, mask: Mask | None = None) -> dict[str, Tensor]:
        """All that the module returns, layers included, without gradients."""
        with torch.no_grad():
            return flat(self.ask(module, images, mask, range(1, module.depth + 1)))

    def accepts(self, size: Size) -> bool:
        """Whether it takes images of this size, with enough patches to tell an order."""
        try:
            module = self.build(size)
        except ConfigError:
            return False
        return min(module.grid) >= FEWEST

    @functools.cached_property
    def size(self) -> Size:
        """The smallest square size that it takes."""
        squares = ((side, side) for side in SIDES)
        found = list(islice(filter(self.accepts, squares), 1))
        expect(
            found,
            f"it takes none of {', '.join(f'{s}x{s}' for s in SIDES)} with at least "
            f"{FEWEST}x{FEWEST} patches; give example: ClassVar = {{...}} with options of a "
            "small one",
        )
        return found[0]

    @functools.cached_property
    def sizes(self) -> list[Size]:
        """The square size, and an oblong one where the encoder declares that it takes some."""
        if not self.made().oblong:
            return [self.size]
        tried = ((side, 2 * side) for side in SIDES[:-1])
        return [self.size, *islice(filter(self.accepts, tried), 1)]

    def cases(self, module: Any) -> Iterator[tuple[str, Mask | None]]:
        """Masks to ask it with, by name, none among them."""
        yield "without a mask", None
        for number, ratio in enumerate(RATIOS):
            mask = mask_of(module.grid, ratio, seed=number)
            yield f"with {mask.num_hidden} of {mask.hidden.shape[1]} patches hidden", mask

    # ---- what is built

    def test_its_attributes_fit_the_images(self) -> None:
        """Masks are drawn, decoders sized and layers counted from the module's attributes."""
        for size in self.sizes:
            module = self.build(size)
            expect(isinstance(module, nn.Module), f"build gives {type(module)}, not an nn.Module")
            for name in ("grid", "out_grid", "patch"):
                check_pair(module, name)
            for name, least in (("channels", 1), ("width", 1), ("prefix", 0), ("depth", 1)):
                check_count(module, name, least)
            check_grids(module, size)

    def test_its_tokens_have_the_documented_shapes(self) -> None:
        """Decoders, probes and pictures rely on shapes, grid and `seen` as Tokens documents."""
        for size in self.sizes:
            module = self.ready(size)
            for what, mask in self.cases(module):
                layers = tuple(range(1, module.depth + 1))
                tokens = self.ask(module, images_of(size), mask, layers)
                check_tokens(tokens, module, mask, what)
                expect(
                    tuple(sorted(tokens.layers)) == layers,
                    f"{what}: asked for layers {list(layers)}, it gives {sorted(tokens.layers)}",
                )
                for number, level in tokens.layers.items():
                    check_places(level, module, mask, f"{what}, layer {number}")
                one = self.ask(module, images_of(size), mask, (module.depth,)).layers
                expect(
                    list(one) == [module.depth],
                    f"{what}: asked for layer {module.depth} alone, it gives {sorted(one)}",
                )

    def test_its_tokens_lie_in_raster_order(self) -> None:
        """A decoder puts each token where the grid or `seen` says, and draws it there."""
        module = self.ready(self.sizes[-1])
        for what, mask in (("without a mask", None), ("masked", mask_of(module.grid, count=1))):
            images = images_of(self.sizes[-1], count=1).requires_grad_()
            tokens = self.ask(module, images, mask)
            own = torch.arange(tokens.patches.shape[1]) if tokens.seen is None else tokens.seen[0]
            best = strongest(tokens, images)
            # a token that stands for hidden patches alone depends on none of them
            known = best >= 0 if mask is None else (best >= 0) & seen_cells(mask, tokens.grid)[own]
            own, best = own[known], best[known]
            if bool((own == best).float().mean() >= 0.5):
                continue
            if len(best) < 2 or len(best.unique()) < 0.7 * len(best):
                raise NotChecked(f"{what}: its tokens do not tell which patch they stand for")
            wrong = int((own != best).nonzero()[0])
            raise Broken(
                f"{what}: the token of place {int(own[wrong])} on the {tokens.grid} grid depends "
                f"most on patch {int(best[wrong])}, and so do {int((own != best).sum())} of "
                f"{len(own)}; give tokens in raster order (row by row) of the grid or of `seen`",
            )

    def test_it_takes_grey_and_many_channels(self) -> None:
        """Digits have one channel, satellite images many."""
        for channels in (1, 5):
            module = self.ready(channels=channels)
            images = images_of(self.size, channels)
            expect(
                module.channels == channels,
                f"built for {channels} channels, its attribute channels is {module.channels}",
            )
            first = self.outputs(module, images)
            for channel in range(channels):
                other = images.clone()
                other[:, channel] += 1
                expect(
                    differs(first, self.outputs(module, other)),
                    f"built for {channels} channels, its tokens do not depend on the one at "
                    f"index {channel}",
                )

    def test_sizes_that_do_not_fit_are_refused(self) -> None:
        """A size that is cut off in silence loses pixels; the user is told with a ConfigError."""
        (H, W), module = self.size, self.build()
        p, q = module.patch
        wrong = [(H + 1, W), (H, W + 1), (H + 1, W + 1), (H + p, W + q)]
        if not self.made().oblong:
            wrong = wrong[2:]  # another check is about oblong images
        for size in wrong:
            try:
                made = self.build(size)
            except ConfigError:
                continue
            except Exception as error:
                raise Broken(
                    f"build({size}, 3) raises {type(error).__name__}: {error}; raise ConfigError "
                    "with the sizes that would do"
                ) from error
            check_grids(made, size)

    def test_it_takes_oblong_images_or_says_so(self) -> None:
        """Whether images may be oblong is declared, so that a run is refused before it starts."""
        if self.made().oblong:
            expect(
                len(self.sizes) > 1,
                f"it takes no images twice as wide as high, from {SIDES[0]}x{2 * SIDES[0]} up; "
                "declare oblong: ClassVar[bool] = False if images must be square",
            )
            return  # every other check tries an oblong size too
        H, W = self.size
        for size in ((H, 2 * W), (2 * H, W)):
            try:
                self.build(size)
            except ConfigError:
                continue
            raise Broken(
                f"oblong is False, but build({size}, 3) takes images of {size[0]}x{size[1]}; "
                "raise ConfigError, or declare oblong = True",
            )
