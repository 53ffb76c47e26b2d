"""What a budget buys, and how much of a run is gone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maebench import Budget, ConfigError
from maebench.pretraining.budget import Length, num_steps, stage_steps, total
from maebench.pretraining.cost import NOTHING, Cost

COSTS = st.lists(
    st.builds(Cost, st.integers(1, 400), st.integers(0, 10**12), st.integers(1, 10**12)),
    min_size=1,
    max_size=8,
)


@given(COSTS, st.integers(1, 10**4), st.integers(1, 512))
def test_a_run_costs_what_its_steps_cost_one_by_one(costs, steps, batch):
    steps %= 40
    stage = [min(len(costs) - 1, i * len(costs) // steps) for i in range(steps)]
    assert total(costs, steps, batch) == sum((costs[i].times(batch) for i in stage), NOTHING)
    assert sum(stage_steps(len(costs), steps)) == steps


@given(
    COSTS, st.integers(1, 512), st.sampled_from(["tokens", "flops"]), st.floats(1, 1e16), st.data()
)
def test_a_budget_is_never_exceeded_and_buys_no_step_more(costs, batch, unit, amount, data):
    budget = Budget(unit=unit, amount=amount)

    def spent(steps):
        cost = total(costs, steps, batch)
        return cost.tokens if unit == "tokens" else cost.flops

    if spent(1) > amount:
        with pytest.raises(ConfigError, match=rf"budget .*{unit}={spent(1):,}"):
            num_steps(budget, 1000, batch, costs)
        return
    if amount / spent(1) > 1e6:
        return
    steps = num_steps(budget, 1000, batch, costs)
    assert spent(steps) <= amount < spent(steps + 1)


@given(st.integers(1, 10**5), st.integers(1, 4096), st.floats(0.01, 300))
def test_epochs_are_as_many_steps_as_show_every_image_that_often(images, batch, epochs):
    steps = num_steps(Budget(unit="epochs", amount=epochs), images, batch, [])
    assert steps >= 1 and steps * batch >= epochs * images * (1 - 1e-9)
    assert steps == 1 or (steps - 1) * batch < epochs * images * (1 + 1e-9)
    assert num_steps(Budget(unit="steps", amount=steps), images, batch, []) == steps


@given(st.integers(1, 10**6), st.data())
def test_a_run_in_steps_is_gone_by_its_updates_alone(steps, data):
    number = data.draw(st.integers(0, steps))
    length = Length(steps)
    assert length.share(number, 1e9) == number / steps
    assert (length.gone(number, 0.0), length.total) == (number, steps)
    assert length.last(number, math.inf) == steps


@given(st.floats(0.1, 1e6), st.floats(0, 2))
def test_a_run_by_the_clock_is_gone_by_its_seconds_alone(seconds, share):
    length = Length(None, seconds)
    assert length.share(7, share * seconds) == pytest.approx(min(1, share))
    assert 0 <= length.gone(7, share * seconds) <= length.total == 1e3 * seconds


def test_a_spent_clock_has_no_update_that_follows():
    length = Length(None, 5.0)
    assert length.last(3, 4.9) > 10**9
    assert length.last(3, 5.0) == length.last(3, 6.0) == 3
