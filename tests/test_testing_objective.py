"""The contract of objectives: what is whole passes, and each planted error is named."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any, ClassVar, Literal

import pytest
import torch
from fakes import Labelled, LabelledModule
from pydantic import Field, PositiveInt
from torch import nn

from maebench import ConfigError, ImageGrid, Objective
from maebench.masking.patches import patchify
from maebench.objectives import MAE
from maebench.objectives.decoders import Decoding
from maebench.objectives.mae import MaskedAutoencoder
from maebench.testing.cases import Blind, Coarse, mask_of
from maebench.testing.contract import Broken, Contract, examine, global_state
from maebench.testing.objective import ObjectiveContract

pytestmark = pytest.mark.slow  # every planted error is built and asked anew

# the default of these is "by the encoder", so their type tells no number that fits a small one
DECODERS = {"decoder_depth": [2], "decoder_width": [16], "decoder_heads": [2]}


def contract_of(made: Any, **more: Any) -> type[ObjectiveContract]:
    return type("Made", (ObjectiveContract,), {"component": made, "variants": DECODERS, **more})


# ---- whole objectives, among them one that is unlike the built-in ones


class Teaches(Objective):
    """Predicts the tokens of a slow copy of the encoder, and its loss may be on all patches."""

    name: ClassVar[str] = "teaches"
    everywhere: bool = Field(False, description="whether seen patches are compared too")
    decay: float = Field(0.9, ge=0, le=1, description="how slow the copy is")

    @property
    def loss_on(self):
        return "all" if self.everywhere else "hidden"

    def build(self, encoder, inputs):
        if tuple(encoder.out_grid) != tuple(encoder.grid):
            raise ConfigError("encoders that keep their grid only")
        return TeachesModule(self, encoder)


class TeachesModule(nn.Module):
    def __init__(self, options, encoder):
        super().__init__()
        self.options, self.encoder = options, encoder
        self.teacher = copy.deepcopy(encoder).requires_grad_(False)
        self.fill = nn.Parameter(torch.randn(1, math.prod(encoder.grid), encoder.width))
        self.head = nn.Sequential(nn.LayerNorm(encoder.width), nn.Linear(encoder.width, 16))
        self.project = nn.Linear(encoder.width, 16, bias=False).requires_grad_(False)

    def forward(self, batch):
        with torch.no_grad():
            target = self.project(self.teacher(batch.images).patches)
        tokens = self.encoder(batch.images, batch.mask)
        mixed = tokens.on_grid(self.fill) + tokens.patches.mean(1, keepdim=True)
        error = (self.head(mixed) - target).square().mean(-1)
        if self.options.everywhere:
            return {"loss": error.mean()}
        return {"loss": (error * batch.mask.hidden).sum() / batch.mask.hidden.sum()}

    @torch.no_grad()
    def after_step(self, progress):
        for mine, theirs in zip(self.teacher.parameters(), self.encoder.parameters(), strict=True):
            mine.lerp_(theirs, 1 - self.options.decay)


WHOLE = {
    "mae": contract_of(MAE),
    "mae on pixels": contract_of(MAE(target="pixels")),
    "labelled": contract_of(Labelled),
    "a teacher": contract_of(Teaches, variants={}),
}


@pytest.mark.parametrize("check", ObjectiveContract.checks())
@pytest.mark.parametrize("name", WHOLE)
def test_whole_objectives_pass(name, check):
    getattr(WHOLE[name](), check)()


OPTIONAL = {
    "after step keeps all finite",
    "its own pictures have the documented shapes",
    "what is made of whole images depends on all of them",
}


@pytest.mark.parametrize(
    ("name", "not_checked"),
    [("mae on pixels", OPTIONAL), ("mae", {*OPTIONAL, "targets in pixels are the pixels"})],
)
def test_nearly_every_check_can_be_made_and_leaves_global_state(name, not_checked):
    before = global_state()
    found = {f.check: f.status for f in examine(WHOLE[name]) if f.status != "pass"}
    assert found == dict.fromkeys(not_checked, "not checked")
    assert global_state() == before


@pytest.mark.parametrize("kind", [Blind, Coarse])
def test_the_kits_own_encoders_take_masks_and_layers(kind):
    module, images = kind((16, 16), 3), torch.randn(2, 3, 16, 16)
    mask = mask_of(module.grid, count=2)
    for each in (None, mask):
        tokens = module(images, each, (1,))
        assert tokens.on_grid(torch.zeros(1)).shape == (2, math.prod(module.out_grid), 16)
        assert set(tokens.layers) == {1}
    again = module(torch.where(torch.tensor(True), images + 1, images), mask)
    assert torch.equal(again.patches, module(images, mask).patches) == (kind is Blind)


# ---- planted errors


class ScoresEverything(MaskedAutoencoder):
    def forward(self, batch):
        error = self._decode(batch.images, batch.mask) - self.target(batch.images)
        return {"loss": error.square().mean()}


class ScoresSeenInValueAlone(MaskedAutoencoder):
    def forward(self, batch):
        seen = patchify(batch.images.detach(), self.patch)[~batch.mask.hidden]
        return {"loss": super().forward(batch)["loss"] + 0.1 * seen.mean()}


class ScoresEverythingAtFirst(MaskedAutoencoder):
    def forward(self, batch):
        if batch.progress < 0.25:
            error = self._decode(batch.images, batch.mask) - self.target(batch.images)
            return {"loss": error.square().mean()}
        return super().forward(batch)


class SeesWhatItIsToPredict(MaskedAutoencoder):
    def forward(self, batch):
        whole = dataclasses.replace(batch, mask=None)
        seen = patchify(batch.images, self.patch)[~batch.mask.hidden].square().mean()
        tokens = self.encoder(whole.images).patches
        return {"loss": super().forward(batch)["loss"] + tokens.square().mean() + seen}


class DetachesTheEncoder(MaskedAutoencoder):
    def __init__(self, *given):
        super().__init__(*given)
        self.encoder.requires_grad_(True)

    def _decode(self, images, mask, at_BM=None):
        encoder = self.encoder

        def detached(*given):
            with torch.no_grad():
                return encoder(*given)

        self.__dict__["encoder"] = detached
        try:
            return super()._decode(images, mask, at_BM)
        finally:
            del self.__dict__["encoder"]


class ForgetsAHead(MaskedAutoencoder):
    def __init__(self, *given):
        super().__init__(*given)
        self.forgotten = nn.Linear(2, 2)


class ClampsInPlace(MaskedAutoencoder):
    def forward(self, batch):
        with torch.no_grad():
            batch.images.clamp_(-1, 1)
        return super().forward(batch)


class DrawsForItself(MaskedAutoencoder):
    def __init__(self, *given):
        super().__init__(*given)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, batch):
        # below what other checks call a difference
        noise = 5e-7 * torch.rand((), generator=self.generator)
        return {"loss": super().forward(batch)["loss"] + noise}


class DrawsFromGlobalState(MaskedAutoencoder):
    def forward(self, batch):
        return super().forward(
            dataclasses.replace(batch, images=batch.images + 0.5 * torch.randn_like(batch.images))
        )


class SumsOverImages(MaskedAutoencoder):
    def forward(self, batch):
        return {"loss": super().forward(batch)["loss"] * len(batch.images)}


class ComparesImages(MaskedAutoencoder):
    def forward(self, batch):
        tokens = self.encoder(batch.images, batch.mask).patches.mean(1)
        return {"loss": super().forward(batch)["loss"] + tokens.var(0).sum() / 10}


class KeepsANumberAside(MaskedAutoencoder):
    scale = 1.0

    def forward(self, batch):
        return {"loss": self.scale * super().forward(batch)["loss"]}

    def after_step(self, progress):
        self.scale = 1 + 0.01 * progress


class DividesByProgress(MaskedAutoencoder):
    def after_step(self, progress):
        with torch.no_grad():
            self.decoder.mask_token.mul_(progress).div_(torch.tensor(progress))


class LeaksStatistics(MaskedAutoencoder):
    def reconstruct(self, images, mask):
        made = super().reconstruct(images, mask)
        variance, mean = torch.var_mean(patchify(images, self.patch), -1, keepdim=True)
        return dataclasses.replace(made, pixels=made.prediction * variance.sqrt() + mean)


class ReconstructsHiddenAlone(MaskedAutoencoder):
    def reconstruct(self, images, mask):
        made = super().reconstruct(images, mask)
        shape = (len(images), mask.num_hidden, -1)
        return dataclasses.replace(made, prediction=made.prediction[mask.hidden].view(shape))


class ScalesTheTruth(MaskedAutoencoder):
    def reconstruct(self, images, mask):
        made = super().reconstruct(images, mask)
        return dataclasses.replace(made, target=2 * made.target)


class WholeIsWhatIsSeen(MaskedAutoencoder):
    def reconstruct(self, images, mask):
        made = super().reconstruct(images, mask)
        return dataclasses.replace(made, whole=made.pixels)


class DrawsPatches(MaskedAutoencoder):
    def pictures(self, images, draws):
        return {"patches": ImageGrid(patchify(images, self.patch))}


class CopiesTheEncoder(MaskedAutoencoder):
    def __init__(self, options, encoder, size, inputs):
        super().__init__(options, copy.deepcopy(encoder), size, inputs)


class MixesUpSides(MaskedAutoencoder):
    def forward(self, batch):
        C, H = batch.images.shape[1:3]
        return super().forward(dataclasses.replace(batch, images=batch.images.view(-1, C, H, H)))


class ThreeChannels(MaskedAutoencoder):
    def forward(self, batch):
        colours = batch.images[:, :3].unflatten(1, (3, 1)).flatten(1, 2)
        return super().forward(dataclasses.replace(batch, images=colours))


class ClimbsUp(MaskedAutoencoder):
    def forward(self, batch):
        loss = super().forward(batch)["loss"]
        return {"loss": 2 * loss.detach() - loss}


class CopiesFloatsAlone(MaskedAutoencoder):
    def _decode(self, images, mask, at_BM=None):
        made = super()._decode(images, mask, at_BM)
        out = torch.zeros(made.shape)
        out[torch.arange(len(made))] = made
        return out


class LossHasAnAxis(MaskedAutoencoder):
    def forward(self, batch):
        return {"loss": super().forward(batch)["loss"][None]}


class LogsAName(MaskedAutoencoder):
    def forward(self, batch):
        return {**super().forward(batch), "note": "mae"}


class AssumesOneGrid(MaskedAutoencoder):
    def forward(self, batch):
        tokens = self.encoder(batch.images, batch.mask)
        if tokens.grid != batch.mask.grid:
            raise ValueError("grids differ")
        return super().forward(batch)


class Few(Decoding):
    """A masked autoencoder with few options: errors are found sooner."""

    name: ClassVar[str] = "planted"
    module: ClassVar[type[MaskedAutoencoder]] = MaskedAutoencoder
    target: Literal["pixels", "normalised-pixels"] = Field(
        "normalised-pixels", description="what is predicted"
    )

    def build(self, encoder, inputs):
        size = self.decoder_size(encoder.width, encoder.depth)
        return self.module(MAE(target=self.target), encoder, size, inputs)


def objective(planted: type[MaskedAutoencoder], target: str) -> Few:
    class Planted(Few):
        """A masked autoencoder with an error in it."""

        module: ClassVar[type[MaskedAutoencoder]] = planted

    return Planted(target=target)


class AllInOnlyANumber(Few):
    """Compares seen patches too where a weight says so."""

    name: ClassVar[str] = "planted"
    seen_weight: float = Field(0.0, ge=0, le=1, description="weight of seen patches")

    def build(self, encoder, inputs):
        weight = self.seen_weight

        class Weighted(MaskedAutoencoder):
            def forward(self, batch):
                error = self._decode(batch.images, batch.mask) - self.target(batch.images)
                seen = error[~batch.mask.hidden].square().mean()
                return {"loss": super().forward(batch)["loss"] + weight * seen}

        size = self.decoder_size(encoder.width, encoder.depth)
        return Weighted(MAE(target=self.target), encoder, size, inputs)


class LooksAtAll(Few):
    """Asks the encoder for all patches, and says rightly that all count."""

    module: ClassVar[type[MaskedAutoencoder]] = SeesWhatItIsToPredict
    loss_on: ClassVar[str] = "all"


class SaysAll(Few):
    """It says that it compares all patches."""

    name: ClassVar[str] = "says-all"

    @property
    def loss_on(self):
        return "all"


class DeadOption(Few):
    """It has an option that does nothing."""

    name: ClassVar[str] = "dead-option"
    rounds: PositiveInt = Field(1, description="rounds of decoding")


class DeadUnderAChoice(Few):
    """It has an option that is taken with one target alone, and does nothing there."""

    name: ClassVar[str] = "dead-under-a-choice"
    rounds: PositiveInt = Field(1, description="rounds of decoding")

    def model_post_init(self, _):
        if self.rounds != 1 and self.target != "pixels":
            raise ValueError("rounds is read by target=pixels alone")


class IgnoresLabels(Labelled):
    """It needs labels and does not look at them."""

    name: ClassVar[str] = "ignores-labels"

    def build(self, encoder, inputs):
        class Module(LabelledModule):
            def forward(self, batch):
                return super().forward(dataclasses.replace(batch, labels=batch.ids % 4))

        return Module(encoder, inputs.num_classes)


class NeedsLabelsInSecret(Labelled):
    """It needs labels and does not say so."""

    name: ClassVar[str] = "needs-labels"
    needs_labels: ClassVar[bool] = False

    def build(self, encoder, inputs):
        return LabelledModule(encoder, max(1, inputs.num_classes))


COMPARES = "the loss compares the patches it declares"
GIVES = "it gives a loss and numbers to log"
COARSER = "it takes encoders that end coarser"
EVERY_SETTING = {GIVES, COARSER, "it takes oblong images", "it takes grey images"}
# what is planted, the check that must name it, a piece of what it says, checks that fail as well
PLANTED: list[tuple[Any, str, str, set[str]]] = [
    (ScoresEverything, COMPARES, "other pixels in seen patches change the loss", set()),
    (ScoresSeenInValueAlone, COMPARES, "other pixels in seen patches change the loss", set()),
    (ScoresEverythingAtFirst, COMPARES, "at progress 0, around", set()),
    (AllInOnlyANumber, COMPARES, "other pixels in seen patches change the loss", set()),
    (LooksAtAll, COMPARES, "it asks the encoder without the mask", set()),
    (SaysAll, COMPARES, 'loss_on is "all", but', set()),
    (
        DetachesTheEncoder,
        "gradients reach the encoder and all that is trained",
        "does the loss depend on the encoder's tokens?",
        set(),
    ),
    (
        ForgetsAHead,
        "gradients reach the encoder and all that is trained",
        "forgotten.bias, forgotten.weight: no gradient",
        set(),
    ),
    (ClampsInPlace, "it leaves the batch as it is", "changes images of the batch", set()),
    (DrawsForItself, "one seed and one batch give one loss", "from batch.draws", set()),
    (
        DrawsFromGlobalState,
        "the loss is the mean over images",
        "as the mean over parts of 4",
        set(),
    ),
    (SumsOverImages, "the loss is the mean over images", "give the mean over images", set()),
    (ComparesImages, "the loss is the mean over images", "give the mean over images", set()),
    (KeepsANumberAside, "a checkpoint brings all back", "parameters or buffers", set()),
    (DividesByProgress, "after step keeps all finite", "after_step(0.0) makes", set()),
    (
        LeaksStatistics,
        "reconstructions use nothing that is hidden",
        "no true statistic of a hidden patch may enter",
        set(),
    ),
    (
        ReconstructsHiddenAlone,
        "reconstructions have the documented shapes",
        "prediction is (8, 8, 48), must be (B, L, T)",
        set(),
    ),
    (ScalesTheTruth, "targets in pixels are the pixels", "is not patchify(images)", set()),
    (
        WholeIsWhatIsSeen,
        "what is made of whole images depends on all of them",
        "with other pixels in hidden patches whole stays as it is",
        set(),
    ),
    (
        DrawsPatches,
        "its own pictures have the documented shapes",
        "must be (rows, columns, C, H, W) with (C, H, W) = (3, 16, 16)",
        set(),
    ),
    (CopiesTheEncoder, "it keeps the encoder it is given", "that very object", set()),
    (MixesUpSides, "it takes oblong images", "built for images of 3x8x16", set()),
    (ThreeChannels, "it takes grey images", "RuntimeError: unflatten", set()),
    (ClimbsUp, "some steps lower the loss", "after 40 steps", set()),
    (CopiesFloatsAlone, "it is finite in bf16", "(test_testing_objective.py:", set()),
    (LossHasAnAxis, GIVES, "loss is (1,), must be a scalar", EVERY_SETTING),
    (LogsAName, GIVES, "'note' is <class 'str'>", EVERY_SETTING),
    (
        AssumesOneGrid,
        COARSER,
        "ValueError: grids differ (test_testing_objective.py:",
        {"it is finite in bf16", "every option changes something"},
    ),
    (DeadOption, "every option changes something", "option 'rounds' changes neither", set()),
    (DeadUnderAChoice, "every option changes something", "option 'rounds' changes neither", set()),
    (
        IgnoresLabels,
        "labels are needed only where it says so",
        "does not change with the labels",
        set(),
    ),
]


class TwoWays(Objective):
    """Reads an option in the second of two ways alone, and refuses it in the first."""

    name: ClassVar[str] = "two-ways"
    way: Literal["first", "second"] = Field("first", description="which loss it is")
    power: float = Field(1.0, gt=0, le=2, description="what the second is raised to")
    reads: ClassVar[bool] = True

    def model_post_init(self, _):
        if self.way == "first" and self.power != 1:
            raise ValueError("power is read by way=second alone")

    def build(self, encoder, inputs):
        module = MAE().build(encoder, inputs)
        power = self.power if self.reads else 1.0
        if self.way == "second":
            module.register_forward_hook(lambda _, batch, made: {"loss": 2 * made["loss"] ** power})
        return module


class OneWay(TwoWays):
    """Reads it in neither."""

    name: ClassVar[str] = "one-way"
    reads: ClassVar[bool] = False


def test_an_option_that_one_choice_reads_has_to_change_something_there():
    contract_of(TwoWays)().test_every_option_changes_something()
    with pytest.raises(Broken, match="option 'power' changes neither state nor loss"):
        contract_of(OneWay)().test_every_option_changes_something()


@pytest.mark.parametrize(
    ("planted", "check", "says", "also"), PLANTED, ids=[planted[0].__name__ for planted in PLANTED]
)
def test_a_planted_error_is_named(planted, check, says, also):
    target = "pixels" if planted is ScalesTheTruth else "normalised-pixels"
    made = objective(planted, target) if issubclass(planted, nn.Module) else planted()
    failed = {f.check: f.reason for f in examine(contract_of(made)) if f.status == "fail"}
    assert set(failed) == {check, *also}, failed
    assert says in failed[check]


def test_an_objective_that_needs_labels_in_secret_fails_wherever_it_is_asked():
    found = {f.check: f for f in examine(contract_of(NeedsLabelsInSecret))}
    assert found["labels are needed only where it says so"].status == "fail"
    assert found[GIVES].status == "fail"


def test_what_cannot_be_checked_is_said():
    found = {f.check: f for f in examine(WHOLE["a teacher"]) if f.status == "not checked"}
    assert "it refuses a dense encoder that ends coarser" in found[COARSER].reason
    assert "no reconstruct" in found["targets in pixels are the pixels"].reason


def test_every_check_has_a_planted_error():
    own = set(ObjectiveContract.checks()) - set(Contract.checks())
    assert {f"test_{planted[1].replace(' ', '_')}" for planted in PLANTED} == own
