"""The contractive autoencoder: the norm of its Jacobian against closed forms and torch.func."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from whole import TINY, B, batch_of, built, draws_of, images_of

from maebench import Draws
from maebench.encoders import attention
from maebench.objectives import Contractive
from maebench.objectives.contractive import squared_jacobian
from maebench.testing import ObjectiveContract

PROBES = 4000


class TestContractive(ObjectiveContract):
    component = Contractive


class OneLayer(nn.Module):
    """The encoder of the paper: sigmoid(W x + b)."""

    def __init__(self, units, pixels=48):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.W = nn.Parameter(torch.randn(units, pixels, generator=generator) / pixels**0.5)
        self.b = nn.Parameter(torch.randn(units, generator=generator))

    def forward(self, images):
        return (images.flatten(1) @ self.W.T + self.b).sigmoid()

    def closed_form(self, images):
        h = self(images)
        return (h * (1 - h)).square() @ self.W.square().sum(1)


def mean_of_probes(code, image, chunk=500):
    """4,000 probes of one image: chunks of copies, each with signs of its own."""
    copies = image.expand(chunk, *image.shape[1:])
    found = []
    with torch.no_grad():
        for start in range(0, PROBES, chunk):
            ids = torch.arange(start, start + chunk)
            found.append(squared_jacobian(code, copies, Draws(0, "probes", ids))[1])
    return torch.cat(found).mean().item()


# ---- the estimate


@pytest.mark.parametrize("units", [1, 6, 20])
def test_the_estimate_agrees_with_the_closed_form_of_one_layer(units):
    code = OneLayer(units)
    for image in images_of((4, 4), count=2).split(1):
        found, expected = mean_of_probes(code, image), code.closed_form(image).item()
        assert found == pytest.approx(expected, rel=0.02)


def test_the_gradient_of_the_estimate_agrees_with_the_closed_forms():
    code, images = OneLayer(1), images_of((4, 4))  # of one unit a sign tells all: no chance
    made, norm = squared_jacobian(code, images, draws_of())
    expected = code.closed_form(images)
    torch.testing.assert_close(norm, expected)
    assert torch.equal(made, code(images))
    pairs = zip(
        torch.autograd.grad(norm.sum(), [code.W, code.b]),
        torch.autograd.grad(expected.sum(), [code.W, code.b]),
        strict=True,
    )
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted)


def jacobian_of(module, image):
    def code(one):
        return module.code(one[None]).flatten()

    return torch.func.jacrev(code)(image).flatten(1)


def test_each_probe_of_a_vit_is_the_norm_of_its_signs_times_the_jacobian():
    module, images = built(Contractive(bottleneck=3), (8, 8), 1), images_of((8, 8), 1)
    made, norm = squared_jacobian(module.code, images, draws_of(), probes=2)
    assert made.shape == (B, 5, 3)
    draws, expected = draws_of(), torch.zeros(B)
    for _ in range(2):
        signs = (2.0 * draws.integers(2, 5, 3) - 1).flatten(1)
        for b in range(B):
            expected[b] += (signs[b] @ jacobian_of(module, images[b])).square().sum() / 2
    torch.testing.assert_close(norm, expected)


def test_the_estimate_of_a_vit_agrees_with_torchs_jacobian():
    module, image = built(Contractive(bottleneck=3), (8, 8), 1), images_of((8, 8), 1, count=1)
    expected = jacobian_of(module, image[0]).square().sum().item()
    assert mean_of_probes(module.code, image) == pytest.approx(expected, rel=0.03)


def test_probes_differ_by_image_and_step_but_not_by_batch():
    code, images = OneLayer(6), images_of((4, 4), count=1).expand(B, -1, -1, -1)
    norm = squared_jacobian(code, images, draws_of())[1]
    assert len(set(norm.tolist())) > 1
    parts = [
        squared_jacobian(code, images[i : i + 1], draws_of().at(slice(i, i + 1)))[1]
        for i in range(B)
    ]
    torch.testing.assert_close(torch.cat(parts), norm)
    assert not torch.equal(squared_jacobian(code, images, draws_of(epoch=1))[1], norm)


# ---- the objective


def test_the_norm_is_weighed_beside_the_summed_squared_error():
    module, images = built(Contractive(weight=0.3)), images_of()
    made = module(batch_of(images))
    norm = squared_jacobian(module.code, images, draws_of())[1]
    summed = (module.predict(images) - module.target(images)).square().sum((1, 2))
    expected = (summed + 0.3 * norm).mean().item()
    assert made["loss"].item() * 3 * 16 * 16 == pytest.approx(expected, rel=1e-5)
    assert made["jacobian"].item() == pytest.approx(norm.mean().item(), rel=1e-5)
    assert not made["jacobian"].requires_grad


def test_the_gradient_of_the_penalty_reaches_the_encoder():
    module, images = built(Contractive()), images_of()
    squared_jacobian(module.code, images, draws_of())[1].mean().backward()
    got = {n for n, p in module.encoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert got == {n for n, _ in module.encoder.named_parameters()} - {"pos_embed"}
    assert module.bottleneck.weight.grad.any()
    assert all(p.grad is None for p in module.decoder.parameters())


def test_without_gradients_the_loss_is_the_same_number():
    module, batch = built(Contractive()), batch_of(images_of())
    trained = module(batch)
    with torch.no_grad():
        again = module(batch_of(batch.images))
    for name, value in again.items():
        torch.testing.assert_close(value, trained[name].detach())
        assert not value.requires_grad
    assert batch.images.grad is None and not batch.images.requires_grad


@torch.no_grad()
def test_the_losses_of_halves_average_to_that_of_the_whole():
    module, batch = built(Contractive(probes=2)), batch_of(images_of())
    halves = [module(part)["loss"] for part in batch.split(2)]
    torch.testing.assert_close(sum(halves) / 2, module(batch_of(batch.images))["loss"])


@pytest.mark.slow
def test_a_larger_weight_makes_the_code_move_less():
    norms = []
    for weight in (1e-6, 10.0):
        module, images = built(Contractive(weight=weight), (8, 8), 1).train(), images_of((8, 8), 1)
        adam = torch.optim.Adam(module.parameters(), 1e-2)
        for step in range(40):
            module(batch_of(images, step))["loss"].backward()
            adam.step()
            adam.zero_grad()
        norms.append(squared_jacobian(module.code, images, draws_of(), 20)[1].mean().item())
    assert norms[1] < 0.5 * norms[0]


def test_the_fused_attention_can_be_differentiated_twice():
    module, images = built(Contractive(), (40, 40), 1), images_of((40, 40), 1, count=2)
    with attention.using(True):
        module(batch_of(images))["loss"].backward()
    assert module.encoder.blocks[0].attn.fused_attn
    assert module.encoder.blocks[0].attn.qkv.weight.grad.any()


def test_it_trains_in_bfloat16():
    module, images = built(Contractive()).train(), images_of()
    exact = module(batch_of(images))
    adam, losses = torch.optim.Adam(module.parameters(), 3e-3), []
    for _ in range(15):
        with torch.autocast("cpu", torch.bfloat16):
            made = module(batch_of(images))
        made["loss"].backward()
        assert all(p.grad.isfinite().all() for p in module.parameters() if p.requires_grad)
        losses.append(made["loss"].item())
        if len(losses) == 1:
            torch.testing.assert_close(made["jacobian"], exact["jacobian"], rtol=0.05, atol=0)
        adam.step()
        adam.zero_grad()
    assert losses[-1] < 0.8 * losses[0]


def test_the_default_code_is_as_wide_as_what_a_token_covers():
    assert built(Contractive(), encoder=TINY).bottleneck.out_features == 48
    assert built(Contractive(bottleneck=5)).bottleneck.out_features == 5
