"""What every test runs under: one thread, no settings from outside, patient property tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch is imported; for children too
    os.environ[name] = "1"
for name in ("MAEBENCH_RESULTS", "MAEBENCH_PLUGINS"):
    os.environ.pop(name, None)

settings.register_profile(
    "maebench", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("maebench")


@pytest.fixture(autouse=True)
def gpu_or_skipped(request):
    """A test marked gpu needs one."""
    if request.node.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What is kept between commands is kept for one session, not in the user's folder."""
    os.environ["MAEBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["MAEBENCH_CACHE"]
