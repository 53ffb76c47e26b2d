"""Damaged files of a results folder: tables show the rest, and other commands say which file."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import warnings

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from maebench import load_records
from maebench.analysis.state import read_failed, read_state
from maebench.cli import main
from maebench.errors import MaebenchError
from maebench.evaluating import records, suite
from maebench.plugins import installed
from maebench.pretraining import runs
from maebench.report.table import by_model, by_settings

VALUES = st.sampled_from([None, True, 0, -7, 3.5, "", "text", [], [1, "a"], {}, {"k": {"l": 2}}])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two runs, their floors and raw pixels, each evaluated by kNN, and a comparison's state."""
    folder = tmp_path_factory.mktemp("whole")
    for seed in (0, 1):
        plan = tiny.plan(folder, seed=seed)
        for spec in ("", "untrained:", "pixels:"):
            suite.evaluate(tiny.load(folder, spec), plan.config.evals[2])
    state = {
        **{"format": 1, "arms": {"a": {"ratio": 0.5}}, "baseline": "a", "looks": [{"seeds": [0]}]},
        "machine": {"device": "cpu", "threads": 1, "precision": {"a": "fp32"}},
    }
    for name, content in (("comparison", state), ("failed", {"cell": "why"})):
        path = folder / "comparisons" / "mine" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def places(value, at=()):
    """Every place in a JSON value, the keys that lead there."""
    yield at
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, item in inner:
        yield from places(item, (*at, key))


def damage(path, data):
    """Cuts, empties, overwrites or takes away a file, or changes one value in it."""
    content = path.read_bytes()
    ways = ["cut", "bytes", "gone"] + ["value", "key"] * 2 * (path.suffix == ".json")
    how = data.draw(st.sampled_from(ways))
    if how == "cut":
        path.write_bytes(content[: int(len(content) * data.draw(st.floats(0, 0.999)))])
    elif how == "bytes":
        path.write_bytes(data.draw(st.binary(max_size=20)))
    elif how == "gone":
        path.unlink()
    else:
        value = json.loads(content)
        chosen = data.draw(st.sampled_from([p for p in places(value) if p or how == "value"]))
        if not chosen:
            value = data.draw(VALUES)
        else:
            inside = value
            for key in chosen[:-1]:
                inside = inside[key]
            if how == "key":
                del inside[chosen[-1]]
            else:
                inside[chosen[-1]] = data.draw(VALUES)
        path.write_text(json.dumps(value))
    return how


def table(folder, *arguments, said=None):
    """The exit code of `maebench table`; what is said beside it is added to a list."""
    out, err = io.StringIO(), io.StringIO()
    quiet = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with warnings.catch_warnings(), quiet[0], quiet[1], pytest.raises(SystemExit) as ended:
        warnings.simplefilter("default")
        main(["table", "--results", str(folder), *arguments])
    if said is not None:
        said += err.getvalue().splitlines()
    return ended.value.code


def test_each_damaged_file_is_named_in_a_line_and_the_rest_is_shown(whole, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(whole, folder)
    run, other = (path.parent for path in sorted(folder.glob("runs/*/config.json")))
    (record,) = (folder / "models").glob("pixels-*/records/*.json")
    (run / "config.json").write_text("")
    (other / runs.SPENT).write_text("[3]")
    record.write_text('{"format": 99, "rows": [{}]}')
    said: list[str] = []
    assert table(folder, said=said) == 0
    assert said == [
        f"Warning: left out: {run / 'config.json'} cannot be read: it is empty",
        f"Warning: left out: {other / runs.SPENT} cannot be read: an object is wanted, it holds [3]",
        f"Warning: left out: {record} was written by a newer maebench (format 99)",
    ]
    with pytest.warns(UserWarning):
        found = load_records(folder)
    # without settings the numbers of a run would stand for any; its floor's do not
    assert set(found["model"]) == {other.name, f"untrained:{run.name}", f"untrained:{other.name}"}
    with pytest.raises(MaebenchError, match=f"{run / 'config.json'} cannot be read: it is empty"):
        tiny.load(folder, run.name)
    with pytest.raises(MaebenchError, match="written by a newer maebench"):
        records.read(record)
    assert tiny.load(folder, other.name).run.name == other.name


def test_the_numbers_of_a_run_whose_settings_are_gone_are_not_left_out_in_silence(whole, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(whole, folder)
    gone, other = sorted(folder.glob("runs/*/config.json"))
    gone.unlink()
    with pytest.warns(UserWarning, match=f"left out: {gone} is missing"):
        found = load_records(folder)
    runs_left = found[found["model_kind"] == "run"]["model"].unique().tolist()
    assert runs_left == [other.parent.name]


@pytest.mark.slow
@settings(max_examples=25)
@given(data=st.data())
def test_whatever_is_damaged_tables_show_the_rest_and_others_fail_in_one_line(
    whole, tmp_path_factory, data
):
    folder = tmp_path_factory.mktemp("damaged") / "results"
    shutil.copytree(whole, folder)
    kinds = (".json", ".npz", ".jsonl")
    there = sorted(path for path in folder.rglob("*") if path.suffix in kinds)
    # of each kind as many as of another
    named = sorted({path.name if path.parent.name != "records" else path.suffix for path in there})
    chosen = []
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(named))
        some = [path for path in there if name in (path.name, path.suffix) and path not in chosen]
        some = [path for path in some if (path.parent.name == "records") == name.startswith(".")]
        chosen.append(data.draw(st.sampled_from(some or there)))
    for path in dict.fromkeys(chosen):
        damage(path, data)

    before = load_records(whole)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = load_records(folder)
        by_model(found) if len(found) else None
        by_settings(found, ["masking", "ratio"]) if len(found) else None
    assert all("\n" not in str(one.message) for one in said)
    left = {file.replace(str(folder), str(whole)) for file in found["file"]}
    for row in before.drop_duplicates("file").to_dict("records"):
        untouched = {row["file"], str(whole / "runs" / str(row["run"]) / "config.json")}
        if not untouched & {str(path).replace(str(folder), str(whole)) for path in chosen}:
            assert row["file"] in left
    assert table(folder) == table(folder, "--by", "masking") == (0 if len(found) else 1)
    assert table(folder, "--tidy", "--format", "csv") == (0 if len(found) else 1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = installed()
        specs = [path.name for path in (folder / "runs").iterdir()]
        for spec in ("", "untrained:", "pixels:", *specs):
            try:
                model = tiny.load(folder, spec)
                path = suite.evaluate(model, model.config.evals[2], names=names)
                for row in records.read(path):
                    records.values(path, row)
            except MaebenchError as error:
                assert "\n" not in str(error)
        for use in (read_state, read_failed):
            try:
                use(folder / "comparisons" / "mine")
            except MaebenchError as error:
                assert "\n" not in str(error)
        for run in runs.readable_runs(folder)[0]:
            try:
                runs.read_hashes(run)
            except MaebenchError as error:
                assert "\n" not in str(error)
