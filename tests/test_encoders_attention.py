"""Which attention kernel is taken: measured once, kept, and repeated by who is told."""

from __future__ import annotations

import pytest
import torch

from maebench import files
from maebench.encoders import attention
from maebench.encoders.blocks import Block

NAME = attention.key("cpu", "torch.float32", 9, 4, 16, True)


@pytest.fixture(autouse=True)
def nothing_known(tmp_path, monkeypatch):
    monkeypatch.setenv("MAEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(attention, "_FOUND", {})


@pytest.fixture
def clock(monkeypatch):
    """Explicit attention takes one second, fused what is set; every run is counted."""
    seconds = {True: 2.0, False: 1.0, "runs": 0}

    def took(qkv, fused, trains):
        seconds["runs"] += 1
        return seconds[fused]

    monkeypatch.setattr(attention, "_seconds", took)
    return seconds


def asked(batch=2, tokens=9, heads=4, width=16, trains=True, dtype="torch.float32"):
    return attention.prefers_fused("cpu", dtype, batch, tokens, heads, width, trains)


def chosen(x):
    blocks = [Block(64, 4), Block(64, 4)]
    attention.choose_attention(blocks, x)
    (fused,) = {block.attn.fused_attn for block in blocks}
    return fused


@pytest.mark.parametrize(("fused", "expected"), [(2.0, False), (0.5, True), (1.04, True)])
def test_the_faster_kernel_is_taken_and_the_fused_one_where_they_are_alike(clock, fused, expected):
    clock[True] = fused
    assert chosen(torch.zeros(2, 9, 64)) == expected


def test_a_shape_is_measured_once_by_a_process_and_once_by_a_machine(clock, monkeypatch):
    assert not asked() and not asked(batch=7)
    runs = clock["runs"]
    monkeypatch.setattr(attention, "_FOUND", {})  # another process
    assert not asked()
    assert clock["runs"] == runs > 2
    assert files.read_sealed(files.cache_folder() / "attention.json", "attention") == {NAME: False}


@pytest.mark.parametrize("other", [{"tokens": 8}, {"heads": 2}, {"width": 8}, {"trains": False}])
def test_another_shape_is_measured_for_itself(clock, other):
    assert not asked()
    clock[True] = 0.1
    assert asked(**other) and not asked()


def test_precision_counts_and_autocast_is_the_precision(clock):
    x = torch.zeros(2, 9, 64)
    assert not chosen(x)
    clock[True] = 0.1
    with torch.autocast("cpu", torch.bfloat16):
        assert chosen(x)
    assert chosen(x.bfloat16()) and not chosen(x)


def test_scores_too_large_to_keep_are_never_made(clock):
    assert asked(batch=64, tokens=2000)
    assert not clock["runs"]


def test_what_a_run_began_with_is_taken_whatever_is_faster_now(clock):
    with attention.using({NAME: True}):
        assert asked()
    made = {}
    with attention.using(made):
        assert not asked()
    assert made == {NAME: False}
    with attention.using(True):
        assert asked()
    assert not asked()


@pytest.mark.parametrize("damaged", ["", "[]", '{"a": 3}', "\x00"])
def test_a_damaged_file_is_measured_anew_and_replaced(clock, damaged):
    files.make_folder(files.cache_folder())
    (files.cache_folder() / "attention.json").write_text(damaged)
    with pytest.warns(UserWarning, match=r"attention\.json .*: it is measured again"):
        assert not asked()
    assert files.read_sealed(files.cache_folder() / "attention.json", "attention") == {NAME: False}


def test_where_nothing_can_be_kept_it_is_measured_all_the_same(clock, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAEBENCH_CACHE", str(tmp_path / "file"))
    assert not asked()


def test_measuring_leaves_threads_gradients_and_random_numbers_as_they_were():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        asked()
        assert not torch.is_grad_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_a_measurement_is_no_part_of_the_gradient_that_is_asked_for():
    block = Block(64, 4)
    x = torch.ones(2, 9, 64, requires_grad=True)
    attention.choose_attention([block], x)
    assert x.grad is None
