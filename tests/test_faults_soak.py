"""A run and a comparison that are killed and stopped at any moment end as if they never had been."""

from __future__ import annotations

import pytest
from soaked import PHASES, Soak

KILLS, TERMS = 10, 5  # benchmarks/soak.py sends 200 and 50


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_left_over_however_often_work_is_killed(tmp_path):
    soak = Soak(tmp_path / "soak", KILLS, TERMS, seed=1, steps=150)
    soak.go()
    assert soak.problems == [], soak.table()
    for phase in PHASES:
        assert sum(soak.fell[phase, name] for name in ("SIGKILL", "SIGTERM")) >= 3, soak.table()
    assert sum(soak.fell.values()) >= KILLS + TERMS
    assert soak.counts["steps lost by SIGTERM"] == soak.counts["orphans"] == 0
