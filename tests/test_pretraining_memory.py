"""A step that does not fit into memory says in one line what was asked, what there is, what fits."""

from __future__ import annotations

import re
import time

import pytest
import tiny
import torch

from maebench.errors import RunError
from maebench.pretraining import loop, memory, plan, state
from maebench.pretraining.loop import pretrain
from maebench.pretraining.memory import out_of_memory, what_there_is
from maebench.pretraining.plan import prepare

CUDA = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB"
OTHERS = {
    "torch's allocator on a CPU": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 400000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "CUDA": RuntimeError("CUDA error: out of memory"),
    "Python": MemoryError(),
    "torch on a GPU": torch.OutOfMemoryError(CUDA),
}


@pytest.mark.parametrize("error", OTHERS.values(), ids=OTHERS)
def test_every_way_of_having_no_memory_is_known(error):
    assert out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory")])
def test_other_errors_are_none_of_it(error):
    assert not out_of_memory(error)


def test_a_cpu_that_really_has_no_memory_says_so():
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(found.value)
    assert "1,099,511,627,776 MiB asked for on" in what_there_is("cpu", found.value)


def limited(monkeypatch, most, error=None):
    """Memory for so many images at a time."""
    original = loop.forward_and_backward
    tried = []

    def computed(config, state, batch, *rest):
        tried.append(len(batch.ids))
        if len(batch.ids) > most:
            raise error or torch.OutOfMemoryError(CUDA)
        return original(config, state, batch, *rest)

    monkeypatch.setattr(loop, "forward_and_backward", computed)
    return tried


def test_what_fits_is_found_by_trying_and_said(tmp_path, monkeypatch):
    tried = limited(monkeypatch, 5)
    words = (
        r"out of memory with 16 images: 2\.50 GiB asked for on .*\. What fits, tried just now without compiling: "
        r"-o optimiser\.accumulate=4, the same batch in parts of 4; or --batch 4$"
    )
    plan = prepare(tiny.config(), tmp_path)
    with pytest.raises(RunError, match=words):
        list(pretrain(plan))
    assert tried == [16, 8, 4]
    assert not list(plan.checkpoints.glob("step-*"))  # the trial's weights are nobody's


def test_what_was_said_to_fit_does(tmp_path, monkeypatch):
    limited(monkeypatch, 5)
    steps = list(pretrain(prepare(tiny.config(optimiser={"accumulate": 4}), tmp_path)))
    assert len(steps) == 3


def test_where_not_one_image_fits_it_is_said(tmp_path, monkeypatch):
    tried = limited(monkeypatch, 0)
    with pytest.raises(RunError, match="No smaller part of the batch fits either"):
        list(pretrain(prepare(tiny.config(), tmp_path)))
    assert tried == [16, 8, 4, 2, 1]


def test_a_model_that_does_not_fit_has_no_step_to_make_smaller(tmp_path, monkeypatch):
    def build(*_):
        raise torch.OutOfMemoryError(CUDA)

    plan = prepare(tiny.config(), tmp_path)
    monkeypatch.setattr(state, "build", build)
    with pytest.raises(RunError, match="out of memory before the first step: 2.50 GiB asked for"):
        list(pretrain(plan))


def test_another_error_of_a_step_is_raised_as_it_is(tmp_path, monkeypatch):
    limited(monkeypatch, 5, ZeroDivisionError("a mistake"))
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        list(pretrain(prepare(tiny.config(), tmp_path)))


def test_a_gpus_memory_is_told_by_the_driver(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d: (2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda d: 78 * 2**30)
    monkeypatch.setattr(memory, "card", lambda d: "NVIDIA H100")
    said = what_there_is("cuda:0", torch.OutOfMemoryError(CUDA))
    assert said == (
        "2.50 GiB asked for on NVIDIA H100, where 1.0 of 80.0 GiB are free and 78.0 are this "
        "process's"
    )


@pytest.mark.gpu
def test_a_batch_too_large_for_this_machines_gpu_says_which_part_fits(tmp_path):
    free = torch.cuda.mem_get_info()[0]
    held = torch.empty(free - 300 * 2**20, dtype=torch.uint8, device="cuda")
    config = tiny.config(device="cuda", batch=2**16, limit=None)
    with pytest.raises(RunError, match="What fits, tried just now"):
        list(pretrain(prepare(config, tmp_path)))
    del held


# ---- before it is tried


@pytest.fixture
def free(monkeypatch):
    """A machine with 64 MiB."""
    monkeypatch.setattr(memory, "available", lambda: 2**26)


def refused(tmp_path, **settings):
    with pytest.raises(RunError) as caught:
        prepare(tiny.config(**settings), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "runs").iterdir())
    return str(caught.value)


