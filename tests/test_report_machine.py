"""Threads, memory, devices and clock, of machines that a test pretends."""

import importlib.metadata
import os
import time

import pytest
import torch

from maebench.pretraining import hardware
from maebench.report import machine


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """Control groups as files; returns how a test writes one."""
    own = tmp_path / "own"
    own.write_text("4:memory:/job\n3:cpu,cpuacct:/job\n0::/job\n")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUPS", own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def write(place, text):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text + "\n")

    return write


def test_this_machine_is_described():
    for look in (machine.python, machine.system, machine.cpu, machine.memory):
        found = look()
        assert found.text and "\n" not in found.line() and found.verdict != "error"


def test_a_python_that_maebench_is_not_made_for_is_an_error(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: {"Requires-Python": "<3"})
    assert machine.python().verdict == "error" and "made for <3" in machine.python().line()


def test_a_processor_without_vector_instructions_is_a_warning(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    for name, verdict in {"x86_64": "warning", "arm64": "ok"}.items():
        monkeypatch.setattr(machine.platform, "machine", lambda name=name: name)
        assert machine.cpu().verdict == verdict


# --- threads and memory


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"job/cpu.max": "max 100000"}, 8),
        ({"job/cpu.max": "250000 100000"}, 3),
        ({"job/cpu.max": "max 100000", "cpu.max": "100000 100000"}, 1),  # that above binds too
        ({"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ],
)
def test_cores_are_those_of_the_affinity_and_of_the_container(cgroup, files, cores):
    for place, text in files.items():
        cgroup(place, text)
    if "cpu/job/cpu.cfs_quota_us" in files or "cpu/cpu.cfs_quota_us" in files:
        machine.OWN_CGROUPS.write_text("3:cpu:/job\n")
    assert machine.cores() == cores


@pytest.mark.parametrize(
    ("number", "asked", "advice"),
    [
        (8, None, ""),
        (4, None, ""),  # half of eight hyper-threads
        (16, None, "Set OMP_NUM_THREADS=8"),
        (1, "1", "Unset OMP_NUM_THREADS unless several processes share the cores"),
    ],
)
def test_threads_are_held_against_cores(cgroup, monkeypatch, number, asked, advice):
    monkeypatch.setattr(torch, "get_num_threads", lambda: number)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    found = machine.threads()
    assert found.advice == advice and (found.verdict == "ok") == (not advice)


@pytest.mark.parametrize(
    ("files", "verdict", "said"),
    [
        ({}, "ok", "available"),
        ({"job/memory.max": "max"}, "ok", "available"),
        ({"job/memory.max": str(2**30)}, "warning", "this container may use 1.0 GiB"),
        ({"job/memory.max": "max", "memory.max": str(2**30)}, "warning", "may use 1.0 GiB"),
        ({"job/memory.max": str(2**34), "memory.max": str(2**30)}, "warning", "may use 1.0 GiB"),
        ({"memory/job/memory.limit_in_bytes": str(2**63 - 4096)}, "ok", "available"),
        ({"memory/memory.limit_in_bytes": str(2**30)}, "warning", "may use 1.0 GiB"),
    ],
)
def test_memory_is_that_of_the_container(cgroup, monkeypatch, files, verdict, said):
    monkeypatch.setattr(machine, "_memory", lambda: (2**35, 2**34))
    for place, text in files.items():
        cgroup(place, text)
    found = machine.memory()
    assert found.verdict == verdict and said in found.text


# --- devices


@pytest.fixture
def gpu(monkeypatch):
    """One GPU of compute capability 8.0, whose driver knows CUDA 13.1."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**34, 2**35))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(machine, "unfit", lambda device: "")
    monkeypatch.setattr(machine, "driver_cuda", lambda: (13, 1))


def test_a_gpu_is_described_with_its_memory_precisions_driver_and_cuda(gpu, monkeypatch):
    (found,) = machine.devices()
    assert found.what == "cuda:0" and found.verdict == "ok"
    assert "A100" in found.text and "16.0 of 32.0 GiB free, bf16 and TF32" in found.text
    assert "built for CUDA 13.0, the driver knows CUDA 13.1" in found.text
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "neither bf16 nor TF32" in next(machine.devices()).text


def test_a_gpu_that_does_not_compute_is_named_with_the_reason(gpu, monkeypatch):
    monkeypatch.setattr(machine, "unfit", lambda device: "no kernel image")
    (found,) = machine.devices()
    assert found.verdict == "warning" and found.text.startswith("no kernel image")


def test_a_driver_that_is_older_than_torchs_cuda_is_named(gpu, monkeypatch):
    monkeypatch.setattr(machine, "driver_cuda", lambda: (12, 8))
    (found,) = machine.devices()
    assert found.verdict == "warning" and "the driver is older" in found.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # as torch has it
    (found,) = machine.devices()
    assert found.verdict == "warning" and "the driver knows CUDA 12.8" in found.text


def test_a_machine_without_a_gpu_is_fine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "driver_cuda", lambda: None)
    (found,) = machine.devices()
    assert found.verdict == "ok" and found.text.startswith("the CPU: torch ")


def test_bf16_of_a_processor_is_what_hardware_finds(monkeypatch):
    monkeypatch.setattr(machine, "cpu_has_bf16", lambda: True)
    assert "with bf16" in machine.cpu().text
    assert isinstance(hardware.cpu_has_bf16(), bool)


# --- clock


@pytest.mark.parametrize("year", [1970, 2025, 2150])
def test_a_clock_that_cannot_be_is_an_error(monkeypatch, year):
    monkeypatch.setattr(time, "time", lambda: (year - 1970) * 365.25 * 86400 + 86400)
    found = machine.Clock().checked()
    assert found.verdict == "error" and str(year) in found.text and found.advice == "Set the clock"


def test_a_clock_that_is_set_meanwhile_is_a_warning(monkeypatch):
    now = time.time()
    clock = machine.Clock()
    assert clock.checked().verdict == "ok"
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    found = clock.checked()
    assert found.verdict == "warning" and "set by +3" in found.text
