"""The contracts of trackers and reports: healthy ones keep to them, each planted bug is found."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from maebench import Report, Tracker, files
from maebench.testing.contract import examine
from maebench.testing.report import ReportContract
from maebench.testing.tracker import TrackerContract


def finding(contract, component, check):
    """What one check finds."""
    body = {"component": component, "checks": classmethod(lambda cls: ["test_" + check])}
    (found,) = examine(type("One", (contract,), body))
    return found


# Healthy ones.


class Lines(Tracker):
    """JSON lines in the run's folder; a healthy tracker to plant bugs in."""

    name: ClassVar[str] = "lines"
    file: ClassVar[str] = "lines.jsonl"
    digits: int = Field(9, ge=3, le=12, description="digits that numbers are written with")

    def open(self, folder, config):
        return self.opened(self.path(folder))

    def path(self, folder):
        return folder / self.file

    def opened(self, path):
        return LinesAtWork(path, self.digits)


class LinesAtWork:
    def __init__(self, path, digits):
        self.path, self.digits = path, digits

    def log(self, step, values):
        rounded = {key: f"{value:.{self.digits}g}" for key, value in values.items()}
        files.append_lines(self.path, [{"step": step, **rounded}])

    def close(self):
        pass


class Faraway(Tracker):
    """Numbers go to a place that no check can see."""

    name: ClassVar[str] = "faraway"
    sent: ClassVar[list] = []

    def open(self, folder, config):
        return self

    def log(self, step, values):
        self.sent.append((step, dict(values)))

    def close(self):
        pass


class Spoken(Report):
    """Every cell as `column: cell`; a healthy report to plant bugs in."""

    name: ClassVar[str] = "spoken"
    sign: str = Field(":", description="between a column and its cell", examples=["=", " is "])

    def render(self, table):
        return "\n".join(self.line(row) for row in table.to_dict("records")) or "no results"

    def line(self, row):
        return ", ".join(f"{key}{self.sign} {cell}" for key, cell in row.items())


class TestLines(TrackerContract):
    component = Lines


class TestSpoken(ReportContract):
    component = Spoken


@pytest.mark.slow
def test_what_cannot_be_seen_of_a_tracker_is_not_checked():
    found = {f.check: f for f in examine(type("C", (TrackerContract,), {"component": Faraway}))}
    unseen = {check for check, f in found.items() if f.status == "not checked"}
    assert not [f for f in found.values() if f.status == "fail"]
    assert unseen == {
        "going on keeps what was there",
        "each number makes a difference",
        "two runs at once do not mix",
        "every option matters",
    }
    assert "writes no file" in found["two runs at once do not mix"].reason


def test_files_that_are_never_the_same_are_not_compared():
    class Clocked(Lines):
        """A line of the time first."""

        def open(self, folder, config):
            files.append_lines(self.path(folder), [{"now": time.time_ns()}])
            return super().open(folder, config)

    for check in ("two_runs_at_once_do_not_mix", "each_number_makes_a_difference"):
        found = finding(TrackerContract, Clocked, check)
        assert (found.status, "differ from one time" in found.reason) == ("not checked", True)


@pytest.mark.slow
def test_the_checks_leave_the_process_as_it_was():
    before = (Path.cwd(), dict(os.environ), random.getstate())
    list(examine(type("C", (TrackerContract,), {"component": Wanders})))
    list(examine(type("C", (ReportContract,), {"component": Spoken})))
    assert before == (Path.cwd(), dict(os.environ), random.getstate())


# Planted bugs of trackers.


class KeepsTheLastStep(Lines):
    """Counts the steps, and keeps the numbers of the last one alone."""

    def opened(self, path):
        class Anew(LinesAtWork):
            def log(self, step, values):
                steps = files.read_json(self.path)["steps"] if self.path.exists() else 0
                files.write_json(self.path, {"steps": steps + 1, "step": step, **values})

        return Anew(path, self.digits)


class LossAlone(Lines):
    """Drops all but the loss."""

    def opened(self, path):
        class Alone(LinesAtWork):
            def log(self, step, values):
                super().log(step, {"loss": values["loss"]})

        return Alone(path, self.digits)


class KeepsHandles(Lines):
    """Keeps each open file in a list."""

    handles: ClassVar[list] = []

    def opened(self, path):
        self.handles.append(path.open("a"))
        return super().opened(path)


