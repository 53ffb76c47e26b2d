"""Whether an encoder keeps to its contract: shapes, weights, both modes and options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from maebench.encoders.inputs import IMAGES, Inputs
from maebench.errors import ConfigError
from maebench.rng import isolated
from maebench.testing.cases import BATCH, cases, images_of, mask_of, projection
from maebench.testing.contract import Broken, NotChecked, expect, expect_tensor, global_state, same
from maebench.testing.encoder_hiding import MODES, SIDES, HidingChecks
from maebench.testing.modules import (
    STEPS,
    TOLERANCE,
    Trace,
    copied,
    expect_close,
    names_of,
    not_finite,
    reached,
    shake,
    unreached,
)
from maebench.testing.tokens import (
    ask,
    check_attributes,
    check_grids,
    check_tokens,
    flat,
    outputs,
    seen_cells,
    strongest,
)

DROPPED = 0.5  # a rate at which four images in eight draws surely differ


class EncoderContract(HidingChecks):
    """Checks of an encoder; its `oblong` says whether images may be oblong."""

    # ---- what is built

    def test_its_attributes_fit_the_images(self) -> None:
        """Masks are drawn, decoders sized and layers counted from the module's attributes."""
        for inputs in self.every:
            module = self.build(inputs)
            expect(isinstance(module, nn.Module), f"build gives {type(module)}, not an nn.Module")
            check_attributes(module, inputs)

    def test_its_tokens_have_the_documented_shapes(self) -> None:
        """Decoders, probes and pictures rely on shapes, grid and `seen` as Tokens documents."""
        for module, images, mask, what in self.cases(every_size=True):
            last = module.depth
            for layers in ([*range(1, last + 1)], [last]):
                tokens = ask(module, images, mask, tuple(layers))
                check_tokens(tokens, module, mask, what)
                found = sorted(tokens.layers)
                asked = f"asked for layers {layers} and no other"
                expect(found == layers, f"{what}: {asked}, it gives {found}")
                for number, level in tokens.layers.items():
                    where = f"{what}, layer {number}"
                    check_tokens(level, module, mask, where, final=False)

    def test_its_tokens_lie_in_raster_order(self) -> None:
        """A decoder puts each token where the grid or `seen` says, and draws it there."""
        inputs = self.every[-1]
        if inputs.kind != IMAGES:
            raise NotChecked("where a token depends on is asked of images alone")
        module = self.ready(inputs)
        for what, mask in (("without a mask", None), ("masked", mask_of(module.grid, count=1))):
            images = images_of(inputs, count=1).requires_grad_()
            tokens = ask(module, images, mask)
            own = torch.arange(tokens.patches.shape[1]) if tokens.seen is None else tokens.seen[0]
            best = strongest(tokens, images)
            # a token that stands for hidden patches alone depends on none of them
            known = best >= 0 if mask is None else (best >= 0) & seen_cells(mask, tokens.grid)[own]
            own, best = own[known], best[known]
            if bool((own == best).float().mean() >= 0.5):
                continue
            if len(best) < 2 or len(best.unique()) < 0.7 * len(best):
                raise NotChecked(f"{what}: its tokens do not show which patch they stand for")
            wrong = int((own != best).nonzero()[0])
            raise Broken(
                f"{what}: the token of place {int(own[wrong])} on the {tokens.grid} grid depends "
                f"most on patch {int(best[wrong])}, and so do {int((own != best).sum())} of "
                f"{len(own)}; give tokens in raster order (row by row) of the grid or of `seen`",
            )

    def test_it_takes_grey_and_many_channels(self) -> None:
        """Digits have one channel, satellite images many."""
        self.images_only()
        for channels in (1, 5):
            wanted = Inputs.of_images(channels, self.inputs.image_size)
            module = self.ready(wanted)
            images, built = images_of(wanted), f"built for {channels} channels, its"
            found = module.inputs
            expect(found == wanted, f"{built} attribute inputs is {found}")
            first = outputs(module, images)
            for channel in range(channels):
                other = images.clone()
                other[:, channel] += 1
                expect(
                    not same(first, outputs(module, other)),
                    f"{built} tokens do not depend on the one at index {channel}",
                )

    def test_sizes_that_do_not_fit_are_refused(self) -> None:
        """A size that is cut off in silence loses pixels; a ConfigError says so to the user."""
        self.images_only()
        (H, W), (p, q) = self.inputs.image_size, self.build().patch
        wrong = [(H + 1, W), (H, W + 1), (H + 1, W + 1), (H + p, W + q)]
        # another check is about oblong images
        for size in wrong if self.made().oblong else wrong[2:]:
            try:
                made = self.build(Inputs.of_images(3, size))
            except ConfigError:
                continue
            except Exception as error:
                raise Broken(
                    f"build of {size[0]}x{size[1]} images raises {type(error).__name__}: {error}; "
                    "raise ConfigError with the sizes that would do"
                ) from error
            check_grids(made, size)

    def test_it_takes_oblong_images_or_says_so(self) -> None:
        """Whether images may be oblong is declared, so that a run is refused before it starts."""
        self.images_only()
        if self.made().oblong:
            expect(
                len(self.every) > 1,
                f"it takes no images twice as wide as high, from {SIDES[0]}x{2 * SIDES[0]} up; "
                "declare oblong: ClassVar[bool] = False if images must be square",
            )
            return  # every other check tries an oblong size too
        H, W = self.inputs.image_size
        for size in ((H, 2 * W), (2 * H, W)):
            try:
                self.build(Inputs.of_images(3, size))
            except ConfigError:
                continue
            raise Broken(
                f"oblong is False, but build takes images of {size[0]}x{size[1]}; "
                "raise ConfigError, or declare oblong = True",
            )

    # ---- weights

    def test_every_parameter_is_trained(self) -> None:
        """A parameter without a gradient is a part that was forgotten or cut off."""
        module = self.build().train()
        images, mask = images_of(self.inputs), mask_of(module.grid)
        layers = range(1, module.depth + 1)

        def loss() -> Tensor:
            masked, whole = (flat(ask(module, images, each, layers)) for each in (mask, None))
            return projection(masked).add(projection(whole))

        left = unreached(module, loss)
        expect(
            not left,
            f"{', '.join(left)}: no gradient in {STEPS} steps, masked and not; use it, initialise "
            "it where its gradient is not 0, or set requires_grad=False",
        )

    def test_layers_depend_on_no_later_parameters(self) -> None:
        """Layer decay and probes of layers count blocks alike: block i has layer id i + 1."""
        module = self.ready()
        ids, last = module.layer_ids(), module.depth + 1
        tokens = ask(module, images_of(self.inputs), None, range(1, last))
        before: set[str] = set()
        for number, level in [*tokens.layers.items(), (last, tokens)]:
            used = reached(projection(flat(level)), module)
            # the first block is the first to be seen after the embedding, whose layer is 0
            allowed = {number, 0} if number == 1 else {number}
            wrong = sorted(n for n in used - before if min(ids.get(n, number), last) not in allowed)
            where = f"layers[{number}]" if number < last else "only what comes after the last block"
            expect(
                not wrong,
                f"{where} is the first to depend on {', '.join(wrong[:3])}, which layer_ids puts "
                f"into layer {ids.get(''.join(wrong[:1]))} and not {number}; layers[k] is what "
                "block k gives (from 1), before the final norm",
            )
            block = {name for name in names_of(module) if ids.get(name) == number}
            if number < last:
                named = f"layer_ids gives no parameter the layer {number}, that of block {number}"
                expect(block, named)
                expect(used & block, f"{where} depends on no parameter of layer {number}")
            before |= used

    def test_layer_ids_name_every_parameter(self) -> None:
        """Fine-tuning gives each parameter the learning rate of its layer."""
        module = self.build()
        ids, names, last = module.layer_ids(), names_of(module), module.depth + 1
        missing, strange = sorted(names - set(ids)), sorted(set(ids) - names)
        expect(not missing, f"layer_ids lacks {', '.join(missing)}; name every parameter")
        expect(not strange, f"layer_ids names {', '.join(strange)}, which are no parameters")
        for name, number in ids.items():
            expect(
                isinstance(number, int) and 0 <= number <= last,
                f"layer_ids gives {name!r} the layer {number!r}; allowed: whole numbers from 0 "
                f"(embedding) to {last} (after the last block)",
            )

    def test_no_weight_decay_names_parameters(self) -> None:
        """A name with a typing mistake would be decayed in silence."""
        module = self.build()
        wrong = sorted(set(module.no_weight_decay()) - names_of(module))
        expect(not wrong, f"no_weight_decay names {', '.join(wrong)}, which are no parameters")

    def test_weights_depend_on_the_seed_alone(self) -> None:
        """Runs that differ in masking start from the same weights; seeds give error bars."""
        one, again, other = (self.build(seed=seed).state_dict() for seed in (0, 0, 1))
        wrong = [name for name, x in one.items() if not torch.equal(x, again[name])]
        expect(
            not wrong,
            f"two builds of one seed differ in {', '.join(wrong[:3])}; initialise from torch's "
            "global state, which is seeded around build",
        )
        apart = not same(one, other)
        expect(apart, "two seeds give the same weights; seed nothing inside build")

    def test_a_checkpoint_brings_all_back(self) -> None:
        """What is evaluated is read from a checkpoint into a fresh build."""
        module = self.ready().train()
        images, mask = images_of(self.inputs), mask_of(module.grid)
        ask(module, images, mask)  # so that running statistics have moved
        fresh = self.build(seed=1)
        fresh.load_state_dict(module.state_dict())
        for what, each in (("without a mask", None), ("masked", mask)):
            both = [outputs(m.eval(), images, each) for m in (module, fresh)]
            name = f"{what}, loaded into a build of another seed (are all buffers persistent?)"
            expect_close(name, *both)

    # ---- modes

    def test_evaluation_is_deterministic_and_draws_nothing(self) -> None:
        """Features are cached and compared; global state belongs to whoever runs the model."""
        for module, images, mask, what in self.cases():
            with isolated(0, "contract"), torch.no_grad():
                before = global_state()
                one = flat(module(images, mask))
                hint = "it draws from the global random state; only training may be random"
                expect(global_state() == before, f"{what}: in evaluation mode {hint}")
                again = same(one, flat(module(images, mask)))
            expect(again, f"{what}: asked twice in evaluation mode, its tokens differ")

    def test_it_is_finite_in_bf16(self) -> None:
        """On a GPU pretraining runs in bfloat16 autocast."""
        for module, images, mask, what in self.cases((True,)):
            with torch.autocast("cpu", torch.bfloat16):
                tokens = ask(module, images, mask)
            check_tokens(tokens, module, mask, f"{what} in bf16 autocast")
            module.zero_grad()
            projection(flat(tokens)).backward()
            wrong = not_finite(module)
            expect(not wrong, f"{what} in bf16 autocast: the gradient of {wrong} is not finite")

    def test_attention_is_a_share_per_patch(self) -> None:
        """Maskings that follow the class token rank patches by it."""
        for inputs in self.every:
            module = self.ready(inputs)
            if not hasattr(module, "attention"):
                raise NotChecked("it has no attention(images); maskings that need it refuse it")
            with torch.no_grad():
                found, other = (module.attention(images_of(inputs, seed=seed)) for seed in (0, 1))
            length = module.grid[0] * module.grid[1]
            expect_tensor(found, "attention (B, L)", (BATCH, length), None)
            least, most = float(found.min()), float(found.sum(1).max())
            expect(least >= 0, f"attention is down to {least:.2g}, must not be negative")
            expect(most <= 1 + TOLERANCE, f"attention sums to {most:.4g}, at most 1 is a share")
            expect(not torch.equal(found, other), "attention does not depend on the image")

    def test_drop_path_drops_in_training_alone(self) -> None:
        """Fine-tuning asks for drop path; evaluation must not be random."""
        module, images = self.ready(), images_of(self.inputs)
        if not hasattr(module, "set_drop_path"):
            raise NotChecked("it has no set_drop_path(rate); fine-tuning then drops nothing")
        if module.depth == 1:
            raise NotChecked("depth 1: rates that grow from 0 drop nothing in the first block")
        module.set_drop_path(DROPPED)
        for training in MODES:
            module.train(training)
            with torch.no_grad():
                found = [flat(ask(module, images, seed=seed)) for seed in range(8)]
            varies = not all(same(found[0], each) for each in found)
            expect(
                varies == training,
                f"after set_drop_path({DROPPED}) eight seeds give "
                + ("the same tokens in training" if training else "other tokens in evaluation"),
            )

    # ---- options

    def test_every_option_changes_something(self) -> None:
        """An option that does nothing makes two equal runs look like two experiments."""
        self.check_options(self._traces, "neither weights nor output of any size it takes")

    def _traces(self, encoder: Any) -> Iterator[tuple[str, Trace]]:
        """Weights and outputs in every setting that these options allow."""
        for inputs in self.every:
            try:
                module = self.build(inputs, encoder=encoder)
            except ConfigError:
                continue
            size = inputs.shape[1:] if inputs.kind == IMAGES else inputs.shape
            yield f"weights {size}", copied(module.state_dict())
            wanted = list(range(1, module.depth + 1))
            layers = sorted(ask(module, images_of(inputs), None, wanted).layers)
            what = f"with {encoder.changed()} its depth is {module.depth}"
            expect(layers == wanted, f"{what} and it gives the layers {layers}")
            for _, images, mask, name in cases(shake(module), MODES, (None, 0.5)):
                trace = outputs(module, images, mask)
                # not the layers: how many are asked for is what `depth` says, not what it does
                final = {k: x for k, x in trace.items() if not k.startswith("layer ")}
                yield f"{size} {name}", final
