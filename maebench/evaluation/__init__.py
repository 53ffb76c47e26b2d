"""The contract of an evaluation: what it declares, what it gets, and how it chooses on train."""

from maebench.errors import NotApplicable
from maebench.evaluation.choice import Choice, choose
from maebench.evaluation.contract import (
    Evaluation,
    Metric,
    Model,
    Partial,
    Result,
    Summary,
)
from maebench.evaluation.folds import Folds

__all__ = [
    "Choice",
    "Evaluation",
    "Folds",
    "Metric",
    "Model",
    "NotApplicable",
    "Partial",
    "Result",
    "Summary",
    "choose",
]
