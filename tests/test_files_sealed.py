"""Sealed files: what was changed, or belongs elsewhere, is told from what was written."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maebench import files
from maebench.errors import DamagedError, RunError
from maebench.files import sealed

OBJECTS = st.dictionaries(
    st.text(max_size=5),
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    max_size=5,
)


@given(OBJECTS)
def test_what_was_sealed_comes_back_without_hash_and_owner(tmp_path_factory, value):
    value = {k: v for k, v in value.items() if k not in (sealed.HASH, sealed.OF)}
    path = tmp_path_factory.mktemp("sealed") / "a.json"
    files.write_sealed(path, value, "me")
    assert files.read_sealed(path, "me") == value


def test_no_flipped_bit_gives_another_value(tmp_path):
    path = tmp_path / "a.json"
    value = {"format": 2, "step": 12345, "loss": 0.1, "name": "ä b", "list": [1, None, True]}
    files.write_sealed(path, value, "me")
    content = path.read_bytes()
    same = refused = 0
    for place in range(len(content)):
        flipped = content[place] ^ (1 << random.Random(place).randrange(8))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        try:
            assert files.read_sealed(path, "me") == value
            same += 1  # space between values may be a tab
        except DamagedError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 10 * same


def test_a_file_of_another_owner_is_refused_with_both_names(tmp_path):
    files.write_sealed(tmp_path / "a.json", {"x": 1}, "yours")
    with pytest.raises(DamagedError, match="belongs to yours, and lies where mine has its own"):
        files.read_sealed(tmp_path / "a.json", "mine")


@pytest.mark.parametrize(("number", "hashed"), [(1, (2,)), (3, (2,)), (1, ())])
def test_a_file_without_a_hash_is_taken_where_its_format_had_none(tmp_path, number, hashed):
    files.write_json(tmp_path / "a.json", {"format": number, "x": 1})
    found = files.read_sealed(tmp_path / "a.json", "me", hashed=hashed)
    assert found == {"format": number, "x": 1}


@pytest.mark.parametrize(
    ("content", "hashed"),
    [({"format": 2, "x": 1}, (2,)), ({"x": 1}, (0,)), ({"of": "me", "x": 1}, ())],
    ids=["its format has one", "so has one without format", "it has an owner"],
)
def test_a_file_whose_hash_is_missing_is_damaged(tmp_path, content, hashed):
    files.write_json(tmp_path / "a.json", content)
    with pytest.raises(DamagedError, match="it is not as it was written"):
        files.read_sealed(tmp_path / "a.json", "me", hashed=hashed)


def test_nan_is_never_written_and_refused_where_it_is_read(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError):
        files.write_sealed(path, {"x": float("nan")}, "me")
    assert not path.exists()
    files.write_sealed(path, {"x": 1}, "me")
    mark = json.loads(path.read_text())["hash"]
    for text in (f'{{"hash": "{mark}", "of": "me", "x": NaN}}', '{"hash": NaN, "x": 1}'):
        path.write_text(text)
        with pytest.raises(DamagedError, match="it is not as it was written"):
            files.read_sealed(path, "me")


def test_what_is_too_large_for_json_of_ours_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sealed, "MOST_JSON", 10)
    (tmp_path / "a.json").write_text('{"x": "0123456789"}')
    with pytest.raises(DamagedError, match="it has 19 bytes, and 10 are allowed"):
        files.read_json(tmp_path / "a.json")


def test_a_file_that_cannot_be_read_now_is_not_taken_for_damaged(tmp_path):
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(RunError) as caught:
            files.read_sealed(path, "me")
        assert not isinstance(caught.value, DamagedError)


# ---- lines


def test_a_line_with_another_number_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    files.append_lines(path, [{"step": n, "loss": n / 10} for n in (1, 2, 3)])
    path.write_text(path.read_text().replace('"loss": 0.2', '"loss": 0.3'))
    assert files.read_lines(path) == [{"step": 1, "loss": 0.1}, {"step": 3, "loss": 0.3}]


def test_no_flipped_bit_gives_another_line(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [{"step": n, "loss": n / 7, "of": "ä"} for n in (1, 2, 3)]
    files.append_lines(path, rows, "me")
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = content[place] ^ (1 << random.Random(place).randrange(8))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        assert all(row in rows for row in files.read_lines(path, of="me")), place


def test_lines_of_another_run_are_not_taken(tmp_path):
    path = tmp_path / "log.jsonl"
    files.append_lines(path, [{"step": 1}], "mine")
    files.append_lines(path, [{"step": 2}], "yours")
    assert files.read_lines(path, of="mine") == [{"step": 1}]
    assert files.read_lines(path, of="yours") == [{"step": 2}]


def test_lines_of_an_earlier_version_have_no_sum_and_count_where_none_has_one(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert files.read_lines(path) == [{"step": 1}, {"step": 2}]
    files.write_text(path, files.as_lines(files.read_lines(path), "me"))
    assert files.read_lines(path, of="me") == [{"step": 1}, {"step": 2}]
    with path.open("a") as file:
        file.write('{"step": 3}\n')
    assert files.read_lines(path, of="me") == [{"step": 1}, {"step": 2}]
