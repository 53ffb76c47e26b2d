"""What every test runs under: one thread, no settings from outside, patient property tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch is imported; for children too
    os.environ[name] = "1"
for name in ("MAEBENCH_RESULTS", "MAEBENCH_PLUGINS"):
    os.environ.pop(name, None)

settings.register_profile(
    "maebench", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("maebench")