class FormatsStrictly(Lines):
    """JSON that has no word for NaN."""

    def opened(self, path):
        class Strict(LinesAtWork):
            def log(self, step, values):
                json.dumps(values, allow_nan=False)
                super().log(step, values)

        return Strict(path, self.digits)


class OnceOnly(Lines):
    """A file that must not be there yet."""

    def open(self, folder, config):
        if self.path(folder).exists():
            raise FileExistsError(self.path(folder))
        return super().open(folder, config)


class Rising(Lines):
    """Refuses a step that it has had."""

    def open(self, folder, config):
        last = [row["step"] for row in files.read_lines(self.path(folder))]

        class Strict(LinesAtWork):
            def log(self, step, values):
                if last and step <= max(last):
                    raise ValueError(f"step {step} after {max(last)}")
                super().log(step, values)

        return Strict(self.path(folder), self.digits)


class StartsAnew(Lines):
    """What was there is gone when a run goes on."""

    def open(self, folder, config):
        self.path(folder).unlink(missing_ok=True)
        return super().open(folder, config)


class NeedsNumbers(Lines):
    """Divides by the number of steps at the end."""

    def opened(self, path):
        class Mean(LinesAtWork):
            total = count = 0

            def log(self, step, values):
                self.count += 1
                super().log(step, values)

            def close(self):
                files.append_lines(self.path, [{"mean": self.total / self.count}])

        return Mean(path, self.digits)


class Deaf(Lines):
    """The file is there, the numbers are not."""

    def opened(self, path):
        class Nothing(LinesAtWork):
            def log(self, step, values):
                files.append_lines(self.path, [{"step": step}])

        return Nothing(path, self.digits)


class Stepless(Lines):
    """Numbers without their step."""

    def opened(self, path):
        class NoStep(LinesAtWork):
            def log(self, step, values):
                files.append_lines(self.path, [dict(values)])

        return NoStep(path, self.digits)


class Shared(Lines):
    """The run's path is kept in the class."""

    at: ClassVar[dict] = {}

    def open(self, folder, config):
        at = self.at
        at["path"] = self.path(folder)

        class Last(LinesAtWork):
            def log(self, step, values):
                self.path = at["path"]
                super().log(step, values)

        return Last(self.path(folder), self.digits)


class Trims(Lines):
    """Takes away from the settings what it does not want to send."""

    def open(self, folder, config):
        config["config"].pop("device")
        return super().open(folder, config)


class TakesLr(Lines):
    """Takes a number out of what it is given."""

    def opened(self, path):
        class Taker(LinesAtWork):
            def log(self, step, values):
                values.pop("lr", None)
                super().log(step, values)

        return Taker(path, self.digits)


class Beside(Lines):
    """A folder of its own in the working directory."""

    def path(self, folder):
        return Path("lines", folder.name).absolute()


class Neighbour(Lines):
    """Beside the run's folder."""

    def path(self, folder):
        return folder.parent / "all.jsonl"


class AtHome(Lines):
    """A file at home."""

    def path(self, folder):
        return Path.home() / ".lines"


class SameName(Lines):
    """The name of a file of the run's own."""

    file: ClassVar[str] = "log.jsonl"


class Drawing(Lines):
    """A random name for the run, from the global state."""

    def open(self, folder, config):
        random.random()
        return super().open(folder, config)


class Wanders(Lines):
    """Another working directory."""

    def open(self, folder, config):
        os.chdir(folder)
        return super().open(folder, config)


class LeavesOpen(Lines):
    """A file that nobody closes."""

    def opened(self, path):
        class Kept(LinesAtWork):
            def __init__(self, path, digits):
                super().__init__(path, digits)
                self.handle = path.with_suffix(".txt").open("a")

        return Kept(path, self.digits)


class Nothing(Lines):
    """Forgets to return."""

    def open(self, folder, config):
        super().open(folder, config)


class DeadDigits(Lines):
    """An option that is not used."""

    def opened(self, path):
        return LinesAtWork(path, 9)


