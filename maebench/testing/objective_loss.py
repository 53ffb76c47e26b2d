"""How an objective is asked, and whether it gives a loss that trains, whatever it is given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from maebench.encoders import ViTNano
from maebench.encoders.encoder import Encoder
from maebench.encoders.inputs import IMAGES, Inputs, takes
from maebench.errors import ConfigError
from maebench.objectives.objective import Batch
from maebench.plugins import installed
from maebench.pretraining.optimiser import parameter_groups
from maebench.rng import Draws, isolated
from maebench.testing.cases import IMAGES as IMAGES_LEARNT
from maebench.testing.cases import (
    PATCH,
    WIDTH,
    Coarse,
    Size,
    images_of,
    mask_of,
    other_inputs,
    pictures,
)
from maebench.testing.contract import Broken, Contract, NotChecked, expect
from maebench.testing.modules import not_finite, unreached

CLASSES = 4  # two images of each
STEPS = 40  # the masked autoencoder lowers its loss on eight images by a third in as many
LR = 3e-3  # the rate at which it does
LOWER = 0.05  # share of the loss that must go; the built-in objectives lose several times as much
# name of a setting: image size and channels
SETTINGS: dict[str, tuple[Size, int]] = {
    "a ViT on 16x16": ((16, 16), 3),
    "a ViT on 8x16": ((8, 16), 3),
    "a ViT on grey images": ((16, 16), 1),
    "a dense encoder that ends coarser": ((16, 16), 3),
}
MAIN, OBLONG, GREY, COARSE = SETTINGS


class LossChecks(Contract):
    """How an objective is built and asked, and the checks of its loss."""

    kind: ClassVar[str] = "objective"

    # ---- how it is built and asked

    def build(self, setting: str = MAIN, seed: int = 0, objective: Any = None) -> Any:
        """The module around a small encoder, as a run builds it.

        Raises:
            ConfigError: the objective refuses the setting.
        """
        with isolated(seed, "encoder"):
            encoder = self._encoder(setting)
        return self.around(encoder, setting, seed, objective)

    def _encoder(self, setting: str) -> Any:
        inputs = self.inputs(setting)
        if inputs.kind != IMAGES:
            return _small(inputs.kind).build(inputs)
        if setting == COARSE:
            return Coarse(inputs.image_size, inputs.channels)
        return ViTNano(width=WIDTH, depth=2, heads=2, patch=PATCH).build(inputs)

    def inputs(self, setting: str) -> Inputs:
        """What an objective is fed in a setting; where it takes no images, what it takes instead.

        Raises:
            ConfigError: the setting is of images, and it takes none.
        """
        if takes(self.made(), IMAGES):
            size, channels = SETTINGS[setting]
            return Inputs.of_images(channels, size)
        if setting != MAIN:
            raise ConfigError(f"it takes {' and '.join(self.made().takes)}, and no images")
        return other_inputs(self.made().takes[0])

    def _grid(self, setting: str) -> tuple[int, int]:
        with isolated(0, "encoder"):
            rows, columns = self._encoder(setting).grid
        return rows, columns

    def images(self, setting: str) -> Tensor:
        """Eight images, or others, as an encoder gets them."""
        inputs = self.inputs(setting)
        if inputs.kind == IMAGES:
            return pictures(inputs.image_size, inputs.channels)
        return images_of(inputs, IMAGES_LEARNT)

    def around(self, encoder: Any, setting: str, seed: int = 0, objective: Any = None) -> Any:
        """The module around an encoder, in training mode."""
        objective = objective or self.made()
        classes = CLASSES if objective.needs_labels else 0
        inputs = dataclasses.replace(self.inputs(setting), num_classes=classes)
        with isolated(seed, "objective"):
            return objective.build(encoder, inputs).train()

    def try_build(self, setting: str = MAIN) -> Any:
        """The module, or no check where the objective refuses this setting."""
        try:
            return self.build(setting)
        except ConfigError as error:
            if setting == MAIN:
                raise Broken(f"it cannot be built around {MAIN}: {error}") from error
            raise NotChecked(f"it refuses {setting}: {error}") from error

    def taken(
        self, settings: Iterable[str] = SETTINGS, objective: Any = None
    ) -> Iterator[tuple[str, Any]]:
        """The settings that it takes, and its module in each."""
        for setting in settings:
            try:
                yield setting, self.build(setting, objective=objective)
            except ConfigError:
                continue

    def batch(
        self, setting: str = MAIN, seed: int = 0, ratio: float = 0.5, progress: float = 0.5
    ) -> Batch:
        """Eight images with new masks and draws for every seed."""
        ids, objective = torch.arange(IMAGES_LEARNT), self.made()
        grid = self.kept(("grid", setting), lambda: self._grid(setting))
        return Batch(
            images=self.images(setting),
            ids=ids,
            draws=Draws(0, "objective", ids, epoch=seed),
            mask=mask_of(grid, ratio, IMAGES_LEARNT, seed) if objective.hides else None,
            labels=ids % CLASSES if objective.needs_labels else None,
            progress=progress,
        )

    def forward(self, module: Any, batch: Batch, seed: int = 0) -> dict[str, Any]:
        """What the module gives under a global seed, as pretraining asks for it."""
        with isolated(seed, "step"):
            found = module(dataclasses.replace(batch, draws=batch.draws.at(slice(None))))
        got = f"a {type(found).__name__}"
        if isinstance(found, dict):
            kind = type(found.get("loss")).__name__
            got = f"a {kind} for it" if "loss" in found else f"the keys {sorted(map(str, found))}"
        is_loss = isinstance(found, dict) and isinstance(found.get("loss"), Tensor)
        expect(is_loss, f'forward must give a dict with a tensor "loss", got {got}')
        return found

    def loss(self, module: Any, batch: Batch, seed: int = 0) -> Tensor:
        """The loss under a global seed."""
        found: Tensor = self.forward(module, batch, seed)["loss"]
        return found

    def train(self, module: Any, steps: int, setting: str = MAIN) -> None:
        """Some updates as pretraining makes them."""
        groups, _ = parameter_groups(module, weight_decay=0.05)
        adam = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95))
        for step in range(steps):
            self.loss(module, self.batch(setting, step, progress=step / steps), step).backward()
            adam.step()
            adam.zero_grad()
            if hasattr(module, "after_step"):
                module.after_step((step + 1) / steps)

    # ---- the loss

    def test_it_gives_a_loss_and_numbers_to_log(self) -> None:
        """Pretraining differentiates the loss and logs it."""
        self._gives_a_loss(MAIN)

    def test_it_takes_encoders_that_end_coarser(self) -> None:
        """Hierarchical encoders end on a coarser grid than the one that masks are drawn on."""
        self._gives_a_loss(COARSE)

    def test_it_takes_oblong_images(self) -> None:
        """Rows and columns that are mixed up show only where they differ."""
        self._gives_a_loss(OBLONG)

    def test_it_takes_grey_images(self) -> None:
        """Digits have one channel."""
        self._gives_a_loss(GREY)

    def _gives_a_loss(self, setting: str) -> None:
        module = self.try_build(setting)
        length = math.prod(module.encoder.grid)
        for ratio in (0.5, 1 / length, 1 - 1 / length):
            batch = self.batch(setting, ratio=ratio)
            what = f"{setting}, {batch.mask.num_hidden if batch.mask else 'no'} patches hidden"
            found = self.forward(module, batch)
            loss = found["loss"]
            expect(loss.ndim == 0, f"{what}: loss is {tuple(loss.shape)}, must be a scalar")
            expect(loss.is_floating_point(), f"{what}: loss is {loss.dtype}, must be a float")
            expect(loss.isfinite(), f"{what}: loss is {loss.item()}")
            expect(loss.requires_grad, f"{what}: loss has no gradient; is something detached?")
            for name, value in found.items():
                one = isinstance(value, Tensor) and value.numel() == 1
                expect(
                    one or isinstance(value, int | float),
                    f"{what}: {name!r} is {type(value)}; only numbers can be logged",
                )
        self._backward(loss, module, setting)

    def _backward(self, loss: Tensor, module: Any, what: str) -> None:
        loss.backward()
        wrong = not_finite(module)
        expect(not wrong, f"{what}: {', '.join(wrong[:3])} or its gradient is not finite")

    def test_labels_are_needed_only_where_it_says_so(self) -> None:
        """A run on data without labels is refused before it starts, by needs_labels alone."""
        module, batch = self.try_build(), self.batch()
        loss = self.loss(module, batch)  # built with num_classes 0, labels None where none needed
        if batch.labels is not None:
            other = dataclasses.replace(batch, labels=(batch.labels + 1) % CLASSES)
            expect(
                not torch.equal(loss, self.loss(module, other)),
                "needs_labels is True, but the loss does not change with the labels",
            )

    def test_it_keeps_the_encoder_it_is_given(self) -> None:
        """Pretraining saves `.encoder`, and evaluations read it."""
        with isolated(0, "encoder"):
            encoder = self._encoder(MAIN)
        module = self.around(encoder, MAIN)
        expect(isinstance(module, nn.Module), f"build gives {type(module)}, not an nn.Module")
        expect(
            getattr(module, "encoder", None) is encoder,
            "its attribute encoder is not the encoder given to build; keep that very object",
        )
        inside = {id(p) for p in module.parameters()}
        expect(
            inside.issuperset(id(p) for p in encoder.parameters()),
            "the encoder's parameters are not among its own: they would not be trained",
        )

    def test_gradients_reach_the_encoder_and_all_that_is_trained(self) -> None:
        """A target network that is not frozen, or a head that is cut off, is never updated."""
        module = self.try_build()
        seeds = iter(range(100))
        left = unreached(module, lambda: self.loss(module, self.batch(seed=next(seeds))))
        own = [name for name in left if not name.startswith("encoder.")]
        expect(
            not own,
            f"{', '.join(own[:3])}: no gradient in a few steps; use it, or set requires_grad=False",
        )
        trained = sum(p.requires_grad for p in module.encoder.parameters())
        expect(
            len(left) < trained / 2,  # what sees no mask does not train a token for hidden patches
            f"{len(left)} of the encoder's {trained} parameters get no gradient, "
            f"{', '.join(left[:3])} among them; does the loss depend on the encoder's tokens?",
        )

    def test_some_steps_lower_the_loss(self) -> None:
        """An objective that cannot learn eight images by heart has an error in it."""
        module = self.try_build()
        seeds = range(100, 104)  # other masks than those of training

        @torch.no_grad()
        def mean() -> float:
            return sum(self.loss(module, self.batch(seed=s)).item() for s in seeds) / len(seeds)

        before = mean()
        self.train(module, STEPS)
        after = mean()
        expect(
            after < before - LOWER * abs(before),
            f"the loss of eight images is {before:.4g} at first and {after:.4g} after {STEPS} "
            f"steps of AdamW at a rate of {LR:g}; it must fall by {LOWER:.0%} at least",
        )


def _small(kind: str) -> Encoder:
    """The first installed encoder that takes a kind of inputs, small where it says how.

    Raises:
        NotChecked: there is none.
    """
    for cls in installed().table["encoder"].values():
        if takes(cls, kind):
            return cls(**getattr(cls, "example", {}))  # type: ignore[return-value]
    raise NotChecked(f"no encoder that takes {kind} is installed")
