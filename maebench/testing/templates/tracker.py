"""Where numbers go while pretraining: into a table that any spreadsheet opens."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from maebench import Tracker, hookimpl

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}


class Spreadsheet(Tracker):
    """Writes the numbers of each step as a line of a .csv file in the run's folder."""

    name: ClassVar[str] = "spreadsheet"
    delimiter: Literal["comma", "semicolon", "tab"] = Field(
        default="comma", description="what stands between numbers"
    )

    def open(self, folder: Path, config: Mapping[str, object]) -> OpenTable:
        """Begins to track a run; a run that goes on opens the same folder again."""
        return OpenTable(folder / f"{self.name}.csv", DELIMITERS[self.delimiter])


class OpenTable:
    """What belongs to one run is kept here: several may be open at a time."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self.path, self.delimiter = path, delimiter

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line; steps that are repeated after a crash come again, the last one counts."""
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=self.delimiter)
            if new:
                writer.writerow(["step", *values])
            writer.writerow([step, *values.values()])

    def close(self) -> None:
        """Nothing is left to do: the file is closed after each line."""


@hookimpl
def register_trackers() -> list[type[Tracker]]:
    """What this package brings; maebench asks when it starts."""
    return [Spreadsheet]
