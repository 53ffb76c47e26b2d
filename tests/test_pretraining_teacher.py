"""The EMA teacher that learned maskings ask."""

from __future__ import annotations

import pytest
import torch
from fakes import Dense, Worst, names

from maebench import MAE, ConfigError, Inputs, RunConfig
from maebench.data.preprocess import Normaliser
from maebench.encoders import ViTNano
from maebench.objectives import Supervised
from maebench.objectives.ema import follow, make_teacher
from maebench.pretraining.batches import batches
from maebench.pretraining.plan import build, inputs_of, prepare
from maebench.pretraining.teacher import TEACHER_DECAY, answers

ENCODER = ViTNano(width=16, depth=1, heads=2)


def test_the_teacher_follows_the_model_slowly_and_is_never_trained():
    model = MAE().build(ENCODER.build(Inputs.of_images(1, (8, 8))), Inputs.of_images(1, (8, 8)))
    teacher = make_teacher(model)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    follow(teacher, model, TEACHER_DECAY, 0)  # at step n it keeps (1 + n) / (10 + n), at most .999
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, start[name] + 0.9)
    follow(teacher, model, TEACHER_DECAY, 10**6)
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, start[name] + 0.9 + 0.1 * 0.001)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.training


def test_the_patch_loss_is_that_of_each_patch_when_it_is_hidden(tmp_path):
    plan = prepare(
        RunConfig(names(), encoder=ENCODER, masking=Worst(), limit=40, device="cpu"), tmp_path
    )
    model = build(plan.config, inputs_of(plan.config, plan.run.facts)).eval()
    teacher = make_teacher(model)
    order = batches(40, 8, 0, 0, 1)
    crop = next(iter(plan.images.crops(order, plan.config.augment, 0, "cpu")))
    pixels = Normaliser(plan.run.facts["mean"], plan.run.facts["std"], "cpu")(crop.images)
    asked = []
    original = teacher.reconstruct
    teacher.reconstruct = lambda images, mask: (asked.append(mask), original(images, mask))[1]
    loss = answers(teacher, pixels, crop.ids, 0, crop.epoch)["patch_loss"]()
    assert loss.shape == (8, 16)
    assert torch.equal(asked[0].hidden, ~asked[1].hidden)
    for mask in asked:
        made = original(pixels, mask)
        error = (made.prediction - made.target).square().mean(2)
        torch.testing.assert_close(loss[mask.hidden], error[mask.hidden])


def test_a_model_that_does_not_reconstruct_has_no_patch_loss():
    module = Supervised().build(
        ViTNano(width=16, depth=1, heads=2).build(Inputs.of_images(1, (8, 8))),
        Inputs.of_images(1, (8, 8), 2),
    )
    asked = answers(module, torch.zeros(2, 1, 8, 8), torch.arange(2), 0)
    with pytest.raises(ConfigError, match="asks for the loss of each patch"):
        asked["patch_loss"]()


def test_the_model_that_is_asked_is_left_as_it_was_and_answers_once():
    model = MAE().build(ENCODER.build(Inputs.of_images(1, (8, 8))), Inputs.of_images(1, (8, 8)))
    model.encoder.set_drop_path(0.5)
    model.train()
    state = torch.get_rng_state()
    images, ids = (
        torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.arange(4),
    )
    asked = answers(model, images, ids, 0)
    for what, shape in (("attention", (4, 16)), ("patch_loss", (4, 16)), ("features", (4, 16, 16))):
        first = asked[what]()
        assert first.shape == shape
        assert asked[what]() is first  # kept, however often it is asked
        assert not first.requires_grad
        torch.testing.assert_close(answers(model, images, ids, 0)[what](), first)  # no drop path
        half = answers(model, images, ids, 0, precision="bf16")[what]()
        assert half.dtype == torch.float32
        assert 0 < (half - first).abs().max() < 0.1 * first.abs().max()
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_features_of_an_encoder_that_ends_coarser_lie_on_the_grid_of_the_masks():
    encoder = Dense().build(Inputs.of_images(1, (8, 8)))
    model = MAE().build(encoder, Inputs.of_images(1, (8, 8)))
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    features = answers(model, images, torch.arange(2), 0)["features"]()
    assert features.shape == (2, 16, 16)
    on_grid = features.view(2, 2, 2, 2, 2, 16)
    assert torch.equal(on_grid, on_grid[:, :, :1, :, :1].expand_as(on_grid))
    torch.testing.assert_close(on_grid[:, :, 0, :, 0].flatten(1, 2), encoder(images).patches)