def test_a_model_that_cannot_fit_is_refused_before_it_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "build", lambda *_: pytest.fail("it was built"))
    start = time.monotonic()
    found = refused(tmp_path, encoder={"name": "vit-nano", "width": 32768, "depth": 1000})
    assert "takes more than 8,192.0 GiB for its weights, their gradients" in found
    assert found.endswith("Take a smaller encoder") and time.monotonic() - start < 10


def test_a_teacher_counts_and_is_not_copied_where_its_encoder_does_not_fit(tmp_path):
    settings = {"encoder": {"name": "vit-nano", "width": 20000}}
    teacher = tiny.config(**settings, objective={"name": "mae", "target": "features"})
    start = time.monotonic()
    assert "GiB for its weights, their gradients" in refused(tmp_path, **teacher.dump())
    assert time.monotonic() - start < 30
    small = [tiny.config(objective={"name": "mae", "target": t}) for t in ("pixels", "features")]
    inputs = small[0].splits().load("train").info.inputs
    weights = [memory._weights(config, inputs, 2**40) for config in small]
    encoder = small[0].encoder.build(inputs)
    copied = sum(4 * p.numel() for p in encoder.parameters())
    assert weights[1] - weights[0] >= copied, "and its decoder predicts wider targets"


def test_a_batch_of_which_the_images_alone_cannot_fit_is_refused(tmp_path, free):
    found = refused(tmp_path, batch=2**20)
    assert "1,048,576 images of a step alone take 256.0 MiB: 64.0 MiB are free" in found
    assert "-o optimiser.accumulate=6, the same batch in parts of 174763" in found


def test_a_step_that_cannot_fit_is_refused_with_the_part_that_should(tmp_path, free):
    found = refused(tmp_path, batch=8192)
    size = int(re.search(r"or --batch (\d+)", found)[1])
    assert re.search(r"a step of 8,192 images takes [\d,.]+ [MG]iB, 0.\d MiB for each", found)
    assert 64 < size < 4096 and f"in parts of {size}, which keeps the result" in found
    prepare(tiny.config(batch=size), tmp_path)
    parts = -(-8192 // size)
    prepare(tiny.config(batch=8192, optimiser={"accumulate": parts}), tmp_path)


def test_what_is_kept_is_what_a_step_of_the_size_keeps():
    config = tiny.config()
    inputs = config.splits().load("train").info.inputs
    module = plan.build(config, inputs)
    hidden = plan.hidden_in_stages(config, module.encoder)[0]
    fixed, each, scores = memory.kept_for_backward(module, inputs, hidden)
    _, again, _ = memory.kept_for_backward(module, inputs, hidden, (8, 32))
    assert scores > 0 and fixed < 8 * each
    assert abs(each - again) < 0.05 * each


def test_a_module_that_cannot_be_looked_at_has_no_estimate(tmp_path, free, monkeypatch):
    def fails(*_):
        raise TypeError("a plugin's own")

    monkeypatch.setattr(memory, "kept_for_backward", fails)
    monkeypatch.setattr(memory, "_weights", lambda *_: None)
    prepare(tiny.config(batch=8192), tmp_path)


def test_attention_whose_cost_cannot_be_counted_is_refused(tmp_path, free, monkeypatch):
    monkeypatch.setattr(memory, "kept_for_backward", lambda *_: (0, 1, 2**30))
    found = refused(tmp_path, batch=8192)
    assert "attention of 2 images takes 2.0 GiB where their cost is counted: 64.0 MiB" in found
