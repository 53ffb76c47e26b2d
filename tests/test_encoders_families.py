"""Every family of encoders under every objective that hides patches: nothing hidden gets through."""

from __future__ import annotations

import pytest
import torch

from maebench import Inputs, RunConfig
from maebench.encoders import (
    ConvNeXtNano,
    ConvNeXtNanoLeaky,
    HieraNano,
    ResNetNano,
    SwinNano,
    TimmCNN,
    ViTNano,
)
from maebench.masking.mask import draw
from maebench.masking.patches import hidden_pixels
from maebench.objectives.objective import Batch
from maebench.pretraining.plan import build
from maebench.rng import Draws

pytestmark = pytest.mark.slow  # each is built and asked anew

SMALL = {"widths": (8, 16), "depths": (1, 1)}
FAMILIES = {
    "vit": (ViTNano(width=16, depth=1, heads=2), 32),
    "hiera": (HieraNano(width=8, depths=(1, 2), heads=1), 32),
    "swin": (SwinNano(width=8, depths=(1, 1), heads=(1, 2)), 32),
    "convnext": (ConvNeXtNano(**SMALL), 32),
    "resnet": (ResNetNano(**SMALL), 32),
    "timm-cnn": (TimmCNN(network="test_resnet"), 96),
    "leaky": (ConvNeXtNanoLeaky(**SMALL), 32),
}


def case(family, objective):
    """An objective around an encoder, images, and masks of random patches."""
    encoder, side = FAMILIES[family]
    inputs = Inputs.of_images(3, (side, side))
    config = RunConfig(encoder=encoder, objective=objective, image_size=side, ratio=0.5)
    module = build(config, inputs)
    draws = Draws(0, "families", torch.arange(4))
    images = inputs.made_up(draws)
    grid, patch = module.encoder.grid, module.encoder.patch
    mask = draw(config.masking, 0.5, grid, patch, ids=torch.arange(4), draws=draws)
    return module, images, mask


@pytest.mark.parametrize("objective", ["mae", "simmim"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prediction_does_not_know_what_is_hidden(family, objective):
    module, images, mask = case(family, objective)
    module.eval()
    hidden = hidden_pixels(mask, module.encoder.patch)
    images.requires_grad_()
    made = module.reconstruct(images, mask).prediction
    (slope,) = torch.autograd.grad((made * torch.randn_like(made)).sum(), images)
    assert float((slope * hidden).abs().max()) == 0
    assert float((slope * ~hidden).abs().max()) > 0
    with torch.no_grad():
        found = [
            module.reconstruct(x, mask).prediction
            for x in (images, torch.where(hidden, 5 * images.flip(0), images))
        ]
    assert torch.equal(*found)


@pytest.mark.parametrize("objective", ["mae", "simmim"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_falls_and_reaches_every_parameter_of_the_encoder(family, objective):
    module, images, mask = case(family, objective)
    optimiser = torch.optim.AdamW(module.parameters(), 3e-3)
    batch = Batch(images, torch.arange(4), Draws(0, "families", torch.arange(4)), mask=mask)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = module(batch)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    left = [
        name
        for name, p in module.encoder.named_parameters()
        if p.requires_grad and (p.grad is None or not bool(p.grad.any()))
    ]
    assert not left, left
