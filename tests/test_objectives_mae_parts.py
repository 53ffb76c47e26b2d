"""The masked autoencoder with its parts chosen by name: loss, contract, refusals, names of runs."""

from __future__ import annotations

import pytest
import torch
from fakes import Dense, Worst
from frozen_mae import FrozenMAE

from maebench import MAE, Batch, ConfigError, Draws, Inputs, RunConfig, View
from maebench.encoders import ViTNano, attention
from maebench.masking import hide
from maebench.masking.guided import Hard
from maebench.objectives.decoders import default_decoder
from maebench.pretraining.plan import prepare
from maebench.pretraining.teacher import answers
from maebench.rng import isolated
from maebench.testing import ObjectiveContract
from maebench.testing.contract import NotChecked

B, SIZE, GRID = 3, (8, 8), (4, 4)


def build(encoder=None, **options):
    with isolated(0, "test"):
        encoder = encoder or ViTNano(width=32, depth=2, heads=4, patch=2)
        module = MAE(**options).build(
            encoder.build(Inputs.of_images(1, SIZE)), Inputs.of_images(1, SIZE)
        )
        with torch.no_grad():  # biases are 0 and norms 1 at first: an error there would not show
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
    return module.eval()


def batch_of():
    ids = torch.arange(B)
    images = torch.randn(B, 1, *SIZE, generator=torch.Generator().manual_seed(1)) + 0.5
    mask = hide(Draws(0, "masking", ids).uniform(16), 12, GRID)
    return Batch(images, ids, Draws(0, "objective", ids), mask)


PARTS = {
    "the default": {},
    "hog": {"target": "hog"},
    "low-pass": {"target": "low-pass"},
    "features": {"target": "features"},
    "cross-attention": {"decoder": "cross-attention"},
    "cross-attention of features": {"decoder": "cross-attention", "target": "features"},
    "all": {"on": "all"},
    "all of features": {"on": "all", "target": "features"},
    "l1": {"loss": "l1"},
    "smooth-l1": {"loss": "smooth-l1"},
}
DECODERS = {"decoder_depth": [2], "decoder_width": [16], "decoder_heads": [2]}
# these two try every value of every option, as the contract of MAE() does anyway
OF_ALL = {"test_the_loss_compares_the_patches_it_declares", "test_every_option_changes_something"}


def unchecked(mae):
    """What the contract has nothing to ask of."""
    whole = mae.on == "all" and mae.target in ("pixels", "low-pass")
    return {
        "test_its_own_pictures_have_the_documented_shapes",
        *(() if mae.target == "pixels" else ("test_targets_in_pixels_are_the_pixels",)),
        *(() if mae.target == "features" else ("test_after_step_keeps_all_finite",)),
        *(() if whole else ("test_what_is_made_of_whole_images_depends_on_all_of_them",)),
    }


@pytest.mark.parametrize("check", [c for c in ObjectiveContract.checks() if c not in OF_ALL])
@pytest.mark.parametrize("parts", [name for name in PARTS if " of " not in name][1:])
def test_each_part_keeps_to_the_contract(parts, check):
    made = {"component": MAE(**PARTS[parts]), "variants": DECODERS}
    contract = type("Made", (ObjectiveContract,), made)()
    if check in unchecked(MAE(**PARTS[parts])):
        with pytest.raises(NotChecked):
            getattr(contract, check)()
    else:
        getattr(contract, check)()


@pytest.mark.parametrize(
    "options", [{}, {"target": "normalised-pixels", "decoder": "transformer"}, {"target": "pixels"}]
)
def test_what_could_be_chosen_before_is_what_it_was_but_for_rounding(options):
    def trained(make):
        with isolated(0, "encoder"):
            encoder = ViTNano(width=32, depth=2, heads=4, patch=4).build(
                Inputs.of_images(3, (16, 16))
            )
        with isolated(0, "objective"):
            module = make(encoder)
        state = {name: value.clone() for name, value in module.state_dict().items()}
        adam = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
        losses = []
        for step in range(20):
            images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(step))
            ids = torch.arange(4)
            mask = hide(Draws(step, "masking", ids).uniform(16), 12, (4, 4))
            if isinstance(module, FrozenMAE):
                loss = module.loss(images, mask)
            else:
                loss = module(Batch(images, ids, Draws(step, "objective", ids), mask))["loss"]
            loss.backward()
            adam.step()
            adam.zero_grad()
            losses.append(loss.item())
        return losses, state

    objective = MAE(**options)
    normalised = objective.target == "normalised-pixels"
    with attention.using(False):  # as the oracle does it
        found = trained(lambda encoder: objective.build(encoder, Inputs.of_images(3, (16, 16))))
        size = default_decoder(32, 2)
        expected = trained(lambda encoder: FrozenMAE(encoder, size, 3, normalised))
    # the last block of the decoder now computes what the loss reads alone
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys()
    assert all(torch.equal(value, expected[1][name]) for name, value in found[1].items())


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("encoder", [None, Dense()], ids=["vit", "dense"])
@torch.no_grad()
def test_the_loss_is_the_error_of_the_scored_patches_under_every_part(parts, encoder):
    options = PARTS[parts]
    module, batch = build(encoder, **options), batch_of()
    scored = module.scored(batch, batch.mask)
    if scored is None:
        scored = torch.arange(16).expand(B, -1)
    made = module.reconstruct(batch.images, batch.mask)
    each = {
        "mse": lambda e: e * e,
        "l1": abs,
        "smooth-l1": lambda e: e * e / 2 if abs(e) < 1 else abs(e) - 0.5,
    }[options.get("loss", "mse")]
    by_hand = [
        each(e)
        for b in range(B)
        for place in scored[b].tolist()
        for e in (made.prediction[b, place] - made.target[b, place]).tolist()
    ]
    count = 4 if "decoder" in options else 16 if "on" in options else 12
    assert len(by_hand) == B * count * made.target.shape[2]
    assert module(batch_of())["loss"].item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)


