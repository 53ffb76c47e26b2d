"""What commands print, and what belongs to the weights of text: for tests/faults.py."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import tiny
import torch
from fault_kinds import mark_of, rows_of
from faults import Kind

from maebench import MaebenchError
from maebench.cli import main as command_line
from maebench.cli import run as run_command
from maebench.evaluating import records
from maebench.models.load import load_model
from maebench.plugins import installed

SMALL = ["--limit", "60", "--batch", "16", "--budget", "steps=3", "--device", "cpu"]
SMALL += [f"-oencoder.{size}" for size in ("width=16", "depth=2", "heads=2")]


def kinds(folder: Path) -> list[Kind]:
    """Those of a run on text, and of commands."""
    return [*_of_text(folder / "text"), *_of_commands(folder / "commands")]


def _of_text(root: Path) -> list[Kind]:
    """What belongs to the weights of a run on text."""
    settings = tiny.suited("bert")
    made = [tiny.plan(root, seed=seed, **settings) for seed in (0, 1)]
    names, folder = installed(), made[0].run.folder

    def tokens() -> dict[str, Any]:
        model = load_model(made[0].run.name, root, "cpu", names)
        rows = torch.cat(list(model.splits.load("train").whole(64)))
        return {"tokens": mark_of(rows.numpy()), "weights": model.weights}

    another = root / "another.json"
    another.write_text((folder / "data" / "tokenizer.json").read_text().replace("the", "eht"))
    return [
        Kind(f"{path.name}: model", path, tokens, [another], every=4)
        for path in sorted((folder / "data").iterdir())
    ]


def _of_commands(root: Path) -> list[Kind]:
    """What a command printed and is printed again, and what `maebench table` prints."""
    command = ["run", "--results", str(root), *SMALL, "--evals", "knn"]
    for seed in ("0", "1"):
        printed([*command, "--seed", seed])
    first, second = sorted(root.glob("runs/*/printed/*.json"))

    def again() -> dict[str, Any]:
        whole_way = mock.patch.object(run_command, "_read", side_effect=MaebenchError("anew"))
        with whole_way:
            out, said = printed([*command, "--seed", "0"], codes=(0, 1))
        if said == ["Error: anew"]:
            return dict(before)
        assert not said or not said[0].startswith("Error"), said
        return {"out": out}

    before = {"out": printed([*command, "--seed", "0"])[0]}
    (config, other), record = sorted(root.glob("runs/*/config.json")), records.paths(root)[0]

    def table() -> dict[str, Any]:
        out, said = printed(["table", "--results", str(root), "--tidy", "--format", "csv"])
        for line in said:
            warnings.warn(line, stacklevel=2)
        return rows_of(pd.read_csv(io.StringIO(out)).to_dict("records"))

    slow: dict[str, Any] = {"every": 32}
    mine = first if first.parents[1] == config.parent else second
    return [
        Kind("printed: run again", mine, again, [second if mine == first else first]),
        Kind("config.json: maebench table", config, table, [other], **slow),
        Kind("record: maebench table", record, table, records.paths(root)[1:2], absent="-", **slow),
    ]


def printed(arguments: list[str], codes: tuple[int, ...] = (0,)) -> tuple[str, list[str]]:
    """Standard output of a command and the lines of standard error."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                command_line(arguments)
    except SystemExit as ended:
        assert (ended.code or 0) in codes, (ended.code, err.getvalue())
    return out.getvalue(), err.getvalue().splitlines()
