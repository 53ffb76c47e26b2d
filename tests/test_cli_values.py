"""What the flags take, and how they refuse the rest."""

from __future__ import annotations

import click
import pytest

from maebench.cli.values import (
    FILE,
    FOLDER,
    KINDS,
    OUT,
    RATIO,
    RECIPES,
    SHARE,
    Budget,
    ImageSize,
    KeyValue,
    Kind,
    OneOf,
    Several,
)
from maebench.errors import ConfigError
from maebench.plugins import KINDS as REGISTERED

LISTED = Kind(RECIPES, plural=True)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (RATIO, "0.75", 0.75),
        (SHARE, "1", 1.0),
        (OneOf("split", ["train", "test"]), "test", "test"),
        (Several(), "a, b,,c", ("a", "b", "c")),
        (Several(), "", ()),
        (Several(RATIO), "0.5,.75", (0.5, 0.75)),
        (ImageSize(), " 32 ", (32, 32)),
        (ImageSize(), "32,64", (32, 64)),
        (ImageSize(), "32x64", (32, 64)),
        (Budget(), "steps=3", "steps=3"),
        (KeyValue(), "k=1,5", ("k", "1,5")),
        (KeyValue(), " a.b =c=d", ("a.b", "c=d")),
        (KeyValue(), "k=", ("k", "")),
        (Kind(), "maskings", "masking"),
        (Kind(), "masking", "masking"),
        (LISTED, "masking", "masking"),
        (LISTED, "maskings", "masking"),
        (LISTED, "recipe", "recipes"),
    ],
)
def test_a_good_text_becomes_its_value(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (RATIO, "1", ["1.0", "0<x<1"]),
        (SHARE, "nan", ["'nan'", "0<=x<=1"]),
        (SHARE, "x", ["'x'"]),
        (OneOf("split", ["train", "test"]), "tes", ["unknown split 'tes'", "'test'?", "train"]),
        (Several(example="a,b"), ",", ["','", "such as a,b"]),
        (Several(RATIO), "0.5,2", ["2.0", "0<x<1"]),
        (ImageSize(), "0", ["'0'", "N or H,W"]),
        (ImageSize(), "²", ["'²'", "N or H,W"]),
        (ImageSize(), "1,2,3", ["'1,2,3'", "N or H,W"]),
        (Budget(), "epoch=3", ["'epoch=3'", "epochs=N", "seconds=N"]),
        (Budget(), "steps=2.5", ["2.5", "steps are whole"]),
        (Budget(), "steps=-1", ["greater than 0"]),
        (KeyValue(), "k", ["'k'", "key=value"]),
        (KeyValue(), "=1", ["'=1'", "key=value"]),
        (Kind(), "maskin", ["unknown kind 'maskin'", "'masking'?"]),
        (LISTED, "recipy", ["unknown kind 'recipy'", "'recipes'?"]),
        (LISTED, "mask", ["unknown kind 'mask'", "'maskings'?", *(f"{kind}s" for kind in KINDS)]),
    ],
)
def test_a_bad_text_is_refused_with_what_is_allowed(kind, text, words):
    with pytest.raises(click.BadParameter) as caught:
        kind(text)
    message = caught.value.format_message()
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message


def test_the_kinds_are_those_that_plugins_register():
    assert set(KINDS) == set(REGISTERED)


def test_a_path_in_the_home_folder_is_found_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.yaml").write_text("seed: 1")
    assert FILE("~/a.yaml") == tmp_path / "a.yaml"
    assert FOLDER("~/results") == tmp_path / "results"
    assert OUT("~/b.csv") == tmp_path / "b.csv"
    assert str(OUT("b~.csv")) == "b~.csv"
    monkeypatch.chdir(tmp_path)
    assert OUT("./~/b.csv") == tmp_path / "~" / "b.csv"
    with pytest.raises(ConfigError, match="there is no home folder for ~nobody-here"):
        OUT("~nobody-here/b.csv")
    with pytest.raises(click.BadParameter, match="names no path"):
        FOLDER("")
