"""What stands below a table: by which methods its numbers and differences were found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from maebench.analysis.stats import Difference
from maebench.evaluating.records import HELD_OUT, examples_of
from maebench.outputs import Cell
from maebench.report.apart import MARK

CHOICE = (
    "choice: the range of test values over the choices that validation cannot tell from the one "
    "that was made"
)
_EXAMPLES = {HELD_OUT: "{} held out of train", "train": "train {}"}
MARKS = (
    f"{MARK}: numbers of lines with different marks are not comparable; one that reads nothing "
    "of train stands in each line of its model"
)


def footnotes(shown: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """The lines below a table.

    Args:
        shown: the rows that the table shows.
        table: its cells.
    """
    done = shown[shown["status"] == "ok"]
    cells = [cell for name in table for cell in table[name] if isinstance(cell, Cell)]
    lines = [_values(done), _groups(done)]
    if any(cell.over == "evaluation seeds" and cell.num_runs for cell in cells):
        lines.append("evaluation seeds: the same model evaluated again with another seed")
    lines += [CHOICE] * any(cell.choice for cell in cells)
    lines += [MARKS * (MARK in table), *remarks(shown), *_weights(shown)]
    return [line for line in lines if line]


def remarks(shown: pd.DataFrame) -> list[str]:
    """What was lost or found in the images of each data set.

    An evaluation of test alone says less than one of both splits: the fullest text holds. Where
    texts contradict each other, for files were read in several ways, each is a line of its own.
    """
    lines = []
    for name, group in shown[shown["remarks"].notna()].groupby("dataset", sort=False):
        texts = {text: set(text.split("; ")) for text in group["remarks"].unique()}
        fullest = [
            text
            for text, parts in texts.items()
            if not any(parts < other for other in texts.values())
        ]
        lines += [f"{name}: {text}" for text in fullest]
    return lines


def _weights(shown: pd.DataFrame) -> list[str]:
    """What a reader must know of weights from elsewhere: all that follows their verdict."""
    known = shown[shown["weights"].notna()].drop_duplicates(["model", "weights"])
    pairs = zip(known["model"], known["weights"], strict=True)
    return [f"{model}: weights {text}" for model, text in pairs if "; " in text]


def _values(done: pd.DataFrame) -> str:
    """Of what those values are means that are, and the method of each interval."""
    # what is no mean has neither; the mean over one group of images has no ends
    means = done[done["interval"].notna() | done["low"].notna()]
    if means.empty:
        return ""
    which = "Values" if len(means) == len(done) else "Values with an interval"
    splits = set(means["split"])
    which_ones = _EXAMPLES.get(splits.pop(), "test {}") if len(splits) == 1 else "test {}"
    text = f"{which} are means over {which_ones.format(examples_of(means['inputs']))}"
    found = means[means["low"].notna()]
    if not found.empty:
        # versions that did not write the method had one
        methods = found["interval"].where(found["interval"].notna(), "bootstrap")
        names = found["evaluation"] + " " + found["metric"]
        text += f" with 95 % intervals: {by_method(zip(methods, names, strict=True))}"
    return text + "."


def _groups(done: pd.DataFrame) -> str:
    """How many groups the images make."""
    found = done[done["num_groups"].notna()]
    if found.empty:
        return ""
    several = found["dataset"].nunique() > 1
    said = dict.fromkeys(
        f"{num:.0f} group{'s' * (num != 1)}{f' ({name})' * several}"
        for name, num in zip(found["dataset"], found["num_groups"], strict=True)
    )
    text = f"{examples_of(found['inputs']).capitalize()} belong to {', '.join(said)}"
    if (found["num_groups"] == 1).all():
        return f"{text}: there is no interval."
    return f"{text}, which are drawn again whole."


def of_differences(found: Sequence[tuple[str, Difference, str]], examples: str = "images") -> str:
    """The methods of paired differences and their tests; empty where there are none."""
    pairs = [(f"{d.method} and {d.test} test", name) for name, d, _ in found]
    if not pairs:
        return ""
    text = f"Paired differences: {by_method(pairs)}."
    if any(d.choice is not None for _, d, _ in found):
        text += (
            " Choices made again: the bootstrap in which each resample of train and test "
            f"{examples} also chooses again on what was held out of train."
        )
    return text


def by_method(pairs: Iterable[tuple[str | None, str]]) -> str:
    """Each method, and of what it is where there are several."""
    methods: dict[str, dict[str, None]] = {}
    for method, name in pairs:
        if isinstance(method, str):
            methods.setdefault(method, {})[name] = None
    if len(methods) == 1:
        return next(iter(methods))
    return "; ".join(f"{method} ({', '.join(names)})" for method, names in methods.items())
