"""The contract of encoders: what is whole passes, and each planted error is named."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pytest
import torch
from fakes import Dense
from pydantic import Field, PositiveInt
from torch import nn
from torch.nn import functional as F

from maebench import ConfigError
from maebench.encoders import BUILT_IN, SwinNano, SwinTiny, ViTNano
from maebench.encoders.inputs import Inputs
from maebench.encoders.vit import VisionTransformer
from maebench.masking.patches import hidden_pixels
from maebench.testing.contract import Contract, examine, global_state
from maebench.testing.encoder import EncoderContract

pytestmark = pytest.mark.slow  # every planted error is built and asked anew

SMALL: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2}
KEPT = "asked to keep positions it has a token for what is hidden"


def contract_of(made: Any, **more: Any) -> type[EncoderContract]:
    return type("Made", (EncoderContract,), {"component": made, **more})


# the declared numbers of heads fit the declared width, not the small one
HEADS = {"heads": [4]}
WHOLE = {
    cls.name: contract_of(cls(**SMALL), variants=HEADS)
    for cls in BUILT_IN
    if "depth" in cls.model_fields
}
WHOLE |= {cls.name: contract_of(cls) for cls in (SwinNano, SwinTiny)}
WHOLE["swin of three stages"] = contract_of(
    SwinNano(width=8, depths=(1, 1, 2), heads=(1, 2, 2), window=3),
    variants={"depths": [(1, 2, 1)], "heads": [(2, 2, 4)]},
)
WHOLE["vit-nano with registers"] = contract_of(ViTNano(**SMALL, registers=2, patch=(4, 2)))
WHOLE["dense"] = contract_of(Dense)


@pytest.mark.parametrize("check", EncoderContract.checks())
@pytest.mark.parametrize("name", WHOLE)
def test_whole_encoders_pass(name, check):
    getattr(WHOLE[name](), check)()


def test_every_check_can_be_made_of_a_vision_transformer_and_leaves_global_state():
    before = global_state()
    found = [f for f in examine(WHOLE["vit-nano"]) if f.status != "pass"]
    assert found == []
    assert global_state() == before


# ---- planted errors


class LeaksDetached(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        mean = images.mean((1, 2, 3)).detach()[:, None, None]
        return dataclasses.replace(tokens, prefix=tokens.prefix + 0.1 * mean)


class LeaksDetachedInTraining(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        mean = images.mean((1, 2, 3)).detach()[:, None, None] * self.training
        return dataclasses.replace(tokens, prefix=tokens.prefix + 0.1 * mean)


class LeaksGradient(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        mean = images.mean((1, 2, 3))[:, None, None]
        return dataclasses.replace(tokens, patches=tokens.patches + (mean - mean.detach()))


class GreysOut(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        if mask is not None:
            images = images * ~hidden_pixels(mask, self.patch)
        return super().forward(images, None, layers)


class NormalisesHiddenPixels(VisionTransformer):
    def __init__(self, options, inputs, patch):
        super().__init__(options, inputs, patch)
        self.first = nn.BatchNorm2d(inputs.channels)

    def forward(self, images, mask=None, layers=()):
        return super().forward(self.first(images), mask, layers)


class MixesImages(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        return dataclasses.replace(tokens, patches=tokens.patches - tokens.patches.mean(0))


class ForgetsPositionsWithoutMask(VisionTransformer):
    def _embed(self, images, mask):
        x = super()._embed(images, mask)
        return x if mask is not None else torch.cat([x[:, :1], x[:, 1:] - self.pos_embed[:, 1:]], 1)


class ReversesTokens(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        return dataclasses.replace(tokens, patches=tokens.patches.flip(1))


class OverlooksTheLastPatch(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        keep = torch.ones_like(images)
        keep[:, :, -self.patch[0] :, -self.patch[1] :] = 0
        return super().forward(images * keep, mask, layers)


class BlanksInPlace(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        if mask is not None:
            with torch.no_grad():
                images.mul_(~hidden_pixels(mask, self.patch))
        return super().forward(images, mask, layers)


class LayersEarly(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        seen = None if mask is None else mask.seen
        first = self._tokens(self._embed(images, mask), seen)
        moved = {k: tokens.layers.get(k - 1, first) for k in tokens.layers}
        return dataclasses.replace(tokens, layers=moved)


class LayersNormed(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        normed = {
            k: dataclasses.replace(x, patches=self.norm(x.patches))
            for k, x in tokens.layers.items()
        }
        return dataclasses.replace(tokens, layers=normed)


class LayersAlways(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        return super().forward(images, mask, range(1, self.depth + 1))


class LayersWithoutPlaces(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        bare = {k: dataclasses.replace(x, seen=None) for k, x in tokens.layers.items()}
        return dataclasses.replace(tokens, layers=bare)


class PatchIsAList(VisionTransformer):
    def __init__(self, options, inputs, patch):
        super().__init__(options, inputs, patch)
        self.patch = list(patch)


class KeepsInNameAlone(VisionTransformer):
    def keep_positions(self):
        pass


class KeepsWhatIsHidden(VisionTransformer):
    def _embed(self, images, mask):
        x = super()._embed(images, mask)
        if self.mask_token is None or mask is None:
            return x
        return x + 1e-3 * super()._embed(images, None)


class KeepsAnotherFunction(VisionTransformer):
    def keep_positions(self):
        super().keep_positions()
        nn.init.ones_(self.cls_token)


class KeepsWithoutALayer(VisionTransformer):
    def layer_ids(self):
        return {name: n for name, n in super().layer_ids().items() if name != "mask_token"}


class ForgetsAParameter(VisionTransformer):
    def __init__(self, options, inputs, patch):
        super().__init__(options, inputs, patch)
        self.forgotten = nn.Parameter(torch.zeros(3))


class LayerIdsLackATensor(VisionTransformer):
    def layer_ids(self):
        return {name: n for name, n in super().layer_ids().items() if name != "cls_token"}


class LayerIdsTooHigh(VisionTransformer):
    def layer_ids(self):
        return {n: k + (n == "norm.bias") for n, k in super().layer_ids().items()}


class LayerIdsAllZero(VisionTransformer):
    def layer_ids(self):
        return dict.fromkeys(super().layer_ids(), 0)


class NormInTheFirstLayer(VisionTransformer):
    def layer_ids(self):
        return {n: 0 if n.startswith("norm.") else k for n, k in super().layer_ids().items()}


class BlocksPartlyInTheFirstLayer(VisionTransformer):
    def layer_ids(self):
        return {n: 0 if "attn" in n else k for n, k in super().layer_ids().items()}


class DecayMisspelt(VisionTransformer):
    def no_weight_decay(self):
        return {"pos_embedding"}


class SeedsItself(VisionTransformer):
    def __init__(self, *given):
        torch.manual_seed(0)
        super().__init__(*given)


class NeverTheSame(VisionTransformer):
    def __init__(self, *given):
        super().__init__(*given)
        generator = torch.Generator()
        generator.seed()
        nn.init.normal_(self.cls_token, generator=generator)


class NotInTheCheckpoint(VisionTransformer):
    def __init__(self, *given):
        super().__init__(*given)
        self.register_buffer("offset", torch.randn(self.width), persistent=False)

    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        return dataclasses.replace(tokens, patches=tokens.patches + self.offset)


class CopiesFloatsAlone(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        made = F.linear(tokens.patches, torch.eye(self.width))
        out = torch.zeros(made.shape)
        out[torch.arange(len(made))] = made
        return dataclasses.replace(tokens, patches=out)


class Squeezes(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        return dataclasses.replace(tokens, prefix=tokens.prefix.squeeze(0))


class ThreeChannels(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        colours = torch.cat([images[:, :3], torch.zeros_like(images[:, 3:])], 1)
        return super().forward(colours, mask, layers)


class RandomInEvaluation(VisionTransformer):
    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        noise = 1e-5 * torch.randn_like(tokens.prefix)
        return dataclasses.replace(tokens, prefix=tokens.prefix + noise)


class AttentionWithClassToken(VisionTransformer):
    def attention(self, images):
        found = super().attention(images)
        return torch.cat([1 - found.sum(1, keepdim=True), found], 1)


class AttentionInLogits(VisionTransformer):
    def attention(self, images):
        return super().attention(images).log()


class AttentionIsUniform(VisionTransformer):
    def attention(self, images):
        return torch.full((len(images), self.grid[0] * self.grid[1]), 0.01)


class DropsNothing(VisionTransformer):
    def set_drop_path(self, rate):
        pass


class DropsAlways(VisionTransformer):
    def set_drop_path(self, rate):
        self.rate = rate

    def forward(self, images, mask=None, layers=()):
        tokens = super().forward(images, mask, layers)
        if not hasattr(self, "rate"):
            return tokens
        return dataclasses.replace(tokens, patches=F.dropout(tokens.patches, self.rate))


def encoder(module: type[VisionTransformer]) -> ViTNano:
    class Planted(ViTNano):
        """A vision transformer with an error in it."""

        name: ClassVar[str] = "planted"

        def build(self, inputs):
            super().build(inputs)  # refuses what does not fit
            return module(self, inputs, self.patch_size(inputs.image_size))

    return Planted(**SMALL)


class CutsOff(ViTNano):
    """It cuts off what does not fit."""

    name: ClassVar[str] = "cuts-off"

    def build(self, inputs):
        fits = tuple(side // 4 * 4 for side in inputs.image_size)
        return super().build(Inputs.of_images(inputs.channels, fits))


class RaisesValueError(ViTNano):
    """It refuses in its own way."""

    name: ClassVar[str] = "raises"

    def build(self, inputs):
        if inputs.image_size[0] % 4:
            raise ValueError("odd size")
        return super().build(inputs)


class SaysSquare(ViTNano):
    """It says that images must be square and takes others."""

    name: ClassVar[str] = "says-square"
    oblong: ClassVar[bool] = False


class IsSquare(ViTNano):
    """It takes square images and does not say so."""

    name: ClassVar[str] = "is-square"

    def build(self, inputs):
        if inputs.image_size[0] != inputs.image_size[1]:
            raise ConfigError("square images only")
        return super().build(inputs)


class DeadOption(ViTNano):
    """It has an option that does nothing."""

    name: ClassVar[str] = "dead-option"
    groups: PositiveInt = Field(1, description="groups of heads")


class DepthInNameAlone(ViTNano):
    """It says how deep it is, and always has two blocks."""

    name: ClassVar[str] = "always-two"

    def build(self, inputs):
        module = self.model_copy(update={"depth": 2})._built(inputs)
        module.depth = self.depth
        return module

    def _built(self, inputs):
        return super().build(inputs)


class FixedStem(ViTNano):
    """It has an option of which it takes the default alone."""

    name: ClassVar[str] = "fixed"
    stem: PositiveInt = Field(1, description="layers of the embedding")

    def build(self, inputs):
        if self.stem != 1:
            raise ConfigError("a stem of one layer only")
        return super().build(inputs)


class NoSmallOne(ViTNano):
    """It takes very large images alone."""

    name: ClassVar[str] = "large"

    def build(self, inputs):
        raise ConfigError("images of 1024x1024 only")


# what is planted, the check that must name it, a piece of what it says, checks that fail as well
PLANTED: list[tuple[Any, str, str, set[str]]] = [
    (LeaksDetached, "hidden pixels do not change what it returns", "prefix changes by", {KEPT}),
    (LeaksGradient, "no gradient reaches hidden pixels", "the gradient of patches", {KEPT}),
    (
        LeaksDetachedInTraining,
        "hidden pixels do not change what it returns",
        "in training mode: with other pixels in hidden patches prefix changes",
        set(),
    ),
    (
        GreysOut,
        "a hidden patch is no grey one or it says so",
        "it cannot tell hidden patches from grey ones that are seen, and does not declare leaky",
        set(),
    ),
    (
        NormalisesHiddenPixels,
        "no gradient reaches hidden pixels",
        "in training mode",
        {"hidden pixels do not change what it returns"},
    ),
    (
        MixesImages,
        "an image does not depend on its companions",
        "with other images beside it: patches differs",
        {"a single image is a batch too"},
    ),
    (
        ForgetsPositionsWithoutMask,
        "no mask equals a mask that sees everything",
        "mask=None beside a mask that hides nothing",
        set(),
    ),
    (ReversesTokens, "its tokens lie in raster order", "row by row", set()),
    (OverlooksTheLastPatch, "what is seen changes what it returns", "the seen patch 15", set()),
    (BlanksInPlace, "it leaves images and mask as they are", "changes images in place", set()),
    (
        LayersEarly,
        "layers depend on no later parameters",
        "depends on no parameter of layer 1",
        set(),
    ),
    (LayersNormed, "layers depend on no later parameters", "norm.bias, norm.weight", set()),
    (
        LayersAlways,
        "its tokens have the documented shapes",
        "asked for layers [2] and no other, it gives [1, 2]",
        set(),
    ),
    (LayersWithoutPlaces, "its tokens have the documented shapes", "layer 1: seen is None", set()),
    (KeepsInNameAlone, KEPT, "seen must be None", set()),
    (KeepsWhatIsHidden, KEPT, "after keep_positions(), with 4 of 16", set()),
    (KeepsAnotherFunction, KEPT, "its tokens without a mask are others", set()),
    (KeepsWithoutALayer, KEPT, "layer_ids lacks mask_token", set()),
    (PatchIsAList, "its attributes fit the images", "patch must be a tuple", set()),
    (ForgetsAParameter, "every parameter is trained", "forgotten: no gradient", set()),
    (LayerIdsLackATensor, "layer ids name every parameter", "lacks cls_token", set()),
    (LayerIdsTooHigh, "layer ids name every parameter", "'norm.bias' the layer 4", set()),
    (
        LayerIdsAllZero,
        "layers depend on no later parameters",
        "no parameter the layer 1, that of block 1",
        set(),
    ),
    (
        NormInTheFirstLayer,
        "layers depend on no later parameters",
        "puts into layer 0 and not 3",
        set(),
    ),
    (
        BlocksPartlyInTheFirstLayer,
        "layers depend on no later parameters",
        "layers[2] is the first to depend on blocks.1.attn.proj.bias",
        set(),
    ),
    (DecayMisspelt, "no weight decay names parameters", "names pos_embedding", set()),
    (SeedsItself, "weights depend on the seed alone", "two seeds give the same weights", set()),
    (NeverTheSame, "weights depend on the seed alone", "one seed differ in cls_token", set()),
    (NotInTheCheckpoint, "a checkpoint brings all back", "are all buffers persistent?", set()),
    (CopiesFloatsAlone, "it is finite in bf16", "(test_testing_encoder.py:", set()),
    (Squeezes, "a single image is a batch too", "prefix has shape (1, 16)", set()),
    (ThreeChannels, "it takes grey and many channels", "the one at index 3", set()),
    (
        RandomInEvaluation,
        "evaluation is deterministic and draws nothing",
        "draws from the global random state",
        {"drop path drops in training alone"},
    ),
    (
        AttentionWithClassToken,
        "attention is a share per patch",
        "has shape (4, 17), must be (4, 16)",
        set(),
    ),
    (AttentionInLogits, "attention is a share per patch", "must not be negative", set()),
    (AttentionIsUniform, "attention is a share per patch", "does not depend on the image", set()),
    (DropsNothing, "drop path drops in training alone", "the same tokens in training", set()),
    (DropsAlways, "drop path drops in training alone", "other tokens in evaluation", set()),
    (CutsOff, "sizes that do not fit are refused", "covers 16x16", set()),
    (RaisesValueError, "sizes that do not fit are refused", "raise ConfigError", set()),
    (SaysSquare, "it takes oblong images or says so", "oblong is False, but", set()),
    (IsSquare, "it takes oblong images or says so", "declare oblong", set()),
    (FixedStem, "every option changes something", "option 'stem': each value tried", set()),
    (
        DepthInNameAlone,
        "every option changes something",
        "and it gives the layers [1, 2]",
        set(),
    ),
    (DeadOption, "every option changes something", "option 'groups' changes neither", set()),
]


@pytest.mark.parametrize(
    ("planted", "check", "says", "also"), PLANTED, ids=[planted[0].__name__ for planted in PLANTED]
)
def test_a_planted_error_is_named(planted, check, says, also):
    made = encoder(planted) if issubclass(planted, nn.Module) else planted(**SMALL)
    failed = {
        f.check: f.reason for f in examine(contract_of(made, variants=HEADS)) if f.status == "fail"
    }
    assert set(failed) == {check, *also}, failed
    assert says in failed[check]


def test_an_encoder_that_takes_no_small_image_is_told_to_give_an_example():
    failed = [f for f in examine(contract_of(NoSmallOne)) if f.status == "fail"]
    assert failed
    assert all("give example: ClassVar" in f.reason for f in failed)


def test_what_an_encoder_does_not_have_is_not_checked():
    found = {f.check: f for f in examine(contract_of(Dense))}
    for check, lacks in (
        ("attention is a share per patch", "no attention(images)"),
        ("drop path drops in training alone", "no set_drop_path(rate)"),
    ):
        assert found[check].status == "not checked"
        assert lacks in found[check].reason


def test_every_check_has_a_planted_error():
    own = set(EncoderContract.checks()) - set(Contract.checks())
    assert {f"test_{planted[1].replace(' ', '_')}" for planted in PLANTED} == own
