"""Draws: what is drawn for a sample depends on nothing but what it is for."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from maebench.rng import Draws, isolated, key, permutation

MASK = (1 << 64) - 1
KINDS = {
    "uniform": lambda d: d.uniform(3, 2),
    "normal": lambda d: d.normal(5),
    "integers": lambda d: d.integers(1000, 4),
}
every_kind = pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS)
seeds = st.integers(0, 2**63)
ids_lists = st.lists(st.integers(0, 2**62), min_size=1, max_size=20)


def draws(ids, seed=0, purpose="test", epoch=0):
    return Draws(seed, purpose, torch.as_tensor(ids), epoch)


# --- the hash, in Python's unbounded integers


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def oracle(seed, purpose, sample, epoch, call, position):
    """The 64 bits of one number, as the module's docstring has it."""
    stream = int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest())
    state = mix((mix((sample + stream) & MASK) + epoch) & MASK)
    counter = call * (1 << 32) + position + 1
    return mix((state + counter * 0x9E3779B97F4A7C15) & MASK)


def test_the_mixer_is_splitmix64():
    """The first outputs for seed 1234567, as in the reference implementation's test vectors."""
    state, found = 1234567, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        found.append(mix(state))
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(seeds, st.text(max_size=5), ids_lists, st.integers(0, 10**6))
def test_every_number_is_the_documented_hash(seed, purpose, ids, epoch):
    made = draws(ids, seed, purpose, epoch)
    first, second = made.uniform(2), made.integers(1 << 30, 2)
    for row, sample in enumerate(ids):
        for place in range(2):
            bits = oracle(seed, purpose, sample, epoch, 0, place)
            assert first[row, place].item() == (bits >> 40) / 2**24
            bits = oracle(seed, purpose, sample, epoch, 1, place)
            assert second[row, place].item() == (bits >> 32) >> 2


# --- the same whatever stands beside


@every_kind
@settings(max_examples=30)
@given(ids=ids_lists, seed=seeds, data=st.data())
def test_numbers_do_not_depend_on_batch_split_or_order(draw, ids, seed, data):
    whole = draw(draws(ids, seed))
    order = data.draw(st.permutations(range(len(ids))))
    assert torch.equal(draw(draws([ids[i] for i in order], seed)), whole[torch.tensor(order)])
    cut = data.draw(st.integers(0, len(ids)))
    parts = [draw(draws(ids, seed).at(part)) for part in (slice(0, cut), slice(cut, None))]
    assert torch.equal(torch.cat(parts), whole)


def test_a_part_goes_on_where_the_whole_stands():
    whole = draws(range(6))
    whole.uniform(2)
    part = whole.at(slice(2, 5))
    assert torch.equal(part.uniform(3), whole.uniform(3)[2:5])


def test_epochs_of_each_sample_or_one_for_all_are_the_same():
    epochs = torch.tensor([4, 7, 4])
    mixed = draws([1, 2, 3], epoch=epochs).uniform(8)
    for row, epoch in enumerate(epochs.tolist()):
        assert torch.equal(draws([row + 1], epoch=epoch).uniform(8)[0], mixed[row])


@every_kind
def test_numbers_differ_by_seed_purpose_epoch_sample_and_call(draw):
    base = draw(draws([5]))
    others = [
        draw(draws([5], seed=1)),
        draw(draws([5], purpose="other")),
        draw(draws([5], epoch=1)),
        draw(draws([6])),
    ]
    again = draws([5])
    draw(again)
    others.append(draw(again))
    every = [base, *others]
    for i, one in enumerate(every):
        for other in every[:i]:
            assert not torch.isclose(one, other).any()


def test_seed_and_purpose_cannot_run_into_each_other():
    names = [(s, p) for s in (0, 1, 10, 11) for p in ("", "0", "1", "/1", "masking", "0/masking")]
    keys = {key(s, p) for s, p in names}
    assert len(keys) == len({f"{s}/{p}" for s, p in names})
    assert key(1, "0") != key(10, "")


# --- distributions; the seeds are fixed, so each has one outcome


def test_uniform_numbers_are_in_range_and_flat():
    x = draws(range(20_000)).uniform(10)
    assert x.dtype == torch.float32 and 0 <= x.min() and x.max() < 1
    counts = torch.histc(x, 100, 0, 1).numpy()
    assert chisquare(counts).pvalue > 1e-3
    # neighbours in a sample and across samples have nothing to do with each other
    assert abs(np.corrcoef(x[:, 0], x[:, 1])[0, 1]) < 0.03
    assert abs(np.corrcoef(x[:-1, 0], x[1:, 0])[0, 1]) < 0.03


def test_a_uniform_number_is_never_one():
    top = draws([0])
    top._bits = lambda shape: torch.full((1, 1), -1)  # all 64 bits set
    assert top.uniform(1).item() == 1 - 2.0**-24


