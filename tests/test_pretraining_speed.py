"""How fast pretraining is: what is counted to which phase, and what is divided by what."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import tiny
import torch

from maebench import files
from maebench.encoders import SwinNano
from maebench.errors import RunError
from maebench.masking import BUILT_IN as MASKINGS
from maebench.objectives import BUILT_IN as OBJECTIVES
from maebench.objectives.mae import MaskedAutoencoder
from maebench.pretraining import ahead, speed, watched
from maebench.pretraining.cost import Cost
from maebench.pretraining.loop import pretrain
from maebench.pretraining.plan import prepare
from maebench.pretraining.speed import PURE, Speed, Spread, measure
from maebench.pretraining.watched import PHASES, Laps, updates


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """A few steps, and products so small that they take no time."""
    monkeypatch.setattr(speed, "SIDE", {"cpu": 32})
    monkeypatch.setattr(speed, "WARM_UP", 1)
    monkeypatch.setattr(ahead, "MOST_STEPS", 2)


@pytest.fixture
def ticking(monkeypatch):
    """A clock that goes on by a second whenever it is read."""
    ticks = itertools.count()
    for module in (speed, watched):
        monkeypatch.setattr(module, "now", lambda device: float(next(ticks)))


def a_speed(**changes):
    """Numbers that are easily divided."""
    settings = {
        "config": tiny.config(batch=20),
        "environment": {},
        "steps": 4,
        "group": 2,
        "cost": Cost(tokens=3, encoder=400, decoder=100),
        "step": Spread(0.5, 0.25, 1.0),
        "watched": 0.5,
        "phases": {"encoder": 0.25, "other": 0.25},
        "pure": 0.5,
        "peak": 200_000.0,
        "memory": 2**20,
        "startup": 1.5,
        "first": 2.0,
    }
    return Speed(**{**settings, **changes})


def phases_of(going, laps):
    """The phases of one watched step, and the whole of it."""
    laps.begin(True)
    next(going)
    return laps.stop(), laps.seconds


def begun(tmp_path, **changes):
    """The steps of a tiny run and the clock that watches them."""
    plan = prepare(tiny.config(**changes), tmp_path, write=False)
    laps = Laps("cpu")
    going = updates(plan, tmp_path / "log.jsonl", laps, [])
    next(going)
    return going, laps


# --- the clock


def test_each_reading_gives_the_time_since_the_last_to_the_phase_that_ended(ticking):
    laps = Laps("cpu")
    laps.begin(True)
    for phase in ("data", "encoder", "decoder", "encoder"):
        laps.end(phase)
    assert laps.stop() == 5
    assert laps.seconds == {"data": 1, "encoder": 2, "decoder": 1, "other": 1}


def test_a_step_that_is_not_watched_reads_the_clock_at_its_ends_alone(ticking):
    laps = Laps("cpu")
    laps.begin(False)
    laps.end("data")
    assert (laps.stop(), laps.seconds) == (1, {})


@pytest.mark.parametrize("changes", [{}, {"objective": "autoencoder"}], ids=["hides", "whole"])
def test_the_phases_of_a_step_are_the_whole_step(tmp_path, ticking, changes):
    going, laps = begun(tmp_path, **changes)
    whole, first = phases_of(going, laps)
    assert sum(first.values()) == whole
    assert first.keys() == set(PHASES) - {"forward"} - ({"masking"} if changes else set())
    whole, second = phases_of(going, laps)  # its crops were made with those of the first
    assert sum(second.values()) == whole


def test_each_phase_ends_where_the_clock_is_read(tmp_path, ticking):
    """One reading each: of the encoder before it, which is the decoder's, and after it."""
    going, laps = begun(tmp_path, **{"optimiser": {"accumulate": 4}})
    _, phases = phases_of(going, laps)
    # four parts: the forward pass before and after the encoder, and a backward pass after each
    assert (phases["encoder"], phases["decoder"], phases["backward"]) == (4, 8, 4)
    assert (phases["optimiser"], phases["log"]) == (1, 1)


