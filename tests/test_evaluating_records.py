"""Rows on disk and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maebench import files
from maebench.errors import RunError
from maebench.evaluating import records
from maebench.evaluating.records import value_name

ROW = {
    **{"model": "m", "run": None, "metric": "top1", "where": {"k": 5, "chosen": True}},
    **{"value": 0.5, "main": True, "status": "ok"},
}


def test_rows_and_values_come_back_as_they_were(tmp_path):
    rows = [ROW, {**ROW, "metric": "loss", "where": {}, "value": 1 / 3}]
    values = {"ids": np.array([3, 1, 2]), value_name(ROW): np.array([0.1, 1 / 3, 1.0])}
    path = records.write(tmp_path, "knn-v1", rows, values)
    assert records.read(path) == rows
    ids, mine = records.values(path, ROW)
    assert ids.tolist() == [3, 1, 2]
    assert mine.tolist() == [0.1, 1 / 3, 1.0]
    assert records.values(path, rows[1]) is None  # a plain number has none


def test_values_of_images_held_out_of_train_come_with_their_own_ids_and_groups(tmp_path):
    held = {**ROW, "metric": "validation", "split": records.HELD_OUT}
    values = {
        **{"ids": np.array([3, 1, 2]), value_name(ROW): np.array([0, 1.0, 1])},
        **{"held_out_ids": np.array([7, 9]), value_name(held): np.array([0.5, 1.0])},
        "held_out_groups": np.array([4, 4]),
    }
    path = records.write(tmp_path, "knn-v3", [ROW, held], values)
    assert [found.tolist() for found in records.values(path, held)] == [[7, 9], [0.5, 1.0]]
    assert [found.tolist() for found in records.values(path, ROW)] == [[3, 1, 2], [0, 1, 1]]
    assert records.groups(path) is None
    assert records.groups(path, held_out=True).tolist() == [4, 4]


def test_values_of_a_grid_are_kept_apart_whatever_is_chosen():
    places = [{"k": 5, "pool": "cls"}, {"k": 5, "pool": "mean"}, {"k": 50, "pool": "cls"}, {}]
    assert len({value_name({**ROW, "where": where}) for where in places}) == 4
    turned = {"pool": "cls", "chosen": True, "k": 5}
    assert value_name({**ROW, "where": turned}) == value_name({**ROW, "where": places[0]})


def test_rows_of_a_grid_are_told_apart_by_all_but_what_is_chosen():
    row = {**ROW, "where": {"blocks": [1, 2], "pool": "cls"}}
    turned = {"pool": "cls", "edge": True, "blocks": [1, 2], "chosen": True}
    assert records.place_key(row) == records.place_key({**ROW, "where": turned})
    assert records.place_key(row) != records.place_key({**ROW, "where": {**turned, "blocks": [2]}})


def test_what_is_half_written_is_ignored(tmp_path):
    folder = tmp_path / "models" / "m" / "records"
    path = records.write(folder, "knn", [ROW], {"ids": np.arange(3)})
    (folder / f"{files.BESIDE}1-other.json").write_text('{"rows": [{')
    (folder / "values-only.npz").write_bytes(b"the rows come last")
    assert records.paths(tmp_path) == [path]


def test_values_are_there_before_the_rows_that_promise_them(tmp_path, monkeypatch):
    written = []
    original = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (written.append(to.suffix), original(self, to))
    )
    records.write(tmp_path, "knn", [ROW], {"ids": np.arange(3)})
    assert written == [".npz", ".json"]


def test_a_name_cannot_leave_its_folder(tmp_path):
    with pytest.raises(RunError, match="cannot be a file name"):
        records.write(tmp_path, "../knn", [ROW], {"ids": np.arange(3)})
