"""The package keeps to the contracts of its two kinds."""

from maebench_checkerboard import Checkerboard, EffectiveRank

from maebench.testing import EvaluationContract, MaskingContract


class TestCheckerboard(MaskingContract):
    component = Checkerboard


class TestEffectiveRank(EvaluationContract):
    component = EffectiveRank
