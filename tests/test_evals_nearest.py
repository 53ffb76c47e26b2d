"""One search in three ways: FAISS on a CPU, FAISS on a GPU, torch on a GPU; ties, parts, memory."""

from __future__ import annotations

import contextlib
import types

import faiss
import pytest
import torch

import maebench_evals.nearest as module
from maebench_evals.nearest import (
    all_neighbours,
    by_faiss,
    by_faiss_on_gpu,
    by_torch,
    neighbours,
    normalised,
    search,
    way,
)


class FakeGPU(types.ModuleType):
    """What faiss-gpu has beside faiss-cpu, with tensors of the CPU in place of a GPU's."""

    METRIC_INNER_PRODUCT = faiss.METRIC_INNER_PRODUCT

    def __init__(self):
        super().__init__("faiss")
        self.searched, self.temporary, self.inside = [], [], []

    def StandardGpuResources(self):  # noqa: N802 - FAISS's name
        return types.SimpleNamespace(setTempMemory=self.temporary.append)

    @staticmethod
    def get_num_gpus():
        return 1

    @contextlib.contextmanager
    def current(self, device):
        self.inside.append(device)
        yield
        self.inside.pop()

    def knn_gpu(self, resources, queries, bank, k, *, metric, device):
        assert isinstance(bank, torch.Tensor) and bank.is_contiguous() and queries.is_contiguous()
        assert metric == self.METRIC_INNER_PRODUCT and device == 0
        assert self.inside == [queries.device]  # whose stream FAISS then works in
        self.searched.append(len(bank))
        values, places = (queries @ bank.T).topk(k)
        return values, places


@pytest.fixture
def fake(monkeypatch):
    """faiss-gpu, and a GPU with 64 KiB of free memory."""
    there = FakeGPU()
    monkeypatch.setattr(module, "import_module", lambda name: there)
    monkeypatch.setattr(module, "free", lambda device: 2**16)
    monkeypatch.setattr(torch.cuda, "device", lambda device: there.current(device))
    module._resources.cache_clear()
    yield there
    module._resources.cache_clear()


def signs(count, width=16):
    """Whole numbers of a length that is one, so that products are exact and ties are many."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (count, width), generator=generator).float() * 2 - 1


def ranked(bank, voters, queries):
    exact = (bank[voters].double() @ queries.double().T).T
    return voters[exact.round(decimals=3).argsort(dim=1, descending=True, stable=True)]


@pytest.mark.parametrize("how", [by_faiss, by_faiss_on_gpu, by_torch])
@pytest.mark.parametrize("bank", [2**24, 16 * 7, 1])
def test_each_way_finds_what_a_search_by_hand_does_and_of_equals_the_first(
    how, bank, monkeypatch, request
):
    if how is not by_faiss:
        request.getfixturevalue("fake")
    monkeypatch.setattr(module, "way", lambda device, k: how)
    monkeypatch.setattr(module, "BANK", bank)
    x = signs(60)
    queries = x[torch.randperm(60, generator=torch.Generator().manual_seed(1))[:25]] / 4
    for voters in (torch.arange(60), torch.arange(0, 60, 3), torch.arange(20, 55)):
        place, similarity = neighbours(x, voters, queries, len(voters))
        assert torch.equal(place, ranked(x, voters, queries))
        few = neighbours(x, voters, queries, 4)[1]
        torch.testing.assert_close(few, similarity[:, :4], atol=1e-6, rtol=0)


def test_faiss_holds_little_memory_on_a_gpu_and_keeps_it_between_searches(fake, monkeypatch):
    monkeypatch.setattr(module, "way", lambda device, k: by_faiss_on_gpu)
    x = normalised(signs(30))
    for _ in range(3):
        search(x, x[:5], 3)
    assert fake.searched == [30] * 3 and fake.temporary == [2**28]


def test_torch_searches_a_block_of_queries_at_a_time(fake, monkeypatch):
    blocks = []
    monkeypatch.setattr(module, "free", lambda device: 8 * 4 * 30 * 7)  # seven queries of thirty
    x = normalised(signs(30))
    original = torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor, "topk", lambda s, *a, **k: (blocks.append(len(s)), original(s, *a, **k))[1]
    )
    by_torch(x, x[:20], 3)
    assert blocks == [7, 7, 6]


def test_faiss_searches_wherever_it_can(fake, monkeypatch):
    gpu = torch.device("cuda:0")
    assert way(torch.device("cpu"), 5) is by_faiss
    assert way(gpu, 5) is by_faiss_on_gpu
    assert way(gpu, 2049) is by_torch  # more than it can give
    monkeypatch.setattr(fake, "get_num_gpus", lambda: 0)
    assert way(gpu, 5) is by_torch
    monkeypatch.setattr(module, "import_module", lambda name: faiss)  # faiss-cpu
    assert way(gpu, 5) is by_torch


def test_all_gpus_that_compute_are_asked_where_none_is_named_and_much_is_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(module, "computes", lambda place: place != "cuda:2")
    much = module.MANY
    assert module.devices("cuda", much) == ["cuda:0", "cuda:1", "cuda:3"]
    assert module.devices("cuda", much - 1) == ["cuda"]
    assert module.devices("cuda:1", much) == ["cuda:1"]
    assert module.devices("cpu", much) == ["cpu"]


def test_a_gpu_that_is_full_or_too_old_does_not_compute(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert module.computes("cpu")
    monkeypatch.setattr(torch, "ones", full)
    assert not module.computes("cuda:1")


def test_what_torch_keeps_for_itself_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 25)
    assert module.free("cuda:0") == 45


def test_parts_of_several_devices_come_in_order(monkeypatch):
    monkeypatch.setattr(module, "devices", lambda device, products: ["cpu"] * 3)
    monkeypatch.setattr(module, "QUERIES", 16 * 10)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    x = signs(95)
    found = list(all_neighbours(x, torch.arange(95), x, torch.arange(95), 5))
    assert [len(place) for place, _ in found] == [10] * 9 + [5]
    assert torch.equal(torch.cat([place for place, _ in found]), search(*[normalised(x)] * 2, 5)[0])


def test_memory_is_bounded_whatever_the_number_of_images(monkeypatch):
    """No more than parts of a bank and of queries are normalised or searched at a time."""
    monkeypatch.setattr(module, "BANK", 8 * 100)
    monkeypatch.setattr(module, "QUERIES", 8 * 50)
    seen, sizes = [], []
    monkeypatch.setattr(module, "search", lambda *a: (seen.append(a), search(*a))[1])
    monkeypatch.setattr(module, "normalised", lambda x: (sizes.append(len(x)), normalised(x))[1])
    x = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    parts = all_neighbours(x, torch.arange(1000), x, torch.arange(200), 3)
    next(parts)
    assert len(seen) == 10  # what is not asked for yet is not searched
    list(parts)
    assert {len(bank) for bank, _, _ in seen} == {100}
    assert {len(queries) for _, queries, _ in seen} == {50}
    assert max(sizes) == 100


@pytest.mark.gpu
def test_a_gpu_finds_the_neighbours_that_the_cpu_finds():
    x = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    at = torch.arange(20_000)
    places = [
        torch.cat([place for place, _ in all_neighbours(x, at, x, at[:2000], 20, device)])
        for device in ("cpu", "cuda")
    ]
    assert (places[0] == places[1]).double().mean() > 0.999  # nearly equal ones may change places
