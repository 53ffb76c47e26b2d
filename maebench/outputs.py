"""Where numbers go: the contracts of trackers (while pretraining) and reports (the table)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from maebench.component import Component

if TYPE_CHECKING:
    import pandas as pd


FORMATS = ("markdown", "csv", "latex", "parquet", "html")  # of tables; no report has their names


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


class Tracking:
    """A run's trackers at work: one that raises is dropped with a warning and the run goes on."""

    def __init__(
        self, trackers: Iterable[Tracker], folder: Path, config: Mapping[str, Any]
    ) -> None:
        self._opened: list[tuple[str, OpenTracker]] = []
        for tracker in trackers:
            try:
                self._opened.append((tracker.name, tracker.open(folder, config)))
            except Exception as error:
                warnings.warn(f"tracker {tracker.name!r} is dropped: {error}", stacklevel=2)
        self._working = list(self._opened)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *_: object) -> None:
        """Closes all that were opened, also those dropped since, however the run ended."""
        for name, tracker in self._opened:
            try:
                tracker.close()
            except Exception as error:
                warnings.warn(f"tracker {name!r} did not close: {error}", stacklevel=2)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Gives the numbers of a step to every tracker."""
        for at_work in list(self._working):
            try:
                at_work[1].log(step, values)
            except Exception as error:
                warnings.warn(f"tracker {at_work[0]!r} is dropped: {error}", stacklevel=2)
                self._working.remove(at_work)


class Report(Component):
    """Renders the table of results as text."""

    kind: ClassVar[str] = "report"

    def render(self, table: pd.DataFrame) -> str:
        """The text to print or to write to a file."""
        raise NotImplementedError(f"{type(self).__name__} has no render(table)")
