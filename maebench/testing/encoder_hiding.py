"""How an encoder is asked, and whether it looks at all that is seen and at nothing hidden."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar

import torch

from maebench.encoders.inputs import IMAGES, Inputs, takes
from maebench.errors import ConfigError
from maebench.masking.mask import Mask, hide
from maebench.rng import isolated
from maebench.testing.cases import (
    BATCH,
    RATIOS,
    Case,
    Size,
    cases,
    hidden_in,
    images_of,
    lent,
    other_inputs,
    projection,
)
from maebench.testing.contract import Broken, Contract, NotChecked, expect, same
from maebench.testing.modules import copied, expect_close, gap, names_of, rows, shake, untouched
from maebench.testing.tokens import ask, check_tokens, flat, outputs

# Small first: a contract is to take seconds. 96 is there for strides of 32, 224 for the stubborn.
SIDES = (16, 32, 64, 96, 128, 224)
FEWEST = 3  # rows and columns of patches: with fewer a wrong order may look right
MODES = (False, True)  # evaluation, training


class HidingChecks(Contract):
    """How an encoder is built and asked, and the checks of what is seen and what is hidden."""

    kind: ClassVar[str] = "encoder"

    # ---- how it is built and asked

    def build(self, inputs: Inputs | None = None, seed: int = 0, encoder: Any = None) -> Any:
        """A module as a run builds it, from a seed."""
        with isolated(seed, "encoder"):
            return (encoder or self.made()).build(inputs or self.inputs)

    def ready(self, inputs: Inputs | None = None) -> Any:
        """A module with shaken weights, in evaluation mode."""
        return shake(self.build(inputs))

    def images_only(self) -> None:
        """Ends a check that is of images alone.

        Raises:
            NotChecked: it takes none.
        """
        if self.inputs.kind != IMAGES:
            raise NotChecked(f"it takes {self.inputs.kind}, and no images")

    def _accepted(self, sizes: Iterator[Size]) -> list[Inputs]:
        """Images of the first size that it takes, with enough patches to tell an order."""

        def accepts(inputs: Inputs) -> bool:
            try:
                return min(self.build(inputs).grid) >= FEWEST
            except ConfigError:
                return False

        return list(islice(filter(accepts, (Inputs.of_images(3, size) for size in sizes)), 1))

    @property
    def inputs(self) -> Inputs:
        """Images of the smallest square size that it takes, or what it takes else."""
        kinds = self.made().takes
        if not takes(self.made(), IMAGES):
            return other_inputs(kinds[0])
        found = self.kept("size", lambda: self._accepted((side, side) for side in SIDES))
        expect(
            found,
            f"it takes none of {', '.join(f'{s}x{s}' for s in SIDES)} with at least "
            f"{FEWEST}x{FEWEST} patches; give example: ClassVar = {{...}} with options of a "
            "small one",
        )
        return found[0]

    @property
    def every(self) -> list[Inputs]:
        """The square images, and oblong ones where the encoder declares that it takes some."""
        if self.inputs.kind != IMAGES or not self.made().oblong:
            return [self.inputs]
        tried = ((side, 2 * side) for side in SIDES[:-1])
        return [self.inputs, *self.kept("oblong size", lambda: self._accepted(tried))]

    def cases(
        self,
        modes: Sequence[bool] = (False,),
        every_size: bool = False,
        ratios: Sequence[float | None] = (None, *RATIOS),
    ) -> Iterator[Case]:
        """Ways to ask a ready module: at every size or the first, in each mode, with each mask."""
        for inputs in self.every if every_size else [self.inputs]:
            yield from cases(self.ready(inputs), modes, ratios)

    # ---- nothing of what is hidden

    def test_no_gradient_reaches_hidden_pixels(self) -> None:
        """A hidden patch that leaks makes the task trivial and every number of the run wrong."""
        if self.inputs.vocabulary:
            raise NotChecked("token ids have no gradient; another check changes them")
        for case in self.cases(MODES, every_size=True):
            self._no_gradient(case)

    def _no_gradient(self, case: Case) -> None:
        module, images, mask, what = case
        if mask is None:
            return
        tokens = flat(ask(module, images.requires_grad_(), mask, range(1, module.depth + 1)))

        def leak(names: Iterable[str]) -> float:
            total = projection({name: tokens[name] for name in names})
            (slope,) = torch.autograd.grad(total, images, retain_graph=True, allow_unused=True)
            found = None if slope is None else slope * hidden_in(images, mask, module.patch)
            return 0.0 if found is None else float(found.abs().max())

        leaks = [name for name, x in tokens.items() if x.requires_grad]
        if leak(leaks) != 0:  # all at once is quicker
            leaks = [name for name in leaks if leak([name])]
            raise Broken(
                f"{what}: the gradient of {', '.join(leaks)} with respect to hidden pixels is up "
                f"to {leak(leaks):.2g} and must be exactly 0; drop or replace hidden patches "
                "before anything mixes patches",
            )

    def test_hidden_pixels_do_not_change_what_it_returns(self) -> None:
        """What is detached, rounded or counted leaks as well, and no gradient shows it."""
        for case in self.cases(MODES, every_size=True):
            self._no_change(case)

    def _no_change(self, case: Case) -> None:
        module, images, mask, what = case
        if mask is None:
            return
        strong = images_of(module.inputs, seed=1)
        if not module.inputs.vocabulary:
            strong *= 10  # as strong, so that a leak rises above rounding
        start, found = copied(module.state_dict()), []
        for x in (images, torch.where(hidden_in(images, mask, module.patch), strong, images)):
            found.append(outputs(module, x, mask))
            module.load_state_dict(start)  # running statistics move in training
        far, where = gap(*found)
        expect(
            same(*found),
            f"{what}: with other pixels in hidden patches {where} changes by up to {far:.2g} of "
            "its largest number; it must stay identical",
        )

    def test_a_hidden_patch_is_no_grey_one_or_it_says_so(self) -> None:
        """A network that is fed holes learns of their edges; only a control may, which says so."""
        self.images_only()
        grey = True
        for module, images, mask, _ in self.cases(ratios=RATIOS):
            assert mask is not None
            found = ask(module, images, mask)
            whole = ask(module, images * ~hidden_in(images, mask, module.patch), None)
            grey &= found.seen is None and torch.allclose(found.patches, whole.patches, atol=1e-4)
        told = "and declares leaky = True" if self.made().leaky else "and does not declare leaky"
        expect(
            grey == self.made().leaky,
            f"it {'cannot' if grey else 'can'} tell hidden patches from grey ones that are seen, "
            f"{told}; drop them or put a learned token in their place, and only where neither is "
            "done declare leaky: ClassVar[bool] = True",
        )

    def test_asked_to_keep_positions_it_has_a_token_for_what_is_hidden(self) -> None:
        """Some objectives read hidden patches off the encoder's own tokens."""
        module, images, after = self.build(), images_of(self.inputs), "after keep_positions()"
        if not hasattr(module, "keep_positions"):
            raise NotChecked("it has no keep_positions(): only encoders that drop patches want one")
        whole, before = outputs(module.eval(), images), names_of(module)
        with isolated(0, "contract"):
            module.keep_positions()
        unchanged = same(whole, outputs(module, images))
        expect(unchanged, f"{after} its tokens without a mask are others")
        left = sorted(names_of(module) - before - set(module.layer_ids()))
        expect(not left, f"{after} layer_ids lacks {', '.join(left)}")
        for case in cases(shake(module), ratios=RATIOS):
            case = case._replace(what=f"{after}, {case.what}")
            tokens = ask(module, case.images, case.mask)
            check_tokens(tokens, module, case.mask, case.what)
            dense = tokens.seen is None
            expect(dense, f"{case.what}: seen must be None, every patch has its token")
            self._no_change(case)
            if not self.inputs.vocabulary:
                self._no_gradient(case)

    # ---- all of what is seen

    def test_what_is_seen_changes_what_it_returns(self) -> None:
        """An encoder that does not look at a seen patch has learnt less than it is said to."""
        for module, images, mask, what in self.cases(ratios=(None, 0.75)):
            first, length = outputs(module, images, mask), module.grid[0] * module.grid[1]
            for place in range(length) if mask is None else mask.seen[0].tolist():
                only = torch.ones(1, length, dtype=torch.bool)
                only[0, place] = False
                there = Mask(only, only.nonzero()[:, 1][None], module.grid)
                numbers = ~hidden_in(images, there, module.patch)
                other = images.clone()
                other[:1] += 3 * numbers  # three deviations of the images
                if vocabulary := module.inputs.vocabulary:
                    other %= vocabulary
                expect(
                    not same(first, outputs(module, other, mask)),
                    f"{what}: nothing that it returns depends on the seen patch {place}",
                )

    def test_no_mask_equals_a_mask_that_sees_everything(self) -> None:
        """What is pretrained under masks is evaluated without: both must be one function."""
        for inputs in self.every:
            module, images = self.ready(inputs), images_of(inputs)
            nothing = torch.zeros(BATCH, module.grid[0] * module.grid[1])
            both = [outputs(module, images, m) for m in (None, hide(nothing, 0, module.grid))]
            expect_close("mask=None beside a mask that hides nothing", *both)

    # ---- one image beside others

    def test_an_image_does_not_depend_on_its_companions(self) -> None:
        """Tokens of one image that land in another, as a boolean index may do, spoil training."""
        for module, images, mask, what in self.cases(every_size=True):
            whole = outputs(module, images, mask)
            other = images_of(module.inputs, seed=1)
            other[0] = images[0]
            order = [0, *range(2, BATCH), 1]  # the companions get the masks of their neighbours
            found = outputs(module, other, mask and _in_order(mask, order))
            name = f"{what}, an image with other images beside it"
            expect_close(name, rows(whole, slice(1)), rows(found, slice(1)))
            back = list(range(BATCH))[::-1]
            found = outputs(module, images[back], mask and _in_order(mask, back))
            expect_close(f"{what}, a batch in reverse order", whole, rows(found, back))

    def test_a_single_image_is_a_batch_too(self) -> None:
        """The last batch of a pass may hold one image, and a squeeze then loses an axis."""
        for module, images, mask, what in self.cases():
            alone, name = mask and mask.split(1)[0], f"one image alone, {what}"
            check_tokens(ask(module, images[:1], alone), module, alone, name, 1)
            first = rows(outputs(module, images, mask), slice(1))
            expect_close(name, first, outputs(module, images[:1], alone))

    def test_it_leaves_images_and_mask_as_they_are(self) -> None:
        """The target is made of the same images afterwards: blanked in place, it would be 0."""
        for module, images, mask, what in self.cases(MODES):
            with untouched(f"{what}: it", lent(images, mask)):
                ask(module, images, mask)


def _in_order(mask: Mask, order: list[int]) -> Mask:
    return Mask(mask.hidden[order], mask.seen[order], mask.grid)
