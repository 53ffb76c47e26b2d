"""The log of a run: every step once, in order, and a bad loss found before weights are kept."""

from __future__ import annotations

import math

import torch

from maebench.outputs import Tracking
from maebench.pretraining import log as module
from maebench.pretraining import runs
from maebench.pretraining.log import Log


class Notes:
    """A tracker at work."""

    name = "notes"

    def __init__(self):
        self.rows = []

    def open(self, folder, config):
        return self

    def log(self, step, values):
        self.rows.append((step, values))

    def close(self):
        self.rows.append("closed")


def log_in(folder):
    notes = Notes()
    return Log(folder / "log.jsonl", Tracking([notes], folder, {})), notes


def test_rows_are_written_in_order_with_plain_numbers_wherever_they_were(tmp_path):
    log, notes = log_in(tmp_path)
    log.add(1, {"loss": 0.5, "other": 2}, 0.1)
    log.add(2, {"loss": torch.tensor(0.25), "other": torch.tensor(3.0)}, 0.2)
    assert not (tmp_path / "log.jsonl").exists() and not notes.rows
    assert log.write() is None
    rows = list(runs.read_log(tmp_path / "log.jsonl", None))
    assert rows == [
        {"step": 1, "loss": 0.5, "other": 2, "lr": 0.1},
        {"step": 2, "loss": 0.25, "other": 3.0, "lr": 0.2},
    ]
    assert notes.rows == [
        (1, {"loss": 0.5, "other": 2, "lr": 0.1}),
        (2, {"loss": 0.25, "other": 3.0, "lr": 0.2}),
    ]
    assert log.write() is None
    assert len(list(runs.read_log(tmp_path / "log.jsonl", None))) == 2


def test_a_bad_loss_is_named_with_its_step_and_nothing_after_it_is_written(tmp_path):
    log, notes = log_in(tmp_path)
    for number, loss in enumerate((0.5, float("nan"), 0.1), 1):
        log.add(number, {"loss": torch.tensor(loss)}, 0.1)
    number, loss = log.write()
    assert number == 2 and math.isnan(loss)
    assert [row["step"] for row in runs.read_log(tmp_path / "log.jsonl", None)] == [1]
    assert [step for step, _ in notes.rows] == [1]


def test_it_is_due_once_a_second_is_over(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    log, _ = log_in(tmp_path)
    assert not log.due
    now[0] = module.SECONDS + 0.1
    assert log.due
    log.write()
    assert not log.due


def test_the_newest_known_loss_is_that_of_the_step_on_a_cpu_and_of_the_last_reading_elsewhere(
    tmp_path,
):
    log, _ = log_in(tmp_path)
    log.add(1, {"loss": 0.5}, 0.1)
    assert log.loss == 0.5
    log.add(2, {"loss": torch.tensor(0.25)}, 0.1)
    assert log.loss == 0.5
    log.write()
    assert log.loss == 0.25


def test_a_step_number_or_rate_of_the_objectives_own_does_not_replace_the_runs(tmp_path):
    log, _ = log_in(tmp_path)
    log.add(7, {"loss": 1.0, "step": 99.0, "lr": 5.0}, 0.1)
    log.write()
    assert list(runs.read_log(tmp_path / "log.jsonl", None)) == [
        {"step": 7, "loss": 1.0, "lr": 0.1}
    ]
