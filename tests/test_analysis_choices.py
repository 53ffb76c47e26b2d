"""The interval of a difference holds what the choices made on train add."""

import numpy as np
import pytest
from made_up import write

from maebench.analysis.choices import with_choices
from maebench.evaluating import records

TEST = np.stack([np.r_[np.ones(60), np.zeros(40)], np.r_[np.ones(80), np.zeros(20)]])
CLEAR = np.stack([np.ones(200), np.zeros(200)])  # validation always takes the first


def close(rng):
    """Validation that can hardly tell two choices apart whose test values lie apart."""
    return (rng.random((2, 200)) < 0.7).astype(float)


def file(folder, name, held, **how):
    return write(folder, name, TEST[0], tests=TEST, held_out=held, **how)


def test_an_unsure_choice_widens_the_interval_and_a_sure_one_does_not(tmp_path):
    rng = np.random.default_rng(5)
    clear, unsure = file(tmp_path, "clear", CLEAR), file(tmp_path, "unsure", close(rng))
    same = with_choices(clear, file(tmp_path, "other", CLEAR))
    assert (same.low, same.high) == (0, 0), "the same choice on the same images"
    wide = with_choices(clear, unsure)
    assert wide.high - wide.low > 0.15
    turned = with_choices(unsure, clear)
    assert turned.low == pytest.approx(-wide.high, abs=0.02)


def test_without_a_choice_or_its_outcomes_there_is_no_such_interval(tmp_path):
    plain = write(tmp_path, "plain", TEST[0])
    grid = write(tmp_path, "grid", TEST[0], tests=TEST)
    chosen = file(tmp_path, "chosen", CLEAR)
    assert with_choices(chosen, plain) is None
    assert with_choices(grid, chosen) is None
    other = file(tmp_path, "fewer", CLEAR[:, :100])
    assert with_choices(chosen, other) is None, "chosen on other images"
    rows = records.read(other)
    values = dict(np.load(chosen.with_suffix(".npz"))) | {"held_out_ids": np.arange(200) + 1}
    other = records.write(tmp_path, "as-many", rows, values)
    assert with_choices(chosen, other) is None, "as many other images"


def test_the_first_metric_of_what_is_held_out_counts_whatever_tells_its_rows_apart(tmp_path):
    def grid(name, held):
        path = file(tmp_path, name, held)
        rows, values = records.read(path), dict(np.load(path.with_suffix(".npz")))
        for row in [row for row in rows if row["split"] == records.HELD_OUT]:
            rows.append({**row, "metric": "another"})
            values[records.value_name(rows[-1])] = 1 - values[records.value_name(row)]
        for row in rows:
            old = records.value_name(row)
            row["where"] = {**row["where"], "blocks": [row["where"]["k"], 9]}
            values[records.value_name(row)] = values.pop(old)
        return records.write(tmp_path, name, rows, values)

    found = with_choices(grid("one", CLEAR), grid("other", CLEAR[::-1]))
    assert found.value == pytest.approx(-0.2), "0.6 of the first, and 0.8 of the second"
