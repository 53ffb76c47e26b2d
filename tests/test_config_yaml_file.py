"""A YAML file says each thing once."""

from __future__ import annotations

import time

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


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]\n" for n in range(1, 10)
)
MERGED = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join(9 * [f'*a{n - 1}'])}]}}\n" for n in range(1, 10)
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGHS, "line 5: 20,503 values, aliases .* and 20,000 are the most"),
        (MERGED, "line 5: .* values, aliases"),
        (CHAIN, "line 64: 65 values within each other, and 64 are the most"),
        ("[" * 100_000, "line 1: 65 values within each other, and 64 are the most"),
        ("- " * 100_000, "line 1: 65 values within each other"),
        ("a: " + "{b: " * 100_000, "line 1: 65 values within each other"),
        ("x\n" * 2**20, "more than 1,048,576 bytes, the most"),
        ("a: [" + "0," * 100_000 + "]", "line 1: 20,001 values, and 20,000 are the most"),
        ("a: " + "1:" * 30_000 + "1", "60,001 characters of a value, and 32,768 are the most"),
        ("circle: &c [*c]\n", "line 1: an alias stands for what it lies in"),
        ("a: !!bool maybe\n", "is no YAML"),
        ("a: " + "59:" * 400 + "1.5", "is no YAML"),
    ],
)
def test_a_small_file_that_stands_for_a_huge_value_is_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(ConfigError, match=says) as caught:
        load_yaml(path, "--config")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert time.process_time() - start < 8  # the slowest reads 20,000 values first


def test_a_file_without_an_end_is_not_read_to_it():
    with pytest.raises(ConfigError, match="/dev/zero: it has more than 1,048,576 bytes"):
        load_yaml("/dev/zero", "--config")
