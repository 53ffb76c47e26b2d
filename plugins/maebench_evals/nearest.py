"""The most similar of many features, exactly: by FAISS on a CPU or a GPU, or by torch on a GPU.

One question, `search`, and three ways to answer it. On GPUs faiss-gpu searches where it is
installed; faiss-cpu knows none, and torch's products and partial sorts do it there instead.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from maebench import MaebenchError

# What is held at a time, so that memory is bounded at any size: 32 MB of queries and 64 MB of the
# images that are searched, which FAISS goes through in less parts anyway
QUERIES, BANK = 2**23, 2**24
# Of a GPU's free memory: for the images that are searched, for similarities of torch's search, and
# for those of a whole ranking, whose sorting takes ten times as much
BANK_SHARE, SIMILARITY_SHARE, RANKING_SHARE = 1 / 4, 1 / 8, 1 / 40
GPU_K = 2048  # neighbours that faiss-gpu gives at most (its documentation, "Limitations")
# Multiplications from which on all GPUs are asked: less are done in half a second by one, and each
# that begins to work takes some hundred megabytes and a second for it.
MANY = 2**43
TEMPORARY = 2**28  # bytes that FAISS holds on a GPU beside; by itself it takes 1.5 GB


def normalised(features: Tensor) -> Tensor:
    """Features of length 1; a zero vector stays zero."""
    return torch.nn.functional.normalize(features, dim=1).contiguous()


def all_neighbours(
    bank: Tensor, voters: Tensor, queries: Tensor, asked: Tensor, k: int, device: str = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """`neighbours` of many queries in parts, on a device, or on all GPUs where it is "cuda".

    Args:
        bank: features of any length, float32 (N, D), on the CPU.
        voters: positions of those that may be found, int64 (V,), ascending.
        queries: features of any length, float32 (Q, D), on the CPU.
        asked: positions of those that are asked for, int64.
        k: how many to find for each.
        device: where to search.

    Yields:
        Of each part, in order, positions in the bank and similarities, (part, k), on the CPU.
    """
    parts = asked.split(max(1, QUERIES // queries.shape[1]))
    places = devices(device, len(asked) * bank.shape[1] * len(voters))
    if places != ["cpu"]:
        torch.cuda.empty_cache()  # what torch keeps for itself FAISS cannot have
    kept = {place: bank.to(place) if fits(bank, place) else bank for place in places}

    def of(part: Tensor, place: str) -> tuple[Tensor, Tensor]:
        near, how = neighbours(kept[place], voters, normalised(queries[part].to(place)), k)
        return near.cpu(), how.cpu()

    with ThreadPoolExecutor(len(places)) as pool:
        for start in range(0, len(parts), len(places)):
            yield from pool.map(of, parts[start : start + len(places)], places)


def devices(device: str, products: int) -> list[str]:
    """Where to search: "cuda" is all GPUs that compute, where there is much to do.

    Args:
        device: of the model.
        products: multiplications of the whole search.
    """
    if device != "cuda" or products < MANY:
        return [device]
    return [place for i in range(torch.cuda.device_count()) if computes(place := f"cuda:{i}")]


def computes(device: str) -> bool:
    """Whether a GPU can be used: it may be full of another's work, or too old for this torch."""
    try:
        return bool(torch.ones(1, device=device) > 0)
    except RuntimeError:
        return False


def free(device: torch.device | str) -> int:
    """Bytes of a GPU that nobody uses, and that torch keeps for itself."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def fits(bank: Tensor, device: str) -> bool:
    """Whether all of a bank may lie on a GPU while it is searched; on a CPU it does already."""
    if torch.device(device).type == "cpu":
        return False
    return bank.nbytes <= BANK_SHARE * free(device)


def neighbours(bank: Tensor, voters: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Positions of the k most similar voters in the bank and their similarities, as of `search`.

    The bank is normalised and searched in parts, where the queries lie, and the nearest of each are
    merged.
    """
    device = queries.device
    place = torch.empty(len(queries), 0, dtype=torch.int64, device=device)
    similarity = torch.empty(len(queries), 0, device=device)
    for part in voters.split(max(1, rows(device) // bank.shape[1])):
        # not a copy where all vote
        whole = len(part) == 1 + int(part[-1]) - int(part[0])
        some = bank[int(part[0]) : int(part[-1]) + 1] if whole else bank[part.to(bank.device)]
        near, how = search(normalised(some.to(device)), queries, min(k, len(part)))
        place = torch.cat([place, part.to(device)[near]], 1)
        similarity = torch.cat([similarity, how], 1)
        if place.shape[1] > near.shape[1]:  # of equals the first in train is nearer
            order = similarity.argsort(dim=1, descending=True, stable=True)[:, :k]
            place, similarity = place.gather(1, order), similarity.gather(1, order)
    return place, similarity


def rows(device: torch.device) -> int:
    """Numbers of a bank that are normalised and searched at a time."""
    if device.type == "cpu":
        return BANK
    return max(BANK, int(BANK_SHARE * free(device)) // torch.float32.itemsize)


def search(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Positions of the k most similar in the bank and their similarities, nearest first, (Q, k).

    Features of both are normalised and lie on one device. FAISS and torch break exact ties as they
    like, so similarities are ordered again with the position.

    Raises:
        MaebenchError: on a CPU, without FAISS.
    """
    position, similarity = way(queries.device, k)(bank, queries, k)
    by_place = position.argsort(dim=1, stable=True)
    ordered = similarity.gather(1, by_place)
    order = by_place.gather(1, ordered.argsort(dim=1, descending=True, stable=True))
    return position.gather(1, order), similarity.gather(1, order)


def way(device: torch.device, k: int) -> Any:
    """Which of the three searches answers here: FAISS's wherever it can."""
    if device.type == "cpu":
        return by_faiss
    return by_faiss_on_gpu if k <= GPU_K and _has_gpu() else by_torch


def by_faiss(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """FAISS's search on the CPU, which copies neither."""
    faiss = _faiss()
    found = faiss.knn(queries.numpy(), bank.numpy(), k, metric=faiss.METRIC_INNER_PRODUCT)
    similarity, position = (torch.from_numpy(each) for each in found)
    return position, similarity


def by_faiss_on_gpu(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """FAISS's search on the GPU on which both lie, which copies neither."""
    faiss, number = _faiss(), queries.device.index or 0
    import_module("faiss.contrib.torch_utils")  # FAISS takes tensors from then on
    # it works in the stream of the current GPU: in order with what made the tensors
    with torch.cuda.device(queries.device):
        similarity, position = faiss.knn_gpu(
            _resources(number),
            queries,
            bank,
            k,
            metric=faiss.METRIC_INNER_PRODUCT,
            device=number,
        )
    return position, similarity


def by_torch(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Products and partial sorts by torch, a block of queries at a time."""
    size = max(1, int(SIMILARITY_SHARE * free(queries.device)) // (4 * len(bank)))
    found = [(part @ bank.T).topk(k, dim=1) for part in queries.split(size)]
    return torch.cat([each.indices for each in found]), torch.cat([each.values for each in found])


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ImportError as error:
        raise MaebenchError(
            "the knn evaluation needs FAISS: pip install 'maebench[cpu]' (or 'maebench[gpu]')"
        ) from error


def _has_gpu() -> bool:
    """Whether faiss-gpu is installed, and sees a GPU."""
    try:
        faiss = import_module("faiss")
    except ImportError:
        return False
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


@functools.cache
def _resources(number: int) -> Any:
    """What FAISS holds on a GPU between searches."""
    made = _faiss().StandardGpuResources()
    made.setTempMemory(TEMPORARY)
    return made