OPENS = "it_opens_takes_numbers_and_closes"
GOES_ON = "a_run_that_goes_on_may_repeat_steps"
DIFFERENCE = "each_number_makes_a_difference"
LEFT = "settings_and_numbers_are_left_as_they_were"
OUTSIDE = "it_writes_nothing_outside_its_folder"
PROCESS = "the_process_is_left_as_it_was"
OPTIONS = "every_option_matters"
TRACKERS = {
    "the last step only": (KeepsTheLastStep, "going_on_keeps_what_was_there", ["the last steps"]),
    "the loss alone": (LossAlone, "each_number_makes_a_difference", ["whatever lr is at step 1"]),
    "files that stay open": (KeepsHandles, PROCESS, ["leaves a file open: lines.jsonl"]),
    "no return": (Nothing, OPENS, ["NoneType without log and close"]),
    "no NaN": (FormatsStrictly, OPENS, ["ValueError: Out of range"]),
    "once only": (OnceOnly, GOES_ON, ["FileExistsError"]),
    "rising steps": (Rising, GOES_ON, ["ValueError: step 2 after 3"]),
    "starts anew": (StartsAnew, "going_on_keeps_what_was_there", ["is gone", "add to its files"]),
    "needs numbers": (NeedsNumbers, OPENS, ["ZeroDivisionError"]),
    "deaf": (Deaf, DIFFERENCE, ["the same for a loss of 0.5 and one of 0.25"]),
    "no step": (Stepless, DIFFERENCE, ["the same for step 1 and step 2"]),
    "shared": (Shared, "two_runs_at_once_do_not_mix", ["another run", "nothing in the class"]),
    "trims settings": (Trims, LEFT, ["open() changes the settings"]),
    "takes a number": (TakesLr, LEFT, ["log() makes {'loss': 0.5} of"]),
    "working directory": (Beside, OUTSIDE, ["it writes here/lines/run-", "below the folder"]),
    "neighbour": (Neighbour, OUTSIDE, ["it writes runs/all.jsonl outside"]),
    "at home": (AtHome, OUTSIDE, ["it writes home/.lines outside"]),
    "the run's own": (SameName, OUTSIDE, ["changes runs/run-", "log.jsonl", "of the run's own"]),
    "global state": (Drawing, PROCESS, ["global random state", "isolated"]),
    "wanders": (Wanders, PROCESS, ["working directory to", "runs/run-"]),
    "left open": (LeavesOpen, PROCESS, ["leaves a file open", "lines.txt"]),
    "dead option": (DeadDigits, OPTIONS, ["option 'digits' changes no file", "3"]),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("bug", TRACKERS)
def test_a_tracker_with_a_bug_is_found_and_explained(bug):
    tracker, check, words = TRACKERS[bug]
    assert finding(TrackerContract, Lines, check).status == "pass"
    found = finding(TrackerContract, tracker, check)
    assert found.status == "fail"
    assert [word for word in words if word not in found.reason] == [], found.reason


# Planted bugs of reports.


class Talks(Spoken):
    """Prints what it gives."""

    def render(self, table):
        print(super().render(table))  # noqa: T201
        return super().render(table)


class Printed(Spoken):
    """Prints and gives nothing."""

    def render(self, table):
        super().render(table)


class ByModelOnly(Spoken):
    """Counts on a column of the plain table."""

    def render(self, table):
        return "\n".join(f"{model}" for model in table["model"])


class FirstRow(Spoken):
    """Looks into a table that may be empty."""

    def render(self, table):
        return f"{len(table.iloc[0])} columns\n" + super().render(table)


class Dated(Spoken):
    """A number of its own in each text."""

    def render(self, table):
        return super().render(table) + f"\nmade at {time.time_ns()}"


class Lucky(Spoken):
    """Rows in an order of chance."""

    def render(self, table):
        return super().render(table.sample(frac=1) if len(table) else table)


class TopThree(Spoken):
    """Only the first three rows."""

    def render(self, table):
        return super().render(table.head(3))


class Ascii(Spoken):
    """Letters that another alphabet has are lost."""

    def render(self, table):
        return super().render(table).encode("ascii", "replace").decode()


class Cut(Spoken):
    """Names cut to twenty letters."""

    def line(self, row):
        return ", ".join(f"{key}{self.sign} {str(cell)[:20]}" for key, cell in row.items())


class OneEvaluation(Spoken):
    """The last column is left out."""

    def line(self, row):
        return super().line({k: v for k, v in row.items() if "psnr" not in k and v != "psnr"})

    def render(self, table):
        kept = [c for c in table.columns if "reconstruction" not in str(c)]
        rows = table[kept]
        if "evaluation" in rows:
            rows = rows[rows["evaluation"] != "reconstruction"]
        return super().render(rows)


class Rounded(Spoken):
    """Numbers without their decimals."""

    def line(self, row):
        return ", ".join(f"{key}{self.sign} {str(cell).split('.')[0]}" for key, cell in row.items())


class GapsAreDashes(Spoken):
    """What is missing is a dash."""

    def render(self, table):
        return super().render(table).replace("not applicable", "-").replace("failed", "-")


class FailedDropped(Spoken):
    """Rows that failed are left out of the tidy table."""

    def render(self, table):
        return super().render(table[table["status"] != "failed"] if "status" in table else table)


class Numbers(Spoken):
    """Numbers the rows of the table that it was given."""

    def render(self, table):
        table.index = range(1, len(table) + 1)
        return super().render(table)


class AddsColumn(Spoken):
    """Adds a column to the table that it was given."""

    def render(self, table):
        table["rank"] = range(len(table))
        return super().render(table)


class Writes(Spoken):
    """A file that nobody asked for."""

    def render(self, table):
        files.write_text(Path("report.txt").absolute(), "report")
        return super().render(table)


class DeadSign(Spoken):
    """An option that is not used."""

    def line(self, row):
        return ", ".join(f"{key}: {cell}" for key, cell in row.items())


BECOMES = "every_table_becomes_text"
SAME = "the_same_table_gives_the_same_text"
MODEL = "every_model_is_in_the_text"
EVALUATION = "every_evaluation_is_in_the_text"
GAPS = "what_failed_or_was_not_applicable_is_said"
TABLE = "the_table_is_left_as_it_was"
REPORTS = {
    "a report that talks": (Talks, "nothing_but_text_comes_of_it", ["render() prints"]),
    "printed": (Printed, BECOMES, ["render() gives NoneType of the table of models"]),
    "a column counted on": (ByModelOnly, BECOMES, ["by settings has no column 'model'", "masking"]),
    "a first row": (FirstRow, "an_empty_table_becomes_text", ["IndexError"]),
    "a clock": (Dated, SAME, ["the table of models becomes another text"]),
    "an order of chance": (Lucky, SAME, ["becomes another text"]),
    "three rows": (TopThree, MODEL, ["pixels:digits, file:", "of 5 models"]),
    "one alphabet": (Ascii, MODEL, ["file:modèle-größe-雪.pth not", "1 of 5 models"]),
    "names cut": (Cut, MODEL, ["digits-vit-nano-mae-random"]),
    "an evaluation less": (OneEvaluation, EVALUATION, ["models: reconstruction not", "of 3"]),
    "no decimals": (Rounded, "every_number_is_in_the_text", ["41.0, 42.4", "numbers"]),
    "dashes": (GapsAreDashes, GAPS, ["table of models: not applicable, failed not in"]),
    "failed dropped": (FailedDropped, GAPS, ["the tidy table: failed not in", "1 of 2"]),
    "rows numbered": (Numbers, TABLE, ["changes the table of models", "table.copy()"]),
    "a column more": (AddsColumn, TABLE, ["changes the table of models"]),
    "a file": (Writes, "nothing_but_text_comes_of_it", ["render() writes here/report.txt"]),
    "chance drawn": (Lucky, "nothing_but_text_comes_of_it", ["global random state"]),
    "dead option": (DeadSign, OPTIONS, ["option 'sign' changes no text", "':' gives what '=', "]),
}


@pytest.mark.parametrize("bug", REPORTS)
def test_a_report_with_a_bug_is_found_and_explained(bug):
    report, check, words = REPORTS[bug]
    assert finding(ReportContract, Spoken, check).status == "pass"
    found = finding(ReportContract, report, check)
    assert found.status == "fail"
    assert [word for word in words if word not in found.reason] == [], found.reason


@pytest.mark.parametrize(
    ("contract", "bugs"), [(TrackerContract, TRACKERS), (ReportContract, REPORTS)]
)
def test_every_check_fails_for_some_bug(contract, bugs):
    shared = {"test_it_is_documented_and_can_be_registered", "test_it_survives_json_and_back"}
    assert set(contract.checks()) - shared == {f"test_{check}" for _, check, _ in bugs.values()}
