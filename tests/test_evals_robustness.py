"""Accuracy on corrupted images: what is counted, what it is compared with, what is refused."""

from __future__ import annotations

from maebench.testing import EvaluationContract
from maebench_evals.robustness import Robustness


class TestContractOfRobustness(EvaluationContract):
    component = Robustness(corruptions=("gaussian-noise", "contrast"), severities=(1, 5))
