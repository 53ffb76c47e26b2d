"""Contracts that plugin authors inherit: a class of three lines checks a component of a kind."""

from maebench.testing.contract import Broken, Contract, Finding, NotChecked, examine

__all__ = ["Broken", "Contract", "Finding", "NotChecked", "examine"]
