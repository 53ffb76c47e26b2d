"""Whether a report shows all of a table: every model, every evaluation, and every gap."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from maebench.analysis.records import FROM_CONFIG
from maebench.evaluating import records
from maebench.report.table import by_model, by_settings
from maebench.rng import isolated
from maebench.testing.contract import Broken, Contract, expect, global_state
from maebench.testing.tracker import everything, place


class ReportContract(Contract):
    """Checks of a report, on the tables that `maebench table` gives it."""

    kind = "report"

    def test_every_table_becomes_text(self) -> None:
        """Columns change with --by and --tidy: a report may not count on any of them."""
        for name, table in tables().items():
            text = self._render(table, name)
            expect(text.strip(), f"{name} becomes nothing")

    def test_an_empty_table_becomes_text(self) -> None:
        """Where all runs failed, --by has nothing to show."""
        for table in (pd.DataFrame(), rows().iloc[:0]):
            self._render(table, f"an empty table with {len(table.columns)} columns")

    def test_the_same_table_gives_the_same_text(self) -> None:
        """Two reports are compared line by line: no clock, no counter, no chance."""
        for name, table in tables().items():
            texts = []
            for state in range(2):
                with isolated(state, "report"):
                    texts.append(self._render(table.copy(), name))
            expect(texts[0] == texts[1], f"{name} becomes another text the second time")

    def test_every_model_is_in_the_text(self) -> None:
        """A benchmark must never shrink quietly."""
        for name in ("the table of models", "the tidy table"):
            self._shows(name, list(MODELS), "models")

    def test_every_evaluation_is_in_the_text(self) -> None:
        """A column left out is a result that nobody reads."""
        for name in tables():
            self._shows(name, list(EVALUATIONS), "evaluations")

    def test_every_number_is_in_the_text(self) -> None:
        """The means of the table of models, each in its own row, are what it is about."""
        for name in ("the table of models", "the table by settings"):
            cells = tables()[name].astype(str).to_numpy().flatten()
            found = [re.match(r"-?\d+\.\d+(?=$| [\[(±])", cell) for cell in cells]
            self._shows(name, [match[0] for match in found if match], "numbers")

    def test_what_failed_or_was_not_applicable_is_said(self) -> None:
        """A gap without a word looks like a number that was forgotten, or like zero."""
        for name in ("the table of models", "the tidy table"):
            self._shows(name, ["not applicable", "failed"], "reasons for a gap")

    def _shows(self, name: str, words: list[str], what: str) -> None:
        text = self._render(tables()[name], name).lower()
        missing = [word for word in words if word.lower() not in text]
        expect(
            not missing,
            f"{name}: {', '.join(missing[:3])} not in the text, {len(missing)} of {len(words)} "
            f"{what}",
        )

    def test_the_table_is_left_as_it_was(self) -> None:
        """Whoever gave the table may print it once more."""
        for name, table in tables().items():
            before = copy.deepcopy(table)
            self._render(table, name)
            same = list(before.columns) == list(table.columns) and before.equals(table)
            expect(
                same and before.index.equals(table.index),
                f"render() changes {name} that it is given: begin with table = table.copy()",
            )

    def test_nothing_but_text_comes_of_it(self) -> None:
        """`maebench table --out` decides what is written, and where."""
        with place() as folder, isolated(0, "report"):
            before, state = everything(folder.parent.parent), global_state()
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                self._render(tables()["the table of models"], "the table of models")
            expect(
                not said.getvalue(),
                f"render() prints {said.getvalue()[:40]!r}: return the text instead",
            )
            new = sorted(everything(folder.parent.parent).keys() - before.keys())
            expect(not new, f"render() writes {', '.join(new[:3])}: return the text instead")
            expect(
                state == global_state(),
                "render() changes the global random state of Python, numpy or torch",
            )

    def test_every_option_matters(self) -> None:
        """An option that is never read promises what it does not do."""
        self.check_options(
            lambda made: [(name, made.render(table)) for name, table in tables().items()],
            "no text",
        )

    def _render(self, table: pd.DataFrame, name: str) -> str:
        render: Callable[[pd.DataFrame], Any] = self.made().render
        try:
            text = render(table)
        except KeyError as error:
            raise Broken(
                f"{name} has no column {error}: it has {', '.join(map(str, table.columns[:6]))}"
            ) from error
        expect(isinstance(text, str), f"render() gives {type(text).__name__} of {name}, not text")
        return text


MODELS = {  # a name in the alphabet of another user, too: what MODEL strings may hold
    "digits-vit-nano-mae-random-0.75-s0-a1b2c3d4e5": "run",
    "digits-vit-nano-mae-block-0.75-s0-0f9e8d7c6b": "run",
    "untrained:digits-vit-nano-mae-random-0.75-s1-9a8b7c6d5e": "untrained",
    "pixels:digits": "pixels",
    "file:modèle-größe-雪.pth": "file",
}
EVALUATIONS = {"knn": "top1", "linear-probe": "top1", "reconstruction": "psnr"}


def rows() -> pd.DataFrame:
    """Made-up rows as `maebench.load_records` gives them, with gaps of every sort."""
    found = []
    for i, (model, kind) in enumerate(MODELS.items()):
        for j, (evaluation, metric) in enumerate(EVALUATIONS.items()):
            value = 0.41 + 0.0713 * i + 0.0137 * j  # no two alike, whatever the rounding
            row = dict.fromkeys((*records.COLUMNS, *FROM_CONFIG, "file")) | {
                **{"model": model, "model_kind": kind, "run": model if kind == "run" else None},
                **{"dataset": "digits", "dataset_fingerprint": "f1", "split": "test"},
                **{"examples": 360, "skipped": 0, "evaluation": evaluation, "options": evaluation},
                **{"evaluation_version": 1, "metric": metric, "where": {}, "main": True},
                **{"unit": "dB" if metric == "psnr" else "%", "higher_is_better": True},
                **{"value": value, "low": value - 0.02, "high": value + 0.03, "status": "ok"},
                **{"reason": "", "seed": 0, "seconds": 1.5, "device": "cpu", "precision": "fp32"},
                **{"created": f"2026-01-0{i + 1}T00:00:0{j}Z", "maebench_version": "0.1.0"},
                "file": f"results/{i}-{evaluation}.json",
            }
            if kind == "run":
                masking = "random" if "random" in model else "block(aspect=0.3)"
                row |= {"encoder": "vit-nano", "objective": "mae", "masking": masking}
                row |= {"ratio": 0.75, "budget": "steps=3600", "batch": 64, "run_seed": 0}
            gap = {"value": None, "low": None, "high": None}
            if evaluation == "reconstruction" and kind == "pixels":
                row |= {"status": "not applicable", "reason": "raw pixels have no decoder", **gap}
            elif evaluation == "linear-probe" and kind == "file":
                row |= {"status": "failed", "reason": "RuntimeError: out of memory | [8, 8]", **gap}
            elif evaluation == "reconstruction":
                row |= {"low": None, "high": math.nan}
            found.append(row)
    # a grid that was searched, and an evaluation that one model never had
    grid = {"metric": "validation_top1", "main": False, "where": {"k": 5}, "value": 0.9}
    del found[3 * len(EVALUATIONS)]
    return pd.DataFrame([*found, found[0] | grid])


def tables() -> dict[str, pd.DataFrame]:
    """The tables that `maebench table` gives a report: plain, --by and --tidy."""
    return {
        "the table of models": by_model(rows()),
        "the table by settings": by_settings(rows(), ["masking", "ratio"]),
        "the tidy table": rows(),
    }
