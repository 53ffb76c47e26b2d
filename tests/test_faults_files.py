"""Whatever happens to a file that is read back: the same numbers, or a line that names it."""

from __future__ import annotations

import warnings
from pathlib import Path

import fault_commands
import fault_kinds
import fault_sources
import faults
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maebench import MaebenchError, files
from maebench.analysis.state import read_failed, read_state
from maebench.data import content
from maebench.encoders import attention
from maebench.evaluating import partial, records
from maebench.evaluating.tensors import read_tensors
from maebench.models.key_map import read_key_map
from maebench.pretraining import checkpoints, kernels, runs

# Those that take a tenth of a second or less for all faults, by the names that they are given.
QUICK = (
    *("spent.json: table", "record .npz: table", "log.jsonl: loss curve", "partial: what is kept"),
    *("newest manifest.json: model", "newest state.safetensors: model"),
    *("comparison.json: compare", "comparison.json: another comparison", "failed.json: compare"),
    *("environment.json: compare", "spent.json: compare", "hashes.json: compare"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A results folder with two runs that are done and one that is not."""
    return fault_kinds.World.made(tmp_path_factory.mktemp("world") / "results")


@pytest.fixture(scope="module")
def quick(world):
    return {kind.name: kind for kind in fault_kinds.of_world(world)}


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_damaged_result_gives_the_same_numbers_or_a_line_that_names_it(quick, name):
    assert faults.sweep(quick[name], few=True).total() > 5


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize(
    "module", [fault_kinds, fault_commands, fault_sources], ids=lambda module: module.__name__
)
def test_every_fault_of_every_kind_of_result_and_of_what_users_give(
    tmp_path, monkeypatch, module, part
):
    monkeypatch.setenv(files.CACHE, str(tmp_path / "cache"))
    broken, tried = [], 0
    for kind in list(module.kinds(tmp_path))[part::2]:  # in parts, which processes share
        try:
            tried += faults.sweep(kind).total()
        except faults.Broken as error:
            broken.append(str(error))
    assert not broken, "\n".join(broken)
    assert tried > 50


def test_a_fault_that_changes_a_number_in_silence_is_found(tmp_path):
    """The sweep itself: a reader that believes what it reads is caught by it."""
    path = tmp_path / "a.txt"
    path.write_text("12345")
    kind = faults.Kind("a reader that believes all", path, lambda: {"n": path.read_bytes()})
    with pytest.raises(faults.Broken, match="other numbers"):
        faults.sweep(kind)
    silent = faults.Kind(
        "a reader that says nothing", path, lambda: {"n": 1} if path.exists() else {}
    )
    with pytest.raises(faults.Broken, match=r"gone: without a line \['n'\]"):
        faults.sweep(silent)
    rude = faults.Kind("a reader with a traceback", path, lambda: {"n": 1 / len(path.read_bytes())})
    with pytest.raises(faults.Broken, match="emptied: ZeroDivisionError"):
        faults.sweep(rude)


# ---- arbitrary bytes, and whole files of the wrong shape

# among them names that are read
KEYS = st.text(max_size=4) | st.sampled_from(
    [
        *("format", "rows", "values", "hash", "of", "step", "total", "spent", "sha256", "looks"),
        *("arms", "machine", "seeds", "config", "identity", "facts", "created", "attention"),
        *("compiled_after", "machines", "skipped", "metric", "where", "status", "main", "steps"),
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=8)


def readers(folder: Path):
    """What reads each kind of file, by the place of the file and whose it is."""
    run = runs.Run(folder / "runs" / "r", {"facts": {}})
    step, record = run.folder / "checkpoint" / "step-000000001", run.folder / "records" / "a.json"
    cache, comparison = files.cache_folder(), folder / "comparisons" / "c"
    return {
        run.folder / "config.json": ("r", lambda: runs.readable_runs(folder)),
        run.folder / runs.SPENT: ("r", lambda: runs.said_beside(run, runs.SPENT)),
        run.folder / runs.HASHES: ("r", lambda: runs.read_hashes(run)),
        run.folder / "log.jsonl": ("r", lambda: runs.read_log(run.folder / "log.jsonl", 3)),
        run.folder / "kernels.json": (
            "r",
            lambda: kernels.Kernels(run.folder, "auto", "cpu", "", 1),
        ),
        step / checkpoints.MANIFEST: (
            "checkpoint/step-000000001",
            lambda: (checkpoints.load_newest(step.parent, False), checkpoints.newest(step.parent)),
        ),
        record: ("r/a", lambda: (records.readable(record), records.read(record))),
        comparison / "comparison.json": ("c", lambda: read_state(comparison)),
        comparison / "failed.json": ("c", lambda: read_failed(comparison)),
        cache / "attention.json": ("attention", attention._read),
        cache / "compiling.json": ("compiling", kernels._known),
        cache / "files" / "x.json": ("x", lambda: content._kept(cache / "files" / "x.json")),
        folder / "map.yaml": ("", lambda: read_key_map(folder / "map.yaml")),
        folder / "a.safetensors": ("a", lambda: read_tensors(folder / "a.safetensors", "a")),
        folder / "p.safetensors": (
            "p",
            lambda: partial.Kept(folder / "p.safetensors", "p", "cpu").state,
        ),
    }


def is_read(read):
    """Whether a reader gives anything; what it says is single lines."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            read()
            refused = False
        except MaebenchError as error:
            refused = True
            assert "\n" not in str(error)
    assert all("\n" not in str(one.message) for one in said)
    return not refused


def any_bytes(folder, data):
    place, (_, read) = data.draw(st.sampled_from(sorted(readers(folder).items())))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data.draw(st.binary(max_size=60)))
    try:
        is_read(read)
    finally:
        place.unlink()


def any_shape(folder, data):
    places = sorted(p for p in readers(folder).items() if p[0].suffix == ".json")
    place, (of, read) = data.draw(st.sampled_from(places))
    files.write_sealed(place, {**data.draw(OBJECTS), files.sealed.OF: of}, of)
    try:
        is_read(read)
    finally:
        place.unlink()


@settings(max_examples=40)
@given(data=st.data())
def test_no_bytes_lead_to_a_traceback(tmp_path_factory, data):
    any_bytes(tmp_path_factory.getbasetemp() / "bytes", data)


@settings(max_examples=60)
@given(data=st.data())
def test_no_whole_file_of_the_wrong_shape_leads_to_a_traceback(tmp_path_factory, data):
    any_shape(tmp_path_factory.getbasetemp() / "shapes", data)


@pytest.mark.slow
@settings(max_examples=1500)
@given(data=st.data())
def test_no_bytes_lead_to_a_traceback_however_many(tmp_path_factory, data):
    any_bytes(tmp_path_factory.getbasetemp() / "bytes", data)


@pytest.mark.slow
@settings(max_examples=1500)
@given(data=st.data())
def test_no_whole_file_of_the_wrong_shape_leads_to_a_traceback_however_many(tmp_path_factory, data):
    any_shape(tmp_path_factory.getbasetemp() / "shapes", data)
