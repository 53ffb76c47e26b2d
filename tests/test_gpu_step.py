"""A step on a GPU that is not there: every tensor on its device, and not one number asked for.

A number that is asked for lets a GPU run dry while the CPU waits for it: `faked` tensors have none.
"""

from __future__ import annotations

import contextlib
import re

import pytest
import torch
from fake_gpu import GPU, call, fake_gpu, faked, on_gpu
from operations import Operations

import maebench
from maebench import Augment, Batch, ClampedAugment, Draws, Inputs, RunConfig
from maebench.data.augment import crop_parameters
from maebench.data.resizing import cut
from maebench.encoders import attention
from maebench.masking.mask import checked_later, draw
from maebench.objectives.ema import follow, make_teacher
from maebench.pretraining import teacher
from maebench.pretraining.hardware import mixed
from maebench.pretraining.optimiser import AdamW, parameter_groups
from maebench.pretraining.plan import build

SIZE, CHANNELS, CLASSES, B = 16, 3, 4, 6
TINY = {"name": "vit-nano", "width": 32, "depth": 2, "patch": 4, "heads": 2}
TEXT = Inputs("text", (16,), torch.int64, CLASSES, vocabulary=50, mask_id=4, class_id=2)
ON_TEXT = {
    "dataset": "pydoc",
    "encoder": {"name": "text-nano", "width": 32, "depth": 2, "heads": 2},
    "image_size": None,
}
MAE = {
    f"mae, {option}={value}": {"objective": {"name": "mae", option: value}}
    for option in ("target", "decoder", "on", "loss")
    for value in maebench.MAE.model_fields[option].annotation.__args__
}
OBJECTIVES = {
    **{cls.name: {"objective": cls.name} for cls in maebench.objectives.BUILT_IN},
    "bert": {"objective": "bert", **ON_TEXT},
    "mae on text": {"objective": "mae", **ON_TEXT},
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
    size, ids = config_.image_size, torch.arange(B)
    inputs = Inputs.of_images(CHANNELS, size, CLASSES) if size else TEXT
    module = build(config_, inputs).train()
    images = inputs.made_up(Draws(0, "images", ids))
    mask = drawn(config_, module, ids, images) if config_.objective.hides else None
    return module, Batch(images, ids, Draws(0, "objective", ids), mask, ids % CLASSES, 0.5)


# Operations that a GPU is asked for in a forward and a backward pass of two blocks and the decoder:
# each costs the CPU some microseconds. A tenth more than there are with torch 2.15.
MOST = {
    **dict.fromkeys(OBJECTIVES, (95, 120)),
    "simmim": (52, 68),
    "denoising": (130, 105),
    "contractive": (205, 625),  # a slope for each probe
    "variational": (152, 125),
    "supervised": (62, 68),
    "mae, target=hog": (106, 120),
    "mae, target=features": (132, 120),
    "mae, decoder=cross-attention": (120, 115),
    "swin": (175, 190),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_objective_asks_a_gpu_for_no_number(name, precision):
    module, batch = made(config(**OBJECTIVES[name]))
    with fake_gpu() as mode:
        state = on_gpu(mode, module)
        there = faked(mode, batch)
        with mixed(GPU, precision), Operations() as done:
            found = call(module, state, there)
    assert {str(value.device) for value in found.values()} == {GPU}
    assert not done.waits and not done.copies


# of torch.use_deterministic_algorithms: what has no deterministic way on a GPU and ends a run
NO_WAY = re.compile(
    r"(adaptive_)?(avg|max)_pool\dd_backward|fractional_max|max_unpool|upsample_\w+_backward"
    r"|(reflection|replication)_pad\dd_backward|nll_loss2d|_ctc_loss|_embedding_bag|put_$|histc"
    r"|median|grid_sampler_\dd_backward|scatter_reduce|kthvalue|resize_$"
)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_is_few_operations_of_which_none_waits(name):
    module, batch = made(config(**OBJECTIVES[name]))
    groups, _ = parameter_groups(module, 0.05)
    adam = AdamW(groups, fused=True)
    teacher = make_teacher(module)
    with attention.using(True):
        module(batch)["loss"].backward()
        adam.step()  # the first makes its state
        adam.zero_grad()
        with Operations() as forward:
            loss = module(batch)["loss"]
        with Operations() as backward:
            loss.backward()
        with Operations() as update:
            adam.step()
            follow(teacher, module, 0.99, 1)
    counts = forward.kernels.total(), backward.kernels.total()
    assert all(count <= most for count, most in zip(counts, MOST[name], strict=True)), counts
    # two groups, each a count and an update, and the teacher in one, but for its constants
    assert update.kernels.total() <= 6 + len(list(module.buffers())), update.kernels
    for done in (forward, backward, update):
        assert not done.waits, done.waits
        assert not [kernel for kernel in done.kernels if NO_WAY.search(kernel)]


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("size", [16, 32])
def test_a_masking_asks_a_gpu_for_no_number(masking, size, monkeypatch):
    monkeypatch.setattr(teacher, "isolated", lambda *a, **k: contextlib.nullcontext())
    settings = config(masking=masking(), image_size=size)
    module, batch = made(settings)
    checks = []
    with fake_gpu() as mode, checked_later(checks):
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            owner, _, last = name.rpartition(".")
            setattr(module.get_submodule(owner), last, as_parameter(value, faked(mode, value)))
        ids, images = faked(mode, batch.ids), faked(mode, batch.images)
        with Operations() as done:
            mask = drawn(settings, module, ids, images)
    assert not done.waits and not done.copies
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
        sizes = torch.full((B, 2), side, device=GPU)
        boxes, flips = crop_parameters(augment, 0, ids, torch.zeros_like(ids), sizes)
        with Operations() as done:
            found = cut(images, boxes, flips, (side, side), augment.shift)
    assert str(found.device) == GPU and found.shape == images.shape
    assert not done.waits and not done.copies
    assert done.kernels.total() <= 115, done.kernels.total()  # for a batch, whatever its size


def test_a_number_that_is_asked_for_is_noticed():
    with fake_gpu() as mode:
        x = faked(mode, torch.ones(3))
        with pytest.raises(Exception, match="aten._local_scalar_dense"):
            bool(x.sum() > 0)
        with pytest.raises(Exception, match="aten.nonzero"):
            x[x > 0].sum()
        with pytest.raises(Exception, match="device"):
            x + torch.ones(3)
        with Operations() as done:
            x + torch.tensor([1.0, 2.0, 3.0], device=GPU)
        assert done.copies
        with mixed(GPU, "bf16"):
            assert (x[None] @ x[:, None]).dtype == torch.bfloat16


def test_an_operation_that_waits_is_noticed_on_a_cpu_too():
    x = torch.arange(3.0)
    with Operations() as done:
        x[x > 1], x.nonzero(), bool(x.sum() > 0)
        x.view(3, 1)[0]
    assert done.waits == {"index.Tensor": 1, "nonzero": 1, "_local_scalar_dense": 1}
    assert "view" not in done.kernels and "select" not in done.kernels
