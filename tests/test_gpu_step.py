"""A step on a GPU that is not there: every tensor on its device, and not one number asked for.

A number that is asked for lets a GPU run dry while the CPU waits for it: `faked` tensors have none.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from fake_gpu import GPU, call, fake_gpu, faked

import maebench
from maebench import Augment, Batch, ClampedAugment, Draws, Inputs, RunConfig
from maebench.data.augment import crop_parameters
from maebench.data.resizing import cut
from maebench.masking.mask import checked_later, draw
from maebench.pretraining import teacher
from maebench.pretraining.plan import build

SIZE, CHANNELS, CLASSES, B = 16, 3, 4, 6
TINY = {"name": "vit-nano", "width": 32, "depth": 2, "patch": 4, "heads": 2}
MAE = {
    f"mae, {option}={value}": {"objective": {"name": "mae", option: value}}
    for option in ("target", "decoder", "on", "loss")
    for value in maebench.MAE.model_fields[option].annotation.__args__
}
OBJECTIVES = {
    **{cls.name: {"objective": cls.name} for cls in maebench.objectives.BUILT_IN},
    **MAE,
    "registers": {"encoder": {**TINY, "registers": 2}},
    "swin": {
        "encoder": "swin-nano",
        "objective": "simmim",
        "image_size": 32,
    },
}
MASKINGS = [cls for cls in maebench.masking.BUILT_IN if cls.name != "label-map"]


def config(**changes):
    settings = {"encoder": TINY, "image_size": SIZE, "device": "cpu"}
    return RunConfig(**{**settings, **changes})


def drawn(config_, module, ids, images):
    """The mask of a batch as the run draws it."""
    return draw(
        config_.masking,
        config_.ratio,
        module.encoder.grid,
        module.encoder.patch,
        ids=ids,
        draws=Draws(0, "masking", ids),
        progress=0.5,
        images=images,
        answers=teacher.answers(module, images, ids, 0),
    )


def made(config_):
    size = config_.image_size
    module = build(config_, Inputs(CHANNELS, size, CLASSES)).train()
    ids, images = torch.arange(B), torch.randn(B, CHANNELS, *size)
    mask = drawn(config_, module, ids, images) if config_.objective.hides else None
    return module, Batch(images, ids, Draws(0, "objective", ids), mask, ids % CLASSES, 0.5)


@pytest.mark.parametrize("changes", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_objective_asks_a_gpu_for_no_number(changes, precision):
    module, batch = made(config(**changes))
    with fake_gpu() as mode:
        with maebench.pretraining.hardware.mixed(GPU, precision):
            found = call(mode, module, batch)
    assert {str(value.device) for value in found.values()} == {GPU}


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("size", [16, 32])
def test_a_masking_asks_a_gpu_for_no_number(masking, size, monkeypatch):
    monkeypatch.setattr(teacher, "isolated", lambda *a, **k: contextlib.nullcontext())
    settings = config(masking=masking(), image_size=size)
    module, batch = made(settings)
    checks = []
    with fake_gpu() as mode, checked_later(checks):
        on_gpu = module
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            owner, _, last = name.rpartition(".")
            setattr(on_gpu.get_submodule(owner), last, as_parameter(value, faked(mode, value)))
        mask = drawn(settings, on_gpu, faked(mode, batch.ids), faked(mode, batch.images))
    assert {str(t.device) for t in (mask.hidden, mask.seen, mask.places)} == {GPU}
    assert checks and all(str(bad.device) == GPU for bad, _ in checks)


def as_parameter(before, value):
    return torch.nn.Parameter(value) if isinstance(before, torch.nn.Parameter) else value


@pytest.mark.parametrize("augment", [Augment(), Augment(shift=2), ClampedAugment()])
@pytest.mark.parametrize("side", [8, 32, 224])
def test_crops_are_made_on_a_gpu_without_asking_it(augment, side):
    ids = torch.arange(B)
    images = torch.randint(0, 256, (B, CHANNELS, side, side), dtype=torch.uint8)
    with fake_gpu() as mode:
        ids, images = faked(mode, ids), faked(mode, images)
        sizes = torch.tensor((side, side), device=GPU).expand(B, 2)
        boxes, flips = crop_parameters(augment, 0, ids, torch.zeros_like(ids), sizes)
        found = cut(images, boxes, flips, (side, side), augment.shift)
    assert str(found.device) == GPU and found.shape == images.shape


def test_a_number_that_is_asked_for_is_noticed():
    with fake_gpu() as mode:
        x = faked(mode, torch.ones(3))
        with pytest.raises(Exception, match="aten._local_scalar_dense"):
            bool(x.sum() > 0)
        with pytest.raises(Exception, match="aten.nonzero"):
            x[x > 0].sum()
        with pytest.raises(Exception, match="device"):
            x + torch.ones(3)
