"""Whether an objective keeps to its contract: a loss of the patches that it declares."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from maebench.encoders.inputs import IMAGES, Inputs, takes
from maebench.errors import ConfigError
from maebench.masking.mask import Mask
from maebench.masking.patches import hidden_pixels, patchify
from maebench.objectives.objective import TOKENS, Batch, ImageGrid, Objective, Reconstruction
from maebench.rng import Draws, isolated
from maebench.testing.cases import PATCH, Blind, hidden_in, images_of, lent, mask_of
from maebench.testing.contract import Broken, NotChecked, expect, expect_tensor, same
from maebench.testing.modules import TOLERANCE, Trace, copied, untouched
from maebench.testing.objective_loss import COARSE, MAIN, LossChecks


class ObjectiveContract(LossChecks):
    """Checks of an objective, around encoders of the kit."""

    # ---- what is compared

    def test_the_loss_compares_the_patches_it_declares(self) -> None:
        """A loss that also scores what was seen is another experiment than `loss_on` says."""
        base = self.made()
        if not takes(base, IMAGES):
            raise NotChecked("which patches are compared is asked of images alone")
        for progress in (0.0, 0.5, 1.0):
            self._compares(base, progress)
        for option in type(base).model_fields:
            try:
                tried = self.variations(option)
            except Broken:
                continue  # another check says so
            for objective in tried:
                self._compares(objective, 0.5)

    def _compares(self, objective: Any, progress: float) -> None:
        try:
            with isolated(0, "encoder"):
                module = self.around(Blind((16, 16), 3), MAIN, objective=objective)
        except ConfigError:
            return
        batch, declared = self.batch(progress=progress), objective.loss_on
        expect(declared in ("hidden", "all"), f'loss_on is {declared!r}, not "hidden" or "all"')
        mask = batch.mask
        expect(mask or declared == "all", 'it hides nothing, so loss_on must be "all"')
        nowhere = torch.zeros(len(batch.ids), 1, 16, 16, dtype=torch.bool)
        hidden = hidden_pixels(mask, PATCH) if mask else nowhere
        noise = images_of(Inputs.of_images(3, (16, 16)), count=len(batch.ids), seed=1)

        def loss(places: Tensor) -> float:
            changed = dataclasses.replace(batch, images=batch.images + noise * places)
            return self.loss(module, changed).item()

        at_first, by_hidden, by_seen = (loss(places) for places in (nowhere, hidden, ~hidden))
        # one rounding of the sum is no difference
        far = 1e-6 * max(1.0, abs(at_first))
        moves_hidden, moves_seen = abs(by_hidden - at_first) > far, abs(by_seen - at_first) > far
        what = f"{objective.changed()} at progress {progress:g}, around an encoder that sees no "
        what += "pixel under a mask"
        expect(
            not mask or not module.encoder.asked_whole,
            f"{what}: it asks the encoder without the mask, and trains what comes of it; give it "
            "batch.mask, or ask a copy under torch.no_grad()",
        )
        if by_hidden == by_seen == at_first:
            raise NotChecked(f"{what}: the loss depends on no pixel")
        stays = f"do not change the loss of {at_first:.6g}"
        seen = f'{what}: loss_on is "{declared}", but other pixels in seen patches'
        expect(moves_seen or declared == "hidden", f'{seen} {stays}; declare "hidden"')
        unmoved = f"{what}: other pixels in hidden patches {stays}"
        expect(moves_hidden or not mask, unmoved)
        if declared == "hidden":
            expect(
                not moves_seen or self._reaches_hidden(module, batch, noise * ~hidden),
                f"{seen} change the loss from {at_first:.6g} to {by_seen:.6g}; score hidden "
                "patches alone",
            )
            images = batch.images.clone().requires_grad_()
            total = self.loss(module, dataclasses.replace(batch, images=images))
            (slope,) = torch.autograd.grad(total, images, allow_unused=True)
            leak = 0.0 if slope is None else float((slope * ~hidden).abs().max())
            wanted = f"have a gradient of up to {leak:.2g}, which must be exactly 0"
            expect(leak == 0, f"{seen} {wanted}")

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

    # ---- randomness and batches

    def test_one_seed_and_one_batch_give_one_loss(self) -> None:
        """A run that is resumed, or made again, must go the same way."""
        module, batch = self.try_build(), self.batch()
        before = copied(module.state_dict())
        one = self.loss(module, batch)
        if not same(before, module.state_dict()):  # a queue or a running mean: start anew
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
        module, batch = self.try_build(), self.batch()
        images, mask = batch.images, batch.mask
        parts = {**lent(images, mask), "ids": batch.ids, "labels": batch.labels}
        with untouched("it", {f"batch.{name}": x for name, x in parts.items()}):
            self.loss(module, batch).backward()
            if mask is not None and hasattr(module, "reconstruct"):
                module.reconstruct(images, mask)

    def test_the_loss_is_the_mean_over_images(self) -> None:
        """A batch that is accumulated in parts must give the gradient of the whole batch."""
        module, batch = self.try_build().eval(), self.batch()
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
            raise NotChecked("it has batch norm: the statistics of a part are not those of a batch")
        with torch.no_grad():
            whole = self.loss(module, batch).item()
            for size in (4, 3, 1):
                parts = batch.split(size)
                mean = sum(self.loss(module, p).item() * len(p.ids) for p in parts) / len(batch.ids)
                expect(
                    abs(mean - whole) <= TOLERANCE * max(1.0, abs(whole)),
                    f"the loss of {len(batch.ids)} images is {whole:.6g}, but {mean:.6g} as the "
                    f"mean over parts of {size}; give the mean over images, and take random "
                    "numbers from batch.draws",
                )

    # ---- what is kept

    def test_a_checkpoint_brings_all_back(self) -> None:
        """A run goes on from its checkpoint as if it had never stopped, teacher included."""
        module = self.try_build()
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
        module = self.try_build()
        if not hasattr(module, "after_step"):
            raise NotChecked("it has no after_step(progress)")
        self.loss(module, self.batch()).backward()
        for progress in (0.0, 0.5, 1.0):
            module.after_step(progress)
            state = module.state_dict().items()
            wrong = [name for name, x in state if not bool(x.isfinite().all())]
            step = f"after_step({progress})"
            expect(not wrong, f"{step} makes {', '.join(wrong[:3])} infinite or NaN")
            loss = self.loss(module, self.batch())
            expect(loss.isfinite(), f"after {step} the loss is {loss.item()}")
            expect(loss.requires_grad, f"after {step} the loss has no gradient")

    def test_it_is_finite_in_bf16(self) -> None:
        """On a GPU pretraining runs in bfloat16 autocast."""
        for setting, module in self.taken((MAIN, COARSE)):
            with torch.autocast("cpu", torch.bfloat16):
                loss = self.loss(module, self.batch(setting))
            expect(loss.isfinite(), f"{setting}: in bf16 autocast the loss is {loss.item()}")
            self._backward(loss, module, f"{setting} in bf16 autocast")

    # ---- reconstruction

    def reconstructions(self) -> Iterator[tuple[str, Any, Tensor, Mask, Reconstruction]]:
        """What `reconstruct` gives in every setting."""
        for setting, module in self.taken():
            if not hasattr(module, "reconstruct"):
                raise NotChecked("it has no reconstruct(images, mask)")
            images = self.images(setting)
            mask = mask_of(module.encoder.grid, 0.5, len(images))
            yield setting, module, images, mask, self._reconstruct(module.eval(), images, mask)

    def _reconstruct(self, module: Any, images: Tensor, mask: Mask) -> Reconstruction:
        with isolated(0, "reconstruct"), torch.no_grad():
            found: Reconstruction = module.reconstruct(images, mask)
        return found

    def test_reconstructions_have_the_documented_shapes(self) -> None:
        """The evaluation of reconstructions and the maskings that ask for losses rely on them."""
        for setting, _, images, mask, made in self.reconstructions():
            is_made = isinstance(made, Reconstruction)
            expect(is_made, f"reconstruct gives {type(made)}, not a Reconstruction")
            length, width = mask.hidden.shape[1], PATCH[0] * PATCH[1] * images.shape[1]
            if made.space == TOKENS:
                what = f"{setting}: {{}} of all tokens,"
                shape = (len(images), length)
                expect_tensor(made.prediction, what.format("prediction"), (*shape, None))
                expect_tensor(made.target, what.format("target"), shape, torch.int64)
                continue
            for name in ("prediction", "target", "pixels", "whole"):
                x, of_pixels = getattr(made, name), name in ("pixels", "whole")
                if x is not None or not of_pixels:
                    wanted = (len(images), length, width if of_pixels else None)
                    expect_tensor(x, f"{setting}: {name} of all patches, (B, L, T),", wanted)
            shapes = tuple(made.prediction.shape), tuple(made.target.shape)
            expect(shapes[0] == shapes[1], f"{setting}: prediction and target are {shapes}")
            described = made.pixels is None or made.how
            expect(described, f"{setting}: how is empty; say how the pixels were made")
            expect(made.space, f"{setting}: space is empty; name what is predicted")

    def test_targets_in_pixels_are_the_pixels(self) -> None:
        """Errors are compared over models whose space is pixels: the truth is the same for all."""
        for setting, module, images, mask, made in self.reconstructions():
            other = self._reconstruct(module, images, mask_of(mask.grid, 0.5, len(images), seed=1))
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

    def _with_others_hidden(self) -> Iterator[tuple[str, Reconstruction, Reconstruction]]:
        """What is reconstructed in every setting, and what with other pixels in hidden patches."""
        for setting, module, images, mask, made in self.reconstructions():
            inputs, patch = module.encoder.inputs, module.encoder.patch
            noise = images_of(inputs, len(images), 1)
            # five deviations up, so that means and deviations are others
            strange = noise if inputs.vocabulary else 3 * noise + 5
            other = torch.where(hidden_in(images, mask, patch), strange, images)
            yield setting, made, self._reconstruct(module, other, mask)

    def test_reconstructions_use_nothing_that_is_hidden(self) -> None:
        """A true mean or deviation of a hidden patch makes any model look good."""
        for setting, made, other in self._with_others_hidden():
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
        for setting, made, other in self._with_others_hidden():
            if made.whole is None:
                raise NotChecked("it gives no whole: it learns hidden patches alone")
            expect(
                not same(made.whole, other.whole),
                f"{setting}: with other pixels in hidden patches whole stays as it is; give the "
                "model the whole image for it",
            )

    # ---- pictures

    def test_its_own_pictures_have_the_documented_shapes(self) -> None:
        """They are drawn as grids of images, whatever they show."""
        for setting, module in self.taken():
            if not hasattr(module, "pictures"):
                raise NotChecked("it has no pictures(images, draws)")
            images = self.images(setting)
            with torch.no_grad():
                draws = Draws(0, "pictures", torch.arange(len(images)))
                made = module.eval().pictures(images, draws)
            expect(isinstance(made, dict), f"pictures gives {type(made)}, not a dict of grids")
            expect(made, f"{setting}: pictures gives none; leave it out where there is nothing")
            for name, grid in made.items():
                _check_grid(f"{setting}: picture {name!r}", grid, tuple(images.shape[1:]))

    # ---- options

    def test_every_option_changes_something(self) -> None:
        """An option that does nothing makes two equal runs look like two experiments."""
        self.check_options(self._traces, "neither state nor loss around the kit's encoders")

    def _traces(self, objective: Objective) -> Iterator[tuple[str, Trace]]:
        """State at first, losses, and state after two steps, in settings that it takes."""
        for setting, module in self.taken((MAIN, COARSE), objective):
            yield f"state of {setting}", copied(module.state_dict())
            for progress in (0.0, 0.5, 1.0):
                loss = self.loss(module, self.batch(setting, progress=progress)).detach()
                yield f"loss of {setting} at {progress}", {"loss": loss}
            self.train(module, 2, setting)
            yield f"trained {setting}", dict(module.state_dict())
            if hasattr(module, "reconstruct"):
                images = self.images(setting)
                mask = mask_of(module.encoder.grid, 0.5, len(images))
                made = self._reconstruct(module.eval(), images, mask)
                found = {"prediction": made.prediction, "target": made.target}
                pixels = {} if made.pixels is None else {"pixels": made.pixels}
                yield f"reconstruction of {setting}", found | pixels


def _check_grid(what: str, grid: object, image: tuple[int, ...]) -> None:
    if not isinstance(grid, ImageGrid):
        raise Broken(f"{what} is {type(grid)}, not an ImageGrid")
    expect_tensor(grid.images, f"{what}, (rows, columns, C, H, W),", (None, None, *image))
    expect(grid.images.numel() > 0, f"{what} holds no image")
    for side, texts in zip(grid.images.shape, (grid.rows, grid.columns), strict=False):
        expect(len(texts) in (0, side), f"{what} has {len(texts)} texts for {side} rows or columns")
