"""Where numbers go: the contracts of trackers (while pretraining) and reports (the table).

And how a figure becomes a file.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from maebench import files
from maebench.component import Component, raised_by
from maebench.errors import plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

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
        """Starts tracking one run, by its folder and its settings."""
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
            except BaseException as error:
                _warn(f"tracker {tracker.name!r} is dropped", error)
        self._working = list(self._opened)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(self, *_: object) -> None:
        """Closes all that were opened, also those dropped since, however the run ended."""
        for name, tracker in self._opened:
            try:
                tracker.close()
            except BaseException as error:
                _warn(f"tracker {name!r} did not close", error)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Gives the numbers of a step to every tracker."""
        for at_work in list(self._working):
            try:
                at_work[1].log(step, values)
            except BaseException as error:
                _warn(f"tracker {at_work[0]!r} is dropped", error)
                self._working.remove(at_work)


def _warn(what: str, error: BaseException) -> None:
    """Warns of what a tracker raised, an exit too; Ctrl-C and what others raised ends the run."""
    if isinstance(error, KeyboardInterrupt) or not (
        isinstance(error, Exception) or raised_by(error)
    ):
        raise error
    text = str(error) if isinstance(error, Exception) else f"{type(error).__name__}: {error}"
    warnings.warn(f"{what}: {text}", stacklevel=3)


@dataclass(frozen=True)
class Cell:
    """A number of the table and how sure it is; `str(cell)` is how it is printed.

    Args:
        value: as it was measured; a share where `unit` is "%". None where there is none.
        low: the lower end of its 95 % interval over test examples, or None.
        high: the upper end, or None.
        unit: such as "%" or "dB".
        status: "ok", or why there is no value: "not applicable" or "failed".
        num_runs: over how many runs the value is a mean, or over how many seeds of the evaluation
            of one model; None for a number that is no mean.
        deviation: the standard deviation over these; None where there is one.
        over: "seeds" where the runs differ in their seed alone, else "runs"; "evaluation seeds"
            where one model was evaluated with several.
        half_width: the mean half width of their intervals over test examples, or None.
        choice_low: the lowest test value over the choices that validation cannot tell from the one
            that was made, or None; of a mean, the mean of these.
        choice_high: the highest one, or None.
        examples: what test examples are called.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    status: str = "ok"
    num_runs: int | None = None
    deviation: float | None = None
    over: str = "seeds"
    half_width: float | None = None
    choice_low: float | None = None
    choice_high: float | None = None
    examples: str = "images"

    def __str__(self) -> str:
        """Such as `81.9 [80.1, 83.6]`, `81.9 ±0.8 seeds (n=3) ±1.7 images` or `failed`.

        `choice 81.4-82.5` follows where the range over choices is wider than nothing.
        """
        if self.value is None:
            return self.status
        text = in_unit(self.value, self.unit)
        if self.low is not None and self.high is not None:
            text += f" [{in_unit(self.low, self.unit)}, {in_unit(self.high, self.unit)}]"
        if self.deviation is not None:
            text += f" ±{in_unit(self.deviation, self.unit)} {self.over}"
        if self.num_runs is not None:
            text += f" (n={self.num_runs})"
        if self.half_width is not None:
            text += f" ±{in_unit(self.half_width, self.unit)} {self.examples}"
        return text + self.choice

    @property
    def choice(self) -> str:
        """The range over choices as it is printed; empty where its ends are printed alike."""
        if self.choice_low is None or self.choice_high is None:
            return ""
        low, high = (in_unit(end, self.unit) for end in (self.choice_low, self.choice_high))
        return f" choice {low}{'-' if self.choice_low >= 0 else ' to '}{high}" * (low != high)


def in_unit(number: float, unit: str, sign: str = "") -> str:
    """A number as it is printed: a share in per cent with one digit, others with three.

    Args:
        number: to print.
        unit: of the number.
        sign: "+" to print the sign of a positive number too.
    """
    return f"{number * 100:{sign}.1f}" if unit == "%" else f"{number:{sign}.3f}"


class Report(Component):
    """Renders the table of results as text."""

    kind: ClassVar[str] = "report"

    def render(self, table: pd.DataFrame) -> str:
        """The text to print or to write to a file.

        What an evaluation measured is a `Cell`, which has its numbers and is printed by `str`;
        other columns hold texts and numbers, and what is not there is an empty text. Where rows of
        one model or setting differ in what can change a number, `differs in` is one of them.
        """
        raise NotImplementedError(f"{type(self).__name__} has no render(table)")


def write_figure(figure: Figure, path: Path, dpi: int = 120) -> None:
    """Writes a figure as a PNG, in which every text is text.

    Matplotlib would read what stands between two dollars as a formula, and refuse a wrong one.

    Raises:
        RunError: the file cannot be written.
    """
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)
        text.set_text(plain(text.get_text(), lines=True))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            _plain_ticks(axis)
    # texts that are made only when it is drawn, such as those of further ticks
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a box is drawn
        files.write(path, lambda beside: figure.savefig(beside, format="png", dpi=dpi))


def _plain_ticks(axis: Axis) -> None:
    """Makes text of the names beside an axis, which are set anew each time it is drawn."""
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    own = axis.get_major_formatter()
    if isinstance(own, FixedFormatter | FuncFormatter | StrCategoryFormatter):  # others: numbers
        axis.set_major_formatter(FuncFormatter(lambda x, place: plain(own(x, place), lines=True)))
