"""A YAML file says each thing once."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from maebench.analysis.compare import read_file
from maebench.config.sources import from_sources, read_yaml
from maebench.config.yaml_file import load_yaml
from maebench.errors import ConfigError
from maebench.models.key_map import read_key_map


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr: 1\nbatch: 2\nlr: 3\n", "'lr' is given twice, in line 1 and in line 3"),
        ("a: {k: 1, k: 1}\n", "'k' is given twice, in line 1 and in line 1"),
        ("a:\n  - b: 1\n    c: 2\n    b: 3\n", "'b' is given twice, in line 2 and in line 4"),
        ("1: a\n1.0: b\n", "1 is given twice, in line 1 and in line 2"),
        ("'on': a\nb: c\n\"on\": d\n", "'on' is given twice, in line 1 and in line 3"),
        ("x: &x {a: 1}\ny: {<<: *x, <<: *x}\n", "'<<' is given twice, in line 2 and in line 2"),
        ("? {a: 1, a: 2}\n: b\n", "'a' is given twice"),
    ],
)
def test_a_key_that_is_given_twice_is_an_error_with_both_lines(tmp_path, text, says):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(path, "--config")
    assert f"--config {path}: {says}" in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_mapping_takes_from_another_it_may_say_otherwise(tmp_path):
    path = tmp_path / "a.yaml"
    text = (
        "x: &x {a: 1, b: 1}\n"
        "deep: {deeper: &y {<<: *x, a: 2}}\n"
        "z: {<<: *y, b: 3}\n"
        "again: [*x, *x, *y]\n"
    )
    path.write_text(text)
    found = load_yaml(path, "--config")
    assert found["deep"] == {"deeper": {"a": 2, "b": 1}}
    assert found == yaml.safe_load(text)
    path.write_text("circle: &c [*c]\n")
    assert len(load_yaml(path, "--config")["circle"]) == 1


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    )
)
def test_whatever_is_written_once_is_read_as_it_was(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("yaml") / "a.yaml"
    text = yaml.safe_dump(value)
    path.write_text(text, encoding="utf-8")
    assert load_yaml(path, "--config") == yaml.safe_load(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 1\nseed: 2\n", "'seed' is given twice, in line 1 and in line 2"),
        ("image-size: 8\nlr: 1\nimage_size: 16\n", "line 1 and in line 3 as 'image_size'"),
        ("masking:\n  name: block\n  aspect: 1\n  aspect: 2\n", "line 3 and in line 4"),
        ("evals: [knn]\nknn: {k: [1]}\nknn: {k: [5]}\n", "line 2 and in line 3"),
        ("m: {on: 1, 'on': 2}\n", "in line 1 as 'on'"),
    ],
)
def test_a_setting_that_is_given_twice_is_an_error_however_it_is_spelled(tmp_path, text, says):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        from_sources({}, file=path)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1\n", "a: b: c\n", "%", "\tx", "2001-99-99\n", "\x00"])
def test_what_is_no_yaml_is_one_line(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"--config .*a\.yaml is no YAML") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_an_expression_of_a_key_map_is_there_once(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text("^a: b\n^a-b: c\n^a_b: d\n^a: e\n")
    with pytest.raises(
        ConfigError, match=r"--key-map .*'\^a' is given twice, in line 1 and in .*4"
    ):
        read_key_map(path)
    path.write_text("^a: b\n^a-b: c\n^a_b: d\n")
    assert len(read_key_map(path)) == 3


def test_a_setting_of_a_comparison_is_there_once_however_it_is_spelled(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("probe-seeds: 2\nseeds: 3\nprobe_seeds: 1\n")
    with pytest.raises(ConfigError, match="'probe-seeds' is given twice, in line 1 and in line 3"):
        read_file(path)


def test_a_file_of_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.yaml").write_text("seed: 3\n")
    assert read_yaml("~/a.yaml") == {"seed": 3}
    with pytest.raises(ConfigError, match=r"--config .*b\.yaml: No such file"):
        read_yaml("~/b.yaml")
