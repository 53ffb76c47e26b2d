"""Does an objective keep to its contract: a loss that trains, of the patches that it declares?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import hidden_pixels, patchify
from maebench.objectives.objective import Batch, Objective, Reconstruction
from maebench.rng import isolated
from maebench.testing.contract import Broken, NotChecked, expect
from maebench.testing.modules import TOLERANCE, Trace, changed, check_options, copied, differs
from maebench.testing.objective_loss import COARSE, MAIN, SETTINGS
from maebench.testing.objective_pictures import PictureChecks
from maebench.testing.probes import IMAGES, PATCH, Blind, images_of, mask_of, pictures


class ObjectiveContract(PictureChecks):
    """Checks of an objective, around encoders of the kit."""

    # ---- what is compared

    def test_the_loss_compares_the_patches_it_declares(self) -> None:
        """A loss that also scores what was seen is another experiment than `loss_on` says."""
        for objective in self._deciding():
            try:
                with isolated(0, "encoder"):
                    module = self.around(Blind((16, 16), 3), MAIN, objective=objective)
            except ConfigError:
                continue
            for progress in (0.0, 0.5, 1.0):
                self._compares(module, objective, progress)

    def _deciding(self) -> Iterator[Any]:
        """The objective, and with each value that is tried of each option."""
        base = self.made()
        yield base
        for option in type(base).model_fields:
            yield from self._varied(option)

    def _varied(self, option: str) -> list[Any]:
        try:
            return self.variations(option)
        except Broken:
            return []  # another check says so

    def _compares(self, module: Any, objective: Any, progress: float) -> None:
        batch, declared = self.batch(progress=progress), objective.loss_on
        expect(declared in ("hidden", "all"), f'loss_on is {declared!r}, not "hidden" or "all"')
        if batch.mask is None:
            expect(declared == "all", 'it hides nothing, so loss_on must be "all"')
            hidden = torch.zeros(IMAGES, 1, 16, 16, dtype=torch.bool)
        else:
            hidden = hidden_pixels(batch.mask, PATCH)
        noise = images_of((16, 16), count=IMAGES, seed=1)
        asked = {
            where: self.loss(
                module, dataclasses.replace(batch, images=batch.images + noise * place)
            ).item()
            for where, place in (("nowhere", hidden & False), ("hidden", hidden), ("seen", ~hidden))
        }
        by_hidden, by_seen = (
            abs(asked[where] - asked["nowhere"]) / max(1.0, abs(asked["nowhere"]))
            for where in ("hidden", "seen")
        )
        told = (
            f"{objective.changed()} at progress {progress:g}, around an encoder that sees no pixel "
            "under a mask"
        )
        expect(
            batch.mask is None or not module.encoder.asked_whole,
            f"{told}: it asks the encoder without the mask, and trains what comes of it; give it "
            "batch.mask, or ask a copy under torch.no_grad()",
        )
        if by_hidden == by_seen == 0:
            raise NotChecked(f"{told}: the loss depends on no pixel")
        if declared == "hidden":
            reaches = self._reaches_hidden(module, batch, noise * ~hidden)
            expect(
                by_seen <= 1e-6 or reaches,  # one rounding of the sum
                f'{told}: loss_on is "hidden", but other pixels in seen patches change the loss '
                f"from {asked['nowhere']:.6g} to {asked['seen']:.6g}; score hidden patches alone",
            )
            self._no_gradient(module, batch, ~hidden, told)
        else:
            expect(
                by_seen > 1e-6,
                f'{told}: loss_on is "all", but other pixels in seen patches do not change the '
                f'loss of {asked["nowhere"]:.6g}; declare "hidden"',
            )
        expect(
            by_hidden > 1e-6 or batch.mask is None,
            f"{told}: other pixels in hidden patches do not change the loss",
        )

    def _reaches_hidden(self, module: Any, batch: Batch, change: Tensor) -> bool:
        """Whether other pixels in seen patches change hidden patches' targets, as gradients do.

        Then they change the loss as well, which so does not say what it compares.
        """
        if batch.mask is None or not hasattr(module, "reconstruct"):
            return False
        one, other = (
            self._reconstruct(module, images, batch.mask).target[batch.mask.hidden]
            for images in (batch.images, batch.images + change)
        )
        return not torch.equal(one, other)

    def _no_gradient(self, module: Any, batch: Batch, seen: Tensor, told: str) -> None:
        images = batch.images.clone().requires_grad_()
        loss = self.loss(module, dataclasses.replace(batch, images=images))
        (slope,) = torch.autograd.grad(loss, images, allow_unused=True)
        leak = 0.0 if slope is None else float((slope * seen).abs().max())
        expect(
            leak == 0,
            f'{told}: loss_on is "hidden", but the gradient with respect to seen pixels is up to '
            f"{leak:.2g} and must be exactly 0",
        )

    # ---- randomness and batches

    def test_one_seed_and_one_batch_give_one_loss(self) -> None:
        """A run that is resumed, or made again, must go the same way."""
        module, batch = self.try_build(MAIN), self.batch()
        before = copied(module.state_dict())
        one = self.loss(module, batch)
        if differs(before, module.state_dict()):  # a queue or a running mean: start anew
            module = self.build()
        with isolated(1, "between"):
            torch.rand(7)
        two = self.loss(module, batch)
        expect(
            torch.equal(one, two),
            f"the loss of one batch is {one.item():.8g} and then {two.item():.8g} under the same "
            "global seed and the same draws; take random numbers from batch.draws",
        )

    def test_it_leaves_the_batch_as_it_is(self) -> None:
        """The same images serve other parts of the step."""
        module, batch = self.try_build(MAIN), self.batch()
        given = {"images": batch.images, "ids": batch.ids}
        if batch.mask is not None:
            given |= {"mask.hidden": batch.mask.hidden, "mask.seen": batch.mask.seen}
        if batch.labels is not None:
            given["labels"] = batch.labels
        before = copied(given)
        self.loss(module, batch).backward()
        if batch.mask is not None and hasattr(module, "reconstruct"):
            module.reconstruct(batch.images, batch.mask)
        wrong = changed(before, given)
        expect(not wrong, f"it changes {', '.join(wrong)} of the batch in place; clone them")

    def test_the_loss_is_the_mean_over_images(self) -> None:
        """A batch that is accumulated in parts must give the gradient of the whole batch."""
        module = self.try_build(MAIN).eval()
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
            raise NotChecked("it has batch norm: the statistics of a part are not those of a batch")
        batch = self.batch()
        with torch.no_grad():
            whole = self.loss(module, batch).item()
            for size in (4, 3, 1):
                parts = batch.split(size)
                mean = sum(self.loss(module, p).item() * len(p.ids) for p in parts) / IMAGES
                expect(
                    abs(mean - whole) <= TOLERANCE * max(1.0, abs(whole)),
                    f"the loss of {IMAGES} images is {whole:.6g}, but {mean:.6g} as the mean over "
                    f"parts of {size}; give the mean over images, and take random numbers from "
                    "batch.draws",
                )

    # ---- what is kept

    def test_a_checkpoint_brings_all_back(self) -> None:
        """A run goes on from its checkpoint as if it had never stopped, teacher included."""
        module = self.try_build(MAIN)
        self.train(module, 2)
        fresh = self.build(seed=1)
        fresh.load_state_dict(module.state_dict())
        for training in (True, False):
            one, two = (self.loss(m.train(training), self.batch()) for m in (module, fresh))
            expect(
                torch.isclose(one, two, TOLERANCE, TOLERANCE),
                f"after two steps the loss is {one.item():.6g}, but {two.item():.6g} where the "
                "state_dict was loaded into a fresh build; register all it keeps as parameters "
                "or buffers",
            )

    def test_after_step_keeps_all_finite(self) -> None:
        """What follows the weights, such as a teacher, is updated after each step."""
        module = self.try_build(MAIN)
        if not hasattr(module, "after_step"):
            raise NotChecked("it has no after_step(progress)")
        self.loss(module, self.batch()).backward()
        for progress in (0.0, 0.5, 1.0):
            module.after_step(progress)
            wrong = [
                name
                for name, x in module.state_dict().items()
                if x.is_floating_point() and not bool(x.isfinite().all())
            ]
            told = f"after_step({progress})"
            expect(not wrong, f"{told} makes {', '.join(wrong[:3])} infinite or NaN")
            loss = self.loss(module, self.batch())
            expect(loss.isfinite(), f"after {told} the loss is {loss.item()}")
            expect(loss.requires_grad, f"after {told} the loss has no gradient")

    def test_it_is_finite_in_bf16(self) -> None:
        """On a GPU pretraining runs in bfloat16 autocast."""
        for setting in (MAIN, COARSE):
            try:
                module = self.build(setting)
            except ConfigError:
                continue
            with torch.autocast("cpu", torch.bfloat16):
                loss = self.loss(module, self.batch(setting))
            expect(loss.isfinite(), f"{setting}: in bf16 autocast the loss is {loss.item()}")
            loss.backward()
            self._finite(module, f"{setting} in bf16 autocast")

    # ---- reconstruction

    def reconstructions(self) -> Iterator[tuple[str, Any, Tensor, Mask, Reconstruction]]:
        """What `reconstruct` gives in every setting."""
        for setting, (size, channels) in SETTINGS.items():
            try:
                module = self.build(setting).eval()
            except ConfigError:
                continue
            if not hasattr(module, "reconstruct"):
                raise NotChecked("it has no reconstruct(images, mask)")
            images, mask = pictures(size, channels), mask_of(module.encoder.grid, 0.5, IMAGES)
            yield setting, module, images, mask, self._reconstruct(module, images, mask)

    def _reconstruct(self, module: Any, images: Tensor, mask: Mask) -> Reconstruction:
        with isolated(0, "reconstruct"), torch.no_grad():
            return module.reconstruct(images, mask)

    def test_reconstructions_have_the_documented_shapes(self) -> None:
        """The evaluation of reconstructions and the maskings that ask for losses rely on them."""
        for setting, _, images, mask, made in self.reconstructions():
            is_made = isinstance(made, Reconstruction)
            expect(is_made, f"reconstruct gives {type(made)}, not a Reconstruction")
            length = mask.hidden.shape[1]
            given = {"prediction": made.prediction, "target": made.target, "pixels": made.pixels}
            given["whole"] = made.whole
            for name, x in given.items():
                if x is None:
                    continue
                expect(
                    x.ndim == 3 and tuple(x.shape[:2]) == (IMAGES, length),
                    f"{setting}: {name} is {tuple(x.shape)}, must be (B, L, T) with (B, L) = "
                    f"{(IMAGES, length)}, patches of the grid that masks are drawn on",
                )
                expect(x.dtype == torch.float32, f"{setting}: {name} is {x.dtype}, not float32")
                expect(x.isfinite().all(), f"{setting}: {name} is not finite")
            shapes = tuple(made.prediction.shape), tuple(made.target.shape)
            expect(shapes[0] == shapes[1], f"{setting}: prediction and target are {shapes}")
            T = PATCH[0] * PATCH[1] * images.shape[1]
            for name in ("pixels", "whole"):
                x = given[name]
                width = T if x is None else x.shape[2]
                expect(width == T, f"{setting}: {name} holds {width} numbers a patch, not {T}")
            if made.pixels is not None:
                expect(made.how, f"{setting}: how is empty; say how the pixels were made")
            expect(made.space, f"{setting}: space is empty; name what is predicted")

    def test_targets_in_pixels_are_the_pixels(self) -> None:
        """Errors are compared over models whose space is pixels: the truth is the same for all."""
        for setting, module, images, mask, made in self.reconstructions():
            other = self._reconstruct(module, images, mask_of(mask.grid, 0.5, IMAGES, seed=1))
            if made.space != "pixels":
                raise NotChecked(f"its space is {made.space!r}")
            expect(
                torch.equal(made.target, other.target),
                f"{setting}: target changes with the mask, although its space is pixels",
            )
            expect(
                torch.allclose(made.target, patchify(images, PATCH)),
                f"{setting}: target is not patchify(images), although its space is pixels",
            )

    def test_reconstructions_use_nothing_that_is_hidden(self) -> None:
        """A true mean or deviation of a hidden patch makes any model look good."""
        for setting, module, images, mask, made in self.reconstructions():
            hidden = hidden_pixels(mask, PATCH)
            noise = images_of((images.shape[2], images.shape[3]), images.shape[1], IMAGES, 1)
            # five deviations up, so that means and deviations are others
            other = self._reconstruct(module, torch.where(hidden, 3 * noise + 5, images), mask)
            for name in ("prediction", "pixels"):
                one, two = getattr(made, name), getattr(other, name)
                if one is None:
                    continue
                expect(
                    torch.equal(one, two),
                    f"{setting}: with other pixels in hidden patches {name} changes by up to "
                    f"{float((one - two).abs().max()):.2g}; no true statistic of a hidden patch "
                    "may enter",
                )

    def test_what_is_made_of_whole_images_depends_on_all_of_them(self) -> None:
        """`whole` says how much of an image is kept: the model is given every patch of it."""
        for setting, module, images, mask, made in self.reconstructions():
            if made.whole is None:
                raise NotChecked("it gives no whole: it learns hidden patches alone")
            hidden = hidden_pixels(mask, PATCH)
            noise = images_of((images.shape[2], images.shape[3]), images.shape[1], IMAGES, 1)
            other = self._reconstruct(module, torch.where(hidden, 3 * noise + 5, images), mask)
            expect(
                other.whole is not None and not torch.equal(made.whole, other.whole),
                f"{setting}: with other pixels in hidden patches whole stays as it is; give the "
                "model the whole image for it",
            )

    # ---- options

    def test_every_option_changes_something(self) -> None:
        """An option that does nothing makes two equal runs look like two experiments."""
        around = "around the kit's encoders"
        check_options(self, self._traces, around, f"state nor loss {around}")

    def _traces(self, objective: Objective) -> Iterator[tuple[str, Trace]]:
        """State at first, losses, and state after two steps, in settings that it takes."""
        for setting in (MAIN, COARSE):
            try:
                module = self.build(setting, objective=objective)
            except ConfigError:
                continue
            yield f"state of {setting}", copied(module.state_dict())
            for progress in (0.0, 0.5, 1.0):
                loss = self.loss(module, self.batch(setting, progress=progress)).detach()
                yield f"loss of {setting} at {progress}", {"loss": loss}
            self.train(module, 2, setting)
            yield f"trained {setting}", dict(module.state_dict())
            if hasattr(module, "reconstruct"):
                mask = mask_of(module.encoder.grid, 0.5, IMAGES)
                images = pictures(*SETTINGS[setting])
                made = self._reconstruct(module.eval(), images, mask)
                found = {"prediction": made.prediction, "target": made.target}
                pixels = {} if made.pixels is None else {"pixels": made.pixels}
                yield f"reconstruction of {setting}", found | pixels