def test_normal_numbers_are_normal_and_finite():
    x = draws(range(10_000)).normal(4)
    assert x.dtype == torch.float32 and x.isfinite().all()
    assert kstest(x.flatten().numpy(), "norm").pvalue > 1e-3
    low = draws([0])
    low._bits = lambda shape: torch.zeros(1, 1, dtype=torch.int64)  # the logarithm's worst case
    assert low.normal(1).item() == pytest.approx(math.sqrt(-2 * math.log(2.0**-53)), rel=1e-6)


@pytest.mark.parametrize("below", [1, 2, 7, 1000])
def test_integers_hit_every_value_below_and_none_else(below):
    x = draws(range(20_000)).integers(below, 2)
    assert x.dtype == torch.int64 and x.min() >= 0 and x.max() < below
    counts = torch.bincount(x.flatten(), minlength=below)
    assert (counts > 0).all()
    if below > 1:
        assert chisquare(counts.numpy()).pvalue > 1e-3


@given(st.integers(1, 2**31 - 1), seeds)
def test_integers_stay_below_any_bound_of_32_bits(below, seed):
    x = draws(range(50), seed).integers(below, 3)
    assert 0 <= x.min() and x.max() < below


@given(st.integers(0, 300), seeds, st.integers(0, 1000))
def test_a_permutation_holds_every_number_once(n, seed, epoch):
    order = permutation(n, seed, "order", epoch)
    assert order.dtype == torch.int64 and sorted(order.tolist()) == list(range(n))


def test_permutations_differ_by_epoch_seed_and_purpose_and_every_order_of_three_comes():
    base = permutation(50, 0, "order", 0)
    for other in (
        permutation(50, 0, "order", 1),
        permutation(50, 1, "order"),
        permutation(50, 0, "x"),
    ):
        assert not torch.equal(base, other)
    orders = [tuple(permutation(3, seed, "order").tolist()) for seed in range(600)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6 and chisquare(counts).pvalue > 1e-3


# --- code that needs the global state


def state():
    """A number that each global generator would give next, without taking it."""
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    found = random.random(), np.random.rand(), torch.rand(1).item()
    random.setstate(saved[0])
    np.random.set_state(saved[1])
    torch.set_rng_state(saved[2])
    return found


def draw_from_all():
    return random.random(), np.random.rand(), torch.rand(1).item(), torch.randn(3).sum().item()


def test_isolated_code_gets_the_same_numbers_whatever_came_before():
    with isolated(3, "probe", 1):
        first = draw_from_all()
    draw_from_all()
    with isolated(3, "probe", 1):
        assert draw_from_all() == first
    for other in ((4, "probe", 1), (3, "probe", 2), (3, "other", 1)):
        with isolated(*other):
            assert not set(draw_from_all()) & set(first)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, GeneratorExit])
def test_isolated_code_leaves_the_global_state_as_it_found_it(error):
    before = state()
    try:
        with isolated(0, "a"):
            draw_from_all()
            with isolated(0, "b"):
                draw_from_all()
                if error is not None:
                    raise error
    except BaseException as caught:
        assert error is not None and isinstance(caught, error)
    assert state() == before


def test_an_inner_block_does_not_shift_the_numbers_of_the_outer_one():
    with isolated(0, "a"):
        expected = [draw_from_all(), draw_from_all()]
    with isolated(0, "a"):
        first = draw_from_all()
        with isolated(0, "b"):
            draw_from_all()
        assert [first, draw_from_all()] == expected


def test_draws_leave_the_global_state_alone():
    before = state()
    draws(range(4)).normal(3)
    permutation(10, 0, "order")
    assert state() == before


def test_code_that_draws_from_torch_alone_gets_the_same_numbers_and_leaves_the_others_alone():
    with isolated(3, "layers"):
        expected = torch.rand(4)
    state, python, array = torch.get_rng_state(), random.getstate(), np.random.get_state()
    with isolated(3, "layers", only_torch=True):
        assert torch.equal(torch.rand(4), expected)
        assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], array[1])


def test_isolated_code_on_a_gpu_has_that_one_alone_seeded_and_put_back(monkeypatch):
    done = []

    @contextlib.contextmanager
    def current(device):
        done.append(("current", str(device)))
        yield

    monkeypatch.setattr(torch.cuda, "init", lambda: done.append(("init",)))
    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: done.append(("seeded", seed)))
    for name in ("get_rng_state", "set_rng_state"):
        answer = functools.partial(lambda name, *a: done.append((name, str(a[-1]))), name)
        monkeypatch.setattr(torch.cuda, name, answer)
    with isolated(0, "x", device="cuda:1"):
        done.append(("work",))
    seed = key(0, "x") % 2**63
    kept, put_back = ("get_rng_state", "cuda:1"), ("set_rng_state", "cuda:1")
    # initialised first: a generator that begins inside would have no seed of ours
    inside = [("current", "cuda:1"), ("seeded", seed), ("work",)]
    assert done == [("init",), kept, *inside, put_back]


def test_isolated_code_on_a_cpu_asks_no_gpu(monkeypatch):
    for name in ("init", "get_rng_state", "manual_seed", "is_initialized", "device_count"):
        monkeypatch.setattr(torch.cuda, name, lambda *a: pytest.fail("a GPU was asked"))
    with isolated(0, "x"):
        torch.rand(1)
