"""What the machine has, and how its memory is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from platform import libc_ver

import pytest
import torch

from maebench.errors import ConfigError, DeviceError
from maebench.pretraining.hardware import (
    all_deterministic,
    check_answers,
    deterministic,
    environment,
    find_device,
    find_precision,
    precision_note,
    unfit,
)

PROGRAM = """
import resource
import torch
from maebench.pretraining.hardware import keep_memory

def step():
    held = [torch.ones(2**22) for _ in range(8)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

{kept}
for _ in range(5):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


def page_faults(kept):
    """How often a step's memory had to be fetched from the system, in a process of its own."""
    # otherwise the library moves its threshold as it goes, and at times keeps memory by chance
    gives_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17)}
    program = [sys.executable, "-c", PROGRAM.format(kept=kept)]
    return int(subprocess.run(program, env=gives_back, capture_output=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(libc_ver()[0] != "glibc", reason="a setting of the GNU C library")
def test_memory_that_a_step_frees_is_kept_for_the_next():
    assert page_faults("keep_memory()") < page_faults("") / 20


# ---- which device, and in what precision


@pytest.fixture
def cards(monkeypatch):
    """Four GPUs that exist in answers alone: a T4, an A100, one torch has no kernels for, a full."""
    names = ["Tesla T4", "NVIDIA A100", "NVIDIA Old", "NVIDIA Full"]
    capabilities = [(7, 5), (8, 0), (3, 5), (9, 0)]
    errors = {
        2: RuntimeError("CUDA error: no kernel image is available for execution on the device"),
        3: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    }
    real = torch.ones

    def number(device):
        return torch.device(device).index or 0

    def ones(*shape, device="cpu", **rest):
        if torch.device(device).type == "cuda" and number(device) in errors:
            raise errors[number(device)]
        return real(*shape, **rest)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: names[number(d)])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: capabilities[number(d)])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back after the test
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    return errors


def test_without_a_gpu_the_cpu_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == find_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["mps", "meta", "xpu:0", "cpu:0"])
def test_devices_that_lack_what_maebench_needs_are_refused(name):
    with pytest.raises(ConfigError, match=f"--device {name}: maebench does not compute there"):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "gpu", "cuda:x", ""])
def test_a_device_that_is_not_here_is_named_with_those_that_are(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"not here.*There is: auto, cpu$"):
        find_device(name)


def test_a_gpu_beyond_the_last_is_not_here(cards):
    with pytest.raises(ConfigError, match=r"cuda:4: not here.*cuda:0, cuda:1, cuda:2, cuda:3$"):
        find_device("cuda:4")


def test_a_gpu_that_works_is_taken_by_itself_and_by_its_name(cards):
    assert find_device("auto") == "cuda"
    assert find_device("cuda:1") == "cuda:1"


def test_a_gpu_without_kernels_is_named_with_what_torch_was_built_for(cards):
    words = (
        r"--device cuda:2: NVIDIA Old \(cuda:2, compute capability 3\.5.*\) does not run torch "
        r".*for sm_75, sm_80\): CUDA error: no kernel image.*docs/gpu\.md.*--device cpu$"
    )
    with pytest.raises(ConfigError, match=words):
        find_device("cuda:2")
    cards[0] = cards[2]
    with pytest.warns(UserWarning, match="no GPU is used: Tesla T4 .* does not run torch"):
        assert find_device("auto") == "cpu"


@pytest.mark.parametrize(
    "said",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
        torch.AcceleratorError(
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", 2
        ),
    ],
    ids=["no room", "no context"],
)
def test_a_gpu_that_others_have_filled_is_said_to_be_full(said, cards):
    cards[3] = said
    with pytest.raises(ConfigError, match="NVIDIA Full .* has no memory left"):
        find_device("cuda:3")


def test_an_old_driver_is_a_line_and_no_gpu(monkeypatch):
    def unavailable():
        warnings.warn(
            "CUDA initialization: The NVIDIA driver on your system is too old (found version "
            "11040). (Triggered internally at /c10/cuda/CUDAFunctions.cpp:108.)",
            stacklevel=1,
        )
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    with pytest.warns(UserWarning, match=r"no GPU is used: .*too old \(found version 11040\)\.$"):
        assert find_device("auto") == "cpu"
    with pytest.raises(ConfigError, match=r"--device cuda: not here \(CUDA init.*too old"):
        find_device("cuda")
    assert find_device("cpu") == "cpu"  # which asks nobody


def test_a_cpus_record_asks_no_gpu(monkeypatch):
    def asked(*_):
        raise RuntimeError("the driver is too old")

    for name in ("get_device_name", "device_count", "is_available", "init"):
        monkeypatch.setattr(torch.cuda, name, asked)
    assert environment("cpu")["gpus"] == []


def test_the_record_names_the_gpu_that_is_used(cards):
    assert environment("cuda:1")["gpus"] == ["NVIDIA A100"]


def test_precision_is_what_the_gpu_in_question_multiplies_in(cards):
    assert find_precision("auto", "cuda:0", 64) == "fp16"  # a T4 emulates bf16
    assert find_precision("auto", "cuda:1", 64) == "bf16"
    assert find_precision("fp32", "cuda:1", 64) == "fp32"


def test_a_precision_that_surprises_is_said_in_one_line(cards):
    assert "Tesla T4" in precision_note("auto", "fp16", "cuda:0")
    assert "machine.precision=fp32" in precision_note("auto", "fp16", "cuda:0")
    assert "emulated on Tesla T4" in precision_note("bf16", "bf16", "cuda:0")
    assert not precision_note("fp16", "fp16", "cuda:0")
    assert not precision_note("auto", "bf16", "cuda:1")
    assert not precision_note("bf16", "bf16", "cpu")


def test_a_gpu_that_has_failed_is_one_line(monkeypatch):
    def failed(_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "synchronize", failed)
    check_answers("cpu")
    with pytest.raises(DeviceError, match=r"cuda:0 does not answer any more \(CUDA error: device"):
        check_answers("cuda:0")


def test_deterministic_kernels_are_asked_for_and_the_callers_settings_put_back():
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_what_is_made_by_deterministic_kernels_is_handed_out_under_the_callers_settings():
    inside = []

    def made():
        for number in range(3):
            inside.append(torch.are_deterministic_algorithms_enabled())
            yield number

    for wanted in (True, False):
        for number, one in enumerate(all_deterministic(made(), wanted)):
            assert one == number and not torch.are_deterministic_algorithms_enabled()
    assert inside == [True] * 3 + [False] * 3


@pytest.mark.parametrize("own", [None, ":16:8"])
def test_the_workspace_of_products_is_set_when_a_gpu_is_chosen_unless_it_is(
    own, cards, monkeypatch
):
    if own:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", own)
    assert find_device("cpu") == "cpu"
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == own
    assert find_device("cuda") == "cuda"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (own or ":4096:8")


@pytest.mark.gpu
def test_this_machines_gpu_computes():
    assert unfit("cuda") == ""
    assert find_device("auto") == "cuda"