@pytest.mark.parametrize("target", ["pixels", "normalised-pixels", "hog", "low-pass", "features"])
@torch.no_grad()
def test_where_all_patches_are_scored_there_is_what_it_makes_of_the_whole_image(target):
    module, images, mask = build(target=target, on="all"), batch_of().images, batch_of().mask
    made = module.reconstruct(images, mask)
    assert build(target=target).reconstruct(images, mask).whole is None
    if target not in ("pixels", "low-pass"):  # a patch's own mean would be most of its pixels
        assert made.whole is None
        return
    nothing = hide(torch.zeros(B, 16), 0, GRID)
    prediction = module.decoder(module.encoder(images, nothing))
    torch.testing.assert_close(made.whole, prediction)
    # and it does not depend on the mask
    other = hide(Draws(1, "masking", torch.arange(B)).uniform(16), 3, GRID)
    assert torch.equal(module.reconstruct(images, other).whole, made.whole)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("masking", [Hard(start=0.5), Worst()], ids=["hard", "worst"])
def test_maskings_that_ask_for_losses_work_with_every_part(parts, masking):
    images, ids = batch_of().images, torch.arange(B)
    asked = answers(build(**PARTS[parts]), images, ids, 0)
    view = View(GRID, 8, ids, Draws(0, "masking", ids), 0.5, images, _providers=asked)
    scores = masking.scores(view)
    assert scores.shape == (B, 16) and scores.isfinite().all()
    assert (asked["patch_loss"]() > 0).all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"hog_cell": 2},
            "hog_cell is read by target=hog alone, given 2 with target=normalised-pixels",
        ),
        (
            {"target": "hog", "low_pass": 0.5},
            "low_pass is read by target=low-pass alone, given 0.5",
        ),
        (
            {"teacher_layers": 2, "target": "pixels"},
            "teacher_layers is read by target=features alone",
        ),
        ({"teacher_decay": 0.9}, "teacher_decay is read by target=features alone, given 0.9"),
        (
            {"share": 0.5},
            "share is read by decoder=cross-attention alone, given 0.5 with decoder=tr",
        ),
        (
            {"on": "all", "decoder": "cross-attention"},
            "on=all does not fit decoder=cross-attention, which predicts hidden patches alone; "
            "allowed: on=hidden, or decoder=transformer",
        ),
    ],
)
def test_what_the_chosen_parts_do_not_read_is_refused_in_one_line(options, told):
    with pytest.raises(ConfigError) as caught:
        RunConfig(objective={"name": "mae", **options})
    assert str(caught.value).startswith(f"objective: {told}") and "\n" not in str(caught.value)


def test_options_that_are_read_may_be_given_and_defaults_may_be_spelt_out():
    assert MAE(low_pass=0.36, share=None, teacher_decay=0.999) == MAE()
    assert MAE(target="features", teacher_layers=2, teacher_decay=0.9).teacher_layers == 2
    assert MAE(decoder="cross-attention", share=1, target="hog", hog_cell=2).loss_on == "hidden"
    assert MAE(on="all").loss_on == "all"


def test_runs_that_could_be_made_before_keep_their_names(tmp_path):
    plan = prepare(RunConfig(device="cpu"), tmp_path)
    assert plan.run.name == "digits-vit-nano-mae-random-0.75-s0-a824a63536"  # as in the README
    assert MAE().identity() == {
        "name": "mae",
        "target": "normalised-pixels",
        **dict.fromkeys(("decoder_depth", "decoder_width", "decoder_heads")),
    }
    changed = MAE(decoder="cross-attention", share=0.5, loss="l1").identity()
    assert changed.items() > {"decoder": "cross-attention", "share": 0.5, "loss": "l1"}.items()
    assert "on" not in changed
    each = [MAE(**options).identity() for options in PARTS.values()]
    assert all(each.count(one) == 1 for one in each)
