"""Where numbers go: the contracts of trackers (while pretraining) and reports (the table)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from maebench.component import Component

if TYPE_CHECKING:
    import pandas as pd


class OpenTracker(Protocol):
    """A tracker at work on one run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the numbers of a step."""

    def close(self) -> None:
        """Ends; called once, whatever happened."""


class Tracker(Component):
    """Sends a run's numbers somewhere beside log.jsonl; one that raises is dropped."""

    kind: ClassVar[str] = "tracker"

    def open(self, folder: Path, config: Mapping[str, Any]) -> OpenTracker:
        """Starts tracking one run, whose folder and settings are given."""
        raise NotImplementedError(f"{type(self).__name__} has no open(folder, config)")


class Report(Component):
    """Renders the table of results as text."""

    kind: ClassVar[str] = "report"

    def render(self, table: pd.DataFrame) -> str:
        """The text to print or to write to a file."""
        raise NotImplementedError(f"{type(self).__name__} has no render(table)")
