"""Does an encoder keep to its contract: hiding, weights, both modes and options?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from maebench.errors import ConfigError
from maebench.rng import isolated
from maebench.testing.contract import NotChecked, expect, global_state
from maebench.testing.encoder_hiding import HidingChecks
from maebench.testing.modules import (
    STEPS,
    TOLERANCE,
    Trace,
    changed,
    check_options,
    copied,
    differs,
    gap,
    shake,
    unreached,
)
from maebench.testing.probes import BATCH, images_of, mask_of
from maebench.testing.tokens import check_tokens, flat, projection

DROPPED = 0.5  # a rate at which four images in eight draws surely differ


class EncoderContract(HidingChecks):
    """Checks of an encoder; its `oblong` says whether images may be oblong."""

    # ---- weights

    def test_every_parameter_is_trained(self) -> None:
        """A parameter without a gradient is a part that was forgotten or cut off."""
        module = self.build().train()
        images, mask = images_of(self.size), mask_of(module.grid)
        layers = range(1, module.depth + 1)

        def loss() -> Tensor:
            asked = [self.ask(module, images, each, layers) for each in (mask, None)]
            return projection(flat(asked[0])).add(projection(flat(asked[1])))

        left = unreached(module, loss)
        expect(
            not left,
            f"{', '.join(left)}: no gradient in {STEPS} steps, masked and not; use it, initialise "
            "it where its gradient is not 0, or set requires_grad=False",
        )

    def test_layers_depend_on_no_later_parameters(self) -> None:
        """Layer decay and probes of layers count blocks alike: block i has layer id i + 1."""
        module = self.ready()
        ids = module.layer_ids()
        names = [name for name, p in module.named_parameters() if p.requires_grad]
        parameters = [p for p in module.parameters() if p.requires_grad]
        tokens = self.ask(module, images_of(self.size), None, range(1, module.depth + 1))
        before: set[str] = set()
        for number, level in tokens.layers.items():
            found = torch.autograd.grad(
                projection(flat(level)), parameters, retain_graph=True, allow_unused=True
            )
            used = {n for n, g in zip(names, found, strict=True) if g is not None and bool(g.any())}
            late = sorted(name for name in used if ids.get(name, 0) > number)
            expect(
                not late,
                f"layers[{number}] depends on {', '.join(late[:3])}, of layer {ids[late[0]]} "
                f"by layer_ids; layers[k] is what block k gives (from 1), before the final norm"
                if late
                else "",
            )
            block = [name for name in names if ids.get(name) == number]
            expect(
                block, f"layer_ids gives no parameter the layer {number}, that of block {number}"
            )
            expect(
                used & set(block),
                f"layers[{number}] depends on no parameter of layer {number} by layer_ids, such as "
                f"{block[0] if block else ''}",
            )
            # the first block is the first to be seen after the embedding, whose layer is 0
            early = [n for n in used - before if number > 1 and ids.get(n, number) != number]
            self._expect_layer(early, ids, number, f"layers[{number}]")
            before |= used
        found = torch.autograd.grad(projection(flat(tokens)), parameters, allow_unused=True)
        after = {n for n, g in zip(names, found, strict=True) if g is not None and bool(g.any())}
        last = module.depth + 1
        wrong = [n for n in after - before if ids.get(n, last) < last]
        self._expect_layer(wrong, ids, last, "only what comes after the last block")

    def _expect_layer(self, wrong: list[str], ids: dict[str, int], layer: int, where: str) -> None:
        expect(
            not wrong,
            f"{where} is the first to depend on {', '.join(sorted(wrong)[:3])}, which layer_ids "
            f"puts into layer {ids[min(wrong)]} and not {layer}"
            if wrong
            else "",
        )

    def _layer_ids(self) -> dict[str, int]:
        module = self.build()
        ids, names = module.layer_ids(), {name for name, _ in module.named_parameters()}
        missing, unknown = sorted(names - set(ids)), sorted(set(ids) - names)
        expect(not missing, f"layer_ids lacks {', '.join(missing)}; name every parameter")
        expect(not unknown, f"layer_ids names {', '.join(unknown)}, which are no parameters")
        return ids

    def test_layer_ids_name_every_parameter(self) -> None:
        """Fine-tuning gives each parameter the learning rate of its layer."""
        depth = self.build().depth
        for name, number in self._layer_ids().items():
            expect(
                isinstance(number, int) and 0 <= number <= depth + 1,
                f"layer_ids gives {name!r} the layer {number!r}; allowed: whole numbers from 0 "
                f"(embedding) to {depth + 1} (after block {depth})",
            )

    def test_no_weight_decay_names_parameters(self) -> None:
        """A name with a typing mistake would be decayed in silence."""
        module = self.build()
        spared, names = module.no_weight_decay(), {name for name, _ in module.named_parameters()}
        wrong = sorted(set(spared) - names)
        expect(not wrong, f"no_weight_decay names {', '.join(wrong)}, which are no parameters")

    def test_weights_depend_on_the_seed_alone(self) -> None:
        """Runs that differ in masking start from the same weights; seeds give error bars."""
        one, same, other = (self.build(seed=seed).state_dict() for seed in (0, 0, 1))
        wrong = sorted(changed(one, same))
        expect(
            not wrong,
            f"two builds of one seed differ in {', '.join(wrong[:3])}; initialise from torch's "
            "global state, which is seeded around build",
        )
        expect(differs(one, other), "two seeds give the same weights; seed nothing inside build")

    def test_a_checkpoint_brings_all_back(self) -> None:
        """What is evaluated is read from a checkpoint into a fresh build."""
        module = self.ready().train()
        mask = mask_of(module.grid)
        self.ask(module, images_of(self.size), mask)  # so that running statistics have moved
        fresh = self.build(seed=1)
        fresh.load_state_dict(module.state_dict())
        for what, each in (("without a mask", None), ("masked", mask)):
            found, where = gap(
                *(self.outputs(m.eval(), images_of(self.size), each) for m in (module, fresh))
            )
            expect(
                found <= TOLERANCE,
                f"{what}: loaded from its state_dict into a build of another seed, {where} differs "
                f"by {found:.2g}; register what it keeps as parameters or persistent buffers",
            )

    # ---- modes

    def test_evaluation_is_deterministic_and_draws_nothing(self) -> None:
        """Features are cached and compared; global state belongs to whoever runs the model."""
        module, images = self.ready(), images_of(self.size)
        for what, mask in self.cases(module):
            with isolated(0, "contract"), torch.no_grad():
                before = global_state()
                one = flat(module(images, mask))
                expect(
                    global_state() == before,
                    f"{what}: in evaluation mode it draws from the global random state; only "
                    "training may be random",
                )
                found, where = gap(one, flat(module(images, mask)))
            expect(found == 0, f"{what}: asked twice in evaluation mode, {where} differs: {found}")

    def test_it_is_finite_in_bf16(self) -> None:
        """On a GPU pretraining runs in bfloat16 autocast."""
        module, images = self.ready().train(), images_of(self.size)
        for what, mask in self.cases(module):
            with torch.autocast("cpu", torch.bfloat16):
                tokens = self.ask(module, images, mask)
            check_tokens(tokens, module, mask, f"{what} in bf16 autocast")
            module.zero_grad()
            projection(flat(tokens)).backward()
            wrong = [
                name
                for name, p in module.named_parameters()
                if p.grad is not None and not bool(p.grad.isfinite().all())
            ]
            expect(not wrong, f"{what} in bf16 autocast: the gradient of {wrong} is not finite")

    def test_attention_is_a_share_per_patch(self) -> None:
        """Maskings that follow the class token rank patches by it."""
        for size in self.sizes:
            module, images = self.ready(size), images_of(size)
            if not hasattr(module, "attention"):
                raise NotChecked("it has no attention(images); maskings that need it refuse it")
            with torch.no_grad():
                found, other = (module.attention(x) for x in (images, images_of(size, seed=1)))
            length = module.grid[0] * module.grid[1]
            expect(
                tuple(found.shape) == (BATCH, length),
                f"attention is {tuple(found.shape)}, must be (B, L) = {(BATCH, length)}",
            )
            expect(found.isfinite().all(), "attention is not finite")
            least, most = float(found.min()), float(found.sum(1).max())
            expect(least >= 0, f"attention is down to {least:.2g}, must not be negative")
            expect(
                most <= 1 + TOLERANCE,
                f"attention sums to {most:.4g} over the patches; at most 1, as after a softmax",
            )
            expect(not torch.equal(found, other), "attention does not depend on the image")

    def test_drop_path_drops_in_training_alone(self) -> None:
        """Fine-tuning asks for drop path; evaluation must not be random."""
        module, images = self.ready(), images_of(self.size)
        if not hasattr(module, "set_drop_path"):
            raise NotChecked("it has no set_drop_path(rate); fine-tuning then drops nothing")
        if module.depth == 1:
            raise NotChecked("depth 1: rates that grow from 0 drop nothing in the first block")
        module.set_drop_path(DROPPED)
        for training in (True, False):
            module.train(training)
            with torch.no_grad():
                found = [flat(self.ask(module, images, seed=seed)) for seed in range(8)]
            varies = any(differs(found[0], each) for each in found[1:])
            expect(
                varies == training,
                f"after set_drop_path({DROPPED}) eight seeds give "
                + ("the same tokens in training" if training else "other tokens in evaluation"),
            )

    # ---- options

    def test_every_option_changes_something(self) -> None:
        """An option that does nothing makes two equal runs look like two experiments."""
        check_options(
            self, self._traces, "at every size", "weights nor output of any size it takes"
        )

    def _traces(self, encoder: Any) -> Iterator[tuple[str, Trace]]:
        """Weights and outputs in every setting that these options allow."""
        for size in self.sizes:
            try:
                module = self.build(size, encoder=encoder)
            except ConfigError:
                continue
            yield f"weights {size}", copied(module.state_dict())
            depth, what = module.depth, f"with {encoder.changed()}"
            layers = set(self.ask(module, images_of(size), None, range(1, depth + 1)).layers)
            expect(
                layers == set(range(1, depth + 1)),
                f"{what} its depth is {depth} and it gives the layers {sorted(layers)}",
            )
            shake(module)
            for training in (False, True):
                module.train(training)
                for mask in (None, mask_of(module.grid)):
                    trace = self.outputs(module, images_of(size), mask)
                    # not the layers: how many are asked for is what `depth` says, not what it does
                    final = {k: x for k, x in trace.items() if not k.startswith("layer ")}
                    yield f"{size} {training} {mask is None}", final
