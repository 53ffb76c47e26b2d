"""An EMA teacher of the encoder as the target: it follows, is never trained, and is kept."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from fakes import Dense
from torch import nn
from torch.nn.functional import layer_norm

from maebench import MAE, Batch, ConfigError, Draws, Inputs, Tokens, patchify
from maebench.encoders import ViTNano
from maebench.masking import hide
from maebench.objectives.targets import deviation_over_images, layers_like_the_last
from maebench.pretraining.optimiser import parameter_groups
from maebench.rng import isolated

SIZE, INPUTS = (16, 16), Inputs.of_images(3, (16, 16))


def build(encoder=None, **options):
    with isolated(0, "test"):
        encoder = encoder or ViTNano(width=16, depth=3, heads=2, patch=4).build(
            Inputs.of_images(3, SIZE)
        )
        return MAE(target="features", **options).build(encoder, INPUTS).train()


def images_of(count=4, seed=0):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def batch_of(count=4, seed=0, grid=(4, 4)):
    ids, length = torch.arange(count), grid[0] * grid[1]
    mask = hide(Draws(seed, "masking", ids).uniform(length), length * 3 // 4, grid)
    return Batch(images_of(count, seed), ids, Draws(seed, "objective", ids), mask)


def train(module, steps, start=0):
    groups, _ = parameter_groups(module, 0.05)
    adam = torch.optim.AdamW(groups, lr=1e-3)
    for step in range(start, start + steps):
        module(batch_of(seed=step))["loss"].backward()
        adam.step()
        adam.zero_grad()
        module.after_step((step + 1) / 10)


@pytest.mark.parametrize(("layers", "used"), [(None, (1, 2, 3)), (1, (3,)), (2, (2, 3))])
@torch.no_grad()
def test_the_target_is_the_normed_mean_of_the_normed_last_layers_of_the_whole_image(layers, used):
    module, images = build(teacher_layers=layers), images_of()
    tokens = module.encoder.eval()(images, None, used)
    by_hand = sum(layer_norm(tokens.layers[n].patches, (16,)) for n in used) / len(used)
    torch.testing.assert_close(module.target(images), layer_norm(by_hand, (16,)))


def test_of_six_layers_at_most_by_default():
    encoder = ViTNano(width=16, depth=8, heads=2, patch=4).build(Inputs.of_images(3, SIZE))
    assert build(encoder).target.layers == (3, 4, 5, 6, 7, 8)


def test_the_copy_has_no_gradient_and_is_not_with_the_optimiser():
    module = build()
    module(batch_of())["loss"].backward()
    copy = list(module.target.teacher.parameters())
    assert len(copy) == len(list(module.encoder.parameters()))
    assert all(p.grad is None and not p.requires_grad for p in copy)
    groups, names = parameter_groups(module, 0.05)
    inside = {id(p) for group in groups for p in group["params"]}
    assert not inside & {id(p) for p in copy}
    assert not [name for name in names if name.startswith("target.")]
    assert not {id(p) for p in copy} & {id(p) for p in module.encoder.parameters()}


def test_after_some_updates_the_copy_is_the_moving_average_by_hand():
    module = build(teacher_decay=0.3)
    expected = {k: v.clone() for k, v in module.encoder.state_dict().items()}
    for update in range(1, 8):
        train(module, 1, update)
        decay = min(0.3, (1 + update) / (10 + update))  # 2/11, 3/12, 4/13, then .3
        for name, value in module.encoder.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    assert module.target.updates == 7
    for name, value in module.target.teacher.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert not torch.equal(value, module.encoder.state_dict()[name])


def test_buffers_follow_and_whole_numbers_are_copied():
    encoder = Dense().build(Inputs.of_images(3, SIZE))
    encoder.norm = nn.BatchNorm2d(4)  # not used by its forward: its buffers are what counts
    module = build(encoder)
    encoder.norm.running_mean.fill_(1)
    encoder.norm.num_batches_tracked.fill_(5)
    module.target.follow(encoder)
    assert module.target.teacher.norm.num_batches_tracked == 5
    torch.testing.assert_close(module.target.teacher.norm.running_mean, torch.full((4,), 9 / 11))


def test_a_checkpoint_brings_back_the_copy_and_how_far_it_has_come():
    whole, first = build(), build()
    train(whole, 6)
    train(first, 3)
    second = build()
    second.load_state_dict(first.state_dict())
    assert second.target.updates == 3
    for module in (first, second):  # with fresh optimisers, so that what is kept is all that counts
        train(module, 3, start=3)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_the_copy_stays_in_evaluation_mode():
    module = build()
    for mode in (True, False, True):
        module.train(mode)
        assert module.encoder.training == mode
        assert not any(part.training for part in module.target.modules())


def test_targets_have_unit_variance_and_their_deviation_over_images_is_logged():
    module, batch = build(), batch_of(8)
    found, target = module(batch), module.target(batch.images)
    variance, mean = torch.var_mean(target, -1, correction=0)
    torch.testing.assert_close(variance, torch.ones_like(variance), atol=1e-4, rtol=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    by_hand = ((target - target.mean(0)).square().mean(0)).sqrt().mean()
    torch.testing.assert_close(found["target_std"], by_hand)
    assert 0.01 < found["target_std"] < 1
    assert set(build().eval()(batch_of(1))) == {"loss", "target_std"}
    assert deviation_over_images(target[:1]) == 0
    assert deviation_over_images(target[:1].expand(5, -1, -1)) < 1e-6  # a collapsed copy


def test_a_token_of_a_coarser_encoder_stands_for_all_its_patches():
    module = build(Dense().build(Inputs.of_images(3, SIZE)))  # 8x8 patches, 4x4 tokens
    images = images_of()
    tokens = module.encoder(images).patches
    found = module.target(images)
    assert found.shape == (4, 64, 16)
    for place in range(64):
        cell = place // 8 // 2 * 4 + place % 8 // 2
        expected = layer_norm(layer_norm(tokens[:, cell], (16,)), (16,))
        torch.testing.assert_close(found[:, place], expected)


class Narrowing(nn.Module):
    """Three blocks; the first has a finer grid and another width than the others."""

    patch, grid, out_grid, prefix, width, depth = (4, 4), (4, 4), (2, 2), 0, 16, 3
    channels = 3

    def __init__(self):
        super().__init__()
        self.embed, self.down = nn.Linear(48, 8), nn.Conv2d(8, 16, 2, 2)
        self.last = nn.Linear(16, 16)

    def forward(self, images, mask=None, layers=()):
        x = self.embed(patchify(images, (4, 4)))
        if mask is not None:
            x = x * ~mask.hidden[:, :, None]
        first = Tokens(x[:, :0], x, (4, 4))
        y = self.down(x.transpose(1, 2).unflatten(2, (4, 4))).flatten(2).transpose(1, 2)
        second = Tokens(y[:, :0], y, (2, 2))
        end = dataclasses.replace(second, patches=self.last(y))
        made = {1: first, 2: second, 3: end}
        return dataclasses.replace(end, layers={n: made[n] for n in layers})

    def layer_ids(self):
        return {name: 0 for name, _ in self.named_parameters()}

    def no_weight_decay(self):
        return set()


def test_blocks_of_another_grid_or_width_are_left_out():
    encoder = Narrowing()
    assert layers_like_the_last(encoder, INPUTS) == (2, 3)
    assert encoder.training
    assert build(encoder).target.layers == (2, 3)
    assert build(encoder, decoder="cross-attention").decoder.layers == (2,)
    assert build(encoder, decoder="cross-attention")(batch_of())["loss"].isfinite()
    told = (
        "objective.teacher_layers: 3, but of this encoder's 3 blocks 2 end on its last grid at its "
        "last width; allowed: 1 to 2"
    )
    with pytest.raises(ConfigError, match=f"^{told}$"):
        build(encoder, teacher_layers=3)


def test_there_are_no_pixels_and_it_is_said_why():
    module, batch = build().eval(), batch_of()
    made = module.reconstruct(batch.images, batch.mask)
    assert (made.pixels, made.space) == (None, "features of the copy after 0 updates")
    module.after_step(0.5)
    assert module.reconstruct(batch.images, batch.mask).space.endswith("after 1 updates")
    assert made.how.startswith("no pixels: ")
    assert torch.equal(made.target, module.target(batch.images))