def test_an_encoder_that_is_asked_often_is_summed(tmp_path, ticking, monkeypatch):
    going, laps = begun(tmp_path)
    _, once = phases_of(going, laps)
    encode = MaskedAutoencoder.encode

    def twice(self, *args):
        encode(self, *args)
        return encode(self, *args)

    monkeypatch.setattr(MaskedAutoencoder, "encode", twice)
    _, phases = phases_of(going, laps)
    assert phases["encoder"] == 2 * once["encoder"]
    assert phases["decoder"] == once["decoder"] + 1


@pytest.mark.parametrize("masking", ["hard", "attention"])
def test_what_a_masking_asks_of_the_model_is_the_maskings(tmp_path, ticking, masking):
    going, laps = begun(tmp_path, masking={"name": masking, "of": "encoder"})
    _, phases = phases_of(going, laps)
    assert phases["encoder"] == 1


def test_no_hook_stays_on_the_encoder(tmp_path, monkeypatch):
    states = []
    begin = watched.begin
    monkeypatch.setattr(watched, "begin", lambda plan: states.append(begin(plan)) or states[-1])
    going, laps = begun(tmp_path)
    for watching in (True, False):
        laps.begin(watching)
        next(going)
    (state,) = states
    assert not state.module.encoder._forward_hooks and not state.module.encoder._forward_pre_hooks


def test_what_is_compiled_is_one_phase(tmp_path, ticking, monkeypatch):
    # a wrapper as torch.compile makes one, without the minute that it takes
    monkeypatch.setattr(torch, "compile", lambda module, **_: torch.nn.Sequential(module))
    going, laps = begun(tmp_path, machine={"compile": True})
    whole, phases = phases_of(going, laps)
    assert phases.keys() >= {"forward", "backward"}
    assert phases.keys() & {"encoder", "decoder"} == set()
    assert sum(phases.values()) == whole


# --- what is measured is pretraining


def test_the_steps_are_those_of_a_run(tmp_path):
    """With a rate that stays where it began, losses are the same to the last bit."""
    settings = {"budget": "steps=4", "optimiser": {"warmup": 0.0, "min_lr": 1e-3}, "lr": 1e-3}
    going, laps = begun(tmp_path / "a", **settings)
    for watching in (True, False, True, False):
        laps.begin(watching)
        next(going)
    going.gi_frame.f_locals["log"].write()
    for _ in pretrain(prepare(tiny.config(**settings), tmp_path / "b")):
        pass
    (theirs,) = (tmp_path / "b").rglob("log.jsonl")
    mine = tmp_path / "a" / "log.jsonl"
    ours, run = (files.read_lines(path, "step", of=path.parent.name) for path in (mine, theirs))
    assert ours == run and len(run) == 4


@pytest.mark.parametrize("objective", [cls.name for cls in OBJECTIVES])
def test_every_objective_is_measured(objective):
    found = measure(tiny.config(**tiny.suited(objective)), steps=1)
    assert found.images_per_second > 0 and found.flops_per_second > 0
    assert set(found.phases) >= {"data", "encoder", "decoder", "backward", "optimiser"}


@pytest.mark.parametrize("masking", [cls.name for cls in MASKINGS if not cls.spec])
def test_every_masking_is_measured(masking):
    assert measure(tiny.config(masking=masking), steps=1).phases["masking"] > 0


def test_a_masking_that_asks_a_teacher_of_another_encoder_is_measured():
    encoder = SwinNano(width=16, depths=(1, 1), patch=1)
    config = tiny.config(encoder=encoder, objective="simmim", masking="worst")
    assert measure(config, steps=1).phases["masking"] > 0


def test_a_schedule_is_measured_where_it_begins():
    config = tiny.config(ratio=0.5, schedule={"ratio": 0.75, "stages": 2})
    assert measure(config, steps=1).cost.tokens == measure(tiny.config(ratio=0.5), 1).cost.tokens


def test_a_budget_of_seconds_is_none_for_the_measurement():
    assert measure(tiny.config(budget="seconds=0.01"), steps=1).steps >= 1


# --- what is divided by what


