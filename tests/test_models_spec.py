"""What follows the name in a MODEL string; paths may hold commas and equals signs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maebench.errors import ConfigError
from maebench.models.spec import split_spec


def test_an_option_given_twice_is_refused():
    assert split_spec("file", "a,b.pth,heads=3,mean=1,2,std=4") == (
        "a,b.pth",
        {"heads": "3", "mean": "1,2", "std": "4"},
    )
    with pytest.raises(ConfigError, match="heads is given twice"):
        split_spec("file", "a,heads=3,heads=4")


@pytest.mark.parametrize("kind", ["file", "hf"])
def test_the_longest_path_that_is_there_wins(tmp_path, kind):
    folder = tmp_path / "a,lr=1e-3,b=c"
    folder.mkdir()
    path = folder / "x,heads=2.pth"
    path.touch()
    options = {"heads": "3", "mean": "0.1,0.2,0.3"}
    assert split_spec(kind, str(path)) == (str(path), {})
    assert split_spec(kind, f"{path},heads=3,mean=0.1,0.2,0.3") == (str(path), options)
    (folder / "x").touch()
    assert split_spec(kind, f"{folder / 'x'},heads=3")[0] == str(folder / "x")


def test_paths_among_the_options_may_hold_commas_and_equals_signs(tmp_path):
    path, names = tmp_path / "a,b=c.pth", tmp_path / "m,key=d.yaml"
    path.touch()
    names.touch()
    spec = f"vit_tiny_patch16_224,weights={path},image-size=64,32,key-map={names},crop=1"
    assert split_spec("timm", spec) == (
        "vit_tiny_patch16_224",
        {"weights": str(path), "image_size": "64,32", "key_map": str(names), "crop": "1"},
    )


def test_the_home_folder_is_looked_into(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a,b=c.pth").touch()
    assert split_spec("file", "~/a,b=c.pth,heads=3") == ("~/a,b=c.pth", {"heads": "3"})


@pytest.mark.parametrize("name", ["~nobody-here/a", "x" * 5000, "a\0b", ""])
def test_what_can_be_no_path_is_split_at_the_first_option(name):
    assert split_spec("file", f"{name},heads=3") == (name, {"heads": "3"})


@given(st.text("ab,=/.", min_size=1, max_size=12), st.sampled_from(["", ",heads=3", ",mean=1,2"]))
def test_any_name_of_a_file_that_is_there_is_found(tmp_path_factory, name, options):
    path = tmp_path_factory.mktemp("any") / name.replace("/", "-").replace(".", "-")
    path.touch()
    assert split_spec("file", f"{path}{options}")[0] == str(path)
