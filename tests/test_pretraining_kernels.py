"""How a run computes its steps: decided once, kept, and the same for who goes on."""

from __future__ import annotations

import json
from typing import ClassVar

import fakes
import pytest
import torch

from maebench import MAE, RunConfig, files
from maebench.encoders import ViTNano
from maebench.errors import RunError
from maebench.objectives.mae import MaskedAutoencoder
from maebench.pretraining import checkpoints, kernels
from maebench.pretraining import loop as story
from maebench.pretraining.kernels import (
    FILE,
    SKIPPED,
    WATCHED,
    Kernels,
    Paced,
    missing_compiler,
)
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare

WHEN = SKIPPED + WATCHED
ENCODER = ViTNano(width=16, depth=1, heads=2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAEBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def compiles(monkeypatch):
    """A compiler that marks what it was given."""

    class Compiled:
        def __init__(self, module):
            self.inner, self.calls = module, 0

        def __call__(self, batch):
            self.calls += 1
            return self.inner(batch)

    monkeypatch.setattr(torch, "compile", lambda module, dynamic: Compiled(module))
    monkeypatch.setattr(kernels, "missing_compiler", lambda device: "")


def made(folder, wanted="auto", done=0, shape="shape"):
    return Kernels(files.make_folder(folder), wanted, "cpu", shape, done)


def watched(one, seconds=0.1, steps=WHEN, total=10_000, first=1):
    for number in range(first, first + steps):
        one.took(number, seconds, total - number)
    return one


def config(**changes):
    tiny = {"encoder": ENCODER, "limit": 40, "batch": 8, "budget": "steps=8", "lr": 1e-2}
    return RunConfig(fakes.names(), device="cpu", **{**tiny, **changes})


def end_of(plan):
    return checkpoints.newest(plan.run.folder / "checkpoint")["sha256"]


# ---- when


def test_a_long_run_is_compiled_once_its_pace_is_known_and_says_what_it_expects(tmp_path, compiles):
    one = watched(made(tmp_path))
    assert one.after == WHEN
    assert one.note.startswith("compiling the step: about 45 s, to save ")
    assert "of the 998 s that are left (an estimate; -o machine.compile=false" in one.note


@pytest.mark.parametrize("total", [WHEN + 1, 1000])
def test_a_run_too_short_for_it_is_not(tmp_path, compiles, total):
    one = watched(made(tmp_path), total=total)
    assert (one.after, one.note) == (None, "")
    assert watched(one, first=WHEN + 1, total=10**9).after is None  # decided is decided


def test_what_was_measured_before_decides_instead_of_the_estimate(tmp_path, compiles):
    one = watched(made(tmp_path / "a"))
    watched(one, seconds=0.1, steps=1, first=WHEN + 1)
    one._quick[:] = [40.0, 3.0, 0.05, 0.05, 0.05]
    watched(one, seconds=0.05, steps=WATCHED, first=WHEN + 6)
    assert one.note == "compiled in 43 s: a step takes 50.0 ms, before 100.0 ms (2.00 x)"
    known = files.read_sealed(files.cache_folder() / "compiling.json", "compiling")
    assert known == {"shape": {"cost": 42.9, "gain": 2.0}}
    enough = round(42.9 * kernels.WORTH / 0.05) + WHEN + 5
    assert watched(made(tmp_path / "b"), total=enough).after == WHEN
    assert watched(made(tmp_path / "c", shape="other"), total=enough).after is None


def test_where_it_made_nothing_quicker_it_is_left_out_next_time(tmp_path, compiles):
    files.make_folder(files.cache_folder())
    files.write_json(files.cache_folder() / "compiling.json", {"shape": {"cost": 1, "gain": 0.9}})
    assert watched(made(tmp_path), total=10**9).after is None


def test_without_a_compiler_it_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    assert missing_compiler("cpu") == "no C++ compiler is here (g++, clang++)"
    assert watched(made(tmp_path), total=10**9).after is None


def test_it_is_decided_before_the_first_checkpoint_of_a_slow_model(tmp_path, compiles):
    one = watched(made(tmp_path), seconds=8.0, steps=2)
    one.keep(2, 1000)
    assert one.after == 2
    assert made(tmp_path, done=2).after == 2


@pytest.mark.parametrize(("wanted", "after"), [(True, 0), (False, None)])
def test_what_is_asked_for_is_done_at_once(tmp_path, compiles, wanted, after):
    assert made(tmp_path, wanted).after == after
    assert watched(made(tmp_path, wanted), total=10**9).after == after


# ---- the same for who goes on


def test_a_run_that_goes_on_computes_as_it_began(tmp_path, compiles):
    one = watched(made(tmp_path))
    one.attention["key"] = False
    one.keep(WHEN, 100)
    again = made(tmp_path, done=WHEN + 3)
    assert (again.after, again.attention) == (WHEN, {"key": False})
    assert watched(again, steps=3).after == WHEN


def test_an_option_that_says_otherwise_is_named(tmp_path, compiles):
    watched(made(tmp_path)).keep(WHEN, 100)
    again = made(tmp_path, wanted=False, done=WHEN)
    assert again.after == WHEN
    assert again.note == (
        f"machine.compile=false is not read: the run goes on compiled after step {WHEN}, as it began"
    )


@pytest.mark.parametrize("text", ["[]", "{}", '{"attention": {"a": 1}, "compiled_after": null}'])
def test_a_damaged_file_stops_who_goes_on(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunError, match=FILE):
        made(tmp_path, done=3)


def test_attention_is_kept_with_the_run_and_taken_again(tmp_path, monkeypatch):
    plan = prepare(config(), tmp_path)
    list(pretrain(plan))
    kept = json.loads((plan.run.folder / FILE).read_text())
    assert kept["compiled_after"] is None
    shapes = sorted(name.split(", ")[-2] for name in kept["attention"])
    assert shapes == ["17 x 1 x 8", "5 x 2 x 8"]


# ---- what is computed


def test_the_module_is_compiled_from_its_step_on(tmp_path, compiles):
    one, module = made(tmp_path), object()
    one.after = 3
    assert [one.module(module, number) is module for number in (1, 3)] == [True, True]
    assert one.module(module, 4) is one.module(module, 5) is not module


class Uncompilable(MAE):
    """An objective that no compiler takes."""

    name: ClassVar[str] = "uncompilable"

    def build(self, encoder, inputs):
        module = super().build(encoder, inputs)
        module.__class__ = UncompilableModule
        return module


class UncompilableModule(MaskedAutoencoder):
    pass


def test_where_compiling_fails_the_run_goes_on_without_and_says_so(tmp_path, monkeypatch):
    def broken(batch):
        batch.draws.uniform(3)
        raise RuntimeError("Unsupported:\n  a thing")

    expected = prepare(config(machine={"compile": False}), tmp_path / "expected")
    list(pretrain(expected))
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: broken)
    plan = prepare(config(machine={"compile": True}), tmp_path)
    notes = [step.note for step in pretrain(plan) if step.note]
    assert notes == ["cannot be compiled, goes on without: Unsupported: a thing"]
    assert end_of(plan) == end_of(expected)


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_compiler("cpu")), reason=missing_compiler("cpu"))
def test_a_compiled_run_is_the_same_from_wherever_it_goes_on_and_close_to_a_plain_one(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(story, "CHECKPOINT_SHARE", 0)
    machine = {"checkpoint_seconds": 1e-9, "compile": True}
    plans = [prepare(config(machine=machine), tmp_path / name) for name in ("whole", "stopped")]
    losses = [step.loss for step in pretrain(plans[0])]
    for step in pretrain(plans[1]):
        if step.number == 3:
            break
    torch.compiler.reset()  # as another process: nothing compiled is there
    list(pretrain(plans[1]))
    assert end_of(plans[0]) == end_of(plans[1])
    plain = prepare(config(machine={"compile": False}), tmp_path / "plain")
    assert losses == pytest.approx([step.loss for step in pretrain(plain)], rel=1e-4)


# ---- a module of an evaluation


@pytest.mark.slow
def test_the_tenth_model_of_a_process_is_compiled_as_the_first(monkeypatch):
    from torch._dynamo.testing import CompileCounter

    counter, compiled = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: compiled(module, backend=counter))
    try:
        for number in range(10):
            one = Kernels(None, True, "cpu", "a shape", 0)
            one.forward(torch.nn.Linear(2 + number, 2), torch.ones(1, 2 + number), 1)
    finally:
        torch.compiler.reset()
    assert counter.frame_count == 10


def test_a_module_of_an_evaluation_is_compiled_where_its_steps_pay_for_it(compiles, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(kernels.time, "monotonic", lambda: now[0])
    module = torch.nn.Linear(2, 3)
    long, short = (Paced(module, steps, "auto", "cpu") for steps in (100_000, WHEN + 5))
    x = torch.ones(1, 2)

    def call(paced, times):
        for _ in range(times):
            now[0] += 0.1
            assert torch.equal(paced(x), module(x))

    call(short, WHEN + 5)
    call(long, WHEN)
    with pytest.warns(UserWarning, match="compiling the step: about 45 s"):
        call(long, 1)
    call(long, SKIPPED)
    assert long._kernels.after == WHEN and short._kernels.after is None