def test_rates_are_counts_over_seconds():
    found = a_speed()
    assert found.images_per_second == 20 / 0.5
    assert found.tokens_per_second == 3 * 20 / 0.5
    assert found.flops_per_second == 500 * 20 / 0.5
    assert found.share_of_peak == 20_000 / 200_000


def test_percentiles_are_those_of_the_steps():
    assert Spread.of([float(i) for i in range(11)]) == Spread(5.0, 1.0, 9.0)


def test_medians_are_taken_phase_by_phase_in_the_order_of_a_step():
    found = speed._medians([{"log": 1.0, "data": 1.0}, {"data": 3.0}, {"data": 2.0, "log": 2.0}])
    assert list(found.items()) == [("data", 2.0), ("log", 1.0)]


def test_as_many_groups_are_measured_as_fit_into_the_time():
    assert speed._how_many(speed.SECONDS / 100) == 50
    assert speed._how_many(1e-9) == speed.MOST
    assert speed._how_many(1e9) == speed.LEAST


def test_steps_are_whole_groups_and_the_number_is_said():
    found = measure(tiny.config(), steps=1)
    assert (found.steps, found.group) == (2, 2)


def test_watched_and_unwatched_steps_are_first_in_turn(monkeypatch):
    order = []
    measured = speed._measured
    monkeypatch.setattr(speed, "_measured", lambda *args: order.append(args[2:]) or measured(*args))
    measure(tiny.config(), steps=4)
    assert order[-4:] == [(2, False), (2, True), (2, True), (2, False)]


def test_the_share_that_is_pure_is_that_of_its_phases(ticking):
    found = measure(tiny.config(), steps=1)
    pure = sum(found.phases.get(name, 0.0) for name in PURE)
    assert found.pure == pytest.approx(pure / found.watched)


def test_the_peak_is_a_product_of_cubes_over_its_time(ticking):
    # the clock goes on by one second in each product
    assert speed.matmul_peak("cpu", "fp32") == 2 * 32**3


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")]
)
def test_the_peak_is_of_the_precision_that_the_run_has(monkeypatch, precision, dtype):
    seen = set()
    product = torch.matmul
    monkeypatch.setattr(
        torch, "matmul", lambda a, b, out: seen.add((a.dtype, b.dtype)) or product(a, b, out=out)
    )
    assert speed.matmul_peak("cpu", precision) > 0
    assert seen == {(getattr(torch, dtype),) * 2}


def test_json_holds_every_number():
    found = a_speed().dump()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["step_ms"] == {"median": 500.0, "low": 250.0, "high": 1000.0}
    assert found["phases_ms"] == {"encoder": 250.0, "other": 250.0}
    assert found["flops_per_image"] == {"encoder": 400, "decoder": 100}
    own = {"steps": 4, "group": 2, "watched_step_ms": 500.0, "pure_share": 0.5}
    own |= {"peak_memory_bytes": 2**20, "startup_seconds": 1.5, "first_step_seconds": 2.0}
    assert {key: found[key] for key in own} == own


# --- the machine


def test_this_process_has_an_age():
    age = speed.process_seconds()
    assert age is None or age > 0


def test_a_system_that_does_not_say_when_a_process_began_is_told(monkeypatch):
    monkeypatch.delattr(speed.time, "CLOCK_BOOTTIME", raising=False)
    assert speed.process_seconds() is None
    assert a_speed(startup=None).dump()["startup_seconds"] is None


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_on_each_system(monkeypatch, system, unit):
    usage = speed.resource.getrusage(speed.resource.RUSAGE_SELF)
    monkeypatch.setattr(speed.resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(speed.sys, "platform", system)
    assert speed.peak_memory("cpu") == unit * usage.ru_maxrss


def test_global_random_state_is_left_as_it_was():
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    measure(tiny.config(masking="worst"), steps=1)
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])


def test_a_loss_that_would_stop_a_run_stops_the_measurement(monkeypatch):
    monkeypatch.setattr(
        MaskedAutoencoder, "loss", lambda self, p, t: (p - t).square().mean() * float("nan")
    )
    with pytest.raises(RunError, match="the loss is nan at step 1"):
        measure(tiny.config(), steps=1)
