"""Which formats `maebench table` has, and that it never mixes what commands have measured."""

from __future__ import annotations

import errno
import os
import re
import warnings
from pathlib import Path
from typing import ClassVar

import click
import pytest
import tiny
from fakes import names

from maebench import Report, hookimpl
from maebench.cli import main
from maebench.cli.values import TableFormat
from maebench.outputs import FORMATS


class Org(Report):
    """Tables for Emacs."""

    name: ClassVar[str] = "org"


class Reports:
    @hookimpl
    def register_reports(self):
        return [Org]


def test_a_report_of_a_plugin_is_a_format(monkeypatch):
    monkeypatch.setattr("maebench.plugins.installed", lambda: names(Reports()))
    assert isinstance(TableFormat()("org"), Org)
    with pytest.raises(click.BadParameter, match=r"unknown format 'orgg'\. Did you mean 'org'"):
        TableFormat()("orgg")


def test_no_plugin_is_loaded_for_a_format_of_our_own(monkeypatch):
    monkeypatch.setattr("maebench.plugins.installed", lambda: pytest.fail("plugins are loaded"))
    assert [TableFormat()(form) for form in FORMATS] == list(FORMATS)


def maebench(capsys, *arguments):
    """What a command prints."""
    with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:  # main() shows them its way
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert ended.value.code == 0, said
    return said


def lines(text):
    """The cells of each line of a drawn table."""
    return [
        [cell.strip() for cell in line.strip("│\n").split("│")]
        for line in text.splitlines()
        if line.startswith("│")
    ]


@pytest.mark.slow
def test_fewer_train_images_are_a_line_beside_the_full_number_and_not_over_it(tmp_path, capsys):
    tiny.plan(tmp_path)  # of 60 images
    to = ("--results", tmp_path, "--device", "cpu")
    maebench(capsys, "eval", "knn", "", "untrained:", *to)
    maebench(capsys, "eval", "reconstruction", *to)
    maebench(capsys, "eval", "knn", "--limit", "30", *to)
    said = maebench(capsys, "table", "--results", tmp_path)
    found = [(line[0].split(":")[0].split("-")[0], line[2]) for line in lines(said.out)]
    assert found == [
        ("digits", "60 train images"),
        ("digits", "30 train images"),
        ("untrained", "60 train images"),
    ]
    (full, _), (few, _), _ = ((line[3], line[4]) for line in lines(said.out))
    assert full != few
    assert "95 % intervals: Wilson (knn top1); bootstrap (reconstruction r2)." in said.out
    assert "note: digits: train examples 30, 60 are not comparable" in said.err
    by = maebench(capsys, "table", "--by", "masking", "--results", tmp_path).out
    assert [line[2] for line in lines(by)] == ["30 train images", "60 train images"]
    # the command itself says whose number it has made
    assert len(lines(maebench(capsys, "eval", "knn", "--limit", "30", *to).out)) == 1


@pytest.mark.slow
def test_numbers_of_a_file_that_was_overwritten_are_marked_by_its_weights(tmp_path, capsys):
    weights, to = tmp_path / "vit.safetensors", ("--results", tmp_path)
    of_file = (f"file:{weights}", "--limit", "60", "--device", "cpu", *to)
    for seed, evaluation in enumerate(("knn", "logistic")):
        tiny.plan(tmp_path, seed=seed)
        maebench(capsys, "export", "--to", "timm", "--out", weights, *to)
        maebench(capsys, "eval", evaluation, *of_file)
        weights.rename(tmp_path / f"{seed}.safetensors")
    (old, new) = lines(maebench(capsys, "table", *to).out)
    assert old[0] == new[0] == f"file:{weights}"
    assert re.fullmatch(r"weights [0-9a-f]{8}", old[2]) and old[2] != new[2]
    assert (old[4], new[3]) == ("", "")
    assert old[3] and new[4]


def refused(monkeypatch, folder, code=errno.EROFS):
    """Nothing can be written below a folder, as on storage that is read-only."""

    def guard(place, name):
        real = getattr(place, name)

        def call(path, *args, **kwargs):
            if folder in (Path(path), *Path(path).parents):
                raise OSError(code, os.strerror(code))
            return real(path, *args, **kwargs)

        monkeypatch.setattr(place, name, call)

    for name in ("mkdir", "write_bytes", "replace", "rename"):
        guard(Path, name)


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_results_on_read_only_storage_are_shown_and_a_new_number_is_not_kept(
    tmp_path, capsys, monkeypatch, code
):
    to = ("--results", tmp_path, "--device", "cpu")
    run = tiny.plan(tmp_path).run
    maebench(capsys, "eval", "knn", *to)
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        refused(patch, tmp_path, code)
        said = maebench(capsys, "table", "--results", tmp_path)
        assert run.name[:20] in said.out and said.err == ""
        # a number that is there needs no place, a new one is shown and gone
        assert "not kept" not in "".join(maebench(capsys, "eval", "knn", *to))
        for model in ("", "untrained:", "pixels:"):
            said = maebench(capsys, "eval", "knn", model, "-o", "k=1", *to)
            assert f"its record is not kept: cannot write to folder {tmp_path}" in said.err
            assert "record    not kept: its folder is read-only" in said.out
            assert re.search(r"\d\d\.\d \[\d\d\.\d, \d\d\.\d\]", said.out)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    kept = maebench(capsys, "eval", "knn", "untrained:", "-o", "k=1", *to).out
    assert f"record    {tmp_path}" in kept


@pytest.mark.slow
def test_a_table_of_some_runs_data_sets_and_evaluations(tmp_path, capsys, monkeypatch):
    to = ("--results", tmp_path, "--device", "cpu")
    first, second = (tiny.plan(tmp_path, seed=seed).run for seed in (0, 1))
    maebench(capsys, "eval", "knn", first.name, second.name, "pixels:", *to)
    maebench(capsys, "eval", "reconstruction", second.name, *to)

    def shown(*arguments):
        found = lines(maebench(capsys, "table", *arguments, "--results", tmp_path).out)
        return [line[0] for line in found]

    assert shown() == [first.name, second.name, "pixels:digits"]
    assert shown(second.name, "pixels:digits") == [second.name, "pixels:digits"]
    assert shown("--evaluation", "reconstruction") == [second.name]
    assert shown("--dataset", "digits", "--evaluation", "knn", first.folder) == [first.name]
    # a folder says itself under which results it lies
    monkeypatch.chdir(tmp_path.parent)
    found = maebench(capsys, "table", first.folder, "--tidy", "--format", "csv").out
    assert found.count("\n") > 1 and second.name not in found
    for wrong, says in (
        ((first.name[:-1],), f"unknown run or model '{first.name[:-1]}'. Did you mean"),
        (("--dataset", "digts"), "unknown data set 'digts'. Did you mean 'digits'"),
        (("--evaluation", "kn"), "unknown evaluation 'kn'. Did you mean 'knn'"),
        ((first.name, "--evaluation", "reconstruction"), "no results are of"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["table", *map(str, wrong), "--results", str(tmp_path)])
        assert ended.value.code == 1
        assert says in capsys.readouterr().err
