"""Which rows a table shows, and what one is told who asks for some that are not there."""

from __future__ import annotations

import pandas as pd
import pytest

from maebench.errors import ConfigError
from maebench.report.selection import selected

RUN = "folder-vit-nano-mae-random-0.75-s0-a1b2c3d4e5"


def row(model, dataset, evaluation, folder):
    return {
        **{"model": model, "dataset": dataset, "evaluation": evaluation},
        "file": f"results/{folder}/records/{evaluation}.json",
    }


ROWS = pd.DataFrame(
    [
        row(RUN, "folder:birds", "knn", f"runs/{RUN}"),
        row(RUN, "folder:birds(groups=folder)", "linear-probe", f"runs/{RUN}"),
        row(f"untrained:{RUN}", "folder:birds", "knn", f"models/untrained-{RUN}"),
        row("pixels:folder:birds", "folder:birds", "knn", "models/pixels-folder-aa"),
        row("pixels:digits", "digits", "knn", "models/pixels-digits-bb"),
        row("old", "folder(path=/data/cats)", "knn", "runs/old"),
    ]
)


def of(*models, **asked):
    """The places of the rows that are left."""
    found = selected(ROWS, models, **asked)
    assert list(found.index) == list(range(len(found)))
    keys = ["model", "dataset", "evaluation"]
    whole = [tuple(one) for one in ROWS[keys].itertuples(index=False)]
    return [whole.index(tuple(one)) for one in found[keys].itertuples(index=False)]


@pytest.mark.parametrize(
    ("models", "asked", "left"),
    [
        ((), {}, [0, 1, 2, 3, 4, 5]),
        ((RUN,), {}, [0, 1]),
        ((f"untrained:{RUN}", "pixels:digits"), {}, [2, 4]),
        (("pixels-folder-aa",), {}, [3]),
        ((), {"dataset": "folder:birds"}, [0, 1, 2, 3]),
        ((), {"dataset": "folder:birds(groups=folder)"}, [1]),
        ((), {"dataset": "folder"}, [0, 1, 2, 3, 5]),
        ((), {"dataset": "digits"}, [4]),
        ((), {"dataset": "folder(path=/data/cats)"}, [5]),
        ((), {"evaluations": ("linear-probe",)}, [1]),
        ((), {"evaluations": ("linear-probe", "knn")}, [0, 1, 2, 3, 4, 5]),
        ((RUN, "old"), {"dataset": "folder:birds", "evaluations": ("knn",)}, [0]),
    ],
)
def test_filters_combine(models, asked, left):
    assert of(*models, **asked) == left


@pytest.mark.parametrize(
    ("models", "asked", "says"),
    [
        ((RUN[:-1],), {}, f"unknown run or model '{RUN[:-1]}'. Did you mean '{RUN}'"),
        (("nothing",), {}, "There is: "),
        ((), {"dataset": "digit"}, "--dataset: unknown data set 'digit'. Did you mean 'digits'?"),
        ((), {"dataset": "folder:dogs"}, "There is: digits, folder(path=/data/cats), folder:birds"),
        ((), {"evaluations": ("kn",)}, "--evaluation: unknown evaluation 'kn'. Did you mean 'knn'"),
        (
            ("old",),
            {"evaluations": ("linear-probe",), "dataset": "digits"},
            "no results are of old and --dataset digits and --evaluation linear-probe: leave one",
        ),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(models, asked, says):
    with pytest.raises(ConfigError) as caught:
        of(*models, **asked)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_stands_for_its_model(tmp_path, monkeypatch):
    folder = tmp_path / "results" / "runs" / RUN
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in (f"results/runs/{RUN}", str(folder), f"./results/runs/{RUN}/"):
        assert of(name) == [0, 1]
