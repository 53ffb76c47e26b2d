"""Does an encoder look at all of what is seen, and at nothing of what is hidden?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maebench.masking.mask import Mask, hide
from maebench.masking.patches import hidden_pixels
from maebench.rng import isolated
from maebench.testing.contract import NotChecked, expect
from maebench.testing.encoder_build import BuildChecks
from maebench.testing.modules import TOLERANCE, changed, copied, differs, gap, shake
from maebench.testing.probes import BATCH, Size, images_of
from maebench.testing.tokens import check_tokens, flat, projection


class HidingChecks(BuildChecks):
    """The checks of what is seen and what is hidden."""

    def test_no_gradient_reaches_hidden_pixels(self) -> None:
        """A hidden patch that leaks makes the task trivial and every number of the run wrong."""
        for size in self.sizes:
            module = self.ready(size)
            for training in (False, True):
                module.train(training)
                for what, mask in self.cases(module):
                    if mask is not None:
                        self._no_gradient(module, size, mask, what)

    def _no_gradient(self, module: Any, size: Size, mask: Mask, what: str) -> None:
        images = images_of(size).requires_grad_()
        layers = range(1, module.depth + 1)
        for name, x in flat(self.ask(module, images, mask, layers)).items():
            if not x.requires_grad:
                continue
            (found,) = torch.autograd.grad(
                projection({name: x}), images, retain_graph=True, allow_unused=True
            )
            if found is None:
                continue
            leak = float((found * hidden_pixels(mask, module.patch)).abs().max())
            mode = "training" if module.training else "evaluation"
            expect(
                leak == 0,
                f"{what}, in {mode} mode: the gradient of {name} with respect to hidden pixels is "
                f"up to {leak:.2g} and must be exactly 0; drop or replace hidden patches before "
                "anything mixes patches",
            )

    def test_hidden_pixels_do_not_change_what_it_returns(self) -> None:
        """What is detached, rounded or counted leaks as well, and no gradient shows it."""
        for size in self.sizes:
            module = self.ready(size)
            start = copied(module.state_dict())
            for training in (False, True):
                module.train(training)
                for what, mask in self.cases(module):
                    if mask is not None:
                        self._no_change(module, size, mask, what, start)

    def _no_change(
        self, module: Any, size: Size, mask: Mask, what: str, start: dict[str, Tensor]
    ) -> None:
        images, hidden = images_of(size), hidden_pixels(mask, module.patch)
        # ten times as strong, so that a leak rises above rounding
        other = torch.where(hidden, 10 * images_of(size, seed=1), images)
        found = []
        for x in (images, other):
            module.load_state_dict(start)  # running statistics move in training
            found.append(self.outputs(module, x, mask))
        far, where = gap(*found)
        mode = "training" if module.training else "evaluation"
        expect(
            not differs(*found),
            f"{what}, in {mode} mode: with other pixels in hidden patches {where} changes by up to "
            f"{far:.2g} of its largest number; it must stay identical",
        )

    def test_what_is_seen_changes_what_it_returns(self) -> None:
        """An encoder that does not look at a seen patch has learnt less than it is said to."""
        module, images = self.ready(), images_of(self.size)
        for what, mask in self.cases(module):
            first = self.outputs(module, images, mask)
            places = range(module.grid[0] * module.grid[1]) if mask is None else mask.seen[0]
            for place in map(int, places):
                only = torch.ones(1, module.grid[0] * module.grid[1], dtype=torch.bool)
                only[0, place] = False
                pixels = ~hidden_pixels(Mask(only, only.nonzero(), module.grid), module.patch)
                other = images.clone()
                other[:1] += 3 * pixels  # three deviations of the images
                expect(
                    differs(first, self.outputs(module, other, mask)),
                    f"{what}: nothing that it returns depends on the seen patch {place}",
                )

    def test_no_mask_equals_a_mask_that_sees_everything(self) -> None:
        """What is pretrained under masks is evaluated without: both must be one function."""
        for size in self.sizes:
            module, images = self.ready(size), images_of(size)
            length = module.grid[0] * module.grid[1]
            everything = hide(torch.zeros(BATCH, length), 0, module.grid)
            found, where = gap(*(self.outputs(module, images, mask) for mask in (None, everything)))
            expect(
                found <= TOLERANCE,
                f"mask=None and a mask that hides nothing differ by up to {found:.2g} in {where}",
            )

    def test_an_image_does_not_depend_on_its_companions(self) -> None:
        """Tokens of one image that land in another, as a boolean index may do, spoil training."""
        for size in self.sizes:
            module, images = self.ready(size), images_of(size)
            for what, mask in self.cases(module):
                self._alone(module, images, mask, what)

    def _alone(self, module: Any, images: Tensor, mask: Mask | None, what: str) -> None:
        other = images_of((images.shape[2], images.shape[3]), images.shape[1], seed=1)
        other[0] = images[0]
        mixed = mask
        if mask is not None:  # the first mask stays, its companions get those of their neighbours
            order = [0, *range(2, BATCH), 1]
            mixed = Mask(mask.hidden[order], mask.seen[order], mask.grid)
        one, two = self.outputs(module, images, mask), self.outputs(module, other, mixed)
        found, where = gap(*({k: x[:1] for k, x in each.items()} for each in (one, two)))
        expect(
            found <= TOLERANCE,
            f"{what}: with other images beside it, {where} of an image changes by up to "
            f"{found:.2g} in evaluation mode",
        )
        back = Mask(mask.hidden.flip(0), mask.seen.flip(0), mask.grid) if mask else None
        turned = self.outputs(module, images.flip(0), back)
        found, where = gap(one, {k: x.flip(0) for k, x in turned.items()})
        expect(
            found <= TOLERANCE,
            f"{what}: in a batch in reverse order {where} differs by up to {found:.2g}",
        )

    def test_a_single_image_is_a_batch_too(self) -> None:
        """The last batch of a pass may hold one image, and a squeeze then loses an axis."""
        module, images = self.ready(), images_of(self.size)
        for what, mask in self.cases(module):
            alone = None if mask is None else mask.split(1)[0]
            tokens = self.ask(module, images[:1], alone)
            check_tokens(tokens, module, alone, f"one image, {what}", 1)
            whole = self.outputs(module, images, mask)
            found, where = gap(
                self.outputs(module, images[:1], alone), {k: x[:1] for k, x in whole.items()}
            )
            expect(
                found <= TOLERANCE,
                f"one image alone, {what}: {where} differs by up to {found:.2g} from what it "
                "gives in a batch",
            )

    def test_told_to_keep_positions_it_has_a_token_for_what_is_hidden(self) -> None:
        """Some objectives read hidden patches off the encoder's own tokens."""
        module, images = self.build(), images_of(self.size)
        if not hasattr(module, "keep_positions"):
            raise NotChecked("it has no keep_positions(): only encoders that drop patches want one")
        whole = self.outputs(module.eval(), images)
        before = {name for name, _ in module.named_parameters()}
        with isolated(0, "contract"):
            module.keep_positions()
        expect(
            not differs(whole, self.outputs(module, images)),
            "after keep_positions() its tokens without a mask are others",
        )
        named = {name for name, _ in module.named_parameters()}
        left = sorted(named - before - set(module.layer_ids()))
        expect(not left, f"after keep_positions() layer_ids lacks {', '.join(left)}")
        shake(module)
        start = copied(module.state_dict())
        for what, mask in self.cases(module):
            if mask is None:
                continue
            what = f"after keep_positions(), {what}"
            tokens = self.ask(module, images, mask)
            check_tokens(tokens, module, mask, what)
            expect(tokens.seen is None, f"{what}: seen must be None, every patch has its token")
            self._no_gradient(module, self.size, mask, what)
            self._no_change(module, self.size, mask, what, start)

    def test_it_leaves_images_and_mask_as_they_are(self) -> None:
        """The target is made of the same images afterwards: blanked in place, it would be 0."""
        for training in (False, True):
            module = self.ready().train(training)
            for what, mask in self.cases(module):
                images = images_of(self.size)
                given = {"images": images}
                if mask is not None:
                    given |= {"mask.hidden": mask.hidden, "mask.seen": mask.seen}
                before = copied(given)
                self.ask(module, images, mask)
                wrong = changed(before, given)
                expect(not wrong, f"{what}: it changes {', '.join(wrong)} in place; clone them")
