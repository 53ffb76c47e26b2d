"""How tables name a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from maebench import Digits, Folder, Imagenette


@pytest.mark.parametrize(
    ("dataset", "title", "changed"),
    [
        (Digits(), "digits", "digits"),
        (Imagenette(size="320px"), "imagenette", "imagenette(size=320px)"),
        (Folder(path=Path("/data/birds")), "folder:birds", "folder:birds"),
        (Folder(path=Path("/data/birds/")), "folder:birds", "folder:birds"),
        (Folder(path=Path("/data/x/../my birds")), "folder:my birds", "folder:my birds"),
        (Folder(path=Path("/")), "folder:/", "folder:/"),
        (
            Folder(path=Path("/data/birds"), groups="folder"),
            "folder:birds",
            "folder:birds(groups=folder)",
        ),
        (
            Folder(path=Path("/data/birds"), groups="/data/lists/films.csv"),
            "folder:birds",
            "folder:birds(groups=films.csv)",
        ),
    ],
)
def test_a_folder_is_named_by_the_last_part_of_its_path_beside_its_other_options(
    dataset, title, changed
):
    assert (dataset.title, dataset.changed()) == (title, changed)


def test_a_relative_folder_is_named_by_what_it_is(tmp_path, monkeypatch):
    (tmp_path / "birds").mkdir()
    monkeypatch.chdir(tmp_path / "birds")
    assert Folder(path=Path()).title == "folder:birds"
    assert Folder(path=Path("../birds")).title == "folder:birds"
